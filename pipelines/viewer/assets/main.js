// Builds the page: filters, list, detail, keyboard shortcuts, theme.

const app = document.getElementById("app");
const detail = make("main", { class: "detail", id: "detail", tabindex: -1, "aria-label": "Trajectory" });
const detailBody = make("div", { class: "body" });
const counter = make("span", { class: "count", role: "status", "aria-live": "polite" });
const searchNote = make("div", { class: "note" });
const search = make("input", { type: "search", id: "search", placeholder: "Search  /", "aria-label": "Search questions, answers, thoughts, code and output", autocomplete: "off", spellcheck: "false" });
const filterBox = make("form", { class: "filters", id: "filters", "aria-label": "Filters", on: { submit: (event) => event.preventDefault() } });
const sortBox = make("select", { "aria-label": "Sort by", on: { change: () => { state.sort = sortBox.value; refresh({ isFromTop: true }); } } });
const helpWindow = make("dialog", { class: "help", "aria-label": "Keys" });
const VIEW_LABELS = { episode: "Trajectory", group: "Group", task: "Same task" };
const KEYS = [
  ["j  ↓", "next trajectory"], ["k  ↑", "previous trajectory"], ["/", "search"], ["e", "the trajectory"], ["g", "its group, side by side"],
  ["t", "the same task by all policies"], ["s", "shade the tokens"], ["z", "enlarge the first image"], ["f", "filters"], ["c", "clear the filters"], ["d", "dark or light"], ["Esc", "close, or go back"], ["?", "this help"],
];

const SHORT_FACET = 10;
const opened = new Set();
let drawn = 0;
let searchTimer = 0;

const refreshCount = () => {
  counter.textContent = rows.length === total ? `${number(total)} trajectories` : `${number(rows.length)} of ${number(total)}`;
  counter.title = `filtered in ${filterMilliseconds.toFixed(1)} ms`;
  document.body.dataset.filterMilliseconds = filterMilliseconds.toFixed(2);
};

const refreshSearchNote = () => {
  const unread = total - transcripts.size;
  searchNote.replaceChildren();
  if (state.query === "" || unread <= 0) return;
  searchNote.append(`Thoughts, code and output of ${number(transcripts.size)} are searched. `);
  const more = button(`Read the other ${number(unread)}`, async () => {
    more.disabled = true;
    try {
      await readAll((done) => { more.textContent = `reading ${done} of ${page.shards} …`; });
    } catch {
      more.textContent = "the files beside the page are missing";
      return;
    }
    refresh();
  }, { class: "small" });
  searchNote.append(more);
};

const facetBlock = (facet) => {
  const values = valuesInOrder(facet).filter((name) => facet.counts[facet.names.indexOf(name)] > 0 || facet.chosen.has(name));
  const isLong = values.length > SHORT_FACET + 2;
  const kept = isLong && !opened.has(facet.key) ? values.filter((name, place) => place < SHORT_FACET || facet.chosen.has(name)) : values;
  const chips = kept.map((name) => {
    const count = facet.counts[facet.names.indexOf(name)];
    const toggle = () => {
      if (!facet.chosen.delete(name)) facet.chosen.add(name);
      refresh({ isFromTop: true, focus: `${facet.key} ${name}` });
    };
    return make("button", { type: "button", class: "chip", "aria-pressed": facet.chosen.has(name), "data-key": `${facet.key} ${name}`, title: name, on: { click: toggle } }, make("span", { text: facet.shown(name) }), make("small", { text: number(count) }));
  });
  if (chips.length === 0 || facet.names.length < 2) return null;
  const more = () => { if (!opened.delete(facet.key)) opened.add(facet.key); drawFilters(); };
  return make("fieldset", {}, make("legend", { text: facet.label }), ...chips, isLong ? button(opened.has(facet.key) ? "fewer" : `${values.length - kept.length} more`, more, { class: "more" }) : null);
};

const rangeBlock = (range) => {
  const field = (end, label) => {
    const input = make("input", { type: "number", step: range.step, placeholder: label, "aria-label": `${range.label}, ${label}`, "data-key": `${range.key} ${end}`, on: { change: () => { range[end] = readNumber(input.value); refresh({ isFromTop: true, focus: `${range.key} ${end}` }); } } });
    input.value = range[end] ?? "";
    return input;
  };
  return make("fieldset", { class: "range" }, make("legend", { text: range.label }), field("low", "from"), make("span", { text: "–", "aria-hidden": "true" }), field("high", "to"));
};

