// Highlights Python code: one element per line, one span per token; anything else stays plain text.

const KEYWORDS = new Set(
  ("False None True and as assert async await break class continue def del elif else except finally for from " +
    "global if import in is lambda match case nonlocal not or pass raise return try while with yield").split(" "),
);
const BUILTINS = new Set(
  ("abs all any bool dict display enumerate float input_image input_images int len list map max min open print range round " +
    "set sorted str sum tuple type zip").split(" "),
);
const PYTHON =
  /("""[\s\S]*?(?:"""|$)|'''[\s\S]*?(?:'''|$)|"(?:\\.|[^"\\\n])*"?|'(?:\\.|[^'\\\n])*'?)|(#[^\n]*)|(\b\d[\w.]*)|([\p{L}_][\p{L}\p{N}_]*)|([\s\S])/gu;

const kindOf = ([, string, comment, digits, name], before) => {
  if (string !== undefined) return "string";
  if (comment !== undefined) return "comment";
  if (digits !== undefined) return "digits";
  if (name === undefined) return "";
  if (before === ".") return "member";
  return KEYWORDS.has(name) ? "keyword" : BUILTINS.has(name) ? "builtin" : "";
};

const pythonCode = (code) => {
  const block = make("code");
  let line = make("span", { class: "line" });
  let plain = "";
  let before = "";
  const flush = () => {
    if (plain !== "") line.append(plain);
    plain = "";
  };
  const put = (kind, text) => {
    if (kind === "") {
      plain += text;
    } else {
      flush();
      line.append(make("span", { class: `py-${kind}`, text }));
    }
  };
  for (const match of code.matchAll(PYTHON)) {
    const kind = kindOf(match, before);
    before = match[0];
    match[0].split("\n").forEach((text, place) => {
      if (place > 0) {
        flush();
        line.append("\n");
        block.append(line);
        line = make("span", { class: "line" });
      }
      if (text !== "") put(kind, text);
    });
  }
  flush();
  block.append(line);
  return make("pre", { class: "python", tabindex: 0, role: "group", "aria-label": "Python code" }, block);
};
