// One trajectory: the question, then each turn's thought, code and output, then the reward.

const SHADE_LABELS = { plain: "text", probability: "log-probability", advantage: "advantage" };
// The thought of a turn: up to </think>, from <think> or, if the chat template opened it, from the start.
const thoughtOf = (text) => {
  const end = text.search(/<\/think>/i);
  const start = end < 0 ? -1 : text.slice(0, end).search(/<think>/i);
  return end < 0 ? "" : text.slice(start < 0 ? 0 : start + "<think>".length, end).trim();
};

const fold = (title, ...children) => make("details", {}, make("summary", { text: title }), ...children);

const shortened = (text, limit = 20000) => (text.length > limit ? `${text.slice(0, limit)}\n… ${number(text.length - limit)} more characters` : text);

const outputBlock = (kind, label, text) =>
  text.trim() === "" ? null : make("div", { class: `output ${kind}` }, make("span", { class: "label", text: label }), make("pre", { text: shortened(text.trimEnd()), tabindex: 0, role: "group", "aria-label": label }));

const runBlock = (run, pictures, title) => {
  const nothing = !run.stdout.trim() && !run.stderr.trim() && !run.error && run.pictures.length === 0;
  return make(
    "div",
    { class: run.outcome === "ok" ? "run" : "run failed" },
    outputBlock("out", "output", run.stdout),
    outputBlock("err", "stderr", run.stderr),
    outputBlock("error", run.outcome === "ok" ? "error" : run.outcome, run.error ?? ""),
    run.outcome !== "ok" && !run.error ? outputBlock("error", run.outcome, "the block did not end") : null,
    nothing && run.outcome === "ok" ? make("p", { class: "soft", text: "no output" }) : null,
    run.pictures.length > 0 ? pictureRow(run.pictures, pictures, `${title}, output image`) : null,
  );
};

const turnFacts = (content, place) => {
  const turn = content.turns[place];
  const facts = make("span", { class: "facts" });
  if (turn.run) facts.append(badge(`${(1000 * turn.run.wall).toFixed(0)} ms`, "flat", "time in the sandbox"));
  if (turn.evidence === true) facts.append(badge("evidence", "good", "its output is new and depends on the image"));
  if (turn.evidence === false) facts.append(badge("no evidence", "bad", "its output is old, or does not depend on the image"));
  if (turn.fault) facts.append(badge("format fault", "bad", turn.fault));
  if (turn.tool_turn) facts.append(badge(`tool_turn ${signed(turn.tool_turn)}`, "bad", "reward due at this turn"));
  if (turn.advantage) facts.append(badge(`A turn ${signed(turn.advantage)}`, tone(turn.advantage), "advantage of this turn"));
  return facts;
};

const writtenBlocks = (turn) => {
  const thought = turn.kind === "code" && turn.content.includes("</think>") ? "" : thoughtOf(turn.text);
  const blocks = [];
  if (thought !== "") blocks.push(make("p", { class: "thought", text: shortened(thought) }));
  if (turn.kind === "code") blocks.push(pythonCode(shortened(turn.content.replace(/^\n+/, "").trimEnd())));
  if (turn.kind === "answer") blocks.push(make("p", { class: "said" }, make("span", { class: "label", text: "answer" }), make("b", { text: shortened(turn.content) })));
  if (turn.kind === "malformed") {
    blocks.push(make("p", { class: "said bad", text: `malformed: ${turn.content}` }), make("pre", { class: "raw", text: shortened(turn.text) }));
  }
  return blocks;
};

const turnBlock = ({ content, pictures }, place, shade) => {
  const turn = content.turns[place];
  const isShaded = shade !== "plain" && (content.tokens?.[place]?.[0].length ?? 0) > 0;
  const extra = [];
  if (!isShaded) extra.push(fold("raw text", make("pre", { class: "raw", text: shortened(turn.text) })));
  if (turn.reply !== null) {
    const reply = turn.reply.map((part) => part.text ?? "[image]").join("");
    extra.push(fold("reply to the policy", make("pre", { class: "raw", text: shortened(reply) })));
  }
  return make(
    "section",
    { class: "turn", "aria-label": `Turn ${place + 1}` },
    make("header", {}, make("h3", { text: `Turn ${place + 1}` }), turnFacts(content, place)),
    ...(isShaded ? [tokenText(content, place, shade)] : writtenBlocks(turn)),
    turn.run ? runBlock(turn.run, pictures, `Turn ${place + 1}`) : null,
    make("div", { class: "folds" }, ...extra),
  );
};

