// The list of rows, virtualized: only those in view are in the document.

const ROW_HEIGHT = 74;
const SPARE_ROWS = 6;
const listLayer = make("div", { class: "layer", role: "presentation" });
const listBox = make("div", {
  class: "list",
  id: "list",
  role: "listbox",
  tabindex: 0,
  "aria-label": "Trajectories",
  on: { scroll: () => requestAnimationFrame(drawList) },
});
const listEmpty = make("div", { class: "empty", hidden: true });
listBox.append(listLayer);

const badge = (text, kind, title) => make("span", { class: `badge ${kind}`, text, title });

const OUTCOME_MARKS = { right: "✓", wrong: "✗", "not scored": "–", infrastructure: "!" };

const outcomeBadge = (row) => {
  const outcome = outcomeOf(row);
  return make("span", { class: `mark ${outcome.replace(" ", "-")}`, text: OUTCOME_MARKS[outcome], title: outcome, "aria-label": outcome, role: "img" });
};

const placeOf = (row) => {
  const step = columns.step[row] > 0 ? `step ${columns.step[row]}` : page.names.phase[columns.phase[row]];
  const sample = siblings(row).length > 1 ? ` · #${columns.sample[row] + 1}` : "";
  return (isComparison ? `${RUN_LETTERS[columns.run[row]]} · ` : "") + step + sample;
};

const answerLine = (row) => {
  const answer = columns.answer[row];
  const line = make("span", { class: "answer" });
  if (answer === null) line.append(make("i", { text: words(endingOf(row)) }));
  else line.append(answer.slice(0, 80));
  if (outcomeOf(row) !== "right") line.append(make("span", { class: "soft", text: ` instead of ${taskOf(row).answer.slice(0, 60)}` }));
  return line;
};

const figures = (row) => {
  const calls = columns.calls[row];
  const failed = columns.failed[row];
  const parts = make("span", { class: "figures" });
  if (calls > 0) parts.append(badge(failed > 0 ? `${calls} run, ${failed} failed` : `${calls} run`, failed > 0 ? "bad" : "flat", "code blocks"));
  if (columns.reward[row] !== null) parts.append(badge(`r ${signed(columns.reward[row])}`, "flat", "reward"));
  if (columns.advantage[row] !== null) parts.append(badge(`A ${signed(columns.advantage[row])}`, tone(columns.advantage[row]), "advantage among its siblings"));
  return parts;
};

const listRow = (row, place) =>
  make(
    "div",
    {
      class: row === state.selected ? "row selected" : "row",
      id: `row-${row}`,
      role: "option",
      "aria-selected": row === state.selected,
      "aria-posinset": place + 1,
      "aria-setsize": rows.length,
      on: { click: () => select(row, { isChosen: true }) },
    },
    make("div", { class: "top" }, outcomeBadge(row), make("b", { text: taskOf(row).family }), badge(taskOf(row).difficulty, `difficulty ${taskOf(row).difficulty}`), make("span", { class: "where", text: placeOf(row) })),
    make("div", { class: "question", text: taskOf(row).question.slice(0, 160) }),
    make("div", { class: "bottom" }, answerLine(row), figures(row)),
  );

const drawList = () => {
  listLayer.style.height = `${rows.length * ROW_HEIGHT}px`;
  const first = Math.max(0, Math.floor(listBox.scrollTop / ROW_HEIGHT) - SPARE_ROWS);
  const last = Math.min(rows.length, Math.ceil((listBox.scrollTop + listBox.clientHeight) / ROW_HEIGHT) + SPARE_ROWS);
  const drawn = [];
  for (let place = first; place < last; place += 1) {
    const element = listRow(rows[place], place);
    element.style.top = `${place * ROW_HEIGHT}px`;
    drawn.push(element);
  }
  listLayer.replaceChildren(...drawn);
  if (rows.includes(state.selected)) listBox.setAttribute("aria-activedescendant", `row-${state.selected}`);
  else listBox.removeAttribute("aria-activedescendant");
};

const showInList = (row) => {
  const place = rows.indexOf(row);
  if (place < 0) return;
  const top = place * ROW_HEIGHT;
  if (top < listBox.scrollTop) listBox.scrollTop = top;
  else if (top + ROW_HEIGHT > listBox.scrollTop + listBox.clientHeight) listBox.scrollTop = top + ROW_HEIGHT - listBox.clientHeight;
};

const drawEmpty = () => {
  listEmpty.hidden = rows.length > 0;
  listBox.hidden = rows.length === 0;
  if (rows.length > 0) return;
  if (total === 0) {
    listEmpty.replaceChildren(
      make("h2", { text: "No trajectories yet" }),
      make("p", { text: `This run has no trajectories in the stages shown (${page.stages.join(", ")}) yet. Rerun “codedance view ${page.runs[0].id}” once it has some.` }),
    );
  } else {
    listEmpty.replaceChildren(
      make("h2", { text: "Nothing matches" }),
      make("p", { text: `None of the ${number(total)} trajectories passes all the filters.` }),
      button("Clear the filters", () => { clearFilters(); refresh(); }, { class: "primary" }),
    );
  }
};
