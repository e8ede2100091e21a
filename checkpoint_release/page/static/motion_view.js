// The stick figures' own view: a clip with noise and gaps beside what the model makes of
// it, to play, to scrub and to change.

import { byId, colour, drawingOn, element, labelled, selection } from "./dom.js";
import { exampleSizes, generator, normal, shapeOf } from "./inputs.js";
import { ACTIONS, FRAMES_PER_SECOND, GROUND, makeClip, SEGMENTS } from "./motions.js";
import { textOf } from "./problem.js";
import { countOf, tensorOf } from "./tensors.js";

const FRAMES = 75;
const WIDTH = 4 * SEGMENTS; // numbers in a frame
const VIEW = { halfWidth: 1.55, bottom: -1.05, top: 1.35 }; // metres around the pelvis
const TICK = 0.5; // metres between the marks on the ground
const GROUND_REACH = 3; // metres to either side, of the model's ground
const HEAD_RADIUS = 0.1;
const SPEEDS = [
  ["0.25", "¼ ×"],
  ["0.5", "½ ×"],
  ["1", "1 ×"],
  ["2", "2 ×"],
];

export function showMotion({ signature, config, engines }) {
  const motion = signature.inputs.find((spec) => spec.name === "motion");
  const pose = signature.outputs.find((spec) => spec.name === "pose");
  const fits = config.model_type === "stick_figure" && motion?.shape.at(-1) === WIDTH && pose;
  byId("motion").hidden = !fits;
  if (fits) new MotionView(signature, engines).show(byId("motion"));
}

class MotionView {
  constructor(signature, engines) {
    this.signature = signature;
    this.engines = engines;
    this.action = 1;
    this.frame = 0;
    this.speed = 1;
    this.draws = 1;
    this.playing = !matchMedia("(prefers-reduced-motion: reduce)").matches;
  }

  show(place) {
    this.given = element("canvas", { role: "img" });
    this.restored = element("canvas", { role: "img" });
    this.message = element("p", { class: "message", role: "status" });
    const stage = (canvas, caption) =>
      element("figure", {}, canvas, element("figcaption", {}, caption));
    place.replaceChildren(
      element("h2", { id: "motion-title" }, "See it move"),
      element(
        "p",
        {},
        "A clip with noise and missing frames, and what the model makes of it. The pale figure is the true motion.",
      ),
      this.actionButtons(),
      element(
        "div",
        { class: "stages" },
        stage(this.given, "Given"),
        stage(this.restored, "Restored by the model"),
      ),
      this.player(),
      this.sliders(),
      this.message,
    );
    new ResizeObserver(() => this.draw()).observe(this.given);
    requestAnimationFrame((now) => this.tick(now));
    this.restore();
  }

  actionButtons() {
    const group = element("div", { class: "actions", role: "group", "aria-label": "Action" });
    this.buttons = ACTIONS.map(({ name }, index) => {
      const pressed = String(index === this.action);
      const button = element("button", { type: "button", "aria-pressed": pressed }, name);
      button.addEventListener("click", () => this.choose(index));
      return button;
    });
    group.append(...this.buttons);
    return group;
  }

  player() {
    const label = () => (this.playing ? "Pause" : "Play");
    const play = element("button", { type: "button", class: "main" }, label());
    const setPlaying = (playing) => {
      this.playing = playing;
      play.textContent = label();
    };
    play.addEventListener("click", () => setPlaying(!this.playing));
    this.scrub = element("input", { type: "range", min: 0, max: FRAMES - 1, value: 0 });
    this.scrub.addEventListener("input", () => {
      setPlaying(false);
      this.frame = Number(this.scrub.value);
      this.draw();
    });
    const speed = selection(SPEEDS, "1", (value) => (this.speed = Number(value)));
    const scrub = labelled("frame", this.scrub);
    scrub.classList.add("grow");
    return element("div", { class: "actions" }, play, labelled("speed", speed), scrub);
  }

