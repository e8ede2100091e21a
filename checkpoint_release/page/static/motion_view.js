// The stick figures' own view: a clip with noise and gaps beside what the model makes of
// it, to play, to scrub and to change.

import { byId, element, labelled, selection } from "./dom.js";
import { exampleSizes, generator, normal, shapeOf } from "./inputs.js";
import { ACTIONS, FRAMES_PER_SECOND, makeClip, SEGMENTS } from "./motions.js";
import { textOf } from "./problem.js";
import { drawStage } from "./stage.js";
import { countOf, tensorOf } from "./tensors.js";

const FRAMES = 48; // as many as the demo was trained on
const WIDTH = 4 * SEGMENTS; // numbers in a frame
const SPEEDS = [
  ["0.25", "¼ ×"],
  ["0.5", "½ ×"],
  ["1", "1 ×"],
  ["2", "2 ×"],
];

let shown = null;

export function showMotion({ signature, config, engines }) {
  const motion = signature.inputs.find((spec) => spec.name === "motion");
  const pose = signature.outputs.find((spec) => spec.name === "pose");
  const isFigure = config.model_type === "stick_figure" && motion?.shape.at(-1) === WIDTH;
  const fits = isFigure && pose && engines.size > 0;
  byId("motion").hidden = !fits;
  shown?.end();
  shown = fits ? new MotionView(signature, engines) : null;
  shown?.show(byId("motion"));
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
    const place = element("div", { class: "sliders" });
    const centimetres = (value) => `${(100 * value).toFixed(1)} cm`;
    const metres = (value) => `${value.toFixed(2)} m`;
    this.noise = this.slider(place, "noise", [0, 0.15, 0.005, 0.05], centimetres);
    const stretches = (value) => `2 × ${value} frames`;
    this.missing = this.slider(place, "missing", [0, 30, 1, 12], stretches);
    if (this.takes("camera_data")) {
      this.camera = this.slider(place, "camera at", [-1, 1, 0.05, 0], metres);
      this.zoom = this.slider(
        place,
        "zoom",
        [0.7, 1.4, 0.05, 1],
        (value) => `${value.toFixed(2)} ×`,
      );
    }
    const again = element("button", { type: "button" }, "Other noise and gaps");
    again.addEventListener("click", () => (this.draws++, this.restore()));
    place.append(element("div", { class: "actions" }, again));
    return place;
  }

  // Adds a slider to a place; returns the function that reads it.
  slider(place, name, [min, max, step, value], text) {
    const field = element("input", { type: "range", min, max, step, value });
    const read = () => Number(field.value);
    const wrapper = labelled(`${name}: ${text(value)}`, field);
    field.addEventListener("input", () => {
      wrapper.firstChild.textContent = `${name}: ${text(read())}`;
      this.restore();
    });
    place.append(wrapper);
    return read;
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
    const partner = this.takes("partner_motion") ? truth.map(mirrored) : null;
    const camera = { x: this.camera?.() ?? 0, zoom: this.zoom?.() ?? 1 };
    const filmed = truth.map((figure) => filmedBy(camera, figure));
    const { seen, gone } = corrupted(filmed, this.noise(), this.missing(), this.draws);
    const engine = this.engines.values().next().value;
    const given = { seen, action: this.action, camera, partner };
    const { outputs } = await engine.run(inputsOf(this.signature, given));
    const restored = framesOf(outputs.pose.data, truth.length);
    const ground = outputs.environment ? Array.from(outputs.environment.data) : null;
    this.clip = { truth, partner, camera, filmed, seen, gone, restored, ground };
    this.message.textContent = comparison(this.clip);
    this.draw();
  }

  end() {
    this.ended = true;
  }

  tick(now) {
    if (this.ended) return;
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

  takes(name) {
    return this.signature.inputs.some((spec) => spec.name === name);
  }

  draw() {
    if (!this.clip) return;
    const { truth, partner, camera, filmed, seen, gone, restored, ground } = this.clip;
    const { frame } = this;
    this.scrub.value = frame;
    const action = ACTIONS[this.action].name;
    const isGone = gone.has(frame);
    const state = isGone ? "missing" : "with noise";
    this.given.setAttribute("aria-label", `A figure: ${action}, ${state}`);
    this.restored.setAttribute("aria-label", `The restored figure: ${action}`);
    const other = partner?.[frame] ?? null;
    drawStage(this.given, {
      truth: filmed[frame],
      figure: isGone ? null : seen[frame],
      partner: other && filmedBy(camera, other),
    });
    drawStage(this.restored, {
      truth: truth[frame],
      figure: restored[frame],
      partner: other,
      ground,
    });
  }
}

// A partner who does the same two metres away, face to face.
const mirrored = (figure) => figure.map((value, i) => (i % 2 === 0 ? 2 - value : value));

// A figure as a camera sees it, which stands still at a place along x.
const filmedBy = ({ x, zoom }, figure) =>
  figure.map((value, i) => zoom * (i % 2 === 0 ? value - x : value));

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

// Inputs that the view knows nothing of are zeros.
function inputsOf(signature, { seen, action, camera, partner }) {
  const sizes = { ...exampleSizes(signature), sequence: seen.length, batch: 1 };
  const values = {
    motion: seen.flat(),
    action_sequence: seen.map(() => action),
    camera_data: seen.flatMap(() => [camera.x, 0, camera.zoom]),
    partner_motion: partner?.flat(),
  };
  const inputs = {};
  for (const spec of signature.inputs) {
    const shape = shapeOf(spec, sizes);
    const given = values[spec.name] ?? new Array(countOf(shape)).fill(0);
    inputs[spec.name] = tensorOf(spec.dtype, shape, given);
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
