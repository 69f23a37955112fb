"""The style sheet of all pages, for screens from 320 pixels up, light and dark."""

STYLE = """
:root {
  color-scheme: light dark;
  --ground: #f6f7f9; --card: #ffffff; --ink: #1c2128; --soft: #57606a; --line: #d9dee4;
  --good: #116329; --good-ground: #dcf5e3; --bad: #a40e26; --bad-ground: #fde4e7;
  --accent: #0b5cad; --track: #e6e9ed;
}
@media (prefers-color-scheme: dark) {
  :root {
    --ground: #0e1116; --card: #171b21; --ink: #e6e9ed; --soft: #9aa4b0; --line: #2b323b;
    --good: #6fdd8b; --good-ground: #12301c; --bad: #ff9aa5; --bad-ground: #3a1419;
    --accent: #78b4f5; --track: #2b323b;
  }
}
* { box-sizing: border-box; }
body {
  margin: 0; background: var(--ground); color: var(--ink);
  font: 16px/1.55 system-ui, "Segoe UI", Roboto, Vazirmatn, "Noto Sans", "Noto Sans Arabic", "DejaVu Sans",
    Tahoma, sans-serif;
}
main, header { max-width: 68rem; margin-inline: auto; padding-inline: 1.25rem; }
header { padding-block: 2.25rem 0.5rem; }
h1 { margin: 0; font-size: 1.9rem; line-height: 1.2; overflow-wrap: anywhere; }
h2 { margin: 2.75rem 0 1rem; font-size: 1.3rem; }
h3 { margin: 0; font-size: 1rem; overflow-wrap: anywhere; }
p { margin: 0.4rem 0; }
a { color: var(--accent); }
code, .figure { font-variant-numeric: tabular-nums; }
.soft { color: var(--soft); }
.card {
  background: var(--card); border: 1px solid var(--line); border-radius: 0.75rem; padding: 1.1rem 1.25rem;
}
.verdict { display: flex; gap: 0.9rem; align-items: flex-start; margin-block-start: 1.25rem; }
.verdict .mark { font-size: 1.3rem; line-height: 1.3; }
.verdict p { margin: 0; }
.verdict .what { font-size: 1.1rem; font-weight: 650; }
.good { color: var(--good); background: var(--good-ground); border-color: transparent; }
.bad { color: var(--bad); background: var(--bad-ground); border-color: transparent; }
.open { color: var(--ink); background: var(--track); border-color: transparent; }
.tiles { display: grid; gap: 0.9rem; grid-template-columns: repeat(auto-fit, minmax(11.5rem, 1fr)); }
.tiles { margin-block-start: 0.9rem; }
.tile .top {
  display: flex; flex-wrap: wrap; justify-content: space-between; align-items: baseline; column-gap: 0.5rem;
}
.tile .value { font-size: 1.85rem; font-weight: 650; line-height: 1.25; }
.badge {
  border-radius: 1rem; padding: 0.05rem 0.6rem; font-size: 0.8rem; font-weight: 600; white-space: nowrap;
}
.gauge {
  position: relative; height: 0.5rem; border-radius: 0.25rem; background: var(--track); margin-block: 0.35rem;
}
.gauge .fill { position: absolute; inset-block: 0; inset-inline-start: 0; border-radius: inherit; }
.gauge .fill.good { background: var(--good); }
.gauge .fill.bad { background: var(--bad); }
.gauge .fill.open { background: var(--soft); }
.gauge .bound { position: absolute; inset-block: -0.25rem; width: 2px; background: var(--ink); }
.tile .foot { font-size: 0.85rem; }
.after { margin-block-start: 0.9rem; }
.scroll { overflow-x: auto; }
.long { max-height: 34rem; overflow: auto; }
.sortable button { all: unset; cursor: pointer; }
.sortable button:focus-visible { outline: 2px solid var(--accent); }
.sortable [aria-sort="ascending"] button::after { content: " ▲"; }
.sortable [aria-sort="descending"] button::after { content: " ▼"; }
.scroll td.text { min-width: 13rem; }
table { border-collapse: collapse; width: 100%; font-size: 0.93rem; }
th, td { text-align: start; padding: 0.4rem 0.8rem 0.4rem 0; border-block-end: 1px solid var(--line); }
tr:last-child > * { border-block-end: 0; }
th { font-weight: 600; }
thead th { color: var(--soft); font-weight: 500; }
.number { text-align: end; font-variant-numeric: tabular-nums; white-space: nowrap; }
.scroll th[scope="row"], .scroll thead th:first-child {
  position: sticky; inset-inline-start: 0; background: var(--card);
}
.scroll th[scope="row"] { min-width: 7.5rem; overflow-wrap: anywhere; }
.long th[scope="row"] { min-width: 9rem; }
.scroll thead .number { white-space: normal; }
.scroll thead th { inset-block-start: 0; background: var(--card); vertical-align: bottom; }
.long thead th { position: sticky; }
.long thead th:first-child { z-index: 1; }
.hint { display: none; margin: 0 0 0.4rem; font-size: 0.85rem; color: var(--soft); }
.wide:has(.long) .hint { display: block; }
.state { white-space: nowrap; }
.pairs th, .cards td { vertical-align: top; }
.pairs td, .cards td { overflow-wrap: anywhere; }
details > summary { cursor: pointer; font-weight: 600; padding-block: 0.2rem; }
details[open] > summary { margin-block-end: 0.5rem; }
dl {
  margin: 0; display: grid; grid-template-columns: max-content 1fr; gap: 0.35rem 1.25rem; font-size: 0.93rem;
}
dt { font-weight: 600; }
dd { margin: 0; overflow-wrap: anywhere; }
.sample { margin-block-end: 1.1rem; }
.sample .text { font-size: 1.2rem; line-height: 1.7; margin-block: 0.35rem 0.15rem; overflow-wrap: anywhere; }
.facts { display: flex; flex-wrap: wrap; gap: 0.2rem 1.1rem; font-size: 0.88rem; color: var(--soft); }
.players {
  display: grid; gap: 0.8rem; margin-block: 0.9rem;
  grid-template-columns: repeat(auto-fit, minmax(15rem, 1fr));
}
.players p { margin: 0 0 0.2rem; font-size: 0.9rem; font-weight: 600; }
.beside {
  display: grid; gap: 1.1rem; grid-template-columns: repeat(auto-fit, minmax(min(17rem, 100%), 1fr));
}
.beside h4 { margin: 0 0 0.3rem; overflow-wrap: anywhere; }
.beside p { margin: 0 0 0.2rem; font-size: 0.9rem; }
.beside figure { margin-block-start: 0.8rem; }
.compared th[scope="row"], .compared td, .compared thead th { min-width: 5.5rem; overflow-wrap: anywhere; }
.compared td { font-variant-numeric: tabular-nums; }
audio { width: 100%; height: 2.6rem; }
.pictures {
  display: grid; gap: 0.8rem; grid-template-columns: repeat(auto-fill, minmax(min(24rem, 100%), 1fr));
}
figure { margin: 0; max-width: 34rem; }
figure a { display: block; }
figure img { display: block; width: 100%; height: auto; }
figcaption { font-size: 0.85rem; color: var(--soft); margin-block-start: 0.3rem; }
.curves {
  display: grid; gap: 0.9rem; margin-block: 0.6rem 1.4rem;
  grid-template-columns: repeat(auto-fill, minmax(min(19rem, 100%), 1fr));
}
.curves figure { display: flex; flex-direction: column-reverse; justify-content: flex-end; }
.curves figcaption { margin: 0 0 0.2rem; color: var(--ink); font-weight: 600; }
.pairs th { width: 18rem; }
.spelt { margin-block: 0; color: var(--soft); font-size: 0.93rem; overflow-wrap: anywhere; }
.settings { display: grid; gap: 0.8rem; }
footer {
  max-width: 68rem; margin: 2.5rem auto 2rem; padding-inline: 1.25rem; font-size: 0.88rem; color: var(--soft);
}
:focus-visible { outline: 2px solid var(--accent); outline-offset: 2px; }
@media (max-width: 60rem) {
  .hint { display: block; }
  .scroll th[scope="row"] { max-width: 9rem; }
}
@media (max-width: 40rem) {
  main, header, footer { padding-inline: 0.75rem; }
  .card { padding: 0.9rem; }
  dl { grid-template-columns: 1fr; gap: 0; }
  dd { margin-block-end: 0.6rem; }
  .pairs :is(tr, th, td), .cards :is(tr, td) { display: block; width: auto; border: 0; padding: 0; }
  .pairs tr, .cards tr { padding-block: 0.4rem; border-block-end: 1px solid var(--line); }
  .pairs tr:last-child, .cards tr:last-child { border: 0; }
  .cards thead { display: none; }
  .cards td::before { content: attr(data-label) ": "; color: var(--soft); }
}
@media print {
  body { background: none; }
  .card { break-inside: avoid; }
  h2, h3 { break-after: avoid; }
  audio { display: none; }
}
"""
