# SPDX-License-Identifier: MIT
"""The web page of ``tilegrad trace --html``: annotated sources, nothing loaded from elsewhere."""

from __future__ import annotations

import re
from collections.abc import Iterator
from html import escape

from . import sim
from ._trace_lines import source

_CSS = """
:root { color-scheme: light dark; --page: #fbfbfa; --ink: #1c1d21; --dim: #70747d;
  --faint: #9a9ea7; --line: #e4e4e1; --card: #ffffff; --hit: #f4f5f7; --good: #2f8f5b;
  --fair: #c98a12; --bad: #cf3e36;
  --word: #7a3ea8; --note: #6b7a68; --text: #2f7d8a; --mark: rgb(207 62 54 / .10); }
@media (prefers-color-scheme: dark) { :root { --page: #15161a; --ink: #e3e4e8; --dim: #979ba6;
  --faint: #666b76; --line: #2b2d34; --card: #1b1d22; --hit: #23262d; --good: #58c48a;
  --fair: #e0ad4e; --bad: #f0776c; --word: #c795f0; --note: #869a81; --text: #7fc4cf;
  --mark: rgb(240 119 108 / .13); } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--page); color: var(--ink);
  font: 15px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; }
main { max-width: 1440px; margin: 0 auto; padding: 40px 28px 64px; }
h1 { font-size: 24px; line-height: 1.3; margin: 0 0 4px; letter-spacing: -.01em; }
h2 { font-size: 16px; margin: 36px 0 10px; }
p, ul { margin: 4px 0; color: var(--dim); }
code, pre, .source { font-family: ui-monospace, "SF Mono", "Cascadia Code", Menlo, Consolas,
  "DejaVu Sans Mono", monospace; font-size: 12.5px; }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(185px, 1fr)); gap: 12px;
  margin: 24px 0 8px; }
.tile { background: var(--card); border: 1px solid var(--line); border-radius: 10px;
  padding: 12px 16px; }
.tile b { display: block; font-size: 22px; font-weight: 600; font-variant-numeric: tabular-nums; }
.tile span { color: var(--dim); font-size: 13px; }
.good { color: var(--good); } .fair { color: var(--fair); } .bad { color: var(--bad); }
.finding { background: var(--mark); border-left: 3px solid var(--bad); border-radius: 0 8px 8px 0;
  padding: 10px 14px; margin: 8px 0; white-space: pre-wrap; overflow-wrap: anywhere; }
details { background: var(--card); border: 1px solid var(--line); border-radius: 10px;
  margin: 14px 0; overflow: hidden; }
summary { cursor: pointer; padding: 11px 16px; font-weight: 600; }
summary small { color: var(--dim); font-weight: 400; margin-left: 8px; }
.scroll { overflow-x: auto; border-top: 1px solid var(--line); }
.source { border-collapse: collapse; width: 100%; line-height: 1.55; }
.source td, .source th { padding: 0 10px; white-space: pre; text-align: left;
  vertical-align: top; }
.source th { color: var(--dim); font-weight: 500; padding: 6px 10px;
  border-bottom: 1px solid var(--line); }
.source td.n, .source th.n { text-align: right; font-variant-numeric: tabular-nums; }
.source td.number { color: var(--faint); text-align: right; user-select: none; }
.source tr.hit { background: var(--hit); }
.source tr.more td { border-top: 1px dashed var(--line); }
.source td.what { color: var(--dim); }
.source tr.plain td.code { opacity: .82; }
.source tr.gap td { color: var(--faint); text-align: center; padding: 3px; user-select: none; }
.line, .ratio { min-width: 62px; }
.heat { width: 92px; min-width: 92px; }
.source th.what, .source td.what { min-width: 225px; }
.heat i { display: inline-block; height: 9px; border-radius: 2px; min-width: 3px;
  background: currentColor; vertical-align: middle; }
.source tr.race td.code { background: var(--mark); }
.w { color: var(--word); } .c { color: var(--note); font-style: italic; } .s { color: var(--text); }
footer { margin-top: 36px; color: var(--dim); font-size: 13px; }
"""

_WORDS = (
    "alignas|auto|bool|break|case|char|class|const|constexpr|continue|default|double|else|enum|"
    "false|float|for|if|inline|int|int64_t|long|namespace|private|public|return|short|size_t|"
    "static|static_cast|struct|switch|template|true|typename|uint16_t|uint32_t|uint64_t|uint8_t|"
    "unsigned|using|void|while|__\\w+"
)
_TOKEN = re.compile(rf'(?P<c>//.*$)|(?P<s>"(?:\\.|[^"\\])*"|^\s*#\s*\w+)|\b(?P<w>{_WORDS})\b', re.M)
_CONTEXT = 6  # lines kept above and below an annotated one


def page(head: str, trace: sim.Trace) -> str:
    """Return the page of a trace.

    Args:
        head: Its title.
        trace: What was found.

    Example:
        >>> page("nothing", sim.Trace()).startswith("<!doctype html>")
        True
    """
    return "\n".join(_page(head, trace)) + "\n"


