// Safetensors files, as the tensors of onnxruntime's JavaScript or of what is like it.

import { readFileSync, writeFileSync } from "node:fs";

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

// Tensor: the class, made of type, data and dims.
export function readTensors(Tensor, path) {
  const file = readFileSync(path);
  const start = 8 + Number(file.readBigUInt64LE(0));
  const header = JSON.parse(file.subarray(8, start).toString());
  delete header.__metadata__;
  const tensors = {};
  for (const [name, { dtype, shape, data_offsets: [from, to] }] of Object.entries(header)) {
    const [type, Kind] = DTYPES[dtype];
    const bytes = Uint8Array.from(file.subarray(start + from, start + to));
    tensors[name] = new Tensor(type, new Kind(bytes.buffer), shape);
  }
  return tensors;
}

export function writeTensors(path, tensors) {
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
