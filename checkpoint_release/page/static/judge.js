// How far outputs are from the float64 reference, and whether that is near enough.
//
// The rule is the parity check's: the noise floor is what the model itself errs in
// float32, and an output may err by a few times as much (parity.json names the number).
// An error is the larger of two multiples, that of the typical error and that of the
// largest one.

import { isFloat, numbers } from "./tensors.js";

const DIGITS = 2; // of the figures in parity.json

// Returns {passed, unit, limit, outputs: [{name, passed, error, largest, typical, allowed, remark}]}.
export function judge(found, expected, parity, modelName) {
  const figures = parity.formats[modelName];
  const reduced = figures?.rule === "reduced";
  const limit = reduced ? 1 : parity.rule.noise_multiple;
  const outputs = [];
  for (const [name, reference] of Object.entries(expected)) {
    const accepted = figures?.outputs?.[name];
    outputs.push({ name, ...judgeOutput(found[name], reference, accepted, parity, name, reduced) });
  }
  for (const name of Object.keys(found)) {
    if (!(name in expected))
      outputs.push({ name, ...wrong("is computed, and the sample doesn't hold it") });
  }
  return {
    passed: outputs.length > 0 && outputs.every((output) => output.passed),
    unit: reduced ? "what is allowed" : "the noise floor",
    reduced,
    limit,
    outputs,
  };
}

function judgeOutput(tensor, reference, accepted, parity, name, reduced) {
  if (!tensor) return wrong("is missing");
  if (String(tensor.shape) !== String(reference.shape)) {
    return wrong(`has the shape [${tensor.shape}], and the sample's is [${reference.shape}]`);
  }
  if (tensor.dtype !== reference.dtype)
    return wrong(`is ${tensor.dtype}, and the sample's is ${reference.dtype}`);
  if (!accepted) return wrong("isn't listed in parity.json");
  const errors = errorsOf(tensor, reference);
  if (!Number.isFinite(errors.largest)) return { ...wrong("holds NaN or infinity"), ...errors };
  if (!isFloat(reference.dtype) || !parity.noise_floor[name]) return judgeWhole(errors, accepted);
  if (reduced) {
    const share = ratio(errors.typical, errors.magnitude);
    const multiple = ratio(share, accepted.limit);
    const allowed = accepted.limit * errors.magnitude;
    return { ...errors, error: multiple, passed: multiple <= 1, allowed, remark: "" };
  }
  return judgeFloat(errors, floorOf(name, errors, accepted, parity), parity.rule.noise_multiple);
}

function judgeFloat(errors, floor, multiple) {
  const { typical, largest } = errors;
  const error = Math.max(ratio(typical, floor.typical), ratio(largest, floor.worst));
  const allowed = multiple * floor.worst;
  return { ...errors, error, passed: error <= multiple, allowed, remark: "" };
}

// The noise floor in the sample, as absolute errors: as the parity check had it, and in
// releases that don't state that, by the floor of all cases. What kernels may cost comes
// on top, as it does there.
function floorOf(name, errors, accepted, parity) {
  const cost = accepted.kernel_cost ?? 0;
  const stated = parity.sample_floor?.[name];
  if (stated) {
    return { typical: upperBound(stated.typical) + cost, worst: upperBound(stated.worst) + cost };
  }
  const { typical, worst } = parity.noise_floor[name];
  const scatter = 1 + 3 / Math.sqrt(Math.max(errors.count, 1));
  return {
    typical: Math.max(
      upperBound(typical) * errors.magnitude * scatter + cost,
      upperBound(accepted.mean_abs_error),
    ),
    worst: Math.max(
      upperBound(worst) * errors.magnitude + cost,
      upperBound(accepted.max_abs_error) / parity.rule.noise_multiple,
    ),
  };
}

// Whole numbers must be equal, but for what the check accepted: float32 may tip over a
// decision between near equals.
function judgeWhole(errors, accepted) {
  const allowed = upperBound(accepted.max_abs_error);
  const passed = errors.largest <= allowed;
  const remark =
    errors.largest === 0 ? "equal" : `differs in ${errors.differing} of ${errors.count}`;
  return { ...errors, error: passed ? 0 : Infinity, passed, allowed, remark };
}

function wrong(remark) {
  return { passed: false, error: Infinity, largest: NaN, typical: NaN, allowed: NaN, remark };
}

// Absolute errors beside half a step of the dtype, which is what rounding may have
// changed in the reference itself.
function errorsOf(tensor, reference) {
  const values = numbers(tensor);
  const wanted = numbers(reference);
  let squares = 0;
  let magnitudes = 0;
  let largest = 0;
  let differing = 0;
  for (let i = 0; i < wanted.length; i++) {
    let distance = Math.abs(values[i] - wanted[i]);
    if (!Number.isFinite(distance)) distance = Infinity;
    if (distance > 0) differing += 1;
    distance = Math.max(0, distance - halfStep(wanted[i], reference.dtype));
    largest = Math.max(largest, distance);
    squares += distance * distance;
    magnitudes += wanted[i] * wanted[i];
  }
  const count = wanted.length;
  return {
    count,
    differing,
    largest,
    typical: Math.sqrt(squares / Math.max(count, 1)),
    magnitude: Math.sqrt(magnitudes / Math.max(count, 1)),
  };
}

const FLOATS = {
  float64: { fraction: 52, least: -1022 },
  float32: { fraction: 23, least: -126 },
  float16: { fraction: 10, least: -14 },
};

// A number in [2ᵉ, 2ᵉ⁺¹) is 2ᵉ⁻ᵖ from the next one, with p bits of fraction.
function halfStep(value, dtype) {
  const float = FLOATS[dtype];
  if (!float) return 0;
  const exponent = Math.max(Math.floor(Math.log2(Math.abs(value))), float.least);
  return 2 ** (exponent - float.fraction - 1);
}

// The largest number that rounds to this figure of parity.json.
export function upperBound(figure) {
  if (!figure || !Number.isFinite(figure)) return figure ?? 0;
  const digit = Math.floor(Math.log10(Math.abs(figure))) - DIGITS + 1;
  return figure + 0.5 * 10 ** digit;
}

function ratio(found, allowed) {
  if (allowed > 0) return found / allowed;
  return found === 0 ? 0 : Infinity;
}
