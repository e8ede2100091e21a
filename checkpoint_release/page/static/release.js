// A release's files, each held against the size and SHA-256 that release.json lists
// before anything is read from it.

import { Problem, Refused } from "./problem.js";
import { parseJson } from "./tensors.js";

const DESCRIPTION = "release.json";

export async function openRelease(base) {
  const bytes = await fetchBytes(new URL(DESCRIPTION, base), DESCRIPTION);
  const description = parseJson(bytes, DESCRIPTION);
  if (!description?.built?.files || !description?.evidence?.files || !description.formats) {
    throw new Refused(`${DESCRIPTION} doesn't describe a release`);
  }
  for (const group of ["built", "evidence"]) {
    const { sha256: stated, files } = description[group];
    if ((await jointDigest(files)) !== stated) {
      throw new Refused(
        `${DESCRIPTION} gives another digest of what is ${group} than its files have`,
      );
    }
  }
  return new Release(base, description);
}

export class Release {
  constructor(base, description) {
    this.base = base;
    this.description = description;
    this.files = { ...description.built.files, ...description.evidence.files };
    this.checked = new Map(); // path → bytes
  }

  // The bytes of a listed file. Throws Refused where they aren't what is listed.
  async bytes(path, onProgress) {
    if (this.checked.has(path)) return this.checked.get(path);
    const entry = this.files[path];
    if (!entry) throw new Refused(`${DESCRIPTION} doesn't list ${path}`);
    const bytes = await fetchBytes(new URL(addressOf(path), this.base), path, onProgress);
    const difference = await differenceFrom(entry, bytes);
    if (difference) {
      throw new Refused(
        `${path} is not the file that ${DESCRIPTION} lists: ${difference}`,
        "get the release again, and don't use this copy",
      );
    }
    this.checked.set(path, bytes);
    return bytes;
  }

  async json(path) {
    return parseJson(await this.bytes(path), path);
  }

  // ONNX models by the names that parity.json has for them: onnx, onnx float16, …
  models() {
    const models = [];
    for (const [name, runnable] of Object.entries(this.description.formats)) {
      // one of fixed shapes takes the sample alone, and is for other runtimes
      if (runnable.format !== "onnx" || name.endsWith(" fixed")) continue;
      const isFile = runnable.path in this.files;
      const path = isFile ? runnable.path : joined(runnable.path, "model.onnx");
      const folder = path.slice(0, path.lastIndexOf("/") + 1);
      models.push({ name, path, folder, size: this.files[path]?.size ?? 0 });
    }
    return models;
  }

  // Files beside a model that hold its weights, past 2 GB: model.onnx_data and the like.
  weightFiles(model) {
    const own = (path) => path.startsWith(`${model.path}_`) || path.startsWith(`${model.path}.`);
    return Object.keys(this.files).filter(own);
  }
}

// What differs from an entry of size and SHA-256, or null where nothing does.
export async function differenceFrom(entry, bytes) {
  const digest = await sha256(bytes);
  if (bytes.length === entry.size && digest === entry.sha256) return null;
  return (
    `it has SHA-256 ${digest.slice(0, 12)}… and ${bytes.length.toLocaleString("en")} bytes,` +
    ` not ${entry.sha256.slice(0, 12)}… and ${entry.size.toLocaleString("en")} bytes`
  );
}

export async function sha256(bytes) {
  if (!globalThis.crypto?.subtle) {
    throw new Problem(
      "browsers compute SHA-256 only for pages that come over https or from this machine",
      "open the page over https, or with: checkpoint-release page FOLDER",
    );
  }
  const digest = new Uint8Array(await crypto.subtle.digest("SHA-256", bytes));
  return Array.from(digest, (byte) => byte.toString(16).padStart(2, "0")).join("");
}

// As `sha256sum` writes the files' lines, sorted by path.
async function jointDigest(files) {
  const paths = Object.keys(files).sort(byCodePoint);
  const lines = paths.map((path) => `${files[path].sha256}  ${path}\n`);
  return sha256(new TextEncoder().encode(lines.join("")));
}

// Python sorts by code points; JavaScript's own order is by UTF-16 units.
function byCodePoint(one, other) {
  const [a, b] = [Array.from(one), Array.from(other)];
  for (let i = 0; i < Math.min(a.length, b.length); i++) {
    if (a[i] !== b[i]) return a[i].codePointAt(0) - b[i].codePointAt(0);
  }
  return a.length - b.length;
}

export async function fetchBytes(url, name, onProgress = () => {}) {
  let answer;
  try {
    answer = await fetch(url, { credentials: "same-origin" });
  } catch {
    throw new Problem(
      `${name} can't be fetched from ${url.host}`,
      "check the connection, and load the page again",
    );
  }
  if (!answer.ok)
    throw new Problem(`${name} can't be fetched: the server answers ${answer.status}`);
  const parts = [];
  let size = 0;
  for (const reader = answer.body.getReader(); ;) {
    const { done, value } = await reader.read();
    if (done) break;
    parts.push(value);
    size += value.length;
    onProgress(size);
  }
  const bytes = new Uint8Array(size);
  let at = 0;
  for (const part of parts) {
    bytes.set(part, at);
    at += part.length;
  }
  return bytes;
}

const joined = (folder, file) => (folder ? `${folder}/${file}` : file);

const addressOf = (path) => path.split("/").map(encodeURIComponent).join("/");