def _page(head: str, trace: sim.Trace) -> Iterator[str]:
    title, _, rest = head.partition(": ")
    yield "<!doctype html>"
    yield '<html lang="en"><head><meta charset="utf-8">'
    yield '<meta name="viewport" content="width=device-width, initial-scale=1">'
    yield f"<title>{escape(title)} - tilegrad trace</title><style>{_CSS}</style></head><body><main>"
    yield f"<h1>{escape(title)}</h1>"
    yield f"<p>{escape(rest)}{' &middot; ' if rest else ''}schedule {escape(trace.schedule)}</p>"
    for launch in dict.fromkeys(trace.launches):
        times = trace.launches.count(launch)
        yield f"<p><code>{escape(str(launch))}</code>{f' &times; {times}' if times > 1 else ''}</p>"
    yield from _tiles(trace)
    for name, found in (("Races", trace.races), ("Out of bounds", trace.out_of_bounds)):
        if found:
            yield f"<h2>{name}</h2>"
            yield from (f'<div class="finding"><code>{escape(str(x))}</code></div>' for x in found)
    yield "<h2>Source</h2>"
    racing = {
        (access.file, access.line) for race in trace.races for access in (race.first, race.second)
    } | {(each.access.file, each.access.line) for each in trace.out_of_bounds}
    names = {site.file for site in trace.sites} | {file for file, _ in racing}
    # Kernels first, then the headers they share.
    for file in sorted(names, key=lambda name: (not name.endswith(".cu"), name)):
        sites = [site for site in trace.sites if site.file == file]
        yield from _file(file, sites, racing, max((s.sectors for s in trace.sites), default=1))
    yield (
        "<footer>Cost of global memory: 32-byte sectors; of shared memory: wavefronts (32 banks "
        "of 4 bytes). Ratio: cost by the least possible. A simulator cannot tell speed, occupancy "
        "or caches.</footer></main></body></html>"
    )


def _tiles(trace: sim.Trace) -> Iterator[str]:
    yield '<div class="tiles">'
    for space, unit in (("global", "sectors"), ("shared", "wavefronts")):
        sites = [site for site in trace.sites if site.space == space]
        if sites:
            cost, ideal = sum(s.sectors for s in sites), sum(s.ideal for s in sites)
            ratio = cost / ideal if ideal else 1.0
            yield _tile(f"{ratio:.2f}&times;", f"{space} memory: {cost:,} {unit}", _grade(ratio))
    if trace.tensor_flops:
        yield _tile(f"{trace.tensor_flops:,}", "tensor-core operations", "")
    for found, name in ((trace.races, "races"), (trace.out_of_bounds, "out of bounds")):
        yield _tile(str(len(found)), name, "bad" if found else "good")
    yield "</div>"


def _tile(figure: str, text: str, grade: str) -> str:
    return f'<div class="tile"><b class="{grade}">{figure}</b><span>{text}</span></div>'


def _grade(ratio: float) -> str:
    return "good" if ratio < 1.05 else "fair" if ratio < 2.05 else "bad"


def _file(
    file: str, sites: list[sim.Site], racing: set[tuple[str, int]], most: int
) -> Iterator[str]:
    text = source(file)
    code = _highlight("\n".join(text)).split("\n") if text else []
    hit = {site.line for site in sites} | {line for name, line in racing if name == file}
    count = f"{len(sites)} access{'es' * (len(sites) != 1)}"
    missing = "" if text else " (source not found)"
    yield f"<details open><summary>{escape(file)}<small>{count}{missing}</small></summary>"
    yield '<div class="scroll"><table class="source"><thead><tr><th class="n line">line</th>'
    yield '<th class="heat">cost</th>'
    yield '<th class="n ratio">ratio</th><th class="n">requests</th>'
    yield '<th class="what">access</th><th>source</th></tr>'
    yield "</thead><tbody>"
    before = 0
    for number in range(1, max(len(code), max(hit, default=0)) + 1):
        if not any(abs(number - each) <= _CONTEXT for each in hit):
            continue
        if number != before + 1:
            yield f'<tr class="gap"><td colspan="6">{number - before - 1} lines</td></tr>'
        before = number
        line = code[number - 1] if number <= len(code) else ""
        yield from _line(number, line, [s for s in sites if s.line == number], most,
                         (file, number) in racing)  # fmt: skip
    if before < len(code):
        yield f'<tr class="gap"><td colspan="6">{len(code) - before} lines</td></tr>'
    yield "</tbody></table></div></details>"


def _line(number: int, line: str, sites: list[sim.Site], most: int, races: bool) -> Iterator[str]:
    race = " race" if races else ""
    if not sites:
        yield (
            f'<tr class="plain{race}"><td class="number">{number}</td><td colspan="4"></td>'
            f'<td class="code">{line}</td></tr>'
        )
    for i, site in enumerate(sites):
        grade = _grade(site.ratio)
        width = max(3, round(72 * site.sectors / most))
        unit = "sectors" if site.space == "global" else "wavefronts"
        callers = "".join(f"&#10;from {escape(each.file)}:{each.line}" for each in site.callers)
        tip = (
            f"{site.sectors:,} {unit}, at least {site.ideal:,}; worst request {site.worst}{callers}"
        )
        yield (
            f'<tr class="hit{race}{" more" if i else ""}" title="{tip}">'
            f'<td class="number">{number if i == 0 else ""}</td>'
            f'<td class="heat {grade}"><i style="width:{width}px"></i></td>'
            f'<td class="n {grade}">{site.ratio:.2f}&times;</td>'
            f'<td class="n">{site.requests:,}</td>'
            f'<td class="what">{escape(site.space)} {escape(site.access)}</td>'
            f'<td class="code">{line if i == 0 else ""}</td></tr>'
        )


def _highlight(text: str) -> str:
    parts, end = [], 0
    for found in _TOKEN.finditer(text):
        parts.append(escape(text[end : found.start()], quote=False))
        parts.append(f'<span class="{found.lastgroup}">{escape(found.group(), quote=False)}</span>')
        end = found.end()
    parts.append(escape(text[end:], quote=False))
    return "".join(parts)
