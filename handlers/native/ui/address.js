// The address of a view: #/section/entry?search, filter, sort and dialog. The same address shows the same view.

function decoded(text) {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}

/** Parses an address. */
export function parse(hash = location.hash) {
  const at = hash.indexOf("?");
  const path = (at < 0 ? hash : hash.slice(0, at)).replace(/^#\/?/, "");
  const [section, ...rest] = path.split("/");
  return {
    section,
    entry: decoded(rest.join("/")),
    path,
    query: new URLSearchParams(at < 0 ? "" : hash.slice(at + 1)),
  };
}

/** Makes an address; parameters without a value are left out. */
export function link(section, entry = "", params = {}) {
  const query = new URLSearchParams(
    Object.entries(params).filter(([, v]) => v !== "" && v !== null && v !== undefined),
  );
  return `#/${section}${entry === "" ? "" : "/" + encodeURIComponent(entry)}${query.size ? "?" + query : ""}`;
}

/** A parameter of the present address; "" when it is absent. */
export const param = (name) => parse().query.get(name) ?? "";

// The present address with other parameters.
function changed(params) {
  const { section, entry, query } = parse();
  return link(section, entry, { ...Object.fromEntries(query), ...params });
}

/** Changes parameters without a new entry in the browser's history. */
export function remember(params) {
  const now = changed(params);
  if (now !== location.hash && !(location.hash === "" && !parse(now).section))
    history.replaceState(history.state, "", now);
}

/** Adds a dialog to the address, as an entry of the history that Back removes. */
export function enterDialog(name, of) {
  if (param("dialog") === name && param("of") === String(of)) return; // it was opened by its address
  // reuse the history entry of a closed dialog
  const step = history.state?.spare ? "replaceState" : "pushState";
  history[step]({ spare: true }, "", changed({ dialog: name, of }));
}

/**
 * Removes the dialog from the address; `to` is an optional new address. The history entry stays, because a scripted
 * history.back() would run after the user's next click.
 */
export function leaveDialog(to) {
  if (!to && !param("dialog")) return;
  history.replaceState(to ? null : history.state, "", to ?? changed({ dialog: "", of: "" }));
  if (to) dispatchEvent(new HashChangeEvent("hashchange"));
}