const drawFilters = (focus) => {
  const scrolled = filterBox.scrollTop;
  filterBox.replaceChildren(
    make("div", { class: "head" }, make("b", { text: "Filters" }), button("Clear", () => { clearFilters(); refresh({ isFromTop: true }); }, { class: "small", disabled: !isFiltered() }), button("Close", () => document.body.classList.remove("filtering"), { class: "small only-narrow" })),
    ...FACETS.map(facetBlock).filter(Boolean),
    ...RANGES.map(rangeBlock),
  );
  filterBox.scrollTop = scrolled;
  if (focus) [...filterBox.querySelectorAll("[data-key]")].find((one) => one.dataset.key === focus)?.focus();
};

const tabs = () =>
  make(
    "nav",
    { class: "tabs", "aria-label": "Views" },
    button("← List", () => document.body.classList.remove("reading"), { class: "only-narrow" }),
    ...VIEWS.map((view) => {
      const count = view === "group" ? siblings(state.selected).length : view === "task" ? rowsOfTask.get(columns.task[state.selected]).length : 0;
      return button(VIEW_LABELS[view] + (count > 0 ? ` (${count})` : ""), () => showView(view), { "aria-pressed": state.view === view });
    }),
    make("span", { class: "spread" }),
    make("span", { class: "where", text: `${taskOf(state.selected).family} · ${placeOf(state.selected)}` }),
  );

const shardProblem = (row, error) =>
  make(
    "div",
    { class: "empty" },
    make("h2", { text: "This trajectory is in a file beside the page" }),
    make("p", { text: `Its file ${error.message} could not be loaded. ${number(columns.shard.filter((shard) => shard < page.inline).length)} of ${number(total)} trajectories are in the page itself and can be viewed anywhere; for the others open the page where it was written, with the folder “${page.folder}” beside it.` }),
    page.shards > page.inline ? button("Show only those in the page", () => { FACETS.find((facet) => facet.key === "place")?.chosen.add("in this page"); refresh({ isFromTop: true }); }, { class: "primary" }) : null,
  );

const VIEW_MAKERS = { episode: (found) => episodeView(found), group: groupView, task: taskView };

const refreshDetail = async () => {
  writeAddress();
  const row = state.selected;
  drawn += 1;
  const mine = drawn;
  if (row < 0) {
    detail.replaceChildren(make("div", { class: "empty" }, make("h2", { text: total === 0 ? "No trajectories yet" : "Choose a trajectory" }), make("p", { text: "The keys j and k go through the list; ? shows all keys." })));
    return;
  }
  let body;
  try {
    body = await VIEW_MAKERS[state.view](await load(row));
  } catch (error) {
    body = shardProblem(row, error);
  }
  if (mine !== drawn) return;
  const isSame = detail.dataset.row === `${row} ${state.view}`;
  detailBody.replaceChildren(body);
  detail.replaceChildren(tabs(), detailBody);
  detail.dataset.row = `${row} ${state.view}`;
  if (!isSame) detailBody.scrollTop = 0;
};

const select = (row, { isChosen = false } = {}) => {
  state.selected = row;
  if (isChosen) document.body.classList.add("reading");
  showInList(row);
  drawList();
  return refreshDetail();
};

const showView = (view) => {
  if (state.selected < 0) return;
  state.view = view;
  refreshDetail();
};

const refresh = ({ isFromTop = false, focus = null } = {}) => {
  applyFilters();
  if (isFromTop) listBox.scrollTop = 0;
  if (!rows.includes(state.selected)) state.selected = rows[0] ?? -1;
  refreshCount();
  refreshSearchNote();
  drawFilters(focus);
  if (search.value !== state.query) search.value = state.query;
  sortBox.value = state.sort;
  drawEmpty();
  if (!isFromTop) showInList(state.selected);
  drawList();
  refreshDetail();
};

const move = (by) => {
  const place = rows.indexOf(state.selected);
  const next = rows[Math.min(rows.length - 1, Math.max(0, place + by))];
  if (next !== undefined) select(next);
};

const setTheme = (theme) => {
  document.documentElement.dataset.theme = theme;
  try {
    localStorage.setItem("codedance-theme", theme);
  } catch {
    // A page in a frame may have no local storage.
  }
};

const switchTheme = () => {
  const isDark = getComputedStyle(document.documentElement).colorScheme === "dark" ||
    (!document.documentElement.dataset.theme && matchMedia("(prefers-color-scheme: dark)").matches);
  setTheme(isDark ? "light" : "dark");
};

