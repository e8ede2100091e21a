// Run an ONNX file by onnxruntime-node or onnxruntime-web on every case:
//
//     node harness.mjs <package> <file> <folder>
//
// The package is looked for from the working directory upwards. Folder and cases are as
// in harness.py.

import { readFileSync, readdirSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import { dirname, join, resolve } from "node:path";
import { readTensors, writeTensors } from "./safetensors.mjs";

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
  const inputs = readTensors(ort.Tensor, join(folder, `inputs-${number}.safetensors`));
  const found = await session.run(inputs);
  const ordered = Object.fromEntries(outputs.map((output) => [output, found[output]]));
  writeTensors(join(folder, `outputs-${number}.safetensors`), ordered);
}
// Worker threads of WebAssembly would keep the process.
process.exit(0);
