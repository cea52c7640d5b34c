"""The few pieces of HTML that the reports are made of: no script, no network, one style."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from html import escape

from dlm.format import JOINED, is_number

CSS = """
:root{color-scheme:light dark;
--ink:#1a1a1a;--soft:#5a5a5a;--line:#d9d9d9;--back:#fff;--pale:#f5f5f5}
@media(prefers-color-scheme:dark){
:root{--ink:#e8e8e8;--soft:#a8a8a8;--line:#444;--back:#161616;--pale:#222}}
body{font:16px/1.55 system-ui,sans-serif;color:var(--ink);background:var(--back);
max-width:62rem;margin:0 auto;padding:1rem;overflow-wrap:break-word}
h1{font-size:1.6rem;line-height:1.25;margin:.5rem 0}h2{font-size:1.15rem;margin:2rem 0 .5rem}
h3{font-size:1rem;margin:1rem 0 .3rem}
p,ul{max-width:44rem;margin:.5rem 0}
.soft,figcaption{color:var(--soft);font-size:.9rem}.answer{font-size:1.05rem}
.pair{display:grid;gap:1rem;grid-template-columns:repeat(auto-fit,minmax(min(100%,22rem),1fr))}
.pair>figure:only-child{max-width:44rem}
details{border-top:1px solid var(--line)}details:last-of-type{border-bottom:1px solid var(--line)}
summary{cursor:pointer;font-weight:600;padding:.55rem 0}details>:last-child{margin-bottom:1rem}
figure{margin:0}
figure svg{display:block;width:100%;height:auto;box-sizing:border-box;
background:#fff;border:1px solid var(--line);border-radius:6px;padding:.4rem}
figcaption{max-width:44rem;margin:.4rem 0}
pre{white-space:pre-wrap;overflow-wrap:anywhere;font-size:.82rem;background:var(--pale);
padding:.6rem;margin:.3rem 0;border-radius:6px}
.wide{overflow-x:auto}table{border-collapse:collapse;font-size:.82rem;line-height:1.3;
font-variant-numeric:tabular-nums}
th,td{text-align:left;padding:.25rem .9rem .25rem 0;border-bottom:1px solid var(--line);
vertical-align:top;max-width:24rem}
th{vertical-align:bottom}td.number,th.number{text-align:right;white-space:nowrap}
th.number{white-space:normal}td.long{min-width:8.5rem}
code{overflow-wrap:anywhere}a{color:inherit}
@media(max-width:30rem){body{padding:.6rem}h1{font-size:1.3rem}
td:first-child,th:first-child{position:sticky;left:0;background:var(--back);max-width:8rem}}
@media print{:root{--ink:#000;--soft:#444;--line:#bbb;--back:#fff;--pale:#fff}
@page{margin:1.5cm}body{font-size:10pt;max-width:none;padding:0}
details::details-content{content-visibility:visible;display:block;block-size:auto}
summary{list-style:none}
h1,h2,h3,summary{break-after:avoid}figure,pre,tr{break-inside:avoid}
p,ul,figcaption{max-width:none}figure svg{border:0;padding:0;max-height:18cm}
.pair{grid-template-columns:1fr 1fr}
.wide{overflow:visible}table{font-size:7pt;width:100%}
th,td{padding-right:.8em;max-width:none}td.number{white-space:normal}td.long{min-width:0}
a{background:none;text-decoration:none}}
"""


def document(title: str, body: Iterable[str]) -> str:
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<title>{escape(title)}</title><style>{CSS}</style></head>"
        f"<body>{''.join(body)}</body></html>\n"
    )


def text(words: str) -> str:
    """Escaped words, a value and its error kept on one line."""
    return escape(words.replace(" ± ", JOINED))


def paragraph(words: str, kind: str = "") -> str:
    """A paragraph; `kind`: soft (small and grey) or answer (large)."""
    marked = f' class="{kind}"' if kind else ""
    return f"<p{marked}>{text(words)}</p>"


def section(title: str, *parts: str) -> list[str]:
    return [f"<h2>{escape(title)}</h2>", *parts]


def fold(title: str, *parts: str) -> list[str]:
    """A section that is closed until its title is clicked; open in print."""
    return [f"<details><summary>{escape(title)}</summary>", *parts, "</details>"]


def bullets(items: Iterable[str]) -> str:
    return "<ul>" + "".join(f"<li>{text(item)}</li>" for item in items) + "</ul>"


def figure(svg: str, label: str, caption: str = "") -> str:
    """An <svg> element with what a screen reader says of it, and a caption below."""
    svg = svg.replace("<svg ", f'<svg role="img" aria-label="{escape(label)}" ', 1)
    below = f"<figcaption>{text(caption)}</figcaption>" if caption else ""
    return f"<figure>{svg}{below}</figure>"


LONG = 24  # characters: a cell that may be wrapped, but not to a word a line


def table(head: Sequence[str], body: Iterable[Sequence[str]]) -> str:
    """A table that scrolls sideways on a narrow screen; columns of numbers align to the right."""
    rows = [tuple(row) for row in body]
    columns = list(zip(*rows, strict=True)) if rows else [()] * len(head)
    kinds = [_kind(column) for column in columns]
    top, *below = (
        f"<tr>{''.join(map(_cell, [tag] * len(head), kinds, row))}</tr>"
        for tag, row in (("th", head), *(("td", row) for row in rows))
    )
    body = f"<thead>{top}</thead><tbody>{''.join(below)}</tbody>"
    return f'<div class="wide"><table>{body}</table></div>'


def _kind(column: Sequence[str]) -> str:
    if any(column) and all(is_number(cell) for cell in column if cell):
        return "number"
    return "long" if max(map(len, column), default=0) > LONG else ""


def _cell(tag: str, kind: str, words: str) -> str:
    """One cell; where it wraps, it does so at spaces, or behind a sign within a long word."""
    marked = f' class="{kind}"' if kind else ""
    return f"<{tag}{marked}>{breakable(text(words))}</{tag}>"


def breakable(escaped: str) -> str:
    """Escaped text with leave to break behind the signs that join the words of settings and paths."""
    return re.sub(r"(?<=[\w)])([=/_.,:])(?=[^\s\d])", r"\1<wbr>", escaped)
