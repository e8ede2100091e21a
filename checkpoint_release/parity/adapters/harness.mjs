// Run an ONNX file by onnxruntime-node or onnxruntime-web on every case:
//
//     node harness.mjs <package> <file> <folder>
//
// The package is looked for from the working directory upwards. Folder and cases are as
// in harness.py.

import { readFileSync, readdirSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import { dirname, join, resolve } from "node:path";

const DTYPES = {
  F64: ["float64", Float64Array],
  F32: ["float32", Float32Array],
  F16: ["float16", Uint16Array],
  I64: ["int64", BigInt64Array],
  I32: ["int32", Int32Array],
  I16: ["int16", Int16Array],
  I8: ["int8", Int8Array],
  U8: ["uint8", Uint8Array],
  BOOL: ["bool", Uint8Array],
};
const NAMES = Object.fromEntries(Object.entries(DTYPES).map(([name, [type]]) => [type, name]));

function readTensors(ort, path) {
  const file = readFileSync(path);
  const start = 8 + Number(file.readBigUInt64LE(0));
  const header = JSON.parse(file.subarray(8, start).toString());
  delete header.__metadata__;
  const tensors = {};
  for (const [name, { dtype, shape, data_offsets: [from, to] }] of Object.entries(header)) {
    const [type, Kind] = DTYPES[dtype];
    const bytes = Uint8Array.from(file.subarray(start + from, start + to));
    tensors[name] = new ort.Tensor(type, new Kind(bytes.buffer), shape);
  }
  return tensors;
}

function writeTensors(path, tensors) {
  const header = {};
  const parts = [];
  let offset = 0;
  for (const [name, { type, dims, data }] of Object.entries(tensors)) {
    const bytes = Buffer.from(data.buffer, data.byteOffset, data.byteLength);
    header[name] = {
      dtype: NAMES[type],
      shape: dims.map(Number),
      data_offsets: [offset, offset + bytes.length],
    };
    parts.push(bytes);
    offset += bytes.length;
  }
  const text = Buffer.from(JSON.stringify(header));
  const length = Buffer.alloc(8);
  length.writeBigUInt64LE(BigInt(text.length));
  writeFileSync(path, Buffer.concat([length, text, ...parts]));
}

// The version in the package.json above a package's main file.
function versionOf(main, name) {
  for (let folder = dirname(main); folder !== dirname(folder); folder = dirname(folder)) {
    try {
      const found = JSON.parse(readFileSync(join(folder, "package.json")));
      if (found.name === name) return found.version;
    } catch {
      // this folder has none
    }
  }
  return "";
}

const [name, file, folder] = process.argv.slice(2);
const require = createRequire(resolve("package.json"));
const ort = require(name);
writeFileSync(join(folder, "version.txt"), versionOf(require.resolve(name), name));
const outputs = JSON.parse(readFileSync(join(folder, "outputs.json")));
const session = await ort.InferenceSession.create(
  name.endsWith("-web") ? new Uint8Array(readFileSync(file)) : file,
  { executionProviders: [name.endsWith("-web") ? "wasm" : "cpu"] },
);
const cases = readdirSync(folder).filter((entry) => entry.startsWith("inputs-"));
for (let number = 0; number < cases.length; number++) {
  const inputs = readTensors(ort, join(folder, `inputs-${number}.safetensors`));
  const found = await session.run(inputs);
  const ordered = Object.fromEntries(outputs.map((output) => [output, found[output]]));
  writeTensors(join(folder, `outputs-${number}.safetensors`), ordered);
}
// Worker threads of WebAssembly would keep the process.
process.exit(0);
