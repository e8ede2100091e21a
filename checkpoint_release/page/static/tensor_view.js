// An array as a curve, an image or a table. Inputs can be drawn into the first two and
// typed into the last.

import { colour, drawingOn, element, labelled, selection, short } from "./dom.js";
import { halfToNumber, numberToHalf, numbers } from "./tensors.js";

const HEIGHT = 170; // of a curve, in pixels
const CURVE_LENGTH = 4; // shorter ones are shown as tables
const MOST_LINES = 64;
const MOST_ROWS = 100;
const MOST_COLUMNS = 32;
const MOST_FIELDS = 256;

export class TensorView {
  // spec: name, dtype, shape, description; onEdit: called after a person changed the
  // values, null where they can't.
  constructor(spec, onEdit = null) {
    this.spec = spec;
    this.onEdit = onEdit;
    this.about = element("p", { class: "about" });
    this.controls = element("div", { class: "actions" });
    this.body = element("div");
    this.layout = element("code", { class: "layout" });
    this.source = element("span", { class: "source" });
    const heading = element(
      "div",
      { class: "heading" },
      element("h4", {}, spec.name),
      this.layout,
      this.source,
    );
    this.root = element("div", { class: "tensor" }, heading, this.about, this.controls, this.body);
    this.fixed = {};
    new ResizeObserver(() => this.drawAgain()).observe(this.root);
  }

  show(tensor, origin = "") {
    const sameShape = this.tensor && String(this.tensor.shape) === String(tensor.shape);
    this.tensor = tensor;
    this.values = numbers(tensor);
    this.origin = origin;
    if (!sameShape) this.lay();
    this.describe();
    this.draw();
  }

  describe() {
    this.layout.textContent = `${this.tensor.dtype} [${this.tensor.shape.join(", ")}]`;
    this.about.textContent = this.spec.description ?? "";
    this.source.textContent = this.origin;
  }

  // Which axis runs along x, which one gives the lines, and which are fixed.
  lay() {
    const { shape } = this.tensor;
    const names = shape.map((_, axis) => this.spec.shape?.[axis]);
    const free = shape.map((_, axis) => axis);
    this.picture = isPicture(shape, names);
    const moving = free.filter(
      (axis) => typeof names[axis] === "string" && names[axis] !== "batch" && shape[axis] > 1,
    );
    const longest = free.reduce((one, other) => (shape[other] > shape[one] ? other : one), 0);
    this.x = moving[0] ?? longest;
    this.line = free.findLast((axis) => axis !== this.x) ?? null;
    if (this.picture) [this.x, this.line] = [shape.length - 1, shape.length - 2];
    this.fixed = {};
    for (const axis of free) {
      const isChannel = this.picture && axis === shape.length - 3;
      if (axis !== this.x && axis !== this.line && !isChannel) this.fixed[axis] = 0;
    }
    this.chosen = 0;
    const length = shape[this.x] ?? 1;
    this.kind = this.picture ? "image" : length >= CURVE_LENGTH ? "curve" : "table";
    this.layControls(names);
  }

  layControls(names) {
    const kinds = [
      ["curve", "curve"],
      ["image", "image"],
      ["table", "table"],
    ];
    const control = selection(
      kinds,
      this.kind,
      (kind) => ((this.kind = kind), this.layControls(names), this.draw()),
    );
    this.controls.replaceChildren(labelled("show as", control));
    for (const axis of Object.keys(this.fixed)) {
      this.index(
        names[axis] ?? `axis ${axis}`,
        this.tensor.shape[axis],
        (index) => (this.fixed[axis] = index),
      );
    }
    const lines = this.line === null ? 1 : this.tensor.shape[this.line];
    if (this.kind === "curve" && lines > 1) {
      const name = names[this.line];
      this.index(typeof name === "string" ? name : "line", lines, (index) => (this.chosen = index));
    }
    if (this.onEdit && this.kind === "image") {
      const brush = element("input", { type: "number", step: "any", value: "1" });
      this.brush = () => Number(brush.value) || 0;
      this.controls.append(labelled("draw with", brush));
    }
  }

  // A number field for an index; nothing where there is only one.
  index(name, size, set) {
    if (size < 2) return;
    const field = element("input", { type: "number", min: 0, max: size - 1, value: 0 });
    field.addEventListener("input", () => {
      set(Math.min(Math.max(Math.trunc(Number(field.value)) || 0, 0), size - 1));
      this.draw();
    });
    this.controls.append(labelled(`${name} (of ${size})`, field));
  }

