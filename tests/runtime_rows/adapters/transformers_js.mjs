// Run a release by transformers.js on every case:
//
//     node transformers_js.mjs <package> <release> <folder>
//
// As harness.mjs of checkpoint_release/parity/adapters, but for who runs the model.

import { readFileSync, readdirSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import { join, resolve } from "node:path";
import { pathToFileURL } from "node:url";
import {
  readTensors,
  writeTensors,
} from "../../../checkpoint_release/parity/adapters/safetensors.mjs";

const [name, release, folder] = process.argv.slice(2);
const require = createRequire(resolve("package.json"));
const { AutoModel, Tensor, env } = await import(pathToFileURL(require.resolve(name)));
env.allowRemoteModels = false;
writeFileSync(join(folder, "version.txt"), env.version);
const outputs = JSON.parse(readFileSync(join(folder, "outputs.json")));
const model = await AutoModel.from_pretrained(release, { dtype: "fp32", device: "cpu" });
const cases = readdirSync(folder).filter((entry) => entry.startsWith("inputs-"));
for (let number = 0; number < cases.length; number++) {
  const found = await model(readTensors(Tensor, join(folder, `inputs-${number}.safetensors`)));
  const ordered = Object.fromEntries(outputs.map((output) => [output, found[output]]));
  writeTensors(join(folder, `outputs-${number}.safetensors`), ordered);
}
process.exit(0);
