// What the agent pages do beyond plain forms: count tokens while somebody writes, add and order fallback models,
// suggest an address name, test a provider, and see that no unsaved text is lost. Everything is saved by plain forms.

const COUNT_AFTER_MS = 500;
const numbers = new Intl.NumberFormat("en");

function countTokens(box) {
  const prompt = document.getElementById(box.dataset.promptField);
  const budgetField = document.getElementById(box.dataset.budgetField);
  const modelField = document.getElementById(box.dataset.modelField);
  const output = box.querySelector("output");
  const meter = box.querySelector("meter");
  const token = prompt?.form.elements.csrfmiddlewaretoken;
  if (!token) return;
  let timer = 0;
  let asked = 0;
  let tokens = null;

  const say = (words, over = false) => {
    if (output.textContent !== words) output.textContent = words;
    box.classList.toggle("ca-over", over);
  };
  const show = () => {
    if (tokens === null) return;
    const counted = `${numbers.format(tokens)} token${tokens === 1 ? "" : "s"}`;
    const budget = Number(budgetField?.value);
    if (!budget) return say(`${counted}.`);
    const share = Math.round((100 * tokens) / budget);
    if (meter) meter.value = Math.min(100, share);
    if (tokens >= budget) say(`${counted}: more than the prompt budget of ${numbers.format(budget)}. Shorten the text or raise the budget.`, true);
    else say(`${counted} of the prompt budget of ${numbers.format(budget)} (${share} %).`);
  };
  const ask = () =>
    fetch(box.dataset.url, {
      method: "POST",
      headers: { "Content-Type": "application/json", "X-CSRFToken": token.value },
      body: JSON.stringify({ text: prompt.value, model: modelField?.value ?? "" }),
    });
  const count = async () => {
    const mine = ++asked;
    try {
      let response = await ask();
      if (response.status === 403) {
        token.value = await freshToken(); // somebody signed in again, in another tab
        response = await ask();
      }
      if (mine !== asked) return;
      if (!response.ok) throw new Error(String(response.status));
      tokens = (await response.json()).tokens;
      show();
    } catch {
      if (mine === asked) say("The tokens cannot be counted just now.");
    }
  };
  const later = () => {
    clearTimeout(timer);
    timer = setTimeout(count, COUNT_AFTER_MS);
  };
  prompt.addEventListener("input", later);
  modelField?.addEventListener("change", later);
  budgetField?.addEventListener("input", show);
  count();
}

function orderFallbacks(box) {
  const rows = box.querySelector("[data-rows]");
  const template = box.querySelector("template");
  const add = box.querySelector("[data-add]");
  const form = box.closest("form");
  if (!template || !add) return;
  const total = form.querySelector("[name=fallbacks-TOTAL_FORMS]");

  const renumber = () => {
    [...rows.children].forEach((row, index) => {
      row.querySelectorAll("select, input").forEach((field) => {
        field.name = field.name.replace(/^fallbacks-(\d+|__prefix__)-/, `fallbacks-${index}-`);
        field.id = `id_${field.name}`;
      });
      row.querySelector("[data-up]").disabled = index === 0;
      row.querySelector("[data-down]").disabled = index === rows.children.length - 1;
    });
    total.value = rows.children.length;
    add.disabled = rows.children.length >= Number(box.dataset.most);
  };
  const changed = () => {
    renumber();
    form.dispatchEvent(new Event("input", { bubbles: true }));
  };
  const equip = (row) => {
    row.querySelectorAll("button").forEach((button) => (button.hidden = false));
    row.querySelector("[data-up]").addEventListener("click", (event) => {
      row.previousElementSibling?.before(row);
      changed();
      event.currentTarget.focus();
    });
    row.querySelector("[data-down]").addEventListener("click", (event) => {
      row.nextElementSibling?.after(row);
      changed();
      event.currentTarget.focus();
    });
    row.querySelector("[data-remove]").addEventListener("click", () => {
      row.remove();
      changed();
      add.focus();
    });
  };
  [...rows.children].forEach(equip);
  add.hidden = false;
  add.addEventListener("click", () => {
    const row = template.content.firstElementChild.cloneNode(true);
    rows.append(row);
    equip(row);
    changed();
    const provider = row.querySelector("select");
    provider.value = "default";
    provider.focus();
  });
  renumber();
}

function suggestSlug(field) {
  const name = document.getElementById(field.dataset.slugFrom);
  if (!name) return;
  let own = field.value !== "";
  field.addEventListener("input", () => (own = field.value !== ""));
  name.addEventListener("input", () => {
    if (own) return;
    field.value = name.value
      .normalize("NFKD")
      .replace(/[\u0300-\u036f]/g, "")
      .toLowerCase()
      .replace(/[^a-z0-9]+/g, "-")
      .slice(0, 63)
      .replace(/^-+|-+$/g, "");
  });
}

// A form that is sent after its sign-in has ended comes back as the sign-in page, and what was typed is gone. So this page
// is asked for first: it says whether the person is still signed in, and has the token that counts since the last sign-in.
async function freshToken() {
  const response = await fetch(location.href, { redirect: "manual" });
  if (response.type === "opaqueredirect") throw new SignedOut();
  if (!response.ok) throw new Error(String(response.status));
  const page = new DOMParser().parseFromString(await response.text(), "text/html");
  return page.querySelector("input[name=csrfmiddlewaretoken]").value;
}

class SignedOut extends Error {}