  sliders() {
    const slider = (name, most, step, value, text) => {
      const field = element("input", { type: "range", min: 0, max: most, step, value });
      const wrapper = labelled("", field);
      const update = () =>
        (wrapper.firstChild.textContent = `${name}: ${text(Number(field.value))}`);
      field.addEventListener("input", () => (update(), this.restore()));
      update();
      this[name] = () => Number(field.value);
      return wrapper;
    };
    const again = element("button", { type: "button" }, "Other noise and gaps");
    again.addEventListener("click", () => (this.draws++, this.restore()));
    return element(
      "div",
      { class: "sliders" },
      slider("noise", 0.15, 0.005, 0.05, (value) => `${(100 * value).toFixed(1)} cm`),
      slider("missing", 30, 1, 12, (value) => `two stretches of ${value} frames`),
      element("div", { class: "actions" }, again),
    );
  }

  choose(index) {
    this.action = index;
    this.buttons.forEach((button, each) =>
      button.setAttribute("aria-pressed", String(each === index)),
    );
    this.restore();
  }

  // Corrupt the clip anew and have the model restore it; of several calls while it
  // computes, the last one counts.
  async restore() {
    this.wanted = true;
    if (this.busy) return;
    this.busy = true;
    try {
      while (this.wanted) {
        this.wanted = false;
        await this.compute();
      }
    } catch (error) {
      this.message.classList.add("bad");
      this.message.textContent = textOf(error);
    }
    this.busy = false;
  }

  async compute() {
    const truth = makeClip(this.action, FRAMES);
    const { seen, gone } = corrupted(truth, this.noise(), this.missing(), this.draws);
    const engine = this.engines.values().next().value;
    const { outputs } = await engine.run(inputsOf(this.signature, seen, this.action));
    const restored = framesOf(outputs.pose.data, truth.length);
    const ground = outputs.environment ? Array.from(outputs.environment.data) : null;
    this.clip = { truth, seen, gone, restored, ground };
    this.message.textContent = comparison(this.clip);
    this.draw();
  }

  tick(now) {
    const elapsed = now - (this.before ?? now);
    this.before = now;
    if (this.playing && this.clip) {
      this.position =
        ((this.position ?? 0) + (elapsed / 1000) * FRAMES_PER_SECOND * this.speed) % FRAMES;
      this.frame = Math.floor(this.position);
      this.draw();
    } else {
      this.position = this.frame;
    }
    requestAnimationFrame((next) => this.tick(next));
  }

  draw() {
    if (!this.clip) return;
    const { truth, seen, gone, restored, ground } = this.clip;
    const { frame } = this;
    this.scrub.value = frame;
    const action = ACTIONS[this.action].name;
    const state = gone.has(frame) ? "missing" : "with noise";
    this.given.setAttribute("aria-label", `A figure: ${action}, ${state}`);
    this.restored.setAttribute("aria-label", `The restored figure: ${action}`);
    const middle = pelvisOf(truth[frame]);
    drawStage(this.given, {
      truth: truth[frame],
      figure: gone.has(frame) ? null : seen[frame],
      middle,
    });
    drawStage(this.restored, { truth: truth[frame], figure: restored[frame], middle, ground });
  }
}

// Noise on every coordinate, and two stretches of frames that are all zeros.
function corrupted(truth, noise, length, draw) {
  const random = generator(draw, "noise");
  const places = generator(draw, "gaps");
  const gone = new Set();
  for (let stretch = 0; stretch < 2; stretch++) {
    const start = Math.floor(places() * truth.length);
    for (let frame = start; frame < Math.min(start + length, truth.length); frame++)
      gone.add(frame);
  }
  const seen = truth.map((figure, frame) =>
    figure.map((value) => (gone.has(frame) ? 0 : value + noise * normal(random))),
  );
  return { seen, gone };
}

// Of inputs beside motion and action, a camera is still and the others are zeros.
function inputsOf(signature, seen, action) {
  const sizes = { ...exampleSizes(signature), sequence: seen.length, batch: 1 };
  const inputs = {};
  for (const spec of signature.inputs) {
    const shape = shapeOf(spec, sizes);
    let values = new Array(countOf(shape)).fill(0);
    if (spec.name === "motion") values = seen.flat();
    if (spec.name === "action_sequence") values.fill(action);
    if (spec.name === "camera_data") values = values.map((_, i) => (i % 3 === 2 ? 1 : 0));
    inputs[spec.name] = tensorOf(spec.dtype, shape, values);
  }
  return inputs;
}

