// Filtering and sorting of the rows: facets (any of the chosen values), ranges, search words.

const single = (key, label, values, shown = (name) => name) => ({ key, label, shown, of: (row) => [values(row)] });

const CHANGES = page.contrast && {
  gained: `only ${page.contrast[1]} right`,
  lost: `only ${page.contrast[0]} right`,
  right: "both right",
  wrong: "both wrong",
  mixed: "both sometimes right",
};

const [NO_CODE, ANY_CODE, FAILED_BLOCK] = ["no code", "any code", "a block failed"];
const shortPolicy = (name) => (name.length > 34 ? `…${name.slice(-33)}` : name);

const FACETS = [
  single("outcome", "Outcome", outcomeOf),
  isComparison && single("run", "Run", (row) => RUN_LETTERS[columns.run[row]], (name) => `${name}: ${page.runs[RUN_LETTERS.indexOf(name)].id}`),
  CHANGES && {
    key: "change",
    label: isComparison ? "Better on the task (A = first run)" : `${page.contrast[0]} against ${page.contrast[1]}`,
    shown: (name) => (isComparison ? { gained: "B better", lost: "A better" }[name] ?? CHANGES[name] : CHANGES[name]),
    of: (row) => (columns.change[row] === null ? [] : [columns.change[row]]),
  },
  single("phase", "Stage and policy", phaseOf, (name) => name.replace(/^evaluate · /, "")),
  single("family", "Family", (row) => taskOf(row).family),
  single("difficulty", "Difficulty", (row) => taskOf(row).difficulty),
  single("ending", "Ending", endingOf, words),
  {
    key: "tool",
    label: "Tools used",
    shown: (name) => name,
    of: (row) => [
      columns.calls[row] === 0 ? NO_CODE : ANY_CODE,
      ...(columns.failed[row] > 0 ? [FAILED_BLOCK] : []),
      ...columns.tools[row].map((tool) => page.tools[tool]),
    ],
  },
  single("policy", "Policy", (row) => page.names.policy[columns.policy[row]], shortPolicy),
  page.shards > page.inline && single("place", "Stored", (row) => (columns.shard[row] < page.inline ? "in this page" : "in files beside it")),
].filter(Boolean);

for (const facet of FACETS) {
  const names = new Map();
  facet.places = [];
  for (let row = 0; row < total; row += 1) {
    facet.places.push(
      facet.of(row).map((name) => {
        if (!names.has(name)) names.set(name, names.size);
        return names.get(name);
      }),
    );
  }
  facet.names = [...names.keys()];
  facet.chosen = new Set();
}

const ORDERED = {
  difficulty: ["easy", "medium", "hard"],
  outcome: ["right", "wrong", "not scored", "infrastructure"],
  change: ["gained", "lost", "right", "wrong", "mixed"],
  tool: [NO_CODE, ANY_CODE, FAILED_BLOCK, ...page.tools],
};
const valuesInOrder = (facet) => {
  const order = ORDERED[facet.key];
  if (order) return order.filter((name) => facet.names.includes(name));
  if (facet.key === "family") return [...facet.names].sort();
  return facet.names;
};

const RANGES = [
  { key: "reward", label: "Reward", step: 0.1 },
  { key: "advantage", label: "Advantage", step: 0.1 },
  { key: "step", label: "Training step", step: 1 },
  { key: "calls", label: "Tool calls", step: 1 },
].filter((range) => (columns[range.key] ?? []).some((value) => value !== null && value !== 0));
for (const range of RANGES) Object.assign(range, { low: null, high: null });

const SORTS = {
  order: { label: "as recorded" },
  "reward-down": { label: "reward, highest", column: "reward", sign: -1 },
  "reward-up": { label: "reward, lowest", column: "reward", sign: 1 },
  "advantage-down": { label: "advantage, highest", column: "advantage", sign: -1 },
  "advantage-up": { label: "advantage, lowest", column: "advantage", sign: 1 },
  "certainty-up": { label: "least certain", column: "certainty", sign: 1 },
  "certainty-down": { label: "most certain", column: "certainty", sign: -1 },
  "step-down": { label: "step, newest", column: "step", sign: -1 },
  "calls-down": { label: "tool calls, most", column: "calls", sign: -1 },
  "failed-down": { label: "failed blocks, most", column: "failed", sign: -1 },
};

const state = { query: "", sort: "order", selected: -1, view: "episode", shade: "plain" };
let rows = [];
let filterMilliseconds = 0;

const headText = [];
const headOf = (row) => {
  headText[row] ??= [taskOf(row).id, taskOf(row).question, taskOf(row).answer, columns.answer[row] ?? "", phaseOf(row)]
    .join("\n")
    .toLowerCase();
  return headText[row];
};

const isFound = (row, wanted) => {
  const text = transcripts.get(row) ?? "";
  return wanted.every((word) => headOf(row).includes(word) || text.includes(word));
};

const isInRange = (row) =>
  RANGES.every(({ key, low, high }) => {
    if (low === null && high === null) return true;
    const value = columns[key][row];
    return value !== null && (low === null || value >= low) && (high === null || value <= high);
  });

// A facet's counts are over the rows that pass all the other facets.
const countFacets = (row, failing) => {
  for (const facet of failing === null ? FACETS : [failing]) {
    for (const place of facet.places[row]) facet.counts[place] += 1;
  }
};

const applyFilters = () => {
  const begun = performance.now();
  const wanted = state.query.toLowerCase().split(/\s+/).filter(Boolean);
  if (wanted.length > 0) readInline();
  const chosen = FACETS.map((facet) => [facet, new Set([...facet.chosen].map((name) => facet.names.indexOf(name)))]);
  const active = chosen.filter(([, places]) => places.size > 0);
  for (const facet of FACETS) facet.counts = new Array(facet.names.length).fill(0);
  rows = [];
  for (let row = 0; row < total; row += 1) {
    if (!isInRange(row)) continue;
    const failing = active.filter(([facet, places]) => !facet.places[row].some((place) => places.has(place)));
    if (failing.length > 1 || !isFound(row, wanted)) continue;
    countFacets(row, failing.length === 0 ? null : failing[0][0]);
    if (failing.length === 0) rows.push(row);
  }
  sortRows();
  filterMilliseconds = performance.now() - begun;
};

const sortRows = () => {
  const { column, sign } = SORTS[state.sort] ?? SORTS.order;
  if (column === undefined) return;
  const values = columns[column];
  rows.sort((first, second) => {
    const [a, b] = [values[first], values[second]];
    if (a === b) return first - second;
    if (a === null) return 1;
    if (b === null) return -1;
    return sign * (a - b);
  });
};

const isFiltered = () =>
  state.query !== "" || FACETS.some((facet) => facet.chosen.size > 0) || RANGES.some(({ low, high }) => low !== null || high !== null);

const clearFilters = () => {
  state.query = "";
  for (const facet of FACETS) facet.chosen.clear();
  for (const range of RANGES) Object.assign(range, { low: null, high: null });
};