const goBack = () => {
  if (document.body.classList.contains("filtering")) document.body.classList.remove("filtering");
  else if (document.activeElement === search && search.value !== "") { state.query = ""; refresh({ isFromTop: true }); }
  else if (document.activeElement === search) search.blur();
  else if (state.view !== "episode") showView("episode");
  else document.body.classList.remove("reading");
};

const ACTIONS = {
  j: () => move(1), ArrowDown: () => move(1), k: () => move(-1), ArrowUp: () => move(-1), PageDown: () => move(10), PageUp: () => move(-10),
  Home: () => move(-total), End: () => move(total), Enter: () => document.body.classList.add("reading"),
  "/": () => { document.body.classList.remove("reading"); search.focus(); search.select(); },
  e: () => showView("episode"), g: () => showView(state.view === "group" ? "episode" : "group"), t: () => showView(state.view === "task" ? "episode" : "task"),
  s: () => { state.shade = SHADES[(SHADES.indexOf(state.shade) + 1) % SHADES.length]; refreshDetail(); },
  z: () => detail.querySelector("button.picture")?.click(),
  f: () => { document.body.classList.toggle("filtering"); filterBox.querySelector(".chip")?.focus(); },
  c: () => { clearFilters(); refresh({ isFromTop: true }); }, d: switchTheme, "?": () => helpWindow.showModal(), Escape: goBack,
};

const LEFT_ALONE = { INPUT: ["Escape"], SELECT: ["Escape"], BUTTON: ["j", "k", "/", "e", "g", "t", "s", "z", "f", "c", "d", "?", "Escape", "ArrowDown", "ArrowUp"] };

const handleKey = (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || helpWindow.open || zoomWindow.open) return;
  const allowed = LEFT_ALONE[event.target.tagName];
  if (allowed && !allowed.includes(event.key)) return;
  const isReading = detail.contains(event.target) && ["ArrowDown", "ArrowUp", "PageDown", "PageUp", "Home", "End"].includes(event.key);
  if (isReading || !Object.hasOwn(ACTIONS, event.key)) return;
  event.preventDefault();
  ACTIONS[event.key]();
};

const header = () => {
  const [run, other] = page.runs;
  const about = [run.suite, `seed ${run.seed}`, run.commit && `commit ${run.commit}`, run.started].filter(Boolean).join(" · ");
  return make(
    "header",
    { class: "page" },
    make("div", { class: "title" }, make("h1", { text: other ? `${run.id} (A) and ${other.id} (B)` : run.id }), make("p", { class: "soft", text: other ? "two runs on the same tasks" : about })),
    counter,
    make("div", { class: "searching" }, search, searchNote),
    button("Filters", ACTIONS.f, { class: "only-narrow" }),
    button("◐", switchTheme, { "aria-label": "Dark or light", title: "Dark or light (d)" }),
    button("?", () => helpWindow.showModal(), { "aria-label": "Keys", title: "Keys (?)" }),
  );
};

const build = () => {
  try {
    const theme = localStorage.getItem("codedance-theme");
    if (theme === "dark" || theme === "light") document.documentElement.dataset.theme = theme;
  } catch {
    // As above: the reader's system setting applies.
  }
  for (const [name, { label, column: key }] of Object.entries(SORTS)) {
    if (key === undefined || (columns[key] ?? []).some((value) => value !== null && value !== 0)) sortBox.append(make("option", { value: name, text: label }));
  }
  helpWindow.append(make("h2", { text: "Keys" }), make("dl", {}, ...KEYS.map(([key, what]) => make("div", {}, make("dt", { text: key }), make("dd", { text: what })))), button("Close", () => helpWindow.close(), { class: "primary" }));
  search.addEventListener("input", () => {
    clearTimeout(searchTimer);
    searchTimer = setTimeout(() => { state.query = search.value; refresh({ isFromTop: true }); }, 120);
  });
  app.replaceChildren(header(), make("div", { class: "panes" }, filterBox, make("section", { class: "listing", "aria-label": "List" }, make("div", { class: "sorting" }, make("label", {}, "Sort: ", sortBox)), listBox, listEmpty), detail), helpWindow, zoomWindow);
  document.addEventListener("keydown", handleKey);
  addEventListener("resize", drawList);
  addEventListener("hashchange", () => { readAddress(); refresh(); });
  readAddress();
  if (location.hash.includes("id=")) document.body.classList.add("reading");
  refresh();
  document.body.dataset.ready = "yes";
  document.body.dataset.loadMilliseconds = performance.now().toFixed(0);
};

build();