  get columns() {
    return this.tensor.shape[this.x] ?? 1;
  }

  get lines() {
    return this.line === null ? 1 : this.tensor.shape[this.line];
  }

  // Where an element lies among the values.
  at(column, line, channel = 0) {
    const { shape } = this.tensor;
    let index = 0;
    for (let axis = 0; axis < shape.length; axis++) {
      let place = this.fixed[axis] ?? channel;
      if (axis === this.x) place = column;
      else if (axis === this.line) place = line;
      index = index * shape[axis] + place;
    }
    return index;
  }

  drawAgain() {
    if (this.tensor && this.kind !== "table") this.draw();
  }

  draw() {
    if (this.kind === "table") {
      this.body.replaceChildren(this.table());
      return;
    }
    if (this.body.firstChild !== this.canvas || !this.canvas) {
      this.canvas = element("canvas", { role: "img", class: this.onEdit ? "drawable" : null });
      if (this.onEdit) this.listen(this.canvas);
      this.body.replaceChildren(this.canvas);
    }
    this.canvas.setAttribute("aria-label", this.summary());
    const width = Math.max(this.body.clientWidth, 120);
    if (this.kind === "curve") this.drawCurve(width);
    else this.drawImage(width);
  }

  summary() {
    const { least, most, mean } = rangeOf(this.values);
    return `${this.spec.name}, ${this.kind}: values from ${short(least)} to ${short(most)}, mean ${short(mean)}`;
  }

  drawCurve(width) {
    const context = drawingOn(this.canvas, width, HEIGHT);
    const margin = 14;
    const range = rangeOf(this.values);
    // While somebody draws, the axis must not run away under the pointer.
    this.axis = this.drawing
      ? this.axis
      : { least: range.least, most: range.most > range.least ? range.most : range.least + 1 };
    const { least, most } = this.axis;
    const x = (column) => margin + (column / Math.max(this.columns - 1, 1)) * (width - 2 * margin);
    const y = (value) =>
      HEIGHT - margin - ((value - least) / (most - least)) * (HEIGHT - 2 * margin);
    this.fromPointer = (px, py) => [
      clamp(Math.round(((px - margin) / (width - 2 * margin)) * (this.columns - 1)), this.columns),
      this.chosen,
      least + ((HEIGHT - margin - py) / (HEIGHT - 2 * margin)) * (most - least),
    ];
    const trace = (line) => {
      context.beginPath();
      for (let column = 0; column < this.columns; column++) {
        context.lineTo(x(column), y(this.values[this.at(column, line)]));
      }
      context.stroke();
    };
    context.strokeStyle = colour("line");
    context.lineWidth = 1;
    const step = Math.max(1, Math.ceil(this.lines / MOST_LINES));
    for (let line = 0; line < this.lines; line += step) trace(line);
    context.strokeStyle = colour("accent");
    context.lineWidth = 2.2;
    context.lineJoin = "round";
    trace(this.chosen);
    context.fillStyle = colour("muted");
    context.font = "12px system-ui, sans-serif";
    context.fillText(short(most), 3, 11);
    context.fillText(short(least), 3, HEIGHT - 2);
  }

  drawImage(width) {
    const most = this.picture ? 320 : 260;
    const scale = Math.min(width / this.columns, most / this.lines);
    const height = Math.max(Math.round(this.lines * scale), 12);
    const drawn = this.picture ? this.columns * scale : width;
    const context = drawingOn(this.canvas, width, height);
    const cell = [drawn / this.columns, height / this.lines];
    this.fromPointer = (px, py) => [
      clamp(Math.floor(px / cell[0]), this.columns),
      clamp(Math.floor(py / cell[1]), this.lines),
      this.brush(),
    ];
    context.imageSmoothingEnabled = false;
    context.drawImage(this.pixels(), 0, 0, drawn, height);
  }

  // One pixel an element: colours of a picture, otherwise blue below zero, orange above.
  pixels() {
    const { least, most } = rangeOf(this.values);
    const span = most - least || 1;
    const extent = Math.max(Math.abs(least), Math.abs(most)) || 1;
    const channels = this.picture ? this.tensor.shape.at(-3) : 1;
    const canvas = element("canvas", { width: this.columns, height: this.lines });
    const context = canvas.getContext("2d");
    const image = context.createImageData(this.columns, this.lines);
    for (let line = 0; line < this.lines; line++) {
      for (let column = 0; column < this.columns; column++) {
        const pixel = 4 * (line * this.columns + column);
        const value = (channel) => this.values[this.at(column, line, channel)];
        const colours = this.picture
          ? [0, 1, 2].map((channel) => (255 * (value(channels === 3 ? channel : 0) - least)) / span)
          : heat(value(0) / extent);
        image.data.set([...colours, 255], pixel);
      }
    }
    context.putImageData(image, 0, 0);
    return canvas;
  }

