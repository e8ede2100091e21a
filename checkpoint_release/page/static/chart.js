// The proof as a figure: a row for each output, its error on a logarithmic axis, and the
// limit as a line. The table beside it holds the same for those who can't see it.

import { short, svgElement } from "./dom.js";

const LEAST = 1e-3; // what is smaller stands at the left edge

// series: [{kind, outputs: [{name, error, passed}]}]; recorded: output's name → error.
export function drawChart(place, { unit, limit, reduced }, series, recorded) {
  const width = Math.max(place.clientWidth, 260);
  const narrow = width < 560;
  const names = series[0].outputs.map((output) => output.name);
  const longest = Math.max(...names.map((name) => name.length));
  const left = narrow ? 14 : Math.min(Math.max(longest * 7.5 + 16, 90), width * 0.35);
  const right = width - 68; // the errors as figures stand beyond it
  const rowHeight = narrow ? 46 : 34;
  const top = 30;
  const bottom = top + names.length * rowHeight;
  const lowest = axisStart(series);
  const highest = axisEnd(series, limit);
  const x = (error) => {
    const shown = Math.min(Math.max(error, lowest), highest);
    return left + (Math.log(shown / lowest) / Math.log(highest / lowest)) * (right - left);
  };

  const svg = svgElement("svg", { viewBox: `0 0 ${width} ${bottom + 46}`, role: "img" });
  svg.setAttribute("aria-label", describe(series, unit, limit));
  const add = (tag, attributes, text) => {
    const node = svgElement(tag, attributes);
    if (text !== undefined) node.textContent = text;
    svg.append(node);
  };
  const line = (at, kind, from = top) =>
    add("line", { x1: at, x2: at, y1: from, y2: bottom, class: kind });

  add("rect", {
    x: left,
    y: top,
    width: x(limit) - left,
    height: bottom - top,
    class: "chart-zone",
  });
  add("rect", {
    x: x(limit),
    y: top,
    width: right - x(limit),
    height: bottom - top,
    class: "chart-beyond",
  });
  for (let tick = lowest; tick <= highest * 1.01; tick *= 10) {
    line(x(tick), "chart-grid");
    add(
      "text",
      { x: x(tick), y: bottom + 18, "text-anchor": "middle", class: "chart-muted" },
      short(tick),
    );
  }
  add(
    "text",
    { x: (left + right) / 2, y: bottom + 38, "text-anchor": "middle", class: "chart-muted" },
    `error, × ${unit}`,
  );
  if (!reduced) {
    line(x(1), "chart-floor");
    add("text", { x: x(1) - 5, y: top - 8, "text-anchor": "end", class: "chart-muted" }, "floor");
  }
  line(x(limit), "chart-limit", top - 4);
  add(
    "text",
    { x: x(limit) + 5, y: top - 8, class: "chart-bad" },
    reduced ? "limit" : `limit ${short(limit)}×`,
  );

  names.forEach((name, row) => {
    const middle = top + row * rowHeight + (narrow ? 30 : rowHeight / 2);
    const label = narrow
      ? { x: left, y: middle - 14 }
      : { x: left - 12, y: middle + 4, "text-anchor": "end" };
    add("text", { ...label, class: "chart-text" }, clipped(name, narrow ? 40 : 24));
    if (recorded[name] !== undefined) {
      const at = x(recorded[name]);
      add("line", { x1: at, x2: at, y1: middle - 8, y2: middle + 8, class: "mark-recorded" });
    }
    const found = series.map((each) => ({
      kind: each.kind,
      ...each.outputs.find((output) => output.name === name),
    }));
    const worst = found.reduce((one, other) => (other.error > one.error ? other : one));
    add("line", { x1: left, x2: x(worst.error), y1: middle, y2: middle, class: "chart-stem" });
    for (const each of found) svg.append(mark(each.kind, x(each.error), middle));
    const multiple = Number.isFinite(worst.error) ? `${short(worst.error)}×` : "∞";
    const text = worst.passed && worst.remark ? worst.remark : multiple;
    add(
      "text",
      {
        x: width - 4,
        y: middle + 4,
        "text-anchor": "end",
        class: worst.passed ? "chart-text" : "chart-bad",
      },
      text,
    );
  });
  place.replaceChildren(svg);
}

// The marks of the legend; a circle and a diamond differ in more than colour.
export function mark(kind, x, y) {
  const attributes = { class: `mark-${kind}` };
  if (kind === "recorded")
    return svgElement("line", { ...attributes, x1: x, x2: x, y1: y - 8, y2: y + 8 });
  if (kind === "wasm") return svgElement("circle", { ...attributes, cx: x, cy: y, r: 6.5 });
  return svgElement("path", {
    ...attributes,
    d: `M${x} ${y - 8}L${x + 8} ${y}L${x} ${y + 8}L${x - 8} ${y}Z`,
  });
}

function axisStart(series) {
  const errors = series.flatMap((each) => each.outputs.map((output) => output.error));
  const smallest = Math.min(...errors.filter((error) => error > 0), 1);
  return Math.min(0.1, Math.max(10 ** Math.floor(Math.log10(smallest)), LEAST));
}

function axisEnd(series, limit) {
  const errors = series.flatMap((each) => each.outputs.map((output) => output.error));
  const largest = Math.max(limit * 10, ...errors.filter(Number.isFinite));
  return Math.min(10 ** Math.ceil(Math.log10(largest)), 1e9);
}

function describe(series, unit, limit) {
  const rows = series[0].outputs.map(({ name, error }) => `${name} ${short(error)}`);
  return `Error of each output in multiples of ${unit}; the limit is ${short(limit)}. ${rows.join(", ")}.`;
}

const clipped = (text, most) => (text.length > most ? `${text.slice(0, most - 1)}…` : text);
