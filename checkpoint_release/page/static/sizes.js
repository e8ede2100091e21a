// Sizes as a signature states them: numbers, names of dimensions, and what follows from
// those, such as 2*frames + 1, past + tokens or height/8.

const PART = /\s*(?:(\d+)|([\p{L}_][\p{L}\p{N}_]*)|([-+*/]))/uy;

// An entry of a shape as a number; undefined where it depends on a dimension without a size.
export function sizeOf(entry, sizes) {
  if (typeof entry === "number") return entry;
  if (entry in sizes) return sizes[entry];
  let total = 0;
  for (const { sign, parts } of termsOf(entry)) total += sign * productOf(parts, sizes);
  return Number.isNaN(total) ? undefined : total;
}

// Whether an entry follows from a dimension, which may be that itself.
export function dependsOn(entry, name) {
  return entry === name || (typeof entry === "string" && partsOf(entry).includes(name));
}

function termsOf(text) {
  const terms = [{ sign: 1, parts: [] }];
  for (const part of partsOf(text)) {
    if (part === "+" || part === "-") terms.push({ sign: part === "+" ? 1 : -1, parts: [] });
    else terms.at(-1).parts.push(part);
  }
  return terms.filter(({ parts }) => parts.length);
}

function productOf(parts, sizes) {
  let product = 1;
  parts.forEach((part, place) => {
    if (part === "*" || part === "/") return;
    const value = /^\d/.test(part) ? Number(part) : (sizes[part] ?? NaN);
    product = parts[place - 1] === "/" ? product / value : product * value;
  });
  return product;
}

function partsOf(text) {
  const parts = [];
  PART.lastIndex = 0;
  for (let match = PART.exec(text); match; match = PART.exec(text)) parts.push(match[0].trim());
  return parts;
}
