// Tables: sorted, a page at a time, updated row by row so that focus and selection survive.
import { param, remember } from "./address.js";
import { button, h } from "./dom.js";
import { blind } from "./pulse.js";

const pageSize = 50;

// The order of texts: numbers in them compare as numbers.
const rank = (v) =>
  typeof v === "number"
    ? v
    : String(v)
        .toLowerCase()
        .replace(/\d+/g, (n) => n.padStart(16, "0"));

const slug = (title) => title.toLowerCase().replaceAll(" ", "-");

/**
 * columns: [{title, cell(item), sort?(item), num?}]; key(item) names a row. Order and page are in the address, prefixed
 * with `address` if a section has several tables. Returns {el, update(items)}; the roles are explicit because narrow
 * screens show rows as cards.
 */
export function table({ caption, columns, key, empty, address = "", kind = "" }) {
  let items = [],
    at = pageSize * Math.max(0, (Number(param(address + "page")) || 1) - 1),
    order = ordered(param(address + "sort")); // order: {column, down}
  const rows = new Map();
  const body = h("tbody", { role: "rowgroup" });
  const range = h("p", { class: "muted" });
  const back = button("Previous", () => turn(-1)),
    next = button("Next", () => turn(1));
  const pager = h("div", { class: "pager", hidden: true }, range, back, next);
  const nothing = h("p", { class: "empty", hidden: true }, empty);

  function ordered(text) {
    const column = columns.findIndex((c) => c.sort && slug(c.title) === text.replace(/^-/, ""));
    return column < 0 ? null : { column, down: text.startsWith("-") };
  }
  const place = () =>
    remember({
      [address + "sort"]: order ? (order.down ? "-" : "") + slug(columns[order.column].title) : "",
      [address + "page"]: at ? at / pageSize + 1 : "",
    });

  const heads = columns.map((c, i) => {
    const title = c.sort ? button(c.title, () => sort(i), "sort") : c.title;
    return h("th", { role: "columnheader", scope: "col", class: c.num && "num" }, title);
  });
  const grid = h(
    "table",
    { role: "table" },
    h("caption", { class: "hidden" }, caption),
    h("thead", { role: "rowgroup" }, h("tr", { role: "row" }, heads)),
    body,
  );

  function sort(i) {
    order = { column: i, down: order?.column === i && !order.down };
    at = 0;
    draw();
    place();
  }
  function turn(by) {
    at += by * pageSize;
    draw();
    place();
    grid.scrollIntoView({ block: "start" });
  }
  function sorted() {
    if (!order) return items;
    const f = columns[order.column].sort,
      sign = order.down ? -1 : 1;
    return items
      .map((item) => ({ item, by: rank(f(item)) }))
      .sort((a, b) => (a.by < b.by ? -sign : a.by > b.by ? sign : 0))
      .map((x) => x.item);
  }
  function make(item) {
    return h(
      "tr",
      { role: "row" },
      columns.map((c) => h("td", { role: "cell", class: c.num && "num", "data-title": c.title }, c.cell(item))),
    );
  }
  function draw() {
    heads.forEach((th, i) => {
      if (order?.column === i) th.setAttribute("aria-sort", order.down ? "descending" : "ascending");
      else th.removeAttribute("aria-sort");
    });
    const all = sorted();
    if (all.length) at = Math.max(0, Math.min(at, Math.floor((all.length - 1) / pageSize) * pageSize));
    const wanted = all.slice(at, at + pageSize),
      seen = new Set();
    wanted.forEach((item, i) => {
      const k = String(key(item)),
        sign = blind() + JSON.stringify(item);
      seen.add(k);
      let row = rows.get(k);
      if (!row || row.sign !== sign) {
        const tr = make(item);
        if (row) swap(row.tr, tr);
        rows.set(k, (row = { sign, tr }));
      }
      if (body.children[i] !== row.tr) body.insertBefore(row.tr, body.children[i] ?? null);
    });
    for (const [k, row] of rows) {
      if (seen.has(k)) continue;
      row.tr.remove();
      rows.delete(k);
    }
    grid.hidden = all.length === 0;
    nothing.hidden = all.length > 0;
    pager.hidden = all.length <= pageSize;
    range.textContent = `${at + 1}–${at + wanted.length} of ${all.length}`;
    back.disabled = at === 0;
    next.disabled = at + pageSize >= all.length;
  }
  return {
    el: h("div", { class: "table " + kind }, grid, nothing, pager),
    update(list) {
      items = list;
      draw();
    },
  };
}

// Replaces a row and keeps the focus on the same control.
function swap(old, tr) {
  const focusable = "a[href], button";
  const at = [...old.querySelectorAll(focusable)].indexOf(document.activeElement);
  old.replaceWith(tr);
  if (at >= 0) tr.querySelectorAll(focusable)[at]?.focus();
}
