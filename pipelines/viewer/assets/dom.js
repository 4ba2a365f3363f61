// Creates elements. Text is set as text only: no string is ever parsed as markup.

const make = (tag, options = {}, ...children) => {
  const { text, on, ...attributes } = options;
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined) continue;
    if (name.startsWith("aria-") || typeof value !== "boolean") element.setAttribute(name, String(value));
    else element.toggleAttribute(name, value);
  }
  for (const [event, listener] of Object.entries(on ?? {})) element.addEventListener(event, listener);
  if (text !== undefined) element.textContent = text;
  element.append(...children.filter((child) => child !== null && child !== undefined));
  return element;
};

const button = (text, action, options = {}) =>
  make("button", { type: "button", text, on: { click: action }, ...options });

const number = (value) => value.toLocaleString("en-GB");

const signed = (value, digits = 2) => {
  if (value === null || value === undefined) return "–";
  const rounded = Math.abs(value).toFixed(digits);
  const sign = Number(rounded) === 0 ? "" : value < 0 ? "\u2212" : "+";
  return sign + rounded;
};

const words = (name) => name.replaceAll("_", " ");

const tone = (value) => (value === null || value === undefined || Math.abs(value) < 0.005 ? "flat" : value > 0 ? "good" : "bad");
