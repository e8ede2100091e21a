// A tensor's values as a table; `view` is a TensorView.

import { element, short } from "./dom.js";

const MOST_ROWS = 100;
const MOST_COLUMNS = 32;
const MOST_FIELDS = 256; // beyond that, values are shown and can't be typed

export function tableOf(view) {
  const columns = Math.min(view.lines, MOST_COLUMNS);
  const rows = Math.min(view.columns, MOST_ROWS);
  const editable = view.onEdit && view.lines * view.columns <= MOST_FIELDS;
  const valueAt = editable ? field : figure;
  const head = element("tr", {}, element("td"));
  for (let line = 0; line < columns; line++) {
    head.append(element("th", { scope: "col" }, String(line)));
  }
  const body = element("tbody");
  for (let column = 0; column < rows; column++) {
    const row = element("tr", {}, element("th", { scope: "row" }, String(column)));
    for (let line = 0; line < columns; line++) {
      row.append(element("td", {}, valueAt(view, column, line)));
    }
    body.append(row);
  }
  const table = element(
    "table",
    {},
    caption(view, rows, columns),
    element("thead", {}, head),
    body,
  );
  const label = `values of ${view.spec.name}`;
  return element(
    "div",
    { class: "scroll", role: "region", tabindex: 0, "aria-label": label },
    table,
  );
}

function caption(view, rows, columns) {
  const isWhole = rows === view.columns && columns === view.lines;
  const part = `; the first ${rows} × ${columns} of ${view.columns} × ${view.lines} values`;
  return element("caption", {}, `${axesOf(view)}${isWhole ? "" : part}`);
}

// Which axis runs down, and which one across.
function axesOf(view) {
  if (!view.tensor.shape.length) return "one value";
  const across = view.line === null ? "" : `, across: ${view.nameOf(view.line)}`;
  return `down: ${view.nameOf(view.x)}${across}`;
}

function figure(view, column, line) {
  return short(view.values[view.at(column, line)]);
}

function field(view, column, line) {
  const index = view.at(column, line);
  const label = `${view.spec.name} at ${column}, ${line}`;
  const input = element("input", { type: "number", step: "any", "aria-label": label });
  input.value = String(Number(view.values[index].toPrecision(7)));
  input.addEventListener("change", () => {
    view.set(index, Number(input.value) || 0);
    view.edited();
  });
  return input;
}
