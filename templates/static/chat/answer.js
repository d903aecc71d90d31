// One answer on the page: markdown that grows. Only the blocks that changed are made anew, at most once a frame, and a
// long answer that takes long to read gets proportionally longer pauses, so that the page stays quick.

import { renderBlocks, toNodes } from "./markdown.js";

const PAUSE_PER_WORK = 4;
const SAID_FOR_MS = 2000;

export class Answer {
  #element;
  #blocks = []; // [{html, box}]
  #text = "";
  #frame = 0;
  #timer = 0;
  #restUntil = 0;
  #afterRender;

  /** `afterRender` is called whenever the element's content changed. */
  constructor(element, afterRender = () => {}) {
    this.#element = element;
    this.#afterRender = afterRender;
  }

  get text() {
    return this.#text;
  }

  /** Shows `text` soon. */
  show(text) {
    this.#text = text;
    if (this.#frame || this.#timer) return;
    const rest = this.#restUntil - performance.now();
    if (rest > 0) this.#timer = setTimeout(() => this.#nextFrame(), rest);
    else this.#nextFrame();
  }

  /** Shows `text` at once. */
  finish(text) {
    cancelAnimationFrame(this.#frame);
    clearTimeout(this.#timer);
    this.#text = text;
    this.#render();
  }

  #nextFrame() {
    this.#timer = 0;
    this.#frame = requestAnimationFrame(() => this.#render());
  }

  #render() {
    this.#frame = this.#timer = 0;
    const started = performance.now();
    const fresh = renderBlocks(this.#text);
    fresh.forEach((html, index) => {
      const old = this.#blocks[index];
      if (old?.html === html) return;
      const box = old?.box ?? document.createElement("div");
      const fragment = toNodes(html);
      fragment.querySelectorAll("pre").forEach(addCodeHead);
      fragment.querySelectorAll("table").forEach(makeScrollable);
      box.replaceChildren(fragment);
      if (!old) this.#element.append(box);
      this.#blocks[index] = { html, box };
    });
    for (const { box } of this.#blocks.splice(fresh.length)) box.remove();
    this.#restUntil = performance.now() + PAUSE_PER_WORK * (performance.now() - started);
    this.#afterRender();
  }
}

function addCodeHead(pre) {
  const box = document.createElement("div");
  const head = document.createElement("div");
  const language = document.createElement("span");
  const button = document.createElement("button");
  box.className = "chat-code";
  head.className = "chat-code-head";
  language.textContent = pre.querySelector("code")?.className.replace("language-", "") ?? "";
  button.type = "button";
  button.className = "chat-copy";
  button.textContent = "Copy";
  button.addEventListener("click", async () => {
    button.textContent = (await copy(pre)) ? "Copied" : "Not copied";
    setTimeout(() => (button.textContent = "Copy"), SAID_FOR_MS);
  });
  pre.replaceWith(box);
  pre.tabIndex = 0; // wide code scrolls, also by keyboard
  head.append(language, button);
  box.append(head, pre);
}

function makeScrollable(table) {
  const box = document.createElement("div");
  box.className = "chat-table";
  box.tabIndex = 0;
  table.replaceWith(box);
  box.append(table);
}

async function copy(pre) {
  try {
    await navigator.clipboard.writeText(pre.textContent);
    return true;
  } catch {
    // Without HTTPS there is no clipboard; what is selected can still be copied.
    getSelection().selectAllChildren(pre);
    return document.execCommand("copy");
  }
}
