// The address of what is shown: #/section/entry?search, filter, sort and dialog. Whoever gets the address sees the
// same.

function decoded(text) {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}

/** Reads an address. */
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

/** A parameter of the present address; "" when it is not there. */
export const param = (name) => parse().query.get(name) ?? "";

// The present address with other parameters.
function changed(params) {
  const { section, entry, query } = parse();
  return link(section, entry, { ...Object.fromEntries(query), ...params });
}

/** Changes parameters without a step that Back would go through. */
export function remember(params) {
  const now = changed(params);
  if (now !== location.hash && !(location.hash === "" && !parse(now).section))
    history.replaceState(history.state, "", now);
}

/** Puts a dialog into the address, as a step that Back takes away again. */
export function enterDialog(name, of) {
  if (param("dialog") === name && param("of") === String(of)) return; // it was opened by its address
  // the step of a dialog that was closed is used again
  const step = history.state?.spare ? "replaceState" : "pushState";
  history[step]({ spare: true }, "", changed({ dialog: name, of }));
}

/**
 * Takes the dialog out of the address; `to` is where to go instead of what is below it. The step stays: going back
 * in a script comes later than what somebody clicks meanwhile.
 */
export function leaveDialog(to) {
  if (!to && !param("dialog")) return;
  history.replaceState(to ? null : history.state, "", to ?? changed({ dialog: "", of: "" }));
  if (to) dispatchEvent(new HashChangeEvent("hashchange"));
}
