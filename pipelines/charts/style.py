"""The report's style sheet: light or dark by the reader's setting, no script, no font file."""

STYLE = """
:root { color-scheme: light dark;
  --paper: #fbfaf7; --card: #ffffff; --ink: #1c1f23; --soft: #6a7078; --line: #e4e1da;
  --accent: #1f6feb; --good: #1a7f4b; --bad: #b3362b; --code: #f4f2ec;
  --c0: #8a94a3; --c1: #1f6feb; --c2: #d9822b; --c3: #1a7f4b; --c4: #8250df; }
@media (prefers-color-scheme: dark) { :root {
  --paper: #14161a; --card: #1c1f25; --ink: #e7e9ec; --soft: #9aa3ad; --line: #30353d;
  --accent: #6cb0ff; --good: #56c98c; --bad: #ff8a7e; --code: #23272e;
  --c0: #8b95a5; --c1: #6cb0ff; --c2: #f0a860; --c3: #56c98c; --c4: #c297ff; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--ink);
  font: 15px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; }
main { max-width: 1180px; margin: 0 auto; padding: 40px 24px 80px; }
h1 { font-size: 26px; margin: 0 0 4px; letter-spacing: -.01em; }
h2 { font-size: 19px; margin: 48px 0 14px; }
h3 { font-size: 15px; margin: 28px 0 10px; color: var(--soft); font-weight: 600; }
.sub, .note { color: var(--soft); margin: 0; } .scroll + .note { margin-top: 12px; }
.note + .gallery { margin-top: 12px; }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(170px, 1fr));
  gap: 14px; margin-top: 26px; }
.tile, .chart, .episode, .scroll { background: var(--card); border: 1px solid var(--line);
  border-radius: 10px; }
.tile { padding: 14px 18px; }
.tile b { display: block; font-size: 26px; font-weight: 650; letter-spacing: -.02em;
  font-variant-numeric: tabular-nums; }
.tile span { color: var(--soft); font-size: 13px; }
.good { color: var(--good); } .bad { color: var(--bad); }
.charts { display: grid; grid-template-columns: repeat(auto-fit, minmax(320px, 1fr)); gap: 14px; }
.chart { margin: 0; padding: 12px 12px 4px; }
.chart figcaption { display: flex; justify-content: space-between; gap: 8px; font-size: 13px;
  font-weight: 600; padding: 0 4px 4px; flex-wrap: wrap; }
.chart svg { width: 100%; height: auto; display: block; }
.chart text { fill: var(--soft); font-size: 11px; }
.grid { stroke: var(--line); } polyline { fill: none; stroke-linejoin: round; }
.line { stroke-width: 2; } .raw { stroke-width: 1; opacity: .3; }
.c0 { stroke: var(--c0); } .c1 { stroke: var(--c1); } .c2 { stroke: var(--c2); }
.c3 { stroke: var(--c3); } .c4 { stroke: var(--c4); }
i.c0 { background: var(--c0); } i.c1 { background: var(--c1); } i.c2 { background: var(--c2); }
i.c3 { background: var(--c3); } i.c4 { background: var(--c4); }
.dot { fill: currentColor; }
.key { font-weight: 400; color: var(--soft); margin-left: 10px; white-space: nowrap; }
.key i { display: inline-block; width: 9px; height: 9px; border-radius: 3px; margin-right: 5px; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th, td { padding: 6px 11px; text-align: left; white-space: nowrap; }
th { font-size: 12px; color: var(--soft); font-weight: 600; border-bottom: 1px solid var(--line); }
tr.first td { border-top: 1px solid var(--line); }
td:first-child { font-weight: 600; }
.gallery { display: grid; grid-template-columns: repeat(auto-fill, minmax(300px, 1fr)); gap: 14px;
  align-items: start; }
.episode { padding: 14px 16px; overflow: hidden; }
.episode header { display: flex; justify-content: space-between; gap: 8px; font-size: 12px;
  color: var(--soft); }
.episode .question { font-weight: 600; margin: 8px 0; overflow-wrap: anywhere; }
.episode img { max-width: 100%; max-height: 220px; border-radius: 6px; display: block;
  border: 1px solid var(--line); margin: 6px 0; image-rendering: auto; }
.episode pre { background: var(--code); border-radius: 6px; padding: 8px 10px; margin: 6px 0;
  font: 12px/1.45 ui-monospace, "SF Mono", Menlo, Consolas, monospace; white-space: pre-wrap;
  overflow-wrap: anywhere; max-height: 260px; overflow-y: auto; }
.episode pre.back { border-left: 3px solid var(--accent); }
.episode pre.failed { border-left: 3px solid var(--bad); }
.thought { color: var(--soft); font-style: italic; margin: 6px 0; overflow-wrap: anywhere; }
.verdict { margin: 8px 0 0; overflow-wrap: anywhere; } details { margin-top: 18px; }
.alarms { grid-column: 1 / -1; border-left: 3px solid var(--bad); padding: 0 18px; }
summary { cursor: pointer; color: var(--soft); }
@media (max-width: 560px) { main { padding: 24px 14px 60px; } }
"""
