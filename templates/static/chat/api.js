// The public API as the chat sees it: who the agent is, and an answer as a series of events. Everything that can go
// wrong comes out as a Problem whose sentence a person can read.

import { EventStreamParser } from "./sse.js";

// The server writes a comment every 15 s; after four of them missing, nobody is there.
const SILENCE_MS = 60_000;
// Who has to wait longer, such as for a budget to reset, is told when by the problem itself, and may retry before: it may be raised.
const LONGEST_COUNTDOWN_S = 600;

const CUT = "The connection broke before the answer was complete.";
const UNREACHABLE = "The server cannot be reached. Check your connection, then retry.";
const SENTENCES = {
  401: "You may not talk to this agent just now. Reload the page, or sign in again.",
  403: "You may not talk to this agent just now. Reload the page, or sign in again.",
  404: "This agent is not available. It may have been switched off or renamed.",
  429: "Too many messages in a short time.",
  502: "The model behind this agent could not answer just now.",
  503: "The server is busy just now.",
  504: "The model behind this agent took too long to answer.",
};

export class Problem extends Error {
  constructor(sentence, { retryAfterS = 0, requestId = "" } = {}) {
    super(sentence);
    this.retryAfterS = retryAfterS;
    this.requestId = requestId;
  }
}

/** Returns the agent's {name, description, greeting, version, demo}. */
export async function describeAgent(url) {
  const response = await send(url, { headers: { Accept: "application/json" } });
  if (!response.ok) throw await problemOf(response);
  return response.json().catch(() => {
    throw new Problem("The server sent something other than the agent's description. Reload the page.");
  });
}

/** Posts a message; yields {event, data} with `data` parsed, up to and including `done`. Throws a Problem, or AbortError. */
export async function* ask(message, { endpoint, csrf, sessionId, signal }) {
  const silence = new AbortController();
  let timer = setTimeout(() => silence.abort(), SILENCE_MS);
  try {
    const response = await send(endpoint, {
      method: "POST",
      headers: { "Content-Type": "application/json", Accept: "text/event-stream", ...(csrf && { "X-CSRFToken": csrf }) },
      body: JSON.stringify(sessionId ? { message, session_id: sessionId } : { message }),
      signal: AbortSignal.any([signal, silence.signal]),
    });
    if (!response.ok) throw await problemOf(response);
    if (!(response.headers.get("Content-Type") ?? "").startsWith("text/event-stream")) {
      throw new Problem("The server sent something other than an answer. Reload the page and try again.");
    }
    const parser = new EventStreamParser();
    const reader = response.body.getReader();
    for (let chunk = await reader.read(); !chunk.done; chunk = await reader.read()) {
      clearTimeout(timer);
      timer = setTimeout(() => silence.abort(), SILENCE_MS);
      for (const { event, data } of parser.push(chunk.value)) {
        const value = JSON.parse(data);
        if (event === "error") throw problemFrom(value, value.status);
        yield { event, data: value };
        if (event === "done") return;
      }
    }
    throw new Problem(CUT);
  } catch (error) {
    if (error instanceof Problem || signal.aborted) throw error;
    throw new Problem(CUT);
  } finally {
    clearTimeout(timer);
    silence.abort(); // lets go of a stream that was left early
  }
}

async function send(url, options) {
  try {
    return await fetch(url, { credentials: "same-origin", cache: "no-store", ...options });
  } catch (error) {
    if (options.signal?.aborted && error.name === "AbortError") throw error;
    throw new Problem(UNREACHABLE);
  }
}

async function problemOf(response) {
  const document = await response.json().catch(() => ({}));
  return problemFrom(document, response.status, response.headers.get("Retry-After"));
}

function problemFrom(document, status, retryAfter = null) {
  const said = status < 500 ? text(document.detail) || text(document.title) : "";
  return new Problem(SENTENCES[status] || said || "Something went wrong on the server.", {
    retryAfterS: secondsFrom(retryAfter),
    requestId: status >= 500 ? text(document.request_id) : "",
  });
}

function text(value) {
  return typeof value === "string" ? value : "";
}

// Retry-After is a number of seconds or a date.
function secondsFrom(value) {
  if (!value) return 0;
  const seconds = /^\d+$/.test(value) ? Number(value) : (Date.parse(value) - Date.now()) / 1000;
  return seconds > 0 && seconds <= LONGEST_COUNTDOWN_S ? Math.ceil(seconds) : 0;
}
