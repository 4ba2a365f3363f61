// The text of a policy by token: shaded by its probability or by its advantage in training.

const PROBABILITY_STEPS = [0.99, 0.9, 0.7, 0.5, 0.25, 0.1];
const ADVANTAGE_STEPS = [0.02, 0.25, 0.75, 1.5];

const probabilityClass = (log) => {
  const probability = Math.exp(log);
  const step = PROBABILITY_STEPS.findIndex((bound) => probability >= bound);
  return `p${step < 0 ? PROBABILITY_STEPS.length : step}`;
};

const advantageClass = (value) => {
  const step = ADVANTAGE_STEPS.filter((bound) => Math.abs(value) >= bound).length;
  return step === 0 ? "a0" : `${value > 0 ? "up" : "down"}${step}`;
};

const percent = (probability) => (probability >= 0.9995 ? "100 %" : `${(100 * probability).toPrecision(2)} %`);

const turnAdvantage = (content, place) =>
  content.advantage === null ? null : content.advantage + (content.turns[place].advantage ?? 0);

const hasTokens = (content) => (content.tokens ?? []).length > 0;

const tokenText = (content, place, shade) => {
  const [pieces, logs] = content.tokens?.[place] ?? [[], []];
  const advantage = turnAdvantage(content, place);
  const block = make("pre", { class: "tokens", tabindex: 0, role: "group", "aria-label": "What the policy wrote, by token" });
  pieces.forEach((piece, index) => {
    const log = logs[index] / 1000;
    const probability = `${percent(Math.exp(log))}, log ${log.toFixed(3)}`;
    const isByAdvantage = shade === "advantage";
    const text = page.pieces[piece];
    const style = isByAdvantage ? advantageClass(advantage ?? 0) : probabilityClass(log);
    block.append(make("span", { class: `token ${style}`, text: text.replace(/\n/g, "↵\n"), title: advantage === null ? probability : `${probability}; advantage ${signed(advantage, 3)}` }));
  });
  return block;
};

const shadeLegend = (shade) => {
  const legend = make("div", { class: "legend", "aria-label": "What the shades mean" });
  if (shade === "probability") {
    const labels = ["≥ 99 %", "90", "70", "50", "25", "10", "less"];
    labels.forEach((label, step) => legend.append(make("span", { class: `token p${step}`, text: label })));
    legend.append(make("span", { class: "soft", text: "probability when it was sampled" }));
  } else {
    for (const [style, label] of [["down4", "≤ −1.5"], ["down3", ""], ["down2", ""], ["down1", ""], ["a0", "0"], ["up1", ""], ["up2", ""], ["up3", ""], ["up4", "≥ 1.5"]]) {
      legend.append(make("span", { class: `token ${style}`, text: label || "\u2003" }));
    }
    legend.append(make("span", { class: "soft", text: "advantage: weight of each token in the GRPO update" }));
  }
  return legend;
};
