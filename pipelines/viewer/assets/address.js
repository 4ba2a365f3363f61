// The page's state in the URL fragment, so that a view can be shared.

const VIEWS = ["episode", "group", "task"];
const SHADES = ["plain", "probability", "advantage"];

const writeAddress = () => {
  const parts = new URLSearchParams();
  if (state.selected >= 0) {
    if (isComparison) parts.set("run", RUN_LETTERS[columns.run[state.selected]]);
    parts.set("id", columns.id[state.selected]);
  }
  if (state.view !== "episode") parts.set("view", state.view);
  if (state.shade !== "plain") parts.set("shade", state.shade);
  if (state.query !== "") parts.set("q", state.query);
  if (state.sort !== "order") parts.set("sort", state.sort);
  for (const facet of FACETS) for (const name of facet.chosen) parts.append(`f.${facet.key}`, name);
  for (const { key, low, high } of RANGES) {
    if (low !== null || high !== null) parts.set(`r.${key}`, `${low ?? ""}~${high ?? ""}`);
  }
  try {
    history.replaceState(null, "", `#${parts}`);
  } catch {
    // A page in a frame (MLflow's artifact tab) may not change its URL.
  }
};

const readNumber = (text) => (text === "" || text === undefined || !Number.isFinite(Number(text)) ? null : Number(text));

const findRow = (id, run) => {
  if (id === null) return -1;
  const wanted = Number(id);
  return columns.id.findIndex((one, row) => one === wanted && (run === null || RUN_LETTERS[columns.run[row]] === run));
};

const readAddress = () => {
  const parts = new URLSearchParams(location.hash.slice(1));
  clearFilters();
  state.query = parts.get("q") ?? "";
  state.sort = Object.hasOwn(SORTS, parts.get("sort") ?? "") ? parts.get("sort") : "order";
  state.view = VIEWS.includes(parts.get("view")) ? parts.get("view") : "episode";
  state.shade = SHADES.includes(parts.get("shade")) ? parts.get("shade") : "plain";
  for (const facet of FACETS) {
    for (const name of parts.getAll(`f.${facet.key}`)) if (facet.names.includes(name)) facet.chosen.add(name);
  }
  for (const range of RANGES) {
    const [low, high] = (parts.get(`r.${range.key}`) ?? "~").split("~");
    Object.assign(range, { low: readNumber(low), high: readNumber(high) });
  }
  state.selected = total === 0 ? -1 : findRow(parts.get("id"), isComparison ? parts.get("run") : null);
};
