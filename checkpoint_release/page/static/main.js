// The page: it checks the release, proves its model here, and lets people use it.

import {
  bytesText,
  byId,
  counted,
  element,
  labelled,
  selection,
  short,
  timeText,
} from "./dom.js";
import { judge } from "./judge.js";
import { showMotion } from "./motion_view.js";
import { Problem, Refused, textOf } from "./problem.js";
import { Step, showFigures, showVerdict } from "./proof.js";
import { openRelease } from "./release.js";
import { BACKENDS, Engine, hasWebGpu, runtimeIsLocal, runtimeSize } from "./runtime.js";
import { readSafetensors } from "./tensors.js";
import { showUse } from "./use.js";

const PARITY = "parity.json";
const LARGE = 100e6; // bytes that are fetched only when asked for

const steps = {
  files: new Step("The files are those listed"),
  runtime: new Step("A runtime is loaded"),
  sample: new Step("The sample is computed"),
  judged: new Step("Errors are within the limit"),
};
const state = { release: null, model: null, engines: new Map(), results: [], local: false };
let running = null; // the step that an error belongs to

async function main() {
  showVerdict("checking", "The release’s files are fetched and their SHA-256 is computed.");
  running = steps.files;
  running.set("running", "");
  state.release = await openRelease(new URL("../", import.meta.url));
  await showFacts(state.release);
  const models = state.release.models();
  if (!models.length)
    throw new Problem("the release holds no ONNX model, and that is what this page runs");
  if (models.length > 1) offerModels(models);
  await choose(models[0]);
}

function offerModels(models) {
  const options = models.map((model) => [model.name, `${model.path} (${bytesText(model.size)})`]);
  const byName = (name) => models.find((model) => model.name === name);
  const control = selection(options, models[0].name, (name) => attempt(() => choose(byName(name))));
  byId("actions").append(labelled("Model", control));
}

async function choose(model) {
  for (const engine of state.engines.values()) engine.stop();
  state.engines.clear();
  state.results = [];
  state.model = model;
  byId("webgpu")?.remove();
  byId("fetch")?.remove();
  for (const step of Object.values(steps)) step.set("waiting", "");
  if (model.size > LARGE) {
    showVerdict(
      "checking",
      `${model.path} has ${bytesText(model.size)}, and is fetched when you ask for it.`,
    );
    const start = element(
      "button",
      { id: "fetch", class: "main", type: "button" },
      "Fetch and check it",
    );
    start.addEventListener("click", () => attempt(() => (start.remove(), prove(model))));
    byId("actions").append(start);
    return;
  }
  await prove(model);
}

async function prove(model) {
  await readFiles(model);
  state.local = await runtimeIsLocal();
  await proveOn("wasm");
  await offerWebGpu();
  offerUse();
}

// The model may be used where it computes what it should.
function offerUse() {
  const { config, sample } = state.files;
  const engines = new Map();
  for (const { backend, judgement } of state.results) {
    if (judgement.passed) engines.set(backend, state.engines.get(backend));
  }
  const signature = config.signature ?? signatureOf(sample);
  const shared = { signature, config, inputs: sample.inputs, engines };
  showUse(shared);
  showMotion(shared);
}

// Everything that the proof reads, each file held against release.json.
async function readFiles(model) {
  const { release } = state;
  running = steps.files;
  running.set("running", "");
  const parity = await release.json(PARITY);
  if (parity.passed !== true)
    throw new Refused("parity.json says that the release’s own check failed");
  const { sample } = release.description;
  const inputs = readSafetensors(await release.bytes(sample.inputs), sample.inputs);
  const outputs = readSafetensors(await release.bytes(sample.outputs), sample.outputs);
  if (!Object.keys(outputs).length) throw new Refused(`${sample.outputs} holds no output`);
  // A format's own lies beside the model; where all formats share one, it lies in the root.
  const configPaths = [`${model.folder}config.json`, "config.json"];
  const configPath = configPaths.find((path) => path in release.files);
  const config = configPath ? await release.json(configPath) : {};
  const progress = (size) =>
    running.set("running", `${model.path}: ${bytesText(size)} of ${bytesText(model.size)}`);
  const bytes = await release.bytes(model.path, progress);
  const weights = [];
  for (const path of release.weightFiles(model)) {
    weights.push({ path: path.slice(model.folder.length), data: await release.bytes(path) });
  }
  const digest = release.files[model.path].sha256;
  running.set(
    "done",
    `${release.checked.size} files; ${model.path} has SHA-256 ${digest.slice(0, 12)}…`,
  );
  performance.mark("files");
  state.files = { parity, sample: { inputs, outputs }, config, bytes, weights };
}

async function proveOn(backend) {
  const { parity, sample, bytes, weights } = state.files;
  running = steps.runtime;
  const size = bytesText(await runtimeSize(backend));
  const onProgress = (got) =>
    running.set(
      "running",
      `onnxruntime-web for ${BACKENDS[backend]}: ${bytesText(got)} of ${size}`,
    );
  onProgress(0);
  const engine = await Engine.start(backend, bytes, weights, { local: state.local, onProgress });
  state.engines.set(backend, engine);
  const threads = engine.threads > 1 ? `, ${engine.threads} threads` : "";
  running.set(
    "done",
    `onnxruntime-web ${engine.version} on ${engine.name}${threads}; its files have the pinned SHA-256`,
  );

  running = steps.sample;
  running.set("running", "");
  const { outputs, times } = await engine.run(sample.inputs);
  const given = counted(Object.keys(sample.inputs).length, "input");
  const computed = counted(Object.keys(outputs).length, "output");
  running.set("done", `${given}, ${computed}, in ${timeText(times[0])}`);

  running = steps.judged;
  const expected = inOrder(sample.outputs, state.files.config.signature);
  const judgement = judge(outputs, expected, parity, state.model.name);
  state.results.push({ backend, judgement, milliseconds: times[0] });
  showResults();
  performance.mark("verdict");
}

