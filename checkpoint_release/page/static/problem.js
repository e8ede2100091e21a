// What is wrong, and what the reader can do about it; both are shown as they are.
export class Problem extends Error {
  constructor(problem, remedy = "") {
    super(problem);
    this.remedy = remedy;
  }
}

// The release's files are not those that it lists: nothing of it may be used.
export class Refused extends Problem {}

export function textOf(error) {
  const problem = error?.message || String(error);
  return error?.remedy ? `${problem}. What to do: ${error.remedy}.` : `${problem}.`;
}
