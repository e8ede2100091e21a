// Using the model, from its signature alone: inputs that are drawn, uploaded or random,
// outputs as curves, images or tables, and how long it takes.

import { byId, element, labelled, selection, timeText } from "./dom.js";
import { checkInputs, checkSize, exampleSizes, randomInput, readInputs } from "./inputs.js";
import { textOf } from "./problem.js";
import { BACKENDS } from "./runtime.js";
import { writeSafetensors } from "./tensors.js";
import { dependsOn, sizeOf } from "./sizes.js";
import { TensorView } from "./tensor_view.js";

const REPEATS = 20; // runs of a measurement

export function showUse({ signature, inputs, engines }) {
  byId("use").hidden = engines.size === 0;
  if (engines.size) new Use(signature, inputs, engines).show(byId("use-body"));
}

class Use {
  constructor(signature, sample, engines) {
    this.signature = signature;
    this.sample = sample;
    this.engines = engines;
    this.backend = [...engines.keys()][0];
    this.tensors = {};
    this.origins = {};
    this.inputViews = {};
    this.outputViews = {};
    this.sizes = exampleSizes(signature);
    this.fields = {};
  }

  show(place) {
    this.message = element("p", { class: "message", role: "status" });
    this.timing = element("p", { class: "message", role: "status" });
    this.outputs = element("div");
    const inputs = element("div", {}, element("h3", {}, "Inputs"), this.controls());
    for (const spec of this.signature.inputs) inputs.append(this.input(spec));
    const outputs = element(
      "div",
      {},
      element("h3", {}, "Outputs"),
      this.runControls(),
      this.message,
      this.timing,
      this.outputs,
    );
    place.replaceChildren(element("div", { class: "columns" }, inputs, outputs));
    this.useSample();
    if (this.isThin()) this.useExampleSizes();
    this.run();
  }

  // Whether the sample has a size of 1 where people expect more, such as an image that is
  // a line. It proves the model, and shows little.
  isThin() {
    const dimensions = Object.entries(this.signature.dimensions ?? {});
    return dimensions.some(
      ([name, { example = 1 }]) => name !== "batch" && this.sizes[name] === 1 && example > 1,
    );
  }

  useExampleSizes() {
    this.sizes = exampleSizes(this.signature);
    this.randomise();
    this.showSizes();
  }

  controls() {
    const row = element("div", { class: "actions" });
    for (const [name, dimension] of Object.entries(this.signature.dimensions ?? {})) {
      const { minimum = 1, maximum, multiple = 1 } = dimension;
      const field = element("input", {
        type: "number",
        min: minimum,
        max: maximum,
        step: multiple,
      });
      field.addEventListener("change", () =>
        this.change(() => this.resize(name, Number(field.value))),
      );
      this.fields[name] = field;
      row.append(labelled(name, field));
    }
    this.seed = element("input", { type: "number", min: 0, value: 1 });
    row.append(labelled("seed", this.seed));
    row.append(
      button("Random inputs", () => this.change(() => this.randomise())),
      button("The sample", () => this.change(() => this.useSample())),
    );
    const file = fileField((chosen) =>
      this.change(() => this.upload(chosen, this.signature.inputs)),
    );
    row.append(labelled("all inputs from a file (.safetensors, .json)", file));
    return row;
  }

  input(spec) {
    const view = new TensorView(spec, () => {
      this.origins[spec.name] = "changed by you";
      this.run();
    });
    this.inputViews[spec.name] = view;
    const file = fileField((chosen) => this.change(() => this.upload(chosen, [spec])));
    view.root.append(labelled(`${spec.name} from a file (.npy, .json, .safetensors)`, file));
    return view.root;
  }

  runControls() {
    const row = element("div", { class: "actions" });
    if (this.engines.size > 1) {
      const options = [...this.engines.keys()].map((backend) => [backend, BACKENDS[backend]]);
      row.append(
        labelled(
          "on",
          selection(options, this.backend, (backend) => ((this.backend = backend), this.run())),
        ),
      );
    }
    const run = element(
      "button",
      { class: "main", type: "button", onclick: () => this.run() },
      "Run",
    );
    const measure = element(
      "button",
      { type: "button", onclick: () => this.measure() },
      `Measure ${REPEATS} runs`,
    );
    const save = element("button", { type: "button", onclick: () => this.save() }, "Save outputs");
    row.append(run, measure, save);
    return row;
  }

  useSample() {
    for (const { name } of this.signature.inputs)
      this.take(name, copied(this.sample[name]), "the release’s sample");
    this.agree();
  }

