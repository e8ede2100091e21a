// Arrays as {dtype, shape, data}: dtype is numpy's name, data a typed array, row by row.
// They are read from safetensors, npy and JSON, and written as safetensors.

import { Problem } from "./problem.js";

// numpy's name → safetensors' name, the letters of npy, and the array that holds it.
// float16 stays in its 16 bits, for that is what the runtime takes.
const DTYPES = {
  float64: { safetensors: "F64", npy: "f8", array: Float64Array },
  float32: { safetensors: "F32", npy: "f4", array: Float32Array },
  float16: { safetensors: "F16", npy: "f2", array: Uint16Array },
  int64: { safetensors: "I64", npy: "i8", array: BigInt64Array },
  int32: { safetensors: "I32", npy: "i4", array: Int32Array },
  int16: { safetensors: "I16", npy: "i2", array: Int16Array },
  int8: { safetensors: "I8", npy: "i1", array: Int8Array },
  uint64: { safetensors: "U64", npy: "u8", array: BigUint64Array },
  uint32: { safetensors: "U32", npy: "u4", array: Uint32Array },
  uint16: { safetensors: "U16", npy: "u2", array: Uint16Array },
  uint8: { safetensors: "U8", npy: "u1", array: Uint8Array },
  bool: { safetensors: "BOOL", npy: "b1", array: Uint8Array },
};

export const countOf = (shape) => shape.reduce((product, size) => product * size, 1);
export const isFloat = (dtype) => dtype.startsWith("float");

export function arrayFor(dtype, count) {
  if (!(dtype in DTYPES)) throw new Problem(`${dtype} is a type that this page can't hold`);
  return new DTYPES[dtype].array(count);
}

// The values as numbers, whatever holds them; int64 beyond 2⁵³ is rounded.
export function numbers(tensor) {
  const { dtype, data } = tensor;
  if (dtype === "float16") return Float64Array.from(data, halfToNumber);
  if (typeof data[0] === "bigint") return Float64Array.from(data, Number);
  return Float64Array.from(data);
}

// A tensor of numbers; what the dtype can't hold is rounded or wrapped.
export function tensorOf(dtype, shape, values) {
  const data = arrayFor(dtype, values.length);
  const big = typeof data[0] === "bigint" || /^u?int64$/.test(dtype);
  for (let i = 0; i < values.length; i++) {
    if (big) data[i] = BigInt(Math.trunc(values[i]));
    else if (dtype === "float16") data[i] = numberToHalf(values[i]);
    else data[i] = values[i];
  }
  return { dtype, shape, data };
}

export function halfToNumber(bits) {
  const sign = bits & 0x8000 ? -1 : 1;
  const exponent = (bits >> 10) & 31;
  const fraction = bits & 1023;
  if (exponent === 31) return fraction ? NaN : sign * Infinity;
  if (exponent === 0) return sign * fraction * 2 ** -24;
  return sign * (1 + fraction / 1024) * 2 ** (exponent - 15);
}

export function numberToHalf(value) {
  const sign = value < 0 || Object.is(value, -0) ? 0x8000 : 0;
  const magnitude = Math.abs(value);
  if (Number.isNaN(value)) return 0x7e00;
  if (magnitude >= 65520) return sign | 0x7c00;
  const exponent = Math.max(Math.floor(Math.log2(magnitude)), -14);
  const steps = roundHalfToEven(magnitude / 2 ** (exponent - 10));
  // 2048 steps carry into the exponent by themselves
  return sign | (steps + (exponent + 14) * 1024);
}

function roundHalfToEven(value) {
  const below = Math.floor(value);
  const rest = value - below;
  if (rest !== 0.5) return Math.round(value);
  return below % 2 === 0 ? below : below + 1;
}

export function readSafetensors(bytes, name) {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const length = bytes.length >= 8 ? Number(view.getBigUint64(0, true)) : Infinity;
  const start = 8 + length;
  if (!(start <= bytes.length)) throw new Problem(`${name} is not a safetensors file`);
  const header = parseJson(bytes.subarray(8, start), name);
  const tensors = {};
  for (const [key, entry] of Object.entries(header)) {
    if (key === "__metadata__") continue;
    const dtype = nameBy("safetensors", entry?.dtype);
    if (!dtype)
      throw new Problem(`${name} holds ${key} as ${entry?.dtype}, which this page can't read`);
    const [from, to] = entry.data_offsets;
    const data = copyOf(bytes, start + from, start + to, dtype);
    if (!data || data.length !== countOf(entry.shape)) {
      throw new Problem(`${name} is broken: ${key} doesn't have the size of its shape`);
    }
    tensors[key] = { dtype, shape: entry.shape, data };
  }
  return tensors;
}

