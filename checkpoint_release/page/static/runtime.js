// onnxruntime-web, pinned in runtime.json: from the folder `runtime` beside the page
// where somebody put it, as `checkpoint-release page` does, otherwise from a CDN. Either
// way each file must have the SHA-256 that is pinned before it may run.

import { Problem } from "./problem.js";
import { differenceFrom, fetchBytes } from "./release.js";
import { parseJson } from "./tensors.js";

export const BACKENDS = { wasm: "WebAssembly", webgpu: "WebGPU" };

let pins = null;

export async function readPins() {
  const url = new URL("runtime.json", import.meta.url);
  pins ??= parseJson(await fetchBytes(url, "runtime.json"), "runtime.json");
  return pins;
}

export async function runtimeIsLocal() {
  const { backends } = await readPins();
  const url = new URL(`runtime/${backends.wasm.entry}`, import.meta.url);
  const answer = await fetch(url, { method: "HEAD" }).catch(() => null);
  return Boolean(answer?.ok);
}

export async function runtimeSize(backend) {
  const { backends, package: pinned } = await readPins();
  return Object.values(backends[backend]).reduce((sum, name) => sum + pinned.files[name].size, 0);
}

async function runtimeFiles(backend, local, onProgress) {
  const { backends, cdn, package: pinned } = await readPins();
  const base = local ? new URL("runtime/", import.meta.url) : new URL(cdn);
  const files = {};
  let before = 0;
  for (const [role, name] of Object.entries(backends[backend])) {
    const bytes = await fetchBytes(new URL(name, base), name, (size) => onProgress(before + size));
    const difference = await differenceFrom(pinned.files[name], bytes);
    if (difference) {
      throw new Problem(
        `${name} from ${base.host} is not the file that is pinned: ${difference}`,
        "load the page again later; nothing of that file was run",
      );
    }
    files[role] = bytes;
    before += bytes.length;
  }
  return files;
}

// A model that was loaded, on one backend.
export class Engine {
  constructor(backend) {
    this.backend = backend;
    this.name = BACKENDS[backend];
    this.worker = new Worker(new URL("worker.js", import.meta.url), { type: "module" });
    this.waiting = new Map();
    this.last = 0;
    this.worker.onmessage = ({ data }) => this.settle(data);
    this.worker.onerror = (event) => this.fail(event.message || "the worker could not be started");
  }

  static async start(backend, model, weights, { local, onProgress = () => {} }) {
    if (typeof WebAssembly !== "object") {
      throw new Problem(
        "this browser has no WebAssembly, or it is switched off",
        "open the page in another browser",
      );
    }
    const files = await runtimeFiles(backend, local, onProgress);
    const engine = new Engine(backend);
    // Threads need memory that workers share, which a browser gives to isolated pages.
    const cores = Math.min(4, Math.ceil((navigator.hardwareConcurrency ?? 2) / 2));
    engine.threads = globalThis.crossOriginIsolated && backend === "wasm" ? cores : 1;
    try {
      const asked = { kind: "start", backend, files, model, weights, threads: engine.threads };
      Object.assign(engine, await engine.ask(asked));
    } catch (error) {
      engine.stop();
      throw new Problem(`the model can't be loaded on ${BACKENDS[backend]}: ${error.message}`);
    }
    return engine;
  }

  // Returns {outputs, times}: arrays by name, and milliseconds of each run.
  run(inputs, repeats = 1) {
    return this.ask({ kind: "run", inputs, repeats });
  }

  ask(message) {
    const id = ++this.last;
    return new Promise((resolve, reject) => {
      this.waiting.set(id, { resolve, reject });
      this.worker.postMessage({ id, ...message });
    });
  }

  settle({ id, error, ...answer }) {
    const { resolve, reject } = this.waiting.get(id);
    this.waiting.delete(id);
    if (error) reject(new Problem(error));
    else resolve(answer);
  }

  fail(message) {
    for (const { reject } of this.waiting.values()) reject(new Problem(message));
    this.waiting.clear();
  }

  stop() {
    this.worker.terminate();
  }
}

// Whether there is a graphics processor that WebGPU can use.
export async function hasWebGpu() {
  if (!navigator.gpu) return false;
  const adapter = await navigator.gpu.requestAdapter().catch(() => null);
  return adapter !== null;
}
