// Reads an event stream (https://html.spec.whatwg.org/multipage/server-sent-events.html) from bytes that may be cut
// anywhere: inside a character, between \r and \n, inside a field's name.

export class EventStreamParser {
  #decoder = new TextDecoder();
  #line = "";
  #afterReturn = false;
  #event = "";
  #data = [];

  /** Takes a Uint8Array; returns the events that it completed, as [{event, data}]. */
  push(bytes) {
    const events = [];
    let text = this.#decoder.decode(bytes, { stream: true });
    if (this.#afterReturn && text) {
      if (text[0] === "\n") text = text.slice(1);
      this.#afterReturn = false;
    }
    const ends = /\r\n|\r|\n/g;
    let start = 0;
    for (let end = ends.exec(text); end; end = ends.exec(text)) {
      this.#endLine(this.#line + text.slice(start, end.index), events);
      this.#line = "";
      start = ends.lastIndex;
    }
    this.#afterReturn = text.endsWith("\r") || (this.#afterReturn && !text);
    this.#line += text.slice(start);
    return events;
  }

  #endLine(line, events) {
    if (line === "") {
      if (this.#data.length) events.push({ event: this.#event || "message", data: this.#data.join("\n") });
      this.#event = "";
      this.#data = [];
      return;
    }
    const colon = line.indexOf(":");
    if (colon === 0) return; // a comment keeps the connection open
    const field = colon < 0 ? line : line.slice(0, colon);
    const value = colon < 0 ? "" : line.slice(line[colon + 1] === " " ? colon + 2 : colon + 1);
    if (field === "event") this.#event = value;
    else if (field === "data") this.#data.push(value);
  }
}