  randomise(names = this.signature.inputs.map((spec) => spec.name)) {
    const seed = Math.trunc(Number(this.seed.value)) || 0;
    for (const spec of this.signature.inputs) {
      if (names.includes(spec.name))
        this.take(spec.name, randomInput(spec, this.sizes, seed), `random, seed ${seed}`);
    }
  }

  resize(name, size) {
    checkSize(name, size, this.signature.dimensions[name]);
    this.sizes[name] = size;
    const affected = this.signature.inputs.filter((spec) => spec.shape.some((size) => dependsOn(size, name)));
    this.randomise(affected.map((spec) => spec.name));
    this.showSizes();
  }

  async upload(file, specs) {
    const tensors = await readInputs(file, specs);
    for (const [name, tensor] of Object.entries(tensors)) this.take(name, tensor, file.name);
    const given = new Set(Object.keys(tensors));
    this.agree(given);
  }

  take(name, tensor, origin) {
    this.tensors[name] = tensor;
    this.origins[name] = origin;
    this.inputViews[name].show(tensor, origin);
  }

  // Take the sizes of the given inputs; the others are drawn anew where theirs differ.
  agree(given = new Set(Object.keys(this.tensors))) {
    for (const spec of this.signature.inputs) {
      if (!given.has(spec.name)) continue;
      spec.shape.forEach((size, axis) => {
        if (size in this.sizes) this.sizes[size] = this.tensors[spec.name].shape[axis];
      });
    }
    const differs = (spec) =>
      spec.shape.some(
        (size, axis) => sizeOf(size, this.sizes) !== this.tensors[spec.name].shape[axis],
      );
    const others = this.signature.inputs.filter((spec) => !given.has(spec.name) && differs(spec));
    this.randomise(others.map((spec) => spec.name));
    this.showSizes();
  }

  showSizes() {
    for (const [name, field] of Object.entries(this.fields)) field.value = this.sizes[name];
  }

  // Change the inputs and compute anew; after an error the old outputs stay.
  change(action) {
    return this.attempt(async () => {
      await action();
      await this.compute();
    });
  }

  run() {
    return this.attempt(() => this.compute());
  }

  async compute() {
    checkInputs(this.signature, this.tensors);
    const { outputs, times } = await this.engines.get(this.backend).run(this.tensors);
    this.results = outputs;
    this.showOutputs(outputs);
    this.message.textContent = `Computed on ${BACKENDS[this.backend]} in ${timeText(times[0])}.`;
  }

  measure() {
    return this.attempt(async () => {
      checkInputs(this.signature, this.tensors);
      this.timing.textContent = "Measuring…";
      const { times } = await this.engines.get(this.backend).run(this.tensors, REPEATS + 2);
      const sorted = times.slice(2).sort((one, other) => one - other); // two to warm up
      const at = (share) =>
        timeText(sorted[Math.min(Math.floor(share * sorted.length), sorted.length - 1)]);
      this.timing.textContent = `${REPEATS} runs on ${BACKENDS[this.backend]}: median ${at(0.5)}, fastest ${at(0)}, 95 of 100 within ${at(0.95)}.`;
    });
  }

  showOutputs(outputs) {
    for (const [name, tensor] of Object.entries(outputs)) {
      const spec = this.signature.outputs.find((each) => each.name === name) ?? { name };
      if (!this.outputViews[name]) {
        this.outputViews[name] = new TensorView(spec);
        this.outputs.append(this.outputViews[name].root);
      }
      this.outputViews[name].show(tensor);
    }
  }

  save() {
    if (!this.results) return;
    const address = URL.createObjectURL(new Blob([writeSafetensors(this.results)]));
    element("a", { href: address, download: "outputs.safetensors" }).click();
    URL.revokeObjectURL(address);
  }

  async attempt(action) {
    try {
      this.message.classList.remove("bad");
      this.message.textContent = "";
      await action();
    } catch (error) {
      this.timing.textContent = "";
      this.message.classList.add("bad");
      this.message.textContent = textOf(error);
    }
  }
}

function button(text, onclick) {
  return element("button", { type: "button", onclick }, text);
}

function fileField(onchosen) {
  const field = element("input", { type: "file", accept: ".safetensors,.npy,.json" });
  field.addEventListener("change", () => field.files[0] && onchosen(field.files[0]));
  return field;
}

const copied = (tensor) => ({ ...tensor, data: tensor.data.slice() });
