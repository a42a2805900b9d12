// Dialogs for actions: a description, the equivalent command line, and the server's error text.
import { enterDialog, leaveDialog, param } from "./address.js";
import { APIError } from "./api.js";
import { button, copyable, h } from "./dom.js";

let serial = 0,
  offers = {};

/** Sets the dialogs of the current section, by their names in the address: {name(of)}. */
export function offer(map) {
  offers = map;
}

// A secret is shown only once and must not be lost by accident: its dialog stays open until "Done".
const hold = (dialog, on) => {
  dialog.toggleAttribute("data-held", on);
  if (on) dialog.setAttribute("closedby", "none");
  else dialog.removeAttribute("closedby");
};

/** Closes the open dialog, unless it shows a secret. */
export function closeDialog() {
  const open = document.querySelector("dialog");
  if (!open) return;
  if (open.hasAttribute("data-held"))
    open.querySelector(".held").textContent = "It is shown once. Press Done to go on.";
  else open.close("back");
}

addEventListener("beforeunload", (e) => {
  if (document.querySelector("dialog[data-held]")) e.preventDefault();
});

/** Synchronises the dialog with the address: Back closes a dialog, and an address with one opens it. */
export function agree() {
  const name = param("dialog"),
    open = document.querySelector("dialog");
  if (open && open.dataset.address !== `${name}/${param("of")}`) closeDialog();
  else if (!open && name) offers[name]?.(param("of"));
}

function field(f) {
  const id = `f${++serial}`;
  const common = { id, name: f.name, "aria-describedby": f.help && id + "h", required: f.required };
  let input;
  if (f.options)
    input = h(
      "select",
      common,
      f.options.map(([value, text]) => Object.assign(h("option", null, text), { value })),
    );
  else if (f.type === "lines")
    input = h("textarea", { ...common, rows: 2, spellcheck: "false", placeholder: f.placeholder });
  else
    input = h("input", {
      ...common,
      type: f.type ?? "text",
      min: f.min,
      max: f.max,
      placeholder: f.placeholder,
      autocomplete: "off",
      spellcheck: "false",
    });
  if (f.type === "checkbox") input.checked = f.value ?? false;
  else if (f.value !== undefined) input.value = f.value;
  const label = h("label", { for: id }, f.label);
  const help = f.help && h("small", { id: id + "h" }, f.help);
  return {
    input,
    row:
      f.type === "checkbox"
        ? h("div", { class: "field check" }, input, h("div", null, label, help))
        : h("div", { class: "field" }, label, input, help),
  };
}

/**
 * Opens a dialog. o: {at: [name, of], title, intro, fields, command(values), action, danger, typed, run(values),
 * done(result)}. typed is a text to type before the action is enabled. done may return elements to show instead of
 * closing, such as a new token, or an address to go to. The focus returns to its former element.
 */
export function ask(o) {
  const id = `d${++serial}`;
  const opener = document.activeElement;
  const fields = (o.fields ?? []).map((f) => ({ ...f, ...field(f) }));
  const values = () =>
    Object.fromEntries(
      fields.map((f) => [
        f.name,
        f.type === "checkbox" ? f.input.checked : f.exact ? f.input.value : f.input.value.trim(),
      ]),
    );
  const typed = o.typed && field({ name: "typed", label: ["Type ", h("strong", null, o.typed), " to confirm"] });
  const error = h("p", { class: "error", role: "alert" });
  const go = h("button", { type: "submit", class: o.danger ? "danger" : "primary" }, o.action);
  const command = h("div", { class: "command" });
  const form = h(
    "form",
    { method: "dialog", novalidate: true },
    o.intro && h("div", { class: "intro" }, o.intro),
    fields.length > 0 &&
      h(
        "div",
        { class: fields.length > 4 ? "fields many" : "fields" },
        fields.map((f) => f.row),
      ),
    typed?.row,
    o.command && h("div", null, h("h3", null, "The same on the command line"), command),
    error,
    h(
      "div",
      { class: "buttons" },
      button("Cancel", () => dialog.close()),
      go,
    ),
  );
  const [name, of = ""] = o.at;
  const dialog = h(
    "dialog",
    { "aria-labelledby": id, "data-address": `${name}/${of}` },
    h("h2", { id }, o.title),
    form,
    h("p", { class: "held", role: "status" }),
  );
  let busy = false,
    to;

  function refresh() {
    if (o.command) {
      const text = o.command(values());
      if (command.firstChild?.dataset.text !== text) {
        const el = copyable(text, "the command");
        el.dataset.text = text;
        command.replaceChildren(el);
      }
    }
    go.disabled = busy || (Boolean(o.typed) && typed.input.value !== o.typed);
  }
  form.addEventListener("input", refresh);
  form.addEventListener("submit", async (e) => {
    e.preventDefault();
    if (go.disabled) return;
    const bad = fields.find((f) => !f.input.checkValidity());
    if (bad) {
      error.textContent = `${bad.label}: ${bad.input.validationMessage}`;
      bad.input.focus();
      return;
    }
    busy = true;
    hold(dialog, true);
    error.textContent = "";
    go.setAttribute("aria-busy", "true");
    refresh();
    let kept = false;
    try {
      const content = o.done?.(await o.run(values()));
      if (!(content instanceof Node)) {
        to = content;
        dialog.close();
        return;
      }
      kept = true;
      form.replaceWith(
        h(
          "div",
          null,
          content,
          h(
            "div",
            { class: "buttons" },
            button("Done", () => dialog.close(), "primary"),
          ),
        ),
      );
      dialog.querySelector("code[tabindex], button").focus();
    } catch (e) {
      if (!(e instanceof APIError)) console.error(e);
      error.textContent = e instanceof APIError ? e.message : "The page has failed to do this.";
    } finally {
      busy = false;
      hold(dialog, kept);
      go.removeAttribute("aria-busy");
      refresh();
    }
  });
  dialog.addEventListener("cancel", (e) => {
    if (dialog.hasAttribute("data-held")) e.preventDefault();
  });
  dialog.addEventListener("keydown", (e) => {
    // A second Escape would close it all the same.
    if (e.key === "Escape" && dialog.hasAttribute("data-held")) e.preventDefault();
  });
  dialog.addEventListener("close", () => {
    dialog.remove();
    if (dialog.returnValue !== "back") leaveDialog(to);
    if (opener?.isConnected) opener.focus();
    else document.getElementById("main").focus();
    o.closed?.();
  });
  enterDialog(name, of);
  document.body.append(dialog);
  refresh();
  dialog.showModal();
  (typed?.input ?? fields[0]?.input ?? (o.danger ? form.querySelector(".buttons button") : go)).focus();
}
