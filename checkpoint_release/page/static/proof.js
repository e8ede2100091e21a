// What the reader sees of the proof: verdict, steps, figure and table.

import { BACKENDS } from "./runtime.js";
import { drawChart, mark } from "./chart.js";
import { byId, element, short, svgElement } from "./dom.js";

const WORDS = {
  checking: "Checking…",
  passed: "Passed",
  wrong: "WRONG",
  refused: "Refused",
  failed: "Not proven",
};
const MARKS = { waiting: "○", running: "◌", done: "✓", failed: "✕" };

// state: a key of WORDS; the word may be a more exact one.
export function showVerdict(state, text, word = WORDS[state]) {
  byId("verdict").dataset.state = state;
  byId("verdict-word").textContent = word;
  byId("verdict-text").textContent = text;
}

// A step of the proof, as the reader follows it.
export class Step {
  constructor(title) {
    this.mark = element("span", { class: "mark", "aria-hidden": "true" });
    this.detail = element("span");
    this.item = element(
      "li",
      {},
      this.mark,
      element("div", {}, element("b", {}, title), this.detail),
    );
    byId("steps").append(this.item);
    this.set("waiting", "");
  }

  set(state, detail) {
    this.item.dataset.state = state;
    this.mark.textContent = MARKS[state];
    this.detail.textContent = detail;
  }
}

// results: [{backend, judgement}], of one model.
export function showFigures(results, recorded) {
  const { judgement } = results[0];
  const series = results.map((result) => ({
    kind: result.backend,
    outputs: result.judgement.outputs,
  }));
  const place = byId("chart");
  byId("chart-caption").textContent = `Error of each output, in multiples of ${judgement.unit}`;
  byId("chart-note").textContent = note(judgement);
  byId("chart-figure").hidden = false;
  const draw = () => drawChart(place, judgement, series, recorded);
  draw();
  observer?.disconnect();
  let width = place.clientWidth;
  observer = new ResizeObserver(() => {
    if (place.clientWidth === width) return;
    width = place.clientWidth;
    draw();
  });
  observer.observe(place);
  byId("legend").replaceChildren(...legend(results, recorded));
  byId("figures").replaceChildren(table(results));
  byId("figures").hidden = false;
}

let observer = null;

// What the unit of the chart is, for those who read of it for the first time.
function note({ reduced, limit }) {
  if (reduced) return "In reduced precision, a share of each output’s magnitude is allowed.";
  return (
    "The noise floor is how far rounding takes the original model, run in float32, from" +
    ` double precision. Up to ${short(limit)} times as far passes.`
  );
}

function legend(results, recorded) {
  const entries = results.map(({ backend }) => [backend, `${BACKENDS[backend]}, in this browser`]);
  if (Object.keys(recorded).length)
    entries.push(["recorded", "ONNX Runtime, when it was released"]);
  return entries.map(([kind, text]) => {
    const icon = svgElement("svg", {
      width: 18,
      height: 18,
      viewBox: "0 0 18 18",
      "aria-hidden": "true",
    });
    icon.append(mark(kind, 9, 9));
    return element("li", {}, icon, text);
  });
}

function table(results) {
  const { judgement } = results[0];
  const head = element("tr", {}, element("th", { scope: "col" }, "output"));
  const allowed = `allowed ${judgement.reduced ? "typical" : "largest"}`;
  const backend = results.length > 1 ? ["on"] : [];
  const multiple = judgement.reduced ? "× allowed" : "× floor";
  const titles = [...backend, multiple, "verdict", "typical error", "largest error", allowed];
  for (const title of titles) {
    head.append(element("th", { scope: "col", class: title === "on" ? "text" : null }, title));
  }
  const body = element("tbody");
  for (const { name } of judgement.outputs) {
    for (const result of results) {
      body.append(
        row(
          results.length > 1 ? BACKENDS[result.backend] : null,
          result.judgement.outputs.find((output) => output.name === name),
        ),
      );
    }
  }
  return element("table", {}, element("thead", {}, head), body);
}

// backend: its name, null where there is only one.
function row(backend, output) {
  const verdict = output.passed ? "passed" : "WRONG";
  const tag = element("span", { class: output.passed ? "tag" : "tag bad" }, verdict);
  const error = output.remark || `${short(output.error)}×`;
  return element(
    "tr",
    {},
    element("th", { scope: "row" }, output.name),
    backend && element("td", { class: "text" }, backend),
    element("td", { class: output.remark ? "remark" : null }, error),
    element("td", {}, tag),
    element("td", {}, short(output.typical)),
    element("td", {}, short(output.largest)),
    element("td", {}, short(output.allowed)),
  );
}
