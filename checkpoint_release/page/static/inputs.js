// A model's inputs by its signature: drawn at random, read from files, and checked.

import { Problem } from "./problem.js";
import { sizeOf } from "./sizes.js";
import {
  countOf,
  fromLists,
  isFloat,
  numbers,
  parseJson,
  readNpy,
  readSafetensors,
  tensorOf,
} from "./tensors.js";

// Each dynamic dimension's size in examples.
export function exampleSizes(signature) {
  const entries = Object.entries(signature.dimensions ?? {});
  return Object.fromEntries(entries.map(([name, dimension]) => [name, dimension.example ?? 1]));
}

export const shapeOf = (spec, sizes) => (spec.shape ?? []).map((size) => sizeOf(size, sizes));

// Normally distributed floats; integers, and floats that have a range, even in it. The
// same seed gives the same values in every browser (other ones than numpy's), each input
// by itself.
export function randomInput(spec, sizes, seed) {
  const shape = shapeOf(spec, sizes);
  const random = generator(seed, spec.name);
  const low = spec.low ?? 0;
  const high = spec.dtype === "bool" ? 2 : (spec.high ?? 2);
  const uniform = () => low + random() * (high - low);
  const float = spec.high === undefined ? () => normal(random) : uniform;
  const draw = isFloat(spec.dtype) ? float : () => Math.floor(uniform());
  return tensorOf(spec.dtype, shape, Array.from({ length: countOf(shape) }, draw));
}

// Uniform numbers in [0, 1): mulberry32, seeded by a hash (FNV-1a) of seed and name.
export function generator(seed, name) {
  let hash = 2166136261;
  for (const byte of new TextEncoder().encode(`${seed} ${name}`)) {
    hash = Math.imul(hash ^ byte, 16777619);
  }
  return () => {
    hash = (hash + 0x6d2b79f5) | 0;
    let mixed = Math.imul(hash ^ (hash >>> 15), 1 | hash);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}

// Box and Muller's transform.
export function normal(random) {
  const radius = Math.sqrt(-2 * Math.log(1 - random()));
  return radius * Math.cos(2 * Math.PI * random());
}

// The dynamic sizes that arrays agree on. Throws Problem where they don't fit the signature.
export function checkInputs(signature, tensors) {
  const sizes = {};
  for (const spec of signature.inputs) {
    const tensor = tensors[spec.name];
    if (!tensor) throw new Problem(`input ${spec.name} is missing`);
    checkInput(spec, tensor);
    spec.shape?.forEach((expected, axis) => {
      if (!(expected in signature.dimensions)) return;
      const size = tensor.shape[axis];
      if ((sizes[expected] ??= size) !== size) {
        throw new Problem(
          `${spec.name} has ${expected} ${size}, and another input has ${sizes[expected]}`,
        );
      }
      checkSize(expected, size, signature.dimensions[expected]);
    });
  }
  for (const spec of signature.inputs) checkExpressions(spec, tensors[spec.name], sizes);
  return sizes;
}

// Sizes that follow from dimensions must do so.
function checkExpressions(spec, tensor, sizes) {
  spec.shape?.forEach((expected, axis) => {
    const size = sizeOf(expected, sizes);
    if (tensor.shape[axis] === size) return;
    const known = Object.entries(sizes).map(([name, value]) => `${name} is ${value}`);
    throw new Problem(
      `${spec.name} has ${expected} ${tensor.shape[axis]}, and where ${known.join(", ")} it is ${size}`,
    );
  });
}

export function checkInput(spec, tensor) {
  const states = `${spec.name} is ${tensor.dtype} [${tensor.shape}], and the model takes ${spec.dtype} [${spec.shape}]`;
  if (tensor.dtype !== spec.dtype || tensor.shape.length !== spec.shape.length)
    throw new Problem(states);
  spec.shape.forEach((expected, axis) => {
    if (typeof expected === "number" && expected !== tensor.shape[axis]) throw new Problem(states);
  });
  if (spec.high === undefined) return;
  const [low, high] = limitsOf(spec);
  for (const value of numbers(tensor)) {
    if (value >= low && value <= high) continue;
    throw new Problem(`${spec.name} holds ${value}, and the model takes ${low} to ${high}`);
  }
}

// The least and the greatest value that an input with a range takes, as its dtype has
// them: float32's 0.1 is greater than 0.1.
export function limitsOf({ dtype, low, high }) {
  if (!isFloat(dtype)) return [low, high - 1];
  return numbers(tensorOf(dtype, [2], [low, high]));
}

export function checkSize(name, size, dimension = {}) {
  const { minimum = 1, maximum = null, multiple = 1 } = dimension;
  if (size >= minimum && size <= (maximum ?? Infinity) && size % multiple === 0) return;
  const bounds = `${minimum} to ${maximum ?? "any number"}`;
  throw new Problem(`${name} is ${size}, and allowed are ${bounds}${stepsOf(multiple)}`);
}

const stepsOf = (multiple) => (multiple > 1 ? `, multiples of ${multiple}` : "");

// Arrays by input's name, out of a file that a person chose.
// Args: file; specs: the inputs that it may hold; the first one takes an array without a name.
export async function readInputs(file, specs) {
  const bytes = new Uint8Array(await file.arrayBuffer());
  const stem = file.name.replace(/\.[^.]*$/, "");
  const named = specs.find((spec) => spec.name === stem) ?? specs[0];
  const kind = file.name.split(".").pop().toLowerCase();
  if (kind === "safetensors") return fitted(readSafetensors(bytes, file.name), specs, file.name);
  if (kind === "npy") return fitted({ [named.name]: readNpy(bytes, file.name) }, specs, file.name);
  if (kind === "json") return fitted(readJson(bytes, file.name, specs, named), specs, file.name);
  throw new Problem(
    `${file.name} is of a kind that this page can't read`,
    "give a .safetensors, .npy or .json file",
  );
}

function readJson(bytes, name, specs, named) {
  const value = parseJson(bytes, name);
  const isByName = value !== null && typeof value === "object" && !Array.isArray(value);
  const arrays = {};
  for (const [key, lists] of Object.entries(isByName ? value : { [named.name]: value })) {
    const dtype = specs.find((spec) => spec.name === key)?.dtype ?? "float32";
    arrays[key] = fromLists(lists, dtype, `${name}: ${key}`);
  }
  return arrays;
}

// The arrays with the dtypes that the model takes. Floats become floats and whole numbers
// whole numbers; anything else isn't what somebody meant.
function fitted(arrays, specs, file) {
  const tensors = {};
  for (const [name, tensor] of Object.entries(arrays)) {
    const spec = specs.find((each) => each.name === name);
    if (!spec) {
      const names = specs.map((each) => each.name).join(", ");
      throw new Problem(`${file} holds ${name}, which is no input of the model (${names})`);
    }
    const convertible = isFloat(spec.dtype) === isFloat(tensor.dtype);
    tensors[name] = tensor;
    if (tensor.dtype !== spec.dtype && convertible) {
      tensors[name] = tensorOf(spec.dtype, tensor.shape, numbers(tensor));
    }
    checkInput(spec, tensors[name]);
  }
  return tensors;
}
