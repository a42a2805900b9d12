// Building blocks of the page. API data becomes text: no code here or elsewhere sets HTML.
import { blind } from "./pulse.js";

/** Makes an element. Strings become text; empty children are omitted; on… are listeners. */
export function h(name, props, ...children) {
  const el = document.createElement(name);
  for (const [k, v] of Object.entries(props ?? {})) {
    if (v === undefined || v === null || v === false || v === "") continue;
    if (k.startsWith("on")) el.addEventListener(k.slice(2), v);
    else el.setAttribute(k, v === true ? "" : String(v));
  }
  el.append(...nodes(children));
  return el;
}

const nodes = (list) =>
  list
    .flat(Infinity)
    .filter((c) => c !== null && c !== undefined && c !== false && c !== "")
    .map((c) => (c instanceof Node ? c : String(c)));

/** Replaces the content of an element, but only if it has changed, so that focus and selection stay. */
export function show(el, data, make) {
  const sign = blind() + JSON.stringify(data);
  if (el.shown === sign) return;
  el.shown = sign;
  const focused = focusIn(el);
  el.replaceChildren(...nodes([make()]));
  focused?.(el);
}

const focusable = "a[href], button, input, select, textarea";

// Remembers which control of an element has the focus, and gives the focus to the control in its place.
function focusIn(el) {
  if (!el.contains(document.activeElement)) return null;
  const at = [...el.querySelectorAll(focusable)].indexOf(document.activeElement);
  return (now) => now.querySelectorAll(focusable)[at]?.focus();
}

/** A state: a mark with its own colour and shape, and always the word. */
export const mark = (kind, text) => h("span", { class: "mark " + kind }, h("i", { "aria-hidden": "true" }), text);

export const muted = (...children) => h("span", { class: "muted" }, ...children);
export const code = (text) => h("code", null, text);
export const none = () => h("span", { class: "muted none" }, "–");

/** A text with long ids shortened but distinguishable; the full text is its title. */
export function short(text) {
  const cut = String(text)
    .replace(/\b[0-9a-f]{26}([0-9a-f]{6})\b/g, "…$1")
    .replace(/\b([0-9a-f]{8})(-[0-9a-f]{4}){3}-[0-9a-f]{12}\b/g, "$1…");
  return cut === String(text) ? cut : h("span", { title: text }, cut);
}

/** An actor: a name, and enough of the token's id to distinguish equal names. */
export function actor(text) {
  const [, name, id] = /^(.*) \(([0-9a-f]{32})\)$/.exec(text ?? "") ?? [];
  return id
    ? h("span", { title: text }, name, h("span", { class: "dim" }, ` …${id.slice(-6)}`))
    : text
      ? short(text)
      : none();
}

export const labels = (map) => {
  const list = Object.entries(map ?? {}).sort(([a], [b]) => (a < b ? -1 : 1));
  return list.length
    ? h(
        "ul",
        { class: "labels" },
        list.map(([k, v]) => h("li", null, v === "" ? k : `${k}=${v}`)),
      )
    : none();
};

const units = [
  [86_400, "d"],
  [3600, "h"],
  [60, "min"],
  [1, "s"],
];

/** A length of time in seconds, in its largest unit. */
export function span(seconds) {
  const s = Math.max(0, Math.round(seconds));
  const [size, unit] = units.find(([n]) => s >= 2 * n) ?? units.at(-1);
  return `${Math.floor(s / size)} ${unit}`;
}

const relative = (date) => {
  const s = (date - Date.now()) / 1000;
  return s > 0 ? "in " + span(s) : span(-s) + " ago";
};

/** A time relative to now, updated continuously; the exact time is its title. */
export function when(text) {
  const date = new Date(text ?? NaN);
  if (Number.isNaN(date.getTime()) || date.getUTCFullYear() < 1971) return none();
  const el = h(
    "time",
    { datetime: date.toISOString(), title: date.toISOString().replace(/\.\d+Z$/, "Z") },
    relative(date),
  );
  el.dataset.tick = "";
  return el;
}