  table() {
    const columns = Math.min(this.lines, MOST_COLUMNS);
    const rows = Math.min(this.columns, MOST_ROWS);
    const editable = this.onEdit && this.lines * this.columns <= MOST_FIELDS;
    const table = element("table");
    const cut = rows < this.columns || columns < this.lines;
    if (cut)
      table.append(
        element(
          "caption",
          {},
          `the first ${rows} × ${columns} of ${this.columns} × ${this.lines} values`,
        ),
      );
    const head = element("tr", {}, element("td"));
    for (let line = 0; line < columns; line++)
      head.append(element("th", { scope: "col" }, String(line)));
    const body = element("tbody");
    for (let column = 0; column < rows; column++) {
      const row = element("tr", {}, element("th", { scope: "row" }, String(column)));
      for (let line = 0; line < columns; line++) {
        const index = this.at(column, line);
        row.append(
          element(
            "td",
            {},
            editable ? this.cell(index, `${column}, ${line}`) : short(this.values[index]),
          ),
        );
      }
      body.append(row);
    }
    table.append(element("thead", {}, head), body);
    return element(
      "div",
      { class: "scroll", role: "region", tabindex: 0, "aria-label": `values of ${this.spec.name}` },
      table,
    );
  }

  cell(index, place) {
    const label = `${this.spec.name} at ${place}`;
    const field = element("input", { type: "number", step: "any", "aria-label": label });
    field.value = String(Number(this.values[index].toPrecision(7)));
    field.addEventListener("change", () => {
      this.set(index, Number(field.value) || 0);
      this.edited();
    });
    return field;
  }

  listen(canvas) {
    const paint = (event) => {
      const [column, line, value] = this.fromPointer(event.offsetX, event.offsetY);
      this.fill(column, line, value);
      this.draw();
    };
    canvas.addEventListener("pointerdown", (event) => {
      canvas.setPointerCapture(event.pointerId);
      this.drawing = true;
      this.previous = null;
      paint(event);
    });
    canvas.addEventListener("pointermove", (event) => this.drawing && paint(event));
    const end = () => {
      if (!this.drawing) return;
      this.drawing = false;
      this.edited();
    };
    canvas.addEventListener("pointerup", end);
    canvas.addEventListener("pointercancel", end);
  }

  // Values under the pointer, and on a curve also those that it jumped over.
  fill(column, line, value) {
    if (this.kind === "image") {
      const channels = this.picture ? this.tensor.shape.at(-3) : 1;
      for (let channel = 0; channel < channels; channel++)
        this.set(this.at(column, line, channel), value);
      return;
    }
    const [from, start] = this.previous ?? [column, value];
    const distance = Math.abs(column - from);
    for (let step = 0; step <= distance; step++) {
      const share = distance ? step / distance : 1;
      const place = from + Math.sign(column - from) * step;
      this.set(this.at(place, line), start + share * (value - start));
    }
    this.previous = [column, value];
  }

  set(index, value) {
    const { dtype, data } = this.tensor;
    const { low, high } = this.spec;
    let kept = value;
    if (!dtype.startsWith("float")) {
      kept = Math.round(kept);
      if (high !== undefined) kept = Math.min(Math.max(kept, low), high - 1);
    }
    if (dtype === "float16") data[index] = numberToHalf(kept);
    else if (typeof data[index] === "bigint") data[index] = BigInt(kept);
    else data[index] = kept;
    this.values[index] = dtype === "float16" ? halfToNumber(data[index]) : Number(data[index]);
  }

  edited() {
    this.origin = "drawn by you";
    this.describe();
    this.draw();
    this.onEdit(this.tensor);
  }
}

const clamp = (index, size) => Math.min(Math.max(index, 0), size - 1);

function isPicture(shape, names) {
  const [channels, height, width] = shape.slice(-3);
  return (
    shape.length >= 3 &&
    names.at(-3) === channels &&
    [1, 3].includes(channels) &&
    height > 1 &&
    width > 1
  );
}

function rangeOf(values) {
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
