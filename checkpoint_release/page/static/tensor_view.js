// An array as a curve, an image or a table. Inputs can be drawn into the first two and
// typed into the last.

import { element, labelled, selection, short } from "./dom.js";
import { drawCurve, drawImage, listen, rangeOf } from "./tensor_canvas.js";
import { limitsOf } from "./inputs.js";
import { tableOf } from "./tensor_table.js";
import { halfToNumber, numberToHalf, numbers } from "./tensors.js";

// Shorter ones are shown as tables: along a dimension that varies, and along a fixed one,
// whose places are rather columns of a data set or classes than times.
const CURVE_LENGTH = { varying: 4, fixed: 16 };

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
    this.names = names;
    this.picture = isPicture(shape, names);
    [this.x, this.line] = this.picture
      ? [shape.length - 1, shape.length - 2]
      : axesOf(shape, names);
    const channels = this.picture ? shape.length - 3 : null;
    this.fixed = {};
    for (const axis of shape.keys()) {
      if (![this.x, this.line, channels].includes(axis)) this.fixed[axis] = 0;
    }
    this.chosen = 0;
    const isVarying = isMoving(names[this.x]);
    const length = isVarying ? CURVE_LENGTH.varying : CURVE_LENGTH.fixed;
    this.kind = this.columns >= length ? "curve" : "table";
    if (this.picture) this.kind = "image";
    this.layControls();
  }

  // What people call an axis: its dimension, or its number.
  nameOf(axis) {
    return typeof this.names[axis] === "string" ? this.names[axis] : `axis ${axis}`;
  }

  layControls() {
    const kinds = [
      ["curve", "curve"],
      ["image", "image"],
      ["table", "table"],
    ];
    const control = selection(
      kinds,
      this.kind,
      (kind) => ((this.kind = kind), this.layControls(), this.draw()),
    );
    this.controls.replaceChildren(labelled("show as", control));
    for (const axis of Object.keys(this.fixed)) {
      this.index(
        this.nameOf(axis),
        this.tensor.shape[axis],
        (index) => (this.fixed[axis] = index),
      );
    }
    const lines = this.line === null ? 1 : this.tensor.shape[this.line];
    if (this.kind === "curve" && lines > 1) {
      this.index(this.nameOf(this.line), lines, (index) => (this.chosen = index));
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
    this.controls.append(labelled(`${name}, 0 to ${size - 1}`, field));
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
      this.body.replaceChildren(tableOf(this));
      return;
    }
    if (this.body.firstChild !== this.canvas || !this.canvas) {
      this.canvas = element("canvas", { role: "img" });
      if (this.onEdit) listen(this, this.canvas);
      this.body.replaceChildren(this.canvas);
    }
    if (this.onEdit) this.canvas.className = `drawable ${this.kind}`;
    this.canvas.setAttribute("aria-label", this.summary());
    const width = Math.max(this.body.clientWidth, 120);
    if (this.kind === "curve") drawCurve(this, width);
    else drawImage(this, width);
  }

  summary() {
    const { least, most, mean } = rangeOf(this.values);
    return `${this.spec.name}, ${this.kind}: values from ${short(least)} to ${short(most)}, mean ${short(mean)}`;
  }

  set(index, value) {
    const { dtype, data } = this.tensor;
    let kept = dtype.startsWith("float") ? value : Math.round(value);
    if (dtype === "bool") kept = Math.min(Math.max(kept, 0), 1);
    else if (this.spec.high !== undefined) {
      const [low, high] = limitsOf(this.spec);
      kept = Math.min(Math.max(kept, low), high);
    }
    if (dtype === "float16") data[index] = numberToHalf(kept);
    else if (typeof data[index] === "bigint") data[index] = BigInt(kept);
    else data[index] = kept;
    this.values[index] = dtype === "float16" ? halfToNumber(data[index]) : Number(data[index]);
  }

  // Values as they were before a stroke that is none.
  takeBack(data) {
    this.tensor.data.set(data);
    this.values = numbers(this.tensor);
    this.draw();
  }

  edited() {
    this.origin = "changed by you";
    this.describe();
    this.draw();
    this.onEdit(this.tensor);
  }
}

// A dimension that isn't fixed, such as time. Examples in a batch are no sequence.
const isMoving = (name) => typeof name === "string" && name !== "batch";

// Along x goes a dimension that isn't fixed, and otherwise the longest.
function axesOf(shape, names) {
  const axes = [...shape.keys()];
  const own = axes.filter((axis) => names[axis] !== "batch");
  const longest = own.reduce(
    (one, other) => (shape[other] > shape[one] ? other : one),
    own[0] ?? 0,
  );
  const x = axes.find((axis) => isMoving(names[axis]) && shape[axis] > 1) ?? longest;
  return [x, axes.findLast((axis) => axis !== x) ?? null];
}

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