setInterval(() => {
  for (const el of document.querySelectorAll("time[data-tick]")) {
    const text = relative(new Date(el.dateTime));
    if (el.textContent !== text) el.textContent = text;
  }
}, 1000);

/** The time of a day, with the day when that was not today. */
export function moment(text) {
  const iso = new Date(text).toISOString(),
    today = iso.slice(0, 10) === new Date().toISOString().slice(0, 10);
  return h("time", { datetime: iso, title: iso }, (today ? "" : iso.slice(0, 10) + " ") + iso.slice(11, 19));
}

/** The exact time to the second, for logs. */
export const clock = (text) =>
  h("time", { datetime: text, title: text }, String(text).replace("T", " ").replace("Z", ""));

/** A button; among others with the same text its label names the object. */
export const button = (text, onclick, kind = "", on = "") =>
  h("button", { type: "button", class: kind, "aria-label": on && `${text} ${on}`, onclick }, text);

// Copies a text; if the browser forbids that, `otherwise` helps to copy by hand.
async function copy(b, text, otherwise) {
  const before = b.textContent;
  try {
    await navigator.clipboard.writeText(text);
    b.textContent = "Copied";
  } catch {
    b.textContent = otherwise();
  }
  setTimeout(() => {
    b.textContent = before;
  }, 2500);
}

/** A short text such as an id or an address, with a button that copies it. */
export function id(text, what) {
  if (!text) return none();
  const shown = code(text);
  const b = h("button", {
    type: "button",
    class: "copyid quiet",
    title: "Copy",
    "aria-label": `Copy ${what} ${text}`,
    onclick: () =>
      copy(b, text, () => {
        getSelection().selectAllChildren(shown);
        return "Ctrl+C";
      }),
  });
  return h("span", { class: "id" }, shown, b);
}

/** A text with a button that copies it. */
export function copyable(text, what) {
  const shown = h("code", { tabindex: "0", "aria-label": what }, text);
  const b = button(
    "Copy",
    () =>
      copy(b, text, () => {
        getSelection().selectAllChildren(shown);
        return "Press Ctrl+C";
      }),
    "quiet",
  );
  b.setAttribute("aria-label", "Copy " + what);
  return h("div", { class: "copy" }, shown, b);
}

export const facts = (...pairs) =>
  h(
    "dl",
    { class: "facts" },
    pairs.filter(Boolean).map(([name, value]) => h("div", null, h("dt", null, name), h("dd", null, value))),
  );

/** Filters above a list; narrow screens fold them. */
export function filters(...fields) {
  const wide = matchMedia("(min-width: 46.01rem)");
  const el = h(
    "details",
    { class: "filters", open: wide.matches },
    h("summary", null, "Filter"),
    h("div", null, ...fields),
  );
  wide.addEventListener("change", () => {
    el.open = wide.matches;
  });
  return h("search", null, el);
}

export const heading = (title, ...actions) =>
  h("div", { class: "heading" }, h("h1", { tabindex: "-1" }, title), h("div", { class: "actions" }, ...actions));

/** Announces an event, visually and to screen readers. */
export function toast(text) {
  const el = h("p", null, text);
  document.getElementById("toasts").append(el);
  setTimeout(() => el.remove(), 6000);
}

/** A word of a shell command, quoted where it must be. */
export const word = (s) => (/^[\w@%+=:,./-]+$/.test(s) ? s : `'${String(s).replaceAll("'", `'\\''`)}'`);

export function sleep(ms, signal) {
  return new Promise((resolve) => {
    if (signal?.aborted) {
      resolve();
      return;
    }
    const t = setTimeout(resolve, ms);
    signal?.addEventListener(
      "abort",
      () => {
        clearTimeout(t);
        resolve();
      },
      { once: true },
    );
  });
}