const framesOf = (data, count) =>
  Array.from({ length: count }, (_, frame) =>
    Array.from(data.slice(frame * WIDTH, (frame + 1) * WIDTH)),
  );

function comparison({ truth, seen, gone, restored }) {
  const there = truth.map((_, frame) => frame).filter((frame) => !gone.has(frame));
  const off = (figures, frames) => {
    const errors = frames.flatMap((frame) =>
      figures[frame].map((value, i) => (value - truth[frame][i]) ** 2),
    );
    return (
      100 * Math.sqrt(errors.reduce((sum, error) => sum + error, 0) / Math.max(errors.length, 1))
    ).toFixed(1);
  };
  const gaps = gone.size
    ? `, and ${off(restored, [...gone])} cm in the ${gone.size} missing frames`
    : "";
  return `Given, the figure is off by ${off(seen, there)} cm; restored, by ${off(restored, there)} cm${gaps}.`;
}

// The middle of the hips along x, which the camera follows.
const pelvisOf = (figure) => (figure[WIDTH - 4] + figure[WIDTH - 2]) / 2;

// ground: heights that the model gives for x from -3 to 3; null: not drawn.
function drawStage(canvas, { truth, figure, middle, ground = null }) {
  const width = canvas.clientWidth;
  if (!width) return;
  const scale = width / (2 * VIEW.halfWidth);
  const height = Math.round((VIEW.top - VIEW.bottom) * scale);
  const context = drawingOn(canvas, width, height);
  const x = (metres) => (metres - middle + VIEW.halfWidth) * scale;
  const y = (metres) => (VIEW.top - metres) * scale;
  drawGround(context, ground ?? [GROUND, GROUND], x, y, middle);
  drawFigure(context, truth, x, y, scale, {
    body: colour("line"),
    left: colour("line"),
    right: colour("line"),
  });
  if (figure) {
    drawFigure(context, figure, x, y, scale, {
      body: colour("ink"),
      left: colour("accent"),
      right: colour("second"),
    });
  } else {
    context.fillStyle = colour("muted");
    context.font = "600 14px system-ui, sans-serif";
    context.textAlign = "center";
    context.fillText("this frame is missing", width / 2, 22);
  }
}

function drawGround(context, levels, x, y, middle) {
  context.strokeStyle = colour("field");
  context.lineWidth = 1.5;
  context.beginPath();
  levels.forEach((level, i) =>
    context.lineTo(x(-GROUND_REACH + (2 * GROUND_REACH * i) / (levels.length - 1)), y(level)),
  );
  context.stroke();
  const first = Math.ceil((middle - VIEW.halfWidth) / TICK);
  const last = Math.floor((middle + VIEW.halfWidth) / TICK);
  for (let mark = first; mark <= last; mark++) {
    context.beginPath();
    context.moveTo(x(mark * TICK), y(VIEW.bottom + 0.12));
    context.lineTo(x(mark * TICK), y(VIEW.bottom + 0.06));
    context.stroke();
  }
}

// The head is a circle at its segment's end; limbs of the left have another colour.
function drawFigure(context, figure, x, y, scale, colours) {
  context.lineCap = "round";
  context.lineWidth = Math.max(0.035 * scale, 2);
  const sides = [
    "body",
    "body",
    "body",
    "left",
    "left",
    "right",
    "right",
    "left",
    "left",
    "right",
    "right",
    "body",
  ];
  sides.forEach((side, segment) => {
    const [x1, y1, x2, y2] = figure.slice(4 * segment, 4 * segment + 4);
    context.strokeStyle = context.fillStyle = colours[side];
    context.beginPath();
    context.moveTo(x(x1), y(y1));
    context.lineTo(x(x2), y(y2));
    context.stroke();
    if (segment > 0) return;
    context.beginPath();
    context.arc(x(x2), y(y2), HEAD_RADIUS * scale, 0, 2 * Math.PI);
    context.fill();
  });
}
