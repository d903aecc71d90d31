// What this tab remembers of a conversation: the session's id, the messages that stand on the page, and what is being
// typed. It lives in sessionStorage, so a reload keeps it and closing the tab forgets it.

export class Conversation {
  #key;
  sessionId = "";
  draft = "";
  messages = []; // [{role: "person" | "agent", text, state (of an answer): "running" | "done" | "stopped" | "interrupted" | "length",
  //   problem (of what the person said): {message, requestId}}]

  constructor(key) {
    this.#key = `chat:${key}`;
    try {
      const kept = JSON.parse(sessionStorage.getItem(this.#key) ?? "{}");
      if (typeof kept.sessionId === "string") this.sessionId = kept.sessionId;
      if (typeof kept.draft === "string") this.draft = kept.draft;
      if (Array.isArray(kept.messages)) this.messages = kept.messages.filter((message) => typeof message?.text === "string");
    } catch {
      // Storage that is switched off or holds something else: start anew.
    }
  }

  add(message) {
    this.messages.push(message);
    this.save();
    return message;
  }

  remove(...messages) {
    this.messages = this.messages.filter((message) => !messages.includes(message));
    this.save();
  }

  /** Forgets the session and its messages; what is being typed stays. */
  restart() {
    this.sessionId = "";
    this.messages = [];
    this.save();
  }

  save() {
    let messages = this.messages;
    for (;;) {
      try {
        sessionStorage.setItem(this.#key, JSON.stringify({ sessionId: this.sessionId, draft: this.draft, messages }));
        return;
      } catch {
        if (!messages.length) return; // no storage at all: the conversation lasts as long as the page
        messages = messages.slice(Math.ceil(messages.length / 2)); // full: the oldest go first
      }
    }
  }
}
