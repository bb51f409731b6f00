"""The page: sections to one HTML file that opens offline and fetches nothing.

Run folders are untrusted: every text that comes from one is escaped here, the packed script holds nothing that could
close its element, and the page's own policy forbids the browser any request.
"""

from __future__ import annotations

import base64
import html
import json
import zlib
from collections.abc import Sequence
from functools import cache
from importlib import resources
from string import Template
from typing import Any

from plotly.offline import get_plotlyjs

from isthmus.line import shown_rate
from isthmus.records import Run
from isthmus.report.charts import chart
from isthmus.report.drawing import still
from isthmus.report.events import event_rows
from isthmus.report.plots import Figure, Panel, Plot, Race, Section, Table
from isthmus.report.wording import plain

_MOST_EVENTS = 1000  # listed of one run
_UNFINISHED = {
    "unfinished": "no end: still going on, or killed",
    "interrupted": "interrupted",
    "failed": "failed",
    "diverged": "diverged",
}


def render(title: str, sections: Sequence[Section], runs: Sequence[Run], left_out: Sequence[str] = ()) -> str:
    """Return the page as text.

    Args:
        title: of the page.
        sections: in order.
        runs: listed at the end, each with its status and the command that reproduces it.
        left_out: what is wrong with each run that is not shown.
    """
    charts: list[str] = []
    body = [_flags(runs), _left_out(left_out), *(_section(section, charts) for section in sections), _runs(runs)]
    links = [(section.name, section.title) for section in sections] + [("runs", "The runs")]
    template = Template(_resource("page.html"))
    return template.substitute(
        title=_text(title),
        contents="".join(f'<li><a href="#{_text(name)}">{_text(shown)}</a></li>' for name, shown in links),
        body="\n".join(body),
        packed=_packed("\n".join([_resource("page.js"), *charts])),
    )


def _resource(name: str) -> str:
    return resources.files("isthmus.report").joinpath(name).read_text(encoding="utf-8")


def _packed(script: str) -> str:
    """Plotly and a script as a third of their size: deflated, in base 85, which has no "/" to close an element by."""
    head, state = _plotly()
    rest = state.copy()
    return base64.b85encode(head + rest.compress(script.encode()) + rest.flush()).decode()


@cache
def _plotly() -> tuple[bytes, Any]:
    """Plotly deflated, as far as it comes by itself, and the state in which more can be added."""
    state = zlib.compressobj(9)
    return state.compress(f"{get_plotlyjs()}\n".encode()), state


def _text(value: object) -> str:
    return html.escape(str(value), quote=True)


def _flags(runs: Sequence[Run]) -> str:
    """Runs that did not finish, said before anything else."""
    bad = [run for run in runs if run.status != "finished"]
    if not bad:
        return ""
    named = "; ".join(f"{run.path.name} ({_UNFINISHED.get(run.status, run.status)})" for run in bad)
    said = f"{len(bad)} of {len(runs)} runs did not finish as planned, so what they show is partial: {named}."
    return f'<p class="warning">{_text(said)}</p>'


def _left_out(lines: Sequence[str]) -> str:
    """Runs that were damaged, and so are not shown."""
    return "".join(f'<p class="warning">{_text(f"Left out: {line}.")}</p>' for line in lines)


def _section(section: Section, charts: list[str]) -> str:
    cards = "".join(f'<div class="card"><b>{_text(value)}</b><span>{_text(words)}</span></div>'
                    for value, words in section.headlines)  # fmt: skip
    terms = "".join(f"<dt>{_text(term)}</dt><dd>{_text(meaning)}.</dd>" for term, meaning in section.terms)
    parts = [
        f'<section id="{_text(section.name)}"><h2>{_text(section.title)}</h2>',
        f"<p>{_text(section.intro)}</p>" if section.intro else "",
        *(f'<p class="warning">{_text(warning)}</p>' for warning in section.warnings),
        "" if section.race is None else _race(section.race, section.name, charts),
        f'<div class="cards">{cards}</div>' if cards else "",
        f"<dl>{terms}</dl>" if terms else "",
        *(_figure(figure, f"{section.name}-{figure.name}", charts) for figure in section.figures),
        *(_table(table) for table in section.tables),
        _folded([_figure(figure, f"{section.name}-{figure.name}", charts) for figure in section.more]),
        "</section>",
    ]
    return "\n".join(part for part in parts if part)


def _folded(figures: Sequence[str]) -> str:
    return f'<details class="more"><summary>More pictures</summary>{"".join(figures)}</details>' if figures else ""


def _race(race: Race, name: str, charts: list[str]) -> str:
    """The first picture with the reader's box; without JavaScript it is a picture that stays as it is."""
    chart = f"{name}-{race.figure.name}"
    picture = base64.b64encode(still(race.figure)).decode()
    around = (
        _box(race, name),
        f'<noscript><img alt="{_text(race.figure.title)}" src="data:image/png;base64,{picture}"></noscript>'
        f"<details><summary>How the seconds are worked out</summary><p>{_text(race.model)}</p></details>",
    )
    figure = _figure(race.figure, chart, charts, around)
    charts.append(f"isthmus.race({json.dumps(name)}, {json.dumps(f'{chart}-0')}, {json.dumps(race.courses)});")
    return figure + ("" if race.table is None else _table(race.table, f"{name}-race"))