// Arrays in the order of the signature; those that it doesn't name come last.
function inOrder(arrays, signature) {
  const names = (signature?.outputs ?? []).map((spec) => spec.name);
  const known = names.filter((name) => name in arrays);
  const all = [...new Set([...known, ...Object.keys(arrays)])];
  return Object.fromEntries(all.map((name) => [name, arrays[name]]));
}

function showResults() {
  const { results } = state;
  const right = results.filter(({ judgement }) => judgement.passed);
  const wrong = results.filter(({ judgement }) => !judgement.passed);
  const names = (some) => some.map(({ backend }) => BACKENDS[backend]).join(" and ");
  const sentences = [];
  if (right.length) {
    const worst = worstOf(right);
    const found = worst.error ? `: the largest error is ${statement(worst)}` : ", to the last bit";
    sentences.push(
      `On ${names(right)}, in this browser, the model computes what its checkpoint computes${found}.`,
    );
  }
  for (const result of wrong) sentences.push(complaint(result));
  if (wrong.length) {
    sentences.push(right.length ? `Use ${names(right)} here.` : "Don’t use this model here.");
  }
  const word = wrong.length && right.length ? `WRONG on ${names(wrong)}` : undefined;
  showVerdict(wrong.length ? "wrong" : "passed", sentences.join(" "), word);
  const detail = results.map((result) => {
    const { error, judgement } = worstOf([result]);
    return `${BACKENDS[result.backend]}: at most ${short(error)} × ${judgement.unit}`;
  });
  steps.judged.set(wrong.length ? "failed" : "done", detail.join("; "));
  showFigures(results, recordedErrors());
}

// What is wrong on one backend, by its worst output.
function complaint(result) {
  const { outputs } = result.judgement;
  const count = outputs.filter((output) => !output.passed).length;
  const worst = worstOf([result]);
  const reason = worst.remark || `is off by ${short(worst.largest)}, which is ${statement(worst)}`;
  return (
    `On ${BACKENDS[result.backend]}, ${count} of ${outputs.length} outputs are not what the` +
    ` checkpoint computes: ${worst.name} ${reason}.`
  );
}

function worstOf(results) {
  const outputs = results.flatMap(({ judgement }) =>
    judgement.outputs.map((output) => ({ ...output, judgement })),
  );
  return outputs.reduce((one, other) => (other.error > one.error ? other : one));
}

function statement({ error, judgement }) {
  if (judgement.reduced) return `${short(100 * error)} % of what is allowed in reduced precision`;
  return `${short(error)} times the noise floor, and ${short(judgement.limit)} times is allowed`;
}

// What the release's own check measured, by output.
function recordedErrors() {
  const figures = state.files.parity.formats[state.model.name];
  const recorded = {};
  for (const [name, output] of Object.entries(figures?.outputs ?? {})) {
    const share = output.share_of_output;
    const error = share === undefined ? output.times_floor : share / output.limit;
    if (error !== undefined && error !== null) recorded[name] = error;
  }
  return recorded;
}

// WebGPU is a second proof: at once where its files are here, otherwise when asked for.
async function offerWebGpu() {
  if (!(await hasWebGpu())) return;
  if (state.local) {
    await proveOnWebGpu();
    return;
  }
  const size = bytesText(await runtimeSize("webgpu"));
  const button = element(
    "button",
    { id: "webgpu", type: "button" },
    `Prove it on WebGPU too (fetches ${size})`,
  );
  button.addEventListener("click", () =>
    attempt(async () => {
      button.remove();
      await proveOnWebGpu();
      offerUse();
    }),
  );
  byId("actions").append(button);
}

// A graphics processor that can't run the model takes nothing from the proof that was made.
async function proveOnWebGpu() {
  try {
    await proveOn("webgpu");
  } catch (error) {
    steps.runtime.set("done", `WebGPU was tried and is not proven: ${textOf(error)}`);
    showResults();
  }
}

async function showFacts(release) {
  const { description } = release;
  const title = await titleOf(release);
  byId("title").textContent = title;
  document.title = `${title} – proof`;
  const total = Object.values(release.files).reduce((sum, file) => sum + file.size, 0);
  const facts = {
    formats: Object.keys(description.formats).join(", "),
    release: `${Object.keys(release.files).length} files, ${bytesText(total)}`,
    "digest of what is built": `sha256 ${description.built.sha256.slice(0, 16)}…`,
  };
  const rows = Object.entries(facts).map(([name, value]) =>
    element("div", {}, element("dt", {}, name), element("dd", {}, value)),
  );
  byId("facts").replaceChildren(...rows);
}

// The card's first heading, otherwise the architecture's name.
async function titleOf(release) {
  if ("README.md" in release.files) {
    const text = new TextDecoder().decode(await release.bytes("README.md"));
    const heading = text.split("\n").find((line) => line.startsWith("# "));
    if (heading) return heading.slice(2).trim();
  }
  return "Release";
}

// A release without a signature still has the sample's names, types and shapes.
function signatureOf({ inputs }) {
  const specs = Object.entries(inputs).map(([name, { dtype, shape }]) => ({ name, dtype, shape }));
  return { inputs: specs, outputs: [], dimensions: {} };
}

async function attempt(action) {
  try {
    await action();
  } catch (error) {
    running.set("failed", ""); // the verdict has the reason
    showVerdict(error instanceof Refused ? "refused" : "failed", textOf(error));
  }
  document.documentElement.dataset.ready = "true";
}

attempt(main);
