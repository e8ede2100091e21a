// Making elements. Texts are set as texts, so that names out of a release stay names.

export function element(tag, attributes = {}, ...children) {
  return filled(document.createElement(tag), attributes, children);
}

export function svgElement(tag, attributes = {}, ...children) {
  return filled(document.createElementNS("http://www.w3.org/2000/svg", tag), attributes, children);
}

function filled(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...children.filter((child) => child !== null && child !== undefined));
  return node;
}

export const byId = (id) => document.getElementById(id);

let count = 0;

// A control with its label above it.
export function labelled(text, control) {
  control.id ||= `control-${++count}`;
  return element("div", { class: "field" }, element("label", { for: control.id }, text), control);
}

export function selection(options, chosen, onchange) {
  const control = element("select", { onchange: () => onchange(control.value) });
  for (const [value, text] of options) {
    control.append(element("option", { value, selected: value === chosen }, text));
  }
  return control;
}

// A short figure for people: two digits, or three where there are as many before the point.
export function short(value) {
  if (Number.isNaN(value)) return "–";
  if (value === Infinity) return "∞";
  if (value === 0) return "0";
  const magnitude = Math.abs(value);
  if (magnitude >= 1e5 || magnitude < 1e-3) return value.toExponential(1).replace("e+", "e");
  return String(Number(value.toPrecision(magnitude >= 100 ? 3 : 2)));
}

export const counted = (count, name) => `${count} ${name}${count === 1 ? "" : "s"}`;

export function bytesText(size) {
  if (size < 1e6) return `${Math.max(1, Math.round(size / 1e3))} kB`;
  if (size < 1e9) return `${(size / 1e6).toFixed(1)} MB`;
  return `${(size / 1e9).toFixed(2)} GB`;
}

export function timeText(milliseconds) {
  if (milliseconds >= 1000) return `${(milliseconds / 1000).toFixed(1)} s`;
  return `${Number(milliseconds.toPrecision(2))} ms`;
}

// The colour that the style sheet gives a name, for canvases.
export function colour(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
}

// A canvas's context in CSS pixels, cleared, as sharp as the screen.
export function drawingOn(canvas, width, height) {
  const scale = globalThis.devicePixelRatio || 1;
  canvas.width = Math.round(width * scale);
  canvas.height = Math.round(height * scale);
  canvas.style.height = `${height}px`;
  const context = canvas.getContext("2d");
  context.scale(scale, scale);
  return context;
}
