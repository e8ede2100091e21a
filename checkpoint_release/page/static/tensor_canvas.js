// A tensor's values on a canvas, as curves or as an image, and drawing into them. `view`
// is a TensorView: it knows which axis runs along x and which one gives the lines.

import { colour, drawingOn, element, short } from "./dom.js";

const HEIGHT = 186; // of a curve, in pixels
const MARGIN = 14;
const FOOT = 16; // of a curve, with the name of its axis
const MOST_LINES = 64;
const PALE = { few: 0.7, many: 0.25 }; // opacity of the lines that aren't chosen
const MOST_HEIGHT = { picture: 320, heat: 260 }; // of an image, in pixels

export function drawCurve(view, width) {
  const context = drawingOn(view.canvas, width, HEIGHT);
  const range = rangeOf(view.values);
  // While somebody draws, the axis must not run away under the pointer.
  view.axis = view.drawing
    ? view.axis
    : { least: range.least, most: range.most > range.least ? range.most : range.least + 1 };
  const { least, most } = view.axis;
  const x = (column) => MARGIN + (column / Math.max(view.columns - 1, 1)) * (width - 2 * MARGIN);
  const low = HEIGHT - MARGIN - FOOT;
  const y = (value) => low - ((value - least) / (most - least)) * (low - MARGIN);
  view.fromPointer = (px, py) => [
    clamp(Math.round(((px - MARGIN) / (width - 2 * MARGIN)) * (view.columns - 1)), view.columns),
    view.chosen,
    least + ((low - py) / (low - MARGIN)) * (most - least),
  ];
  const trace = (line) => {
    context.beginPath();
    for (let column = 0; column < view.columns; column++) {
      context.lineTo(x(column), y(view.values[view.at(column, line)]));
    }
    context.stroke();
  };
  context.strokeStyle = colour("field");
  context.globalAlpha = view.lines > 8 ? PALE.many : PALE.few;
  context.lineWidth = 1;
  const step = Math.max(1, Math.ceil(view.lines / MOST_LINES));
  for (let line = 0; line < view.lines; line += step) trace(line);
  context.globalAlpha = 1;
  context.strokeStyle = colour("accent");
  context.lineWidth = 2.2;
  context.lineJoin = "round";
  trace(view.chosen);
  context.fillStyle = colour("muted");
  context.font = "12px system-ui, sans-serif";
  context.fillText(short(most), 3, 11);
  context.fillText(short(least), 3, low + MARGIN - 2);
  context.textAlign = "right";
  context.fillText(`${view.nameOf(view.x)} →`, width - 4, HEIGHT - 5);
}

export function drawImage(view, width) {
  const most = MOST_HEIGHT[view.picture ? "picture" : "heat"];
  const scale = Math.min(width / view.columns, most / view.lines);
  const height = Math.max(Math.round(view.lines * scale), 12);
  const drawn = view.picture ? view.columns * scale : width;
  const context = drawingOn(view.canvas, width, height);
  const cell = [drawn / view.columns, height / view.lines];
  view.fromPointer = (px, py) => [
    clamp(Math.floor(px / cell[0]), view.columns),
    clamp(Math.floor(py / cell[1]), view.lines),
    view.brush(),
  ];
  context.imageSmoothingEnabled = false;
  context.drawImage(pixels(view), 0, 0, drawn, height);
}

// One pixel an element: colours of a picture, otherwise blue below zero, orange above.
function pixels(view) {
  const { least, most } = rangeOf(view.values);
  const span = most - least || 1;
  const extent = Math.max(Math.abs(least), Math.abs(most)) || 1;
  const channels = view.picture ? view.tensor.shape.at(-3) : 1;
  const canvas = element("canvas", { width: view.columns, height: view.lines });
  const context = canvas.getContext("2d");
  const image = context.createImageData(view.columns, view.lines);
  for (let line = 0; line < view.lines; line++) {
    for (let column = 0; column < view.columns; column++) {
      const pixel = 4 * (line * view.columns + column);
      const value = (channel) => view.values[view.at(column, line, channel)];
      const colours = view.picture
        ? [0, 1, 2].map((channel) => (255 * (value(channels === 3 ? channel : 0) - least)) / span)
        : heat(value(0) / extent);
      image.data.set([...colours, 255], pixel);
    }
  }
  context.putImageData(image, 0, 0);
  return canvas;
}

// Have a person draw into the values; the view is notified at the end of each stroke.
export function listen(view, canvas) {
  const paint = (event) => {
    const [column, line, value] = view.fromPointer(event.offsetX, event.offsetY);
    fill(view, column, line, value);
    view.draw();
  };
  canvas.addEventListener("pointerdown", (event) => {
    canvas.setPointerCapture(event.pointerId);
    view.drawing = true;
    view.before = view.tensor.data.slice();
    view.previous = null;
    paint(event);
  });
  canvas.addEventListener("pointermove", (event) => view.drawing && paint(event));
  canvas.addEventListener("pointerup", () => {
    if (!view.drawing) return;
    view.drawing = false;
    view.edited();
  });
  // A finger that scrolls the page has drawn nothing.
  canvas.addEventListener("pointercancel", () => {
    if (!view.drawing) return;
    view.drawing = false;
    view.takeBack(view.before);
  });
}

// Values under the pointer, and on a curve also those that it jumped over.
function fill(view, column, line, value) {
  if (view.kind === "image") {
    const channels = view.picture ? view.tensor.shape.at(-3) : 1;
    for (let channel = 0; channel < channels; channel++)
      view.set(view.at(column, line, channel), value);
    return;
  }
  const [from, start] = view.previous ?? [column, value];
  const distance = Math.abs(column - from);
  for (let step = 0; step <= distance; step++) {
    const share = distance ? step / distance : 1;
    const place = from + Math.sign(column - from) * step;
    view.set(view.at(place, line), start + share * (value - start));
  }
  view.previous = [column, value];
}

const clamp = (index, size) => Math.min(Math.max(index, 0), size - 1);

export function rangeOf(values) {
  let [least, most, sum] = [Infinity, -Infinity, 0];
  for (const value of values) {
    if (!Number.isFinite(value)) continue;
    least = Math.min(least, value);
    most = Math.max(most, value);
    sum += value;
  }
  if (least > most) return { least: 0, most: 0, mean: NaN };
  return { least, most, mean: sum / values.length };
}

function heat(share) {
  const [cold, middle, warm] = [
    [49, 84, 186],
    [244, 243, 239],
    [196, 92, 12],
  ];
  const end = share < 0 ? cold : warm;
  const amount = Math.min(Math.abs(share), 1);
  return middle.map((value, i) => value + amount * (end[i] - value));
}
