// Trajectories side by side: the siblings of a group, or all trajectories of one task.

const MOST_SIDE_BY_SIDE = 24;

const columnHead = (row, label) =>
  make(
    "header",
    {},
    outcomeBadge(row),
    make("b", { text: label }),
    columns.reward[row] !== null ? badge(`r ${signed(columns.reward[row])}`, "flat", "reward") : null,
    columns.advantage[row] !== null ? badge(`A ${signed(columns.advantage[row])}`, tone(columns.advantage[row]), "advantage") : null,
    button("Open", () => { state.view = "episode"; select(row, { isChosen: true }); }, { class: "small", "aria-label": `Open ${label}` }),
  );

const column = (found, label) => {
  const { row, content } = found;
  const shade = shadeOf(content);
  return make(
    "article",
    { class: row === state.selected ? "column current" : "column", "aria-label": label },
    columnHead(row, label),
    make("p", { class: "said" }, make("span", { class: "label", text: "answer" }), columns.answer[row] === null ? make("i", { text: `none, ${words(endingOf(row))}` }) : make("b", { text: columns.answer[row].slice(0, 400) })),
    ...content.turns.map((_, place) => turnBlock(found, place, shade)),
  );
};

const advantageStrip = (members) => {
  const known = members.filter((row) => columns.advantage[row] !== null);
  if (known.length === 0) return null;
  const largest = Math.max(0.01, ...known.map((row) => Math.abs(columns.advantage[row])));
  const strip = make("div", { class: "strip", role: "img", "aria-label": `Advantages: ${known.map((row) => signed(columns.advantage[row])).join(", ")}` });
  for (const row of known) {
    const value = columns.advantage[row];
    const bar = make("span", { class: `stick ${tone(value)}${row === state.selected ? " current" : ""}`, title: `#${columns.sample[row] + 1}: ${signed(value)}` }, make("i", {}));
    bar.firstChild.style.height = `${Math.max(2, (30 * Math.abs(value)) / largest)}px`;
    bar.classList.add(value < 0 ? "below" : "above");
    strip.append(bar);
  }
  return strip;
};

const sideBySide = async (members, label) => {
  const loaded = await Promise.all(members.slice(0, MOST_SIDE_BY_SIDE).map(load));
  return make("div", { class: "columns" }, ...loaded.map((found) => column(found, label(found.row))));
};

const rightOf = (members) => {
  const scored = members.filter((row) => ["right", "wrong"].includes(outcomeOf(row)));
  return `${scored.filter((row) => outcomeOf(row) === "right").length} of ${scored.length} right`;
};

const groupView = async (found) => {
  const members = siblings(found.row);
  return make(
    "div",
    { class: "together" },
    openingBlock(found),
    make("p", { class: "summary" }, make("b", { text: `${members.length} ${members.length === 1 ? "trajectory" : "siblings"}` }), ` on this task in ${phaseOf(found.row)}${columns.step[found.row] > 0 ? `, step ${columns.step[found.row]}` : ""}: ${rightOf(members)}; the truth is “${taskOf(found.row).answer}”.`),
    members.length === 1 ? make("p", { class: "soft", text: "It was sampled once in this phase and has no siblings; “Same task” shows the other policies." }) : null,
    advantageStrip(members),
    await sideBySide(members, (row) => `#${columns.sample[row] + 1}`),
  );
};

const runName = (row) => (isComparison ? `${RUN_LETTERS[columns.run[row]]} · ` : "");

const taskView = async (found) => {
  const members = rowsOfTask.get(columns.task[found.row]);
  const phases = [...new Set(members.map(phaseOf))];
  const view = make("div", { class: "together" }, openingBlock(found), make("p", { class: "summary" }, make("b", { text: `${members.length} on this task` }), `, all policies and steps${isComparison ? " of both runs" : ""}; the truth is “${taskOf(found.row).answer}”.`));
  if (isComparison) {
    view.append(make("p", { class: "soft", text: page.runs.map((run, place) => `${RUN_LETTERS[place]}: ${run.id}`).join("   ") }));
    const missing = RUN_LETTERS.filter((_, place) => !members.some((row) => columns.run[row] === place));
    if (missing.length > 0) view.append(make("p", { class: "soft", text: `Run ${missing[0]} has no trajectory on this task.` }));
  }
  for (const phase of phases) {
    const part = members.filter((row) => phaseOf(row) === phase);
    const more = part.length > MOST_SIDE_BY_SIDE ? `, the first ${MOST_SIDE_BY_SIDE} shown` : "";
    const scores = isComparison
      ? RUN_LETTERS.map((letter, place) => `${letter} ${rightOf(part.filter((row) => columns.run[row] === place))}`).join(", ")
      : rightOf(part);
    view.append(make("h3", { text: `${phase}: ${scores}${more}` }));
    const labelled = (row) => `${runName(row)}${columns.step[row] > 0 ? `step ${columns.step[row]} ` : ""}#${columns.sample[row] + 1}`;
    view.append(await sideBySide(part, labelled));
  }
  return view;
};