def _box(race: Race, name: str) -> str:
    """Inputs for rates and latency; hidden until the script is there that answers them."""
    line = race.line
    fields = (
        ("down", "Rate down", shown_rate(line.down)),
        ("up", "Rate up", shown_rate(line.up)),
        ("latency", "Latency, one way", f"{1000 * line.latency:g} ms"),
    )
    inputs = "".join(
        f'<label>{words}<input name="{field}" value="{value}" data-words="{words}" autocomplete="off" '
        f'spellcheck="false" aria-describedby="{_text(name)}-told"></label>'
        for field, words, value in fields
    )
    options = "".join(
        f'<option value="{_text(json.dumps(each.record()))}">{_text(f"{words}: {each.shown}")}</option>'
        for words, each in race.lines
    )
    preset = f'<label>Or one of these<select name="preset"><option value="">–</option>{options}</select></label>'
    return (
        f'<form id="{_text(name)}-line" class="line" aria-label="The line that joins the workers\' hosts" hidden>'
        f"{inputs}{preset}</form>"
        f'<p class="told" id="{_text(name)}-told" role="status">Drawn for {_text(line.shown)}.</p>'
    )


def _figure(figure: Figure, name: str, charts: list[str], around: tuple[str, str] = ("", "")) -> str:
    """A figure with its words; ``around`` stands before and after its panels."""
    panels = [
        _panel(panel, f"{name}-{at}", f"{figure.title} {panel.title}".strip(), charts)
        for at, panel in enumerate(figure.panels)
    ]
    notes = dict.fromkeys(note for panel in figure.panels if isinstance(panel, Plot) for note in panel.notes)
    said = "".join(f'<p class="note">{_text(note)}</p>' for note in notes)
    return (
        f"<figure><h3>{_text(figure.title)}</h3><figcaption>{_text(figure.caption)}</figcaption>"
        f'{around[0]}<div class="panels">{"".join(panels)}</div>{around[1]}{said}</figure>'
    )


def _panel(panel: Panel, name: str, words: str, charts: list[str]) -> str:
    if panel.has_points:
        figure = chart(panel)
        charts.append(_script(name, figure.to_json()))
        shown = (
            f'<div id="{_text(name)}" class="chart" role="figure" aria-label="{_text(words)}" '
            f'style="height:{int(figure.layout.height)}px"></div>'
        )
    else:
        shown = '<p class="note">Nothing to show: the runs hold no such numbers.</p>'
    title = f"<h4>{_text(panel.title)}</h4>" if panel.title else ""
    return f'<div class="panel">{title}{shown}</div>'


def _script(name: str, figure: str) -> str:
    return f"isthmus.draw({json.dumps(name)}, {figure});"


def _table(table: Table, name: str = "") -> str:
    known = f' id="{_text(name)}"' if name else ""
    sides = [' class="r"' if side == "r" else "" for side in table.align]
    head = "".join(f'<th scope="col"{side}>{_text(name)}</th>' for name, side in zip(table.columns, sides, strict=True))
    rows = "".join(
        "<tr>" + "".join(f"<td{side}>{_text(cell)}</td>" for cell, side in zip(row, sides, strict=True)) + "</tr>"
        for row in table.rows
    )
    return (
        f"<h3>{_text(table.title)}</h3>"
        + (f'<p class="soft">{_text(table.caption)}</p>' if table.caption else "")
        + f'<div class="table"><table{known} aria-label="{_text(table.title)}">'
        f"<thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div>"
    )


def _runs(runs: Sequence[Run]) -> str:
    return (
        '<section id="runs"><h2>The runs</h2><p>A command repeats its run; the same seed gives the same numbers.</p>'
        + "".join(map(_run, runs))
        + "</section>"
    )


def _run(run: Run) -> str:
    known = "finished" if run.status == "finished" else ""
    versions = run.environment.get("versions")
    listed = [f"{name} {plain(version)}" for name, version in versions.items()] if isinstance(versions, dict) else []
    facts = [
        f"{run.kind}, {len(run.rows)} rows",
        *(f"{word} {plain(run.environment[key])}" for word, key in _FACTS if run.environment.get(key) is not None),
        *listed,
    ]
    error = run.summary.get("error")
    flags = "".join(f"<tr><td>{_text(key)}</td><td>{_text(plain(run.config[key]))}</td></tr>" for key in run.config)
    return (
        f'<article><h3>{_text(run.path.name)} <span class="badge {known}">{_text(run.status)}</span></h3>'
        + (f'<p class="warning">{_text(plain(error))}</p>' if error is not None else "")
        + _origin(run)
        + f'<p class="soft">{_text(" · ".join(facts))}</p>'
        + _events(run)
        + f'<details><summary>Configuration</summary><div class="table"><table><tbody>{flags}</tbody></table></div>'
        "</details></article>"
    )


def _events(run: Run) -> str:
    """What happened beside the rounds, folded; nothing where nothing did."""
    rows = event_rows(run)
    if not rows:
        return ""
    head = "".join(f'<th scope="col">{name}</th>' for name in ("round", "time", "worker", "event", ""))
    body = "".join("<tr>" + "".join(f"<td>{_text(cell)}</td>" for cell in row) + "</tr>" for row in rows[:_MOST_EVENTS])
    more = f", the first {_MOST_EVENTS} of which follow" if len(rows) > _MOST_EVENTS else ""
    return (
        f"<details><summary>What happened beside the rounds ({len(rows)}{more})</summary>"
        f'<div class="table"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div></details>'
    )


def _origin(run: Run) -> str:
    """The command that repeats the run, or that there is none."""
    if run.command is not None:
        return f"<pre><code>{_text(run.command)}</code></pre>"
    by = f"by {run.script}" if run.script else "in a notebook or an interpreter"
    return f"<p>{_text(f'Made from Python {by}; it cannot be repeated by one command.')}</p>"


_FACTS = (("started", "started"), ("commit", "commit"), ("cores", "cores"), ("on", "platform"))
