"""The look of the report page, and the few lines of script that name the values under the pointer."""

from __future__ import annotations

STYLE = """
:root {
  color-scheme: light dark;
  --bg: #f5f4f0; --card: #fff; --soft: #f0eee8; --line: #e4e1d9; --ink: #1c1e24; --muted: #5a5f6b;
  --s0: #2f5d8f; --s1: #b4531b; --accent: #1b7a76; --good: #1d7a4c; --watch: #946000; --bad: #b3261e;
  --shadow: 0 1px 2px #1c1e2410, 0 8px 24px -12px #1c1e2426;
}
@media (prefers-color-scheme: dark) {
  :root {
    --bg: #101217; --card: #191c23; --soft: #20242d; --line: #2b303b; --ink: #e9eaee; --muted: #a4a9b6;
    --s0: #82b4ea; --s1: #f2a265; --accent: #55c2b4; --good: #5ccb90; --watch: #e8b04a; --bad: #ff8a80;
    --shadow: 0 0 0 1px #ffffff08;
  }
}
* { box-sizing: border-box; }
html { scroll-behavior: smooth; -webkit-text-size-adjust: 100%; }
@media (prefers-reduced-motion: reduce) { html { scroll-behavior: auto; } }
body {
  margin: 0; background: var(--bg); color: var(--ink); line-height: 1.6;
  font-family: system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif;
}
.wrap { max-width: 1160px; margin: 0 auto; padding: 0 clamp(16px, 4vw, 32px); }
img { display: block; max-width: 100%; height: auto; border-radius: 8px; background: var(--soft); }
a:focus-visible, summary:focus-visible, .scroll:focus-visible {
  outline: 3px solid var(--accent);
  outline-offset: 2px;
}
.card, .chart, .tile, .verdict, details {
  background: var(--card);
  border-radius: 16px;
  box-shadow: var(--shadow);
}
.card { padding: clamp(16px, 2.4vw, 26px); }
.two {
  display: grid; gap: 16px; align-items: start;
  grid-template-columns: repeat(auto-fit, minmax(min(320px, 100%), 1fr));
}
.card.two { gap: 28px 48px; }

header {
  position: relative; overflow: hidden; color: #fff;
  background: linear-gradient(112deg, #3d0a58 0%, #3f3f83 38%, #2d5f88 70%, #1d6f78 100%);
}
header .wrap {
  position: relative;
  padding-top: clamp(36px, 6vw, 64px);
  padding-bottom: clamp(76px, 9vw, 108px);
}
header svg {
  position: absolute;
  right: -20px;
  top: 50%;
  height: 150%;
  transform: translateY(-50%);
  opacity: .5;
}
@media (max-width: 760px) { header svg { opacity: .22; right: -150px; } }
header p, h1 { position: relative; overflow-wrap: anywhere; }
.brand { margin: 0 0 10px; font-size: .8rem; letter-spacing: .14em; text-transform: uppercase; }
h1 {
  margin: 0; max-width: 20em; font-size: clamp(1.7rem, 4.4vw, 2.9rem); line-height: 1.12;
  letter-spacing: -.02em;
}
.sub { margin: 12px 0 0; font-size: 1.02rem; }
main.wrap { position: relative; margin-top: -44px; }

.verdict {
  display: grid; grid-template-columns: auto 1fr; gap: 4px 18px; align-items: start;
  padding: clamp(18px, 3vw, 30px); border-left: 6px solid var(--tone);
}
.good { --tone: var(--good); }
.watch { --tone: var(--watch); }
.bad { --tone: var(--bad); }
.plain { --tone: var(--accent); }
.verdict .icon { width: 34px; height: 34px; margin-top: 2px; color: var(--tone); }
.verdict h2 {
  margin: 0;
  font-size: .8rem;
  letter-spacing: .1em;
  text-transform: uppercase;
  color: var(--tone);
}
.verdict p { margin: 10px 0 0; color: var(--muted); }
.verdict .lead {
  margin-top: 2px; color: var(--ink); font-size: clamp(1.06rem, 1.7vw, 1.28rem); line-height: 1.45;
  font-weight: 600;
}
.flag {
  white-space: nowrap; font-size: .9em;
  font-family: ui-monospace, SFMono-Regular, Menlo, Consolas, "Liberation Mono", monospace;
}
.tiles {
  display: grid;
  grid-template-columns: repeat(auto-fit, minmax(140px, 1fr));
  gap: 14px;
  margin: 16px 0 0;
}
.tile { padding: 16px 18px; }
.tile dt { font-size: .84rem; color: var(--muted); }
.tile dd {
  margin: 0; font-size: 1.65rem; font-weight: 700; line-height: 1.25; letter-spacing: -.02em;
  font-variant-numeric: tabular-nums;
}
.tile small { display: block; font-size: .82rem; font-weight: 400; line-height: 1.4; letter-spacing: 0; }
.tile small { color: var(--muted); }
nav { margin: 26px 0 0; }
nav ul { display: flex; flex-wrap: wrap; gap: 8px; margin: 0; padding: 0; list-style: none; }
nav a {
  display: block; padding: 5px 14px; border: 1px solid var(--line); border-radius: 99px;
  background: var(--soft); color: var(--ink); font-size: .9rem; text-decoration: none;
}
nav a:hover { border-color: var(--accent); }
section { margin: 44px 0 0; scroll-margin-top: 16px; }
section > h2 { margin: 0; font-size: 1.5rem; line-height: 1.25; letter-spacing: -.015em; }
.why { margin: 6px 0 18px; max-width: 68ch; color: var(--muted); }

.charts { display: grid; gap: 16px; grid-template-columns: repeat(auto-fit, minmax(min(320px, 100%), 1fr)); }
.chart { display: flex; flex-direction: column; min-width: 0; margin: 0; padding: 18px 20px 14px; }
/* No row may end with a hole: the first one or two charts take what rows of three leave over. */
@media (min-width: 1040px) {
  .charts { grid-template-columns: repeat(6, 1fr); }
  .chart { grid-column: span 2; }
  .chart:first-child:nth-last-child(3n+1) { grid-column: 1 / -1; }
  .chart:first-child:nth-last-child(3n+2), .chart:first-child:nth-last-child(3n+2) + .chart {
    grid-column: span 3;
  }
}
.chart h3 { margin: 0; font-size: 1.05rem; }
.chart figcaption p { margin: 2px 0 20px; font-size: .88rem; line-height: 1.45; color: var(--muted); }
.plot {
  display: grid; grid-template: 190px 26px / auto 1fr; margin-top: auto;
  position: relative; touch-action: pan-y;
}
.y { position: relative; width: 54px; }
.y span { position: absolute; right: 8px; transform: translateY(-50%); }
.x { position: relative; }
.x span { position: absolute; top: 6px; transform: translateX(-50%); }
.unit { text-align: right; padding: 6px 8px 0 0; }
.y, .x, .unit {
  font-size: .75rem;
  color: var(--muted);
  font-variant-numeric: tabular-nums;
  white-space: nowrap;
}
.area { position: relative; min-width: 0; }
.area svg { display: block; width: 100%; height: 100%; overflow: visible; }
.area path { fill: none; vector-effect: non-scaling-stroke; stroke-linejoin: round; stroke-linecap: round; }
.area .grid { stroke: var(--line); stroke-width: 1; }
.area .curve { stroke-width: 2.25; }
.area .dense { stroke-width: 1.1; }
.area .dots { stroke-width: 9; }
.area .s0 { stroke: var(--s0); }
.area .s1 { stroke: var(--s1); }
.area path.reference { stroke: var(--bad); stroke-width: 1.5; stroke-dasharray: 5 5; stroke-linecap: butt; }
.area span.reference {
  position: absolute; right: 0; padding: 2px 4px; border-radius: 4px; font-size: .75rem; line-height: 1.3;
  color: var(--bad); background: color-mix(in srgb, var(--card) 70%, transparent);
}
.below { transform: translateY(3px); }
.above { transform: translateY(calc(-100% - 3px)); }
.legend { display: flex; flex-wrap: wrap; gap: 2px 14px; margin: 8px 0 0; padding: 0; list-style: none; }
.legend { font-size: .86rem; color: var(--muted); }
.legend b { color: var(--ink); font-weight: 600; font-variant-numeric: tabular-nums; white-space: nowrap; }
.legend i { display: inline-block; width: 14px; height: 4px; margin-right: 7px; border-radius: 2px; }
.legend i { vertical-align: middle; }
i.s0 { background: var(--s0); }
i.s1 { background: var(--s1); }
.cursor { position: absolute; top: 0; bottom: 0; width: 1px; background: var(--muted); pointer-events: none; }
.tip {
  position: absolute; z-index: 2; top: -6px; padding: 6px 10px; border-radius: 8px; white-space: nowrap;
  background: var(--ink); color: var(--bg); font-size: .78rem; line-height: 1.45; pointer-events: none;
}

table { width: 100%; border-collapse: collapse; font-size: .92rem; font-variant-numeric: tabular-nums; }
caption { padding-bottom: 8px; text-align: left; font-size: 1.05rem; font-weight: 700; }
th, td {
  padding: 7px 12px 7px 0; border-top: 1px solid var(--line); text-align: left; vertical-align: top;
  overflow-wrap: anywhere;
}
th { font-weight: 500; color: var(--muted); }
thead th { border-top: 0; font-size: .82rem; }
.bars th, .bars td { border: 0; padding: 6px 0; vertical-align: middle; }
.bars th { width: 9.5rem; padding-right: 14px; color: var(--ink); }
.bars td:last-child { width: 4.6rem; text-align: right; font-weight: 700; white-space: nowrap; }
.bar { height: 22px; border-radius: 6px; background: var(--soft); }
.bar span {
  display: block;
  height: 100%;
  min-width: 3px;
  border-radius: 6px;
  background: var(--muted);
  opacity: .55;
}
.bar .own { background: linear-gradient(90deg, #2d5f88, #1f9a8a); opacity: 1; }
.fine { margin: 14px 0 0; max-width: 70ch; color: var(--muted); font-size: .92rem; }
details { margin-top: 16px; padding: 14px clamp(16px, 2.4vw, 26px); }
summary { cursor: pointer; font-weight: 600; }
.scroll { overflow-x: auto; margin-top: 10px; }
.scroll th, .scroll td { padding-right: 20px; white-space: nowrap; }

.shots { display: grid; gap: 18px; grid-template-columns: repeat(auto-fit, minmax(min(400px, 100%), 1fr)); }
.shots figure { margin: 0; }
.shots .wide { grid-column: 1 / -1; }
.shots img, .near img, .views img { width: 100%; }
.shots figcaption { margin-top: 6px; font-size: .88rem; color: var(--muted); overflow-wrap: anywhere; }
.near {
  display: grid;
  gap: 16px 40px;
  grid-template-columns: repeat(auto-fit, minmax(min(440px, 100%), 1fr));
}
.near .row {
  display: grid; gap: clamp(4px, 1vw, 10px); align-items: start;
  grid-template-columns: 1.35fr repeat(var(--near), minmax(0, 1fr));
}
@media (max-width: 600px) {
  .near .row { grid-template-columns: 1.35fr repeat(var(--narrow), minmax(0, 1fr)); }
  .near .row > :first-child { grid-row: span 2; }
}
.near figure { margin: 0; min-width: 0; }
.near figcaption {
  margin-top: 7px; overflow: hidden; font-size: .75rem; line-height: 1.3; color: var(--muted);
  text-overflow: ellipsis; white-space: nowrap;
}
.near .other { color: var(--bad); }
.near a, .space a { display: block; border-radius: 8px; }
.near a:hover, .space a:hover { outline: 2px solid var(--accent); outline-offset: 1px; }
.space img { width: 100%; }
.near .row > :first-child img {
  outline: 3px solid var(--accent);
  outline-offset: 2px;
}
.near .row > :first-child { margin-right: clamp(7px, 1vw, 12px); }
.views { display: grid; gap: 16px; }
.views .row { display: flex; flex-wrap: wrap; gap: 8px; align-items: flex-end; }
.views .row + .row { padding-top: 16px; border-top: 1px solid var(--line); }
.views .global { width: clamp(96px, 24vw, 132px); }
.views .local { width: clamp(48px, 12vw, 66px); }
footer.wrap { margin: 52px auto 36px; color: var(--muted); font-size: .86rem; }

@media print {
  header { color: #000; background: none; }
  .verdict, .tile, .card, .chart, details { box-shadow: none; border: 1px solid #ccc; break-inside: avoid; }
  nav { display: none; }
}
"""

