// The index of all trajectories, and the shards with their full content, loaded on demand.

const readBlock = (id) => {
  const block = document.getElementById(id);
  return block === null ? null : JSON.parse(block.textContent);
};

const page = readBlock("index");
const columns = page.columns;
const total = (columns.id ?? []).length;
const isComparison = page.runs.length > 1;
const RUN_LETTERS = ["A", "B"];
const MOST_LOADED = 24;

const taskOf = (row) => page.tasks[columns.task[row]];
const phaseOf = (row) => {
  const stage = page.names.stage[columns.stage[row]];
  const phase = page.names.phase[columns.phase[row]];
  return `${stage} · ${phase}`;
};
const endingOf = (row) => page.names.ending[columns.ending[row]];
const outcomeOf = (row) => {
  if (endingOf(row) === "infrastructure") return "infrastructure";
  const accuracy = columns.accuracy[row];
  if (accuracy === null) return "not scored";
  return accuracy === 1 ? "right" : "wrong";
};

const groupBy = (key) => {
  const found = new Map();
  for (let row = 0; row < total; row += 1) {
    const name = key(row);
    if (found.has(name)) found.get(name).push(row);
    else found.set(name, [row]);
  }
  return found;
};

const groupKey = (row) =>
  [columns.run[row], columns.stage[row], columns.phase[row], columns.step[row], columns.task[row]].join(" ");
const groups = groupBy(groupKey);
const rowsOfTask = groupBy((row) => columns.task[row]);
const siblings = (row) => groups.get(groupKey(row));

const shards = new Map();
const arriving = new Map();
// MLflow shows the page in a frame without a URL; a meta tag then holds the path of its artifacts.
const artifactPath = document.querySelector('meta[name="codedance-mlflow"]')?.content ?? "";
const server = /^blob:(https?:\/\/[^/]+)\//.exec(location.href)?.[1];
const beside = artifactPath !== "" && server !== undefined ? `${server}${artifactPath}` : "";

const trusted = window.trustedTypes?.createPolicy("codedance-shards", {
  createScriptURL: (address) => {
    const name = address.startsWith(beside) ? decodeURIComponent(address.slice(beside.length)) : "";
    if (!/^[^/:]+\/\d{4,}\.mjs$/.test(name)) throw new TypeError(`${address} is no shard`);
    return address;
  },
});

const shardAddress = (place) => {
  const name = `${String(place).padStart(4, "0")}.mjs`;
  if (beside !== "") return beside + encodeURIComponent(`${page.folder}/${name}`);
  return `${encodeURIComponent(page.folder)}/${name}`;
};

const keepShard = (place, shard) => {
  shards.delete(place);
  shards.set(place, shard);
  const fromFiles = [...shards.keys()].filter((one) => one >= page.inline);
  if (fromFiles.length > MOST_LOADED) shards.delete(fromFiles[0]);
  return shard;
};

window.codedanceShard = (place, text) => {
  arriving.get(place)?.(JSON.parse(text));
};

const fetchShard = (place) =>
  new Promise((resolve, reject) => {
    const script = document.createElement("script");
    const address = shardAddress(place);
    const finish = (action) => (value) => {
      arriving.delete(place);
      script.remove();
      action(value);
    };
    arriving.set(place, finish(resolve));
    script.addEventListener("error", finish(() => reject(new Error(address))));
    script.src = trusted ? trusted.createScriptURL(address) : address;
    document.head.append(script);
  });

const pending = new Map();
const loadShard = async (place) => {
  const known = shards.get(place);
  if (known !== undefined) return known;
  if (place < page.inline) return keepShard(place, readBlock(`shard-${place}`));
  if (!pending.has(place)) pending.set(place, fetchShard(place).finally(() => pending.delete(place)));
  return keepShard(place, await pending.get(place));
};

const load = async (row) => {
  const shard = await loadShard(columns.shard[row]);
  return { row, content: shard.trajectories[row], pictures: shard.pictures };
};

// Thoughts, code and output for searching; available for the shards that were read.
const transcripts = new Map();
const readShards = new Set();

const transcript = (content) =>
  content.turns
    .flatMap((turn) => [turn.text, turn.run?.stdout ?? "", turn.run?.stderr ?? "", turn.run?.error ?? ""])
    .join("\n")
    .toLowerCase();

const noteTranscripts = (place, shard) => {
  if (readShards.has(place)) return;
  readShards.add(place);
  for (const [row, content] of Object.entries(shard.trajectories)) transcripts.set(Number(row), transcript(content));
};

const readInline = () => {
  for (let place = 0; place < page.inline; place += 1) {
    if (!readShards.has(place)) noteTranscripts(place, shards.get(place) ?? readBlock(`shard-${place}`));
  }
};

const readAll = async (onProgress) => {
  for (let place = 0; place < page.shards; place += 1) {
    if (!readShards.has(place)) noteTranscripts(place, await loadShard(place));
    onProgress(place + 1);
  }
};