const openingBlock = ({ row, content, pictures }) => {
  const asked = content.opening.filter((message) => message.role !== "system").flatMap((message) => message.parts ?? []);
  const system = content.opening.find((message) => message.role === "system");
  const shown = asked.filter((part) => part.picture).map((part) => part.picture);
  return make(
    "section",
    { class: "opening", "aria-label": "Question" },
    make("p", { class: "asked", text: taskOf(row).question }),
    taskOf(row).choices.length > 0 ? make("p", { class: "soft", text: `one of: ${taskOf(row).choices.join(", ")}` }) : null,
    shown.length > 0 ? pictureRow(shown, pictures, "Question image") : make("p", { class: "soft", text: "no image" }),
    make(
      "div",
      { class: "folds" },
      fold("full prompt", ...[system ? page.systems[system.text] : "", asked.map((part) => part.text ?? "[image]").join("\n")].filter(Boolean).map((text) => make("pre", { class: "raw", text }))),
    ),
  );
};

const rewardTable = (content) => {
  const terms = Object.entries(content.terms);
  if (terms.length === 0) return make("p", { class: "soft", text: "No reward terms were recorded in this stage: it measures accuracy only." });
  const sum = terms.every(([, value]) => value !== null) ? terms.reduce((total_, [, value]) => total_ + value, 0) : null;
  const body = make("tbody");
  const add = (name, value, note, style = "") =>
    body.append(make("tr", { class: style }, make("th", { scope: "row", text: name }), make("td", { class: tone(value), text: value === null ? "not scored" : signed(value, 3) }), make("td", { class: "soft", text: note })));
  for (const [name, value] of terms) add(name, value, name === "tool_turn" ? "sum over the turns that failed" : "at the end");
  add("reward", sum, "", "sum");
  if (content.advantage !== null) add("advantage", content.advantage, "A_group, recomputed from these terms by the code that training uses");
  return make("div", { class: "scroll" }, make("table", { class: "terms" }, make("thead", {}, make("tr", {}, ...["term", "value", "when due"].map((text) => make("th", { scope: "col", text })))), body));
};

const verdict = (row) => {
  const outcome = outcomeOf(row);
  const answer = columns.answer[row];
  const said = answer === null ? `No answer: ended by ${words(endingOf(row))}.` : `Answered “${shortened(answer, 2000)}”.`;
  return make("p", { class: `verdict ${outcome === "right" ? "good" : outcome === "wrong" ? "bad" : ""}` }, outcomeBadge(row), make("b", { text: outcome }), ` ${said} `, outcome === "right" && answer === taskOf(row).answer ? null : make("span", { class: "soft", text: `The truth is “${taskOf(row).answer}”.` }));
};

const facts = ({ row, content }) => {
  const entries = [
    ["task", taskOf(row).id],
    ["stage", phaseOf(row)],
    columns.step[row] > 0 && ["step", number(columns.step[row])],
    ["policy", page.names.policy[columns.policy[row]]],
    ["ending", words(endingOf(row))],
    columns.certainty[row] !== null && ["mean log-probability", columns.certainty[row].toFixed(3)],
    content.count > 0 && ["tokens", number(content.count)],
    content.pass_rate !== null && ["weak policy's pass rate", percent(content.pass_rate)],
    ["seed", content.seed],
  ].filter(Boolean);
  return make("dl", { class: "about" }, ...entries.map(([name, value]) => make("div", {}, make("dt", { text: name }), make("dd", { text: value }))));
};

const shadeSwitch = (content) => {
  const isTrained = content.advantage !== null;
  const options = SHADES.filter((shade) => shade !== "advantage" || isTrained);
  return make(
    "div",
    { class: "switch", role: "group", "aria-label": "Shade tokens by" },
    make("span", { class: "label", text: "tokens" }),
    ...options.map((shade) => button(SHADE_LABELS[shade], () => { state.shade = shade; refreshDetail(); }, { "aria-pressed": shadeOf(content) === shade })),
  );
};

const shadeOf = (content) => {
  if (!hasTokens(content)) return "plain";
  return state.shade === "advantage" && content.advantage === null ? "plain" : state.shade;
};

const episodeView = (found) => {
  const { row, content } = found;
  const shade = shadeOf(content);
  return make(
    "article",
    { class: "episode" },
    verdict(row),
    openingBlock(found),
    make("div", { class: "bar" }, hasTokens(content) ? shadeSwitch(content) : make("span", { class: "soft", text: "No tokens were recorded for this policy." }), shade === "plain" ? null : shadeLegend(shade)),
    ...content.turns.map((_, place) => turnBlock(found, place, shade)),
    content.turns.length === 0 ? make("p", { class: "soft", text: "The episode ended before the policy's first turn." }) : null,
    make("section", { class: "turn", "aria-label": "Reward" }, make("h3", { text: "Reward" }), rewardTable(content)),
    facts(found),
  );
};