SCRIPT = """
for (const plot of document.querySelectorAll("[data-chart]")) {
  const data = JSON.parse(plot.dataset.chart), area = plot.querySelector(".area");
  const cursor = document.createElement("div"), tip = document.createElement("div");
  cursor.className = "cursor";
  tip.className = "tip";
  const first = data.x[0], span = data.x[data.x.length - 1] - first;
  const place = epoch => span ? 0.015 + 0.97 * (epoch - first) / span : 0.5;
  const hide = () => { cursor.remove(); tip.remove(); };
  const show = event => {
    const box = area.getBoundingClientRect(), at = (event.clientX - box.left) / box.width;
    const distance = epoch => Math.abs(place(epoch) - at);
    let best = 0;
    data.x.forEach((epoch, i) => { if (distance(epoch) < distance(data.x[best])) best = i; });
    const lines = data.series.map(one => one.name + " " + (one.y[best] ?? "no value"));
    tip.replaceChildren(...["epoch " + data.x[best], ...lines].map(line => {
      const row = document.createElement("div");
      row.textContent = line;
      return row;
    }));
    const left = place(data.x[best]);
    cursor.style.left = left * 100 + "%";
    tip.style.left = left < 0.5 ? `calc(${left * 100}% + 10px)` : "auto";
    tip.style.right = left < 0.5 ? "auto" : `calc(${(1 - left) * 100}% + 10px)`;
    area.append(cursor, tip);
  };
  plot.addEventListener("pointermove", show);
  plot.addEventListener("pointerdown", show);
  plot.addEventListener("pointerleave", hide);
}
"""
