// Runs the model beside the page, so that the page can be used meanwhile.
//
// start: {kind: "start", backend, files: {entry, glue, binary}, model, weights, threads}
// run: {kind: "run", inputs, repeats}
// The answer has the request's id, and either `error` or what was asked for.

let ort = null;
let session = null;

self.onmessage = async ({ data }) => {
  const handler = { start, run }[data.kind];
  try {
    const answer = await handler(data);
    self.postMessage({ id: data.id, ...answer });
  } catch (error) {
    self.postMessage({ id: data.id, error: String(error?.message ?? error) });
  }
};

async function start({ backend, files, model, weights, threads }) {
  const script = (bytes) => URL.createObjectURL(new Blob([bytes], { type: "text/javascript" }));
  const began = performance.now();
  ort = await import(script(files.entry));
  ort.env.wasm.wasmPaths = { mjs: script(files.glue) };
  ort.env.wasm.wasmBinary = files.binary.buffer;
  ort.env.wasm.numThreads = threads;
  ort.env.logLevel = "error";
  const options = { executionProviders: [backend] };
  if (weights.length) options.externalData = weights;
  session = await ort.InferenceSession.create(model, options);
  return {
    milliseconds: performance.now() - began,
    version: ort.env.versions.web ?? ort.env.versions.common,
  };
}

async function run({ inputs, repeats }) {
  const feeds = {};
  for (const name of session.inputNames) {
    const { dtype, data, shape } = inputs[name];
    feeds[name] = new ort.Tensor(dtype, data, shape);
  }
  const times = [];
  let outputs = {};
  for (let i = 0; i < repeats; i++) {
    const began = performance.now();
    outputs = await session.run(feeds);
    times.push(performance.now() - began);
  }
  const arrays = {};
  for (const [name, tensor] of Object.entries(outputs)) {
    arrays[name] = {
      dtype: tensor.type,
      shape: [...tensor.dims],
      data: asBits(await tensor.getData()),
    };
  }
  return { outputs: arrays, times };
}

// Newer browsers hold float16 in an array of its own; the page reads its bits.
function asBits(data) {
  if (data.constructor.name !== "Float16Array") return data;
  return new Uint16Array(data.buffer, data.byteOffset, data.length);
}
