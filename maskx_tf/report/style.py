"""The style of the report: one column that fits a phone, and a dark form for dark screens."""

from __future__ import annotations

CSS = """
:root{color-scheme:light dark;--paper:#fff;--ink:#1d1d1f;--soft:#6a6a70;--line:#ddd;--row:#f5f5f7}
@media(prefers-color-scheme:dark){:root{--paper:#161618;--ink:#ececee;--soft:#a0a0a6;--line:#38383c;--row:#212124}}
*{box-sizing:border-box}
body{margin:0;background:var(--paper);color:var(--ink);font:16px/1.5 system-ui,sans-serif;-webkit-text-size-adjust:100%}
main{max-width:1080px;margin:0 auto;padding:12px 16px 48px}
h1{font-size:1.6rem;line-height:1.2;overflow-wrap:anywhere}
h2{font-size:1.35rem;margin:2.2rem 0 .4rem;padding-top:.8rem;border-top:2px solid var(--line);overflow-wrap:anywhere}
h3{font-size:1.15rem;margin:1.6rem 0 .4rem}
h4{margin:1.1rem 0 .3rem}
p{margin:.4rem 0}
.note{color:var(--soft);border-left:3px solid var(--line);padding-left:10px}
.wide{overflow-x:auto}
table{border-collapse:collapse;font-variant-numeric:tabular-nums;font-size:.92rem;width:100%}
th,td{padding:4px 9px;text-align:right;white-space:nowrap}
th:first-child,td:first-child{text-align:left}
thead th{border-bottom:1px solid var(--line);font-weight:600}
tbody tr:nth-child(odd){background:var(--row)}
.classes td:nth-child(5){width:40%;min-width:70px}
.bar{height:11px;border-radius:2px;min-width:1px}
.badge{display:inline-block;min-width:1.5em;padding:0 .35em;border-radius:4px;color:#fff;text-align:center}
.badge.A{background:#b34f00}
.badge.B{background:#0068a3}
.charts{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(300px,100%),1fr));gap:8px 20px}
.map{max-width:680px}
figure{margin:.5rem 0}
figcaption{font-size:.9rem;color:var(--soft)}
figure>svg{display:block;width:100%;height:auto;font:11px system-ui,sans-serif}
svg text{fill:currentColor}
.keys{font-size:.85rem;display:flex;flex-wrap:wrap;gap:2px 14px}
.key{display:inline-flex;align-items:center;gap:6px}
details{margin:.8rem 0}
summary{cursor:pointer;font-weight:600;padding:4px 0}
.pairs{display:grid;align-items:start;grid-template-columns:repeat(auto-fill,minmax(min(310px,100%),1fr));gap:10px 20px}
.pair{display:grid;grid-template-columns:1fr 1fr;gap:4px}
.pair figcaption{grid-column:1/3}
.pair img{width:100%;height:auto;display:block}
.doubts{display:grid;grid-template-columns:repeat(auto-fill,minmax(min(200px,100%),1fr));gap:10px 16px}
.doubts figure{margin:0;padding:4px;border:2px solid transparent;overflow-wrap:anywhere}
.doubts .flagged{border-color:#b34f00}
.doubts img{max-width:100%;height:auto;display:block}
@media(max-width:520px){
th,td{padding:3px 5px}
.classes td{font-size:.85rem}
.classes td:first-child{white-space:normal;min-width:8em}
}
"""
