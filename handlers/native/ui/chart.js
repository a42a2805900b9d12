// Small charts of the last hour, as SVG, each with a description in words.
import { h } from "./dom.js";

const ns = "http://www.w3.org/2000/svg";

function svg(name, props, ...children) {
  const el = document.createElementNS(ns, name);
  for (const [k, v] of Object.entries(props)) el.setAttribute(k, v);
  el.append(...children);
  return el;
}

/**
 * A line over time. A null value is unknown, or with `bridge` means that nothing happened. format(value) describes a
 * value in words.
 */
export function sparkline(title, values, format, bridge) {
  const known = values.filter((v) => v !== null);
  const last = known.at(-1),
    most = Math.max(...known, 0);
  const words = known.length ? `${format(last)} now, at most ${format(most)}` : "nothing is known yet";
  const [w, high] = [240, 44],
    top = most || 1;
  const x = (i) => (values.length < 2 ? w : (i / (values.length - 1)) * w),
    y = (v) => high - 3 - (v / top) * (high - 6);
  let path = "",
    pen = false;
  values.forEach((v, i) => {
    if (v === null) {
      pen &&= bridge;
      return;
    }
    path += `${pen ? "L" : "M"}${x(i).toFixed(1)} ${y(v).toFixed(1)}`;
    pen = true;
  });
  return h(
    "figure",
    { class: "spark" },
    h(
      "figcaption",
      null,
      title,
      h("strong", null, known.length ? format(last) : "–"),
      known.length > 0 && h("small", null, `max ${format(most)}`),
    ),
    svg(
      "svg",
      { viewBox: `0 0 ${w} ${high}`, role: "img", "aria-label": `${title}: ${words}`, preserveAspectRatio: "none" },
      svg("path", { d: path, class: "line" }),
    ),
  );
}

/** A strip of time from `from` to `to` (ms): spans are [{from, to, kind, text}]. */
export function strip(title, spans, from, to) {
  const [w, high] = [600, 14],
    x = (t) => ((Math.min(Math.max(t, from), to) - from) / (to - from)) * w;
  const bars = spans
    .filter((s) => s.to > from && s.from < to)
    .map((s) => {
      const bar = svg("rect", {
        x: x(s.from).toFixed(1),
        y: 1,
        width: Math.max(1.5, x(s.to) - x(s.from)).toFixed(1),
        height: high - 2,
        class: "span " + s.kind,
      });
      bar.append(svg("title", {}, s.text));
      return bar;
    });
  const words = spans
    .map((s) => s.text)
    .slice(-6)
    .join("; ");
  return svg(
    "svg",
    {
      viewBox: `0 0 ${w} ${high}`,
      role: "img",
      "aria-label": `${title}: ${words || "nothing is known yet"}`,
      class: "strip",
      preserveAspectRatio: "none",
    },
    ...bars,
  );
}