export function writeSafetensors(tensors) {
  const header = {};
  let end = 0;
  for (const [name, { dtype, shape, data }] of Object.entries(tensors)) {
    header[name] = {
      dtype: DTYPES[dtype].safetensors,
      shape,
      data_offsets: [end, end + data.byteLength],
    };
    end += data.byteLength;
  }
  let text = JSON.stringify(header);
  const encoder = new TextEncoder();
  text += " ".repeat((8 - (encoder.encode(text).length % 8)) % 8);
  const head = encoder.encode(text);
  const bytes = new Uint8Array(8 + head.length + end);
  new DataView(bytes.buffer).setBigUint64(0, BigInt(head.length), true);
  bytes.set(head, 8);
  let at = 8 + head.length;
  for (const { data } of Object.values(tensors)) {
    bytes.set(new Uint8Array(data.buffer, data.byteOffset, data.byteLength), at);
    at += data.byteLength;
  }
  return bytes;
}

// https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html
export function readNpy(bytes, name) {
  const magic = String.fromCharCode(...bytes.subarray(1, 6));
  if (bytes[0] !== 0x93 || magic !== "NUMPY") throw new Problem(`${name} is not an npy file`);
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const isFirstVersion = bytes[6] === 1;
  const length = isFirstVersion ? view.getUint16(8, true) : view.getUint32(8, true);
  const start = (isFirstVersion ? 10 : 12) + length;
  const header = new TextDecoder().decode(bytes.subarray(start - length, start));
  const { dtype, shape } = readNpyHeader(header, name);
  const data = copyOf(bytes, start, start + countOf(shape) * bytesEach(dtype), dtype);
  if (!data) throw new Problem(`${name} ends before its array does`);
  return { dtype, shape, data };
}

// The header is a dict of Python: {'descr': '<f4', 'fortran_order': False, 'shape': (3,)}.
function readNpyHeader(header, name) {
  const letters = /'descr':\s*'([<|=])(\w+)'/.exec(header);
  const sizes = /'shape':\s*\(([^)]*)\)/.exec(header);
  const dtype = letters && nameBy("npy", letters[2]);
  if (!dtype || !sizes) {
    throw new Problem(`${name} holds an array that this page can't read: ${header.trim()}`);
  }
  if (/'fortran_order':\s*True/.test(header)) {
    throw new Problem(
      `${name} is in Fortran's order`,
      "save it with numpy.save(path, numpy.ascontiguousarray(array))",
    );
  }
  return { dtype, shape: (sizes[1].match(/\d+/g) ?? []).map(Number) };
}

// Nested lists of numbers as an array of the dtype that the model takes.
export function fromLists(value, dtype, name) {
  const shape = [];
  for (let level = value; Array.isArray(level); level = level[0]) shape.push(level.length);
  const flat = Array.isArray(value) ? value.flat(Infinity) : [value];
  const even = flat.length === countOf(shape) && isEven(value, shape);
  if (!even) throw new Problem(`${name} has rows of different lengths`);
  if (flat.some((each) => typeof each !== "number" && typeof each !== "boolean")) {
    throw new Problem(`${name} holds something other than numbers`);
  }
  return tensorOf(dtype, shape, flat.map(Number));
}

export function parseJson(bytes, name) {
  try {
    return JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(bytes));
  } catch {
    throw new Problem(`${name} is not JSON`);
  }
}

function isEven(value, shape) {
  if (!shape.length) return !Array.isArray(value);
  if (!Array.isArray(value) || value.length !== shape[0]) return false;
  return value.every((row) => isEven(row, shape.slice(1)));
}

function nameBy(kind, spelling) {
  return Object.keys(DTYPES).find((name) => DTYPES[name][kind] === spelling);
}

const bytesEach = (dtype) => DTYPES[dtype].array.BYTES_PER_ELEMENT;

// A copy, because a typed array must begin at a multiple of its elements' size.
function copyOf(bytes, from, to, dtype) {
  if (!(from <= to && to <= bytes.length) || (to - from) % bytesEach(dtype)) return null;
  return new DTYPES[dtype].array(bytes.slice(from, to).buffer);
}
