// The elements of the log: what the person said, what the agent answered, what went wrong.

import { Answer } from "./answer.js";

const NOTES = {
  stopped: "Stopped",
  interrupted: "Not complete",
  length: "Cut at its longest length",
};

/** Returns an element with what the person said, word for word. */
export function personItem(text) {
  const { item, body } = makeItem("person", "You");
  body.textContent = text;
  return item;
}

/**
 * Returns {item, answer, settle} for an answer that may still grow. Its growth is not read out (the page announces the
 * finished text instead); `settle(state)` ends it.
 */
export function agentItem(name, { afterRender } = {}) {
  const { item, body } = makeItem("agent", name);
  item.setAttribute("aria-live", "off");
  item.setAttribute("aria-busy", "true");
  const dots = make("p", "chat-dots");
  dots.append(make("span", "chat-unseen", "Answering"), ...[1, 2, 3].map(() => make("span", "chat-dot")));
  item.append(dots);
  const answer = new Answer(body, afterRender);
  const settle = (state) => {
    dots.remove();
    item.removeAttribute("aria-busy");
    if (state in NOTES) item.append(make("p", "chat-note", NOTES[state]));
  };
  return { item, answer, settle };
}

/** Returns an element that says what went wrong, with a button for each of `actions` [{label, run, waits}]. */
export function problemItem({ message, requestId, retryAfterS }, actions) {
  const item = make("div", "chat-problem");
  item.setAttribute("role", "alert");
  const wait = retryAfterS ? ` Please wait ${retryAfterS} ${retryAfterS === 1 ? "second" : "seconds"}.` : "";
  item.append(make("p", "", message + wait));
  if (requestId) item.append(make("p", "chat-request-id", `Request id: ${requestId}`));
  const row = make("fieldset", "chat-actions");
  for (const { label, run, waits } of actions) {
    const button = make("button", "chat-button", label);
    button.type = "button";
    button.addEventListener("click", run);
    row.append(button);
    if (waits && retryAfterS) countDown(button, label, retryAfterS);
  }
  item.append(row);
  return item;
}

function countDown(button, label, seconds) {
  const until = performance.now() + seconds * 1000;
  button.disabled = true;
  const tick = () => {
    const left = Math.ceil((until - performance.now()) / 1000);
    button.disabled = left > 0;
    button.textContent = left > 0 ? `${label} in ${left} s` : label;
    if (left > 0) setTimeout(tick, 250);
  };
  tick();
}

function makeItem(role, speaker) {
  const item = make("article", `chat-item chat-${role}`);
  const body = make("div", "chat-text");
  body.dir = "auto";
  item.append(make("p", "chat-speaker chat-unseen", `${speaker}:`), body);
  return { item, body };
}

function make(tag, className, text = "") {
  const element = document.createElement(tag);
  if (className) element.className = className;
  element.textContent = text;
  return element;
}
