"""The few pieces of HTML that the reports are made of: no script, no network, one style."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path

from dlm.format import JOINED

CSS = """
:root{color-scheme:light dark;
--ink:#1a1a1a;--soft:#5a5a5a;--line:#d9d9d9;--back:#fff;--pale:#f5f5f5}
@media(prefers-color-scheme:dark){
:root{--ink:#e8e8e8;--soft:#a8a8a8;--line:#444;--back:#161616;--pale:#222}}
body{font:16px/1.55 system-ui,sans-serif;color:var(--ink);background:var(--back);
max-width:62rem;margin:0 auto;padding:1rem}
h1{font-size:1.6rem;line-height:1.25;margin:.5rem 0}h2{font-size:1.15rem;margin:2rem 0 .5rem}
h3{font-size:1rem;margin:1rem 0 .3rem}
p,ul{max-width:44rem;margin:.5rem 0}
.soft{color:var(--soft);font-size:.9rem}.answer{font-size:1.05rem}
.pair{display:grid;gap:1rem;grid-template-columns:repeat(auto-fit,minmax(min(100%,24rem),1fr))}
figure{margin:0;background:#fff;border:1px solid var(--line);border-radius:6px;padding:.4rem}
figure svg{display:block;width:100%;height:auto}
pre{white-space:pre-wrap;overflow-wrap:anywhere;font-size:.82rem;background:var(--pale);
padding:.6rem;margin:.3rem 0;border-radius:6px}
.wide{overflow-x:auto}table{border-collapse:collapse;font-size:.82rem;line-height:1.3;
font-variant-numeric:tabular-nums}
th,td{text-align:left;padding:.25rem .7rem .25rem 0;border-bottom:1px solid var(--line);
vertical-align:top;min-width:3.2rem;
overflow-wrap:anywhere}th:first-child{min-width:8.5rem}
code{overflow-wrap:anywhere}
@media print{:root{--ink:#000;--soft:#444;--back:#fff;--pale:#fff}
body{font-size:10pt;max-width:none}
figure,pre,tr{break-inside:avoid}h2{break-after:avoid}.wide{overflow:visible}
table{font-size:6.5pt}th,td{padding-right:.4rem;min-width:0}}
"""


def document(title: str, body: Iterable[str]) -> str:
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<title>{escape(title)}</title><style>{CSS}</style></head>"
        f"<body>{''.join(body)}</body></html>\n"
    )


def section(title: str, *parts: str) -> list[str]:
    return [f"<h2>{escape(title)}</h2>", *parts]


def bullets(items: Iterable[str]) -> str:
    return "<ul>" + "".join(f"<li>{escape(item)}</li>" for item in items) + "</ul>"


def figure(svg: str, label: str, caption: str = "") -> str:
    """An <svg> element with what a screen reader says of it, and a caption below."""
    svg = svg.replace("<svg ", f'<svg role="img" aria-label="{escape(label)}" ', 1)
    below = f"<figcaption>{escape(caption)}</figcaption>" if caption else ""
    return f"<figure>{svg}{below}</figure>"


def table(head: Sequence[str], body: Iterable[Sequence[str]]) -> str:
    lines = [("th", head), *(("td", row) for row in body)]
    made = "".join(
        "<tr>"
        + "".join(f"<{tag}>{escape(text.replace(' ± ', JOINED))}</{tag}>" for text in row)
        + "</tr>"
        for tag, row in lines
    )
    return f'<div class="wide"><table>{made}</table></div>'


def replace(path: Path, text: str) -> Path:
    """Writes beside and renames, so that a reader never sees half a file."""
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    draft.write_text(text, "utf-8")
    os.replace(draft, path)
    return path
