// The chat: connects an element of templates/chat/_chat.html with the API. docs/chat-page.md lists its data attributes.

import { ask, describeAgent } from "./api.js";
import { Conversation } from "./conversation.js";
import { agentItem, personItem, problemItem } from "./messages.js";

const NEAR_THE_END_PX = 48;
const ANNOUNCED_FOR_MS = 8000;

class Chat {
  #root;
  #parts = {};
  #conversation;
  #running = null; // the AbortController of the answer that is under way
  #greeting;
  #follows = true; // whether the log keeps to its end while it grows
  #forget = 0;

  constructor(root) {
    this.#root = root;
    for (const part of root.querySelectorAll("[data-part]")) this.#parts[part.dataset.part] = part;
    this.#conversation = new Conversation(root.dataset.storageKey || root.dataset.endpoint);
    this.#listen();
    this.#parts.message.value = this.#conversation.draft;
    this.#parts.fields.disabled = false;
    this.#grow();
    this.#greet();
    this.#restore();
    if (!root.classList.contains("chat-embedded")) this.#parts.message.focus();
  }

  #listen() {
    const { composer, message, stop, restart, newest, scroll } = this.#parts;
    composer.addEventListener("submit", (event) => {
      event.preventDefault();
      this.#send();
    });
    message.addEventListener("keydown", (event) => {
      // While an input method composes a character, Enter belongs to it.
      if (event.key !== "Enter" || event.shiftKey || event.isComposing || event.keyCode === 229) return;
      event.preventDefault();
      this.#send();
    });
    message.addEventListener("input", () => {
      this.#grow();
      this.#conversation.draft = message.value;
    });
    document.addEventListener("keydown", (event) => {
      const isOurs = document.activeElement === document.body || this.#root.contains(document.activeElement);
      if (event.key !== "Escape" || event.isComposing || !this.#running || !isOurs) return;
      event.preventDefault();
      this.#stop();
    });
    stop.addEventListener("click", () => this.#stop());
    restart.addEventListener("click", () => this.#restart());
    newest.addEventListener("click", () => {
      this.#follow(true);
      message.focus();
    });
    scroll.addEventListener("scroll", () => this.#follow(isNearTheEnd(scroll)), { passive: true });
    new ResizeObserver(() => this.#follow()).observe(scroll);
    addEventListener("pagehide", () => {
      this.#running?.abort(); // leaving is no fault: what came counts as stopped
      this.#conversation.save();
    });
  }

  // --- who answers ---------------------------------------------------------------------------------------------------

  async #greet() {
    const { agentUrl, name, greeting, demo } = this.#root.dataset;
    if (!agentUrl) {
      this.#present({ name, greeting, demo: demo === "true" });
      return;
    }
    try {
      this.#present(await describeAgent(agentUrl));
    } catch (problem) {
      const item = problemItem(problem, [{ label: "Retry", waits: true, run: () => (item.remove(), this.#greet()) }]);
      this.#parts.log.prepend(item);
    }
  }

  #present({ name, description, greeting, demo }) {
    this.#parts.name.textContent = this.#root.dataset.name = name || this.#root.dataset.name;
    this.#parts.description.textContent = description || "";
    this.#parts.description.hidden = !description;
    this.#parts.demo.hidden = !demo;
    this.#root.setAttribute("aria-label", `Chat with ${this.#root.dataset.name}`);
    this.#greeting = greeting;
    this.#showGreeting();
  }

  #showGreeting() {
    if (!this.#greeting) return;
    const { item, answer, settle } = agentItem(this.#root.dataset.name);
    answer.finish(this.#greeting);
    settle("done");
    this.#parts.log.prepend(item);
    this.#follow();
  }

  // --- the conversation ----------------------------------------------------------------------------------------------

  #send() {
    const { message } = this.#parts;
    const text = message.value;
    message.focus();
    if (this.#running || !text.trim()) return;
    this.#write("");
    this.#say(text);
  }

  #say(text) {
    const said = this.#conversation.add({ role: "person", text });
    const saidItem = personItem(text);
    this.#append(saidItem);
    this.#answer(said, saidItem);
  }

  async #answer(said, saidItem) {
    const running = (this.#running = new AbortController());
    const reply = this.#conversation.add({ role: "agent", text: "", state: "running" });
    const view = agentItem(this.#root.dataset.name, { afterRender: () => this.#follow() });
    this.#append(view.item);
    this.#showBusy();
    this.#announce("Answering");
    let problem = null;
    let note = "";
    try {
      for await (const { event, data } of this.#ask(said.text, running.signal)) {
        if (event === "start") this.#conversation.sessionId = data.session_id;
        if (event === "delta") view.answer.show((reply.text += data.text));
        if (event === "done") {
          reply.text = data.reply;
          this.#conversation.sessionId = data.session_id;
          note = data.finish_reason === "length" ? "length" : "";
        }
      }
      reply.state = note || "done";
    } catch (error) {
      reply.state = running.signal.aborted ? "stopped" : "interrupted";
      if (!running.signal.aborted) problem = error;
    }
    if (this.#running === running) this.#running = null;
    this.#showBusy();
    if (!view.item.isConnected) return; // a new conversation has begun meanwhile
    view.answer.finish(reply.text);
    view.settle(reply.state);
    if (problem) this.#showProblem(problem, { said, saidItem, reply, replyItem: view.item });
    else this.#announce(view.item.innerText);
    this.#conversation.save();
    this.#follow();
  }

  #ask(text, signal) {
    const { endpoint, csrf } = this.#root.dataset;
    return ask(text, { endpoint, csrf, sessionId: this.#conversation.sessionId, signal });
  }

  /** Shows a problem below its exchange {said, saidItem, reply, replyItem}; the last two are absent when no answer came. */
  #showProblem(problem, { said, saidItem, reply, replyItem }) {
    said.problem = { message: problem.message, requestId: problem.requestId };
    if (reply && !reply.text) {
      this.#conversation.remove(reply);
      replyItem.remove();
    }
    const takeBack = () => {
      this.#conversation.remove(said, reply);
      for (const element of [saidItem, replyItem, item]) element?.remove();
    };
    const retry = () => {
      takeBack();
      this.#say(said.text);
      this.#parts.message.focus();
    };
    const edit = () => {
      const { message } = this.#parts;
      takeBack();
      this.#write(message.value ? `${said.text}\n${message.value}` : said.text);
      message.focus();
    };
    const item = problemItem(problem, [
      { label: "Retry", waits: true, run: retry },
      { label: "Edit message", run: edit },
    ]);
    (reply?.text ? replyItem : saidItem).after(item);
    this.#announce("");
  }

  #stop() {
    this.#running?.abort();
    this.#parts.message.focus();
  }

  #restart() {
    this.#running?.abort();
    this.#running = null;
    this.#conversation.restart();
    this.#parts.log.replaceChildren();
    this.#showBusy();
    this.#follow(true);
    this.#announce("New conversation");
    this.#showGreeting();
    this.#parts.message.focus();
  }

  /** Shows what this tab remembers; nothing of it is read out. */
  #restore() {
    const exchanges = [];
    for (const message of this.#conversation.messages) {
      if (message.role === "person") exchanges.push({ said: message });
      else if (exchanges.length) exchanges.at(-1).reply = message;
    }
    for (const exchange of exchanges) {
      const { said, reply } = exchange;
      exchange.saidItem = personItem(said.text);
      exchange.saidItem.setAttribute("aria-live", "off");
      this.#append(exchange.saidItem);
      if (reply) {
        if (reply.state === "running") reply.state = "stopped"; // the page was left meanwhile
        const { item, answer, settle } = agentItem(this.#root.dataset.name);
        this.#append((exchange.replyItem = item));
        answer.finish(reply.text);
        settle(reply.state);
      }
      if (said.problem) this.#showProblem(said.problem, exchange);
    }
  }

  // --- the page ------------------------------------------------------------------------------------------------------

  #append(item) {
    this.#parts.log.append(item);
    this.#follow(true);
  }

  #write(text) {
    this.#parts.message.value = this.#conversation.draft = text;
    this.#grow();
    this.#conversation.save();
  }

  #showBusy() {
    const { send, stop, message } = this.#parts;
    const hadFocus = stop === document.activeElement;
    this.#root.toggleAttribute("data-busy", Boolean(this.#running));
    send.hidden = Boolean(this.#running);
    stop.hidden = !this.#running;
    for (const actions of this.#parts.log.querySelectorAll(".chat-actions")) actions.disabled = Boolean(this.#running);
    if (hadFocus && !this.#running) message.focus();
  }

  #follow(follows = this.#follows) {
    const { scroll, newest } = this.#parts;
    this.#follows = follows;
    newest.hidden = follows;
    if (follows) scroll.scrollTop = scroll.scrollHeight;
  }

  #announce(text) {
    clearTimeout(this.#forget);
    this.#parts.announcer.textContent = text;
    this.#forget = setTimeout(() => (this.#parts.announcer.textContent = ""), ANNOUNCED_FOR_MS);
  }

  #grow() {
    const { message } = this.#parts;
    if (CSS.supports("field-sizing", "content")) return;
    message.style.height = "auto";
    message.style.height = `${message.scrollHeight + 2}px`;
  }
}

function isNearTheEnd(scroll) {
  return scroll.scrollHeight - scroll.scrollTop - scroll.clientHeight < NEAR_THE_END_PX;
}

for (const root of document.querySelectorAll("[data-chat]")) new Chat(root);