function refuse(mark, error) {
  const words = document.createElement("p");
  words.className = "ca-note ca-note-wrong ca-refused";
  words.setAttribute("role", "alert");
  if (error instanceof SignedOut) {
    const link = document.createElement("a");
    link.href = mark.dataset.signIn;
    link.target = "_blank";
    link.textContent = "Sign in in a new tab";
    words.append("You are signed out, so nothing was saved yet. What you typed is still here. ", link, ", then come back and save again.");
  } else words.append("The server cannot be reached, so nothing was saved yet. What you typed is still here: save again in a moment.");
  (mark.querySelector(".ca-bar") ?? mark).prepend(words);
  words.scrollIntoView({ block: "nearest" });
}

// For so long a second click is taken for a part of the first, and not for another wish to save.
const SENT_FOR_MS = 3000;

// `mark` is a form, or an element at the place in one where a refusal is to be said.
function saveSafely(mark) {
  const form = mark.closest("form");
  const note = form.querySelector("[data-unsaved-note]");
  let unsaved = mark.hasAttribute("data-unsaved");
  let asking = false;
  let sending = false;
  const show = () => note && (note.hidden = !unsaved);
  form.addEventListener("input", () => {
    unsaved = true;
    show();
  });
  form.addEventListener("submit", async (event) => {
    if (sending) {
      sending = unsaved = false;
      return;
    }
    event.preventDefault();
    if (asking) return;
    asking = true;
    form.querySelector(".ca-refused")?.remove();
    try {
      form.querySelector("input[name=csrfmiddlewaretoken]").value = await freshToken();
      sending = true;
      form.requestSubmit(event.submitter);
      setTimeout(() => (asking = false), SENT_FOR_MS);
    } catch (error) {
      refuse(mark, error);
      asking = false;
    }
  });
  window.addEventListener("beforeunload", (event) => {
    if (unsaved) event.preventDefault();
  });
  show();
}

function testConnection(box) {
  const button = box.querySelector("button");
  const output = box.querySelector("output");
  box.hidden = false; // without this script it does nothing
  button.addEventListener("click", async () => {
    button.disabled = true;
    output.textContent = "Asking…";
    try {
      const token = document.querySelector("input[name=csrfmiddlewaretoken]").value;
      const response = await fetch(box.dataset.probe, { method: "POST", headers: { "X-CSRFToken": token } });
      if (!response.ok) throw new Error(String(response.status));
      const { ok, text } = await response.json();
      output.textContent = `${ok ? "✓" : "✗"} ${text}`;
    } catch {
      output.textContent = "✗ This server could not be asked just now. Try again.";
    }
    button.disabled = false;
  });
}

// The doctor's round: says how far it is, then shows the report in place of the last one.
function examine(form) {
  const button = form.querySelector("button");
  const bar = form.querySelector("progress");
  const output = form.querySelector("output");
  const tell = ({ done, of }) => {
    bar.max = of;
    bar.value = done;
    if (done < of) output.textContent = "Examining… this takes a few seconds.";
  };
  const read = async (body) => {
    let rest = "";
    let last = {};
    for await (const text of body.pipeThrough(new TextDecoderStream())) {
      const lines = (rest + text).split("\n");
      rest = lines.pop();
      for (const line of lines) tell((last = JSON.parse(line)));
    }
    return last.said;
  };
  const showReport = async () => {
    const page = new DOMParser().parseFromString(await (await fetch(location.href)).text(), "text/html");
    document.getElementById("doctor-report").replaceWith(page.getElementById("doctor-report"));
  };
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    if (button.getAttribute("aria-disabled")) return;
    button.setAttribute("aria-disabled", "true"); // and not disabled, which would take the focus away
    bar.hidden = false;
    tell({ done: 0, of: 1 });
    try {
      const response = await fetch(form.dataset.examine, { method: "POST", body: new FormData(form) });
      if (!response.ok) throw new Error(String(response.status));
      const said = await read(response.body);
      if (!said) throw new Error("it broke off");
      await showReport();
      output.textContent = `Done. ${said}`;
    } catch {
      output.textContent = "The examination could not be finished or its report not be kept. Run manage.py doctor on the server.";
    }
    bar.hidden = true;
    button.removeAttribute("aria-disabled");
  });
}

// A secret's page was the answer to a form: were it loaded again, the form would be sent again. So its address becomes another's.
function standInstead(box) {
  history.replaceState(null, "", box.dataset.instead);
}

function copy(button) {
  button.hidden = false;
  button.addEventListener("click", async () => {
    const text = document.getElementById(button.dataset.copy);
    try {
      await navigator.clipboard.writeText(text.textContent);
      button.textContent = "Copied";
    } catch {
      // Without HTTPS browsers lend no clipboard: select it, so that Ctrl+C copies it.
      getSelection().selectAllChildren(text);
    }
  });
}

document.querySelectorAll("[data-instead]").forEach(standInstead);
document.querySelectorAll("[data-copy]").forEach(copy);
document.querySelectorAll("[data-probe]").forEach(testConnection);
document.querySelectorAll("[data-examine]").forEach(examine);
document.querySelectorAll("[data-tokens]").forEach(countTokens);
document.querySelectorAll("[data-fallbacks]").forEach(orderFallbacks);
document.querySelectorAll("[data-slug-from]").forEach(suggestSlug);
document.querySelectorAll("[data-save-safely]").forEach(saveSafely);
if (document.activeElement === document.body) document.querySelector("[data-focus]")?.focus(); // else somebody types already
