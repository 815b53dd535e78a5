"""The index: every workflow with its champion, its last run and its trend, as a page that the library builds."""

import re
from bisect import bisect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from math import isfinite
from typing import Any

from nbformat import NotebookNode, v4

from pinmill.card import INTERVAL, METRICS, in_words
from pinmill.champion import Champion, read_champion
from pinmill.errors import PinmillError
from pinmill.markdown import Markdown, bullets, callout, code, escape, format_value, join, table, value_list
from pinmill.page import Page, figure
from pinmill.plan import WORKFLOW, load_workflow
from pinmill.project import Project
from pinmill.runs import RunRecord, read_records
from pinmill.version import now_utc

SUBTITLE = "Each workflow with its champion, its last run and its trend; times are UTC"
SOURCE = "the board and the records of runs"
PAGES = {"model-card": "Model card", "evaluation": "Evaluation", "training": "Training", "data": "Data"}
ENDINGS = {
    "failed": "failed",
    "rejected": "was rejected",
    "interrupted": "was interrupted",
    "running": "is at work",
    "unreadable": "cannot be read",
}
RUN = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")  # what may stand in an address
RECENT, FEW, LONGEST = 30, 3, 300  # candidates in a trend; metrics, names or problems told; characters of an error
SVG = (
    '<svg xmlns="http://www.w3.org/2000/svg" width="240" height="48" viewBox="0 0 240 48" fill="#2f6f9f">'
    '<polyline points="{}" fill="none" stroke="#2f6f9f" stroke-width="1.5"/>{}</svg>'
)
WIDTH, HEIGHT, MARGIN = 240, 48, 6  # of that [px]

Scores = Mapping[str, tuple[float, str]]  # readable name of a metric -> value, and its interval in words


@dataclass(frozen=True)
class Overview:
    """What is known of one workflow; `problems` say what cannot be read."""

    workflow: str
    title: str
    problems: Sequence[str] = ()
    champion: Champion | None = None
    scores: Scores = field(default_factory=dict)  # the champion's
    candidates: Mapping[str, Scores] = field(default_factory=dict)  # the last ones, oldest first, by their SHA-256
    run: RunRecord | None = None  # the last
    pages: Mapping[str, Sequence[str]] = field(default_factory=dict)  # folder -> those of PAGES that stand there


def read_index(project: Project) -> Page:
    """The index as things stand now; what is damaged in one workflow is said there, and hides no other."""
    every = [read_overview(project, workflow) for workflow in project.workflows()]
    cells = [v4.new_markdown_cell(show_all(every)), *(cell for each in every for cell in show_workflow(each))]
    notebook, made = v4.new_notebook(cells=cells if every else []), f"{now_utc():%Y-%m-%d %H:%M}"
    return Page("index", notebook, "Models", SUBTITLE, made=made, source=SOURCE, lead=tell_all(every))


def read_overview(project: Project, workflow: str) -> Overview:
    """What is known of a workflow, from its newest records and the metadata of few pins."""
    board, problems, title = project.board, [], workflow

    def attempt(read: Callable[..., Any], *given: Any) -> Any:
        """What `read` returns; None, with its words among the problems, when it fails."""
        try:
            return read(*given)
        except (PinmillError, OSError) as error:
            problems.append(str(error).replace(f"{project.root}/", ""))
            return None

    def read_scores(versions: Sequence[str]) -> dict[str, Scores]:
        """By the SHA-256 of the model, what some of the gate's decisions tell; the newest of each model counts."""
        pins = filter(None, [attempt(board.pin, f"{workflow}-metrics", version) for version in versions])
        return {str(pin.facts.get("candidate_sha256")): keep_scores(pin.facts.get("headline")) for pin in pins}

    if params := attempt(load_workflow, project, workflow):
        title = str(params.values.get("title") or workflow)
        problems += params.problems
    if not WORKFLOW.fullmatch(workflow):
        return Overview(workflow, title, problems)
    folder = project.runs_folder(workflow)  # of a run that was skipped, the one that was in its way tells
    run = attempt(lambda: next((run for run in read_records(folder) if run.status != "skipped"), None))
    champion, decisions = attempt(read_champion, board, workflow), attempt(board.versions, f"{workflow}-metrics") or []
    recent, scores = read_scores(decisions[-RECENT:]), {}
    if champion:
        attempt(board.pin, f"{workflow}-model", champion.version)
        first = bisect(decisions, champion.version)  # what the gate said when the model was new
        found = recent if champion.sha256 in recent else read_scores(decisions[first : first + FEW])
        scores = found.get(champion.sha256, {})
    rejected = [f"{workflow}/{run.run}"] if run and run.status == "rejected" and RUN.fullmatch(run.run) else []
    pages = {f: [n for n in PAGES if (project.pages / f / f"{n}.html").is_file()] for f in (workflow, *rejected)}
    return Overview(workflow, title, [*dict.fromkeys(problems)], champion, scores, recent, run, pages)


def keep_scores(headline: Any) -> Scores:
    """What a notebook gave as headline metrics, without those that have no value."""
    kept = {}
    for name, score in headline.items() if isinstance(headline, Mapping) else ():
        known = score if isinstance(score, Mapping) else {}
        value, low, high = map(known.get, ("value", "low", "high"))
        if isinstance(value, int | float) and isfinite(value):
            span = "not known" if low is None else f"{format_value(low)} to {format_value(high)}"
            kept[METRICS.get(name, (str(name),))[0]] = value, span
    return kept


def tell_all(every: Sequence[Overview]) -> Markdown:
    """How things stand, in a sentence."""
    if not every:
        return Markdown("There is no workflow yet: each is a file in `params/`.")
    n, runs = sum(each.champion is not None for each in every), {e.workflow: e.run.status for e in every if e.run}
    have = f"{n or 'None'} of {len(every)} workflow{'s' * (len(every) > 1)} {'have' if n > 1 else 'has'} a champion"
    groups = {f"the last run of {{}} {ENDINGS[end]}": [w for w in runs if runs[w] == end] for end in ENDINGS}
    groups["not all of {} can be read"] = [each.workflow for each in every if each.problems]
    told = {said: g if len(g) <= FEW else [f"{len(g)} workflows"] for said, g in groups.items() if g}
    said = [said.format(" and ".join(map(escape, names))) for said, names in told.items()]
    return Markdown("; ".join([have, *(said or ["every last run succeeded" if runs else "nothing has run yet"])]) + ".")


def show_all(every: Sequence[Overview]) -> Markdown:
    """All workflows in one table."""
    rows = []
    for each in every:
        has_card = "model-card" in each.pages.get(each.workflow, ())
        name = Markdown(f"[{escape(each.workflow)}]({each.workflow}/model-card.html)") if has_card else each.workflow
        nothing = "not scored" if each.champion else "none yet", ("", None)
        metric, (value, span) = next(iter(each.scores.items()), nothing)
        told = {"Champion": f"{metric} {format_value(value)}".strip(), INTERVAL: span}
        status, _, day = tell_run(each.run, until=10).partition(", ")
        rows.append({"Workflow": name, "Title": each.title, **told, "Last run": status, "On": day})
    return table(rows, right=("Champion", INTERVAL))


def show_workflow(each: Overview) -> list[NotebookNode]:
    """The section of one workflow: what is served, how well it does, since when, by whom and why, and the last run."""
    facts, champion, run = {"Workflow": code(each.workflow), "Champion": "none yet"}, each.champion, each.run
    if champion:
        scores = {m: f"{format_value(value)} ({INTERVAL} {span})" for m, (value, span) in each.scores.items()}
        did = "promoted" if champion.action == "promote" else "gone back to"
        against = ", though the gate had not passed it" * champion.override
        since = f"{champion.when[:16].replace('T', ' ')}, {did} by {champion.by}{against}"
        facts["Champion"] = code(champion.version)
        facts |= dict(islice(scores.items(), FEW)) or {"Scores": "not recorded"}
        facts |= {"Since": since, "Why": in_words(champion.why)}
    nothing = "; nothing was new" * bool(run and {stage.status for stage in run.stages} == {"reused"})
    facts["Last run"] = f"{tell_run(run)}{nothing}"
    if run and (went := " ".join(run.reasons) if run.status == "rejected" else run.error.strip().partition("\n")[0]):
        facts["What happened"] = in_words(went[:LONGEST])
    for folder, names in each.pages.items():
        links = Markdown(" · ".join(f"[{PAGES[name]}]({folder}/{name}.html)" for name in names))
        facts |= {f"Pages{' of the rejected run' * (folder != each.workflow)}": links} if names else {}
    damaged = callout(bullets(each.problems[:FEW]), title="Not all of it can be read") if each.problems else ""
    head = Markdown(f"## {escape(each.title).strip() or escape(each.workflow)}")
    return [v4.new_markdown_cell(join(head, damaged, value_list(facts))), *show_trend(each)]


def tell_run(run: RunRecord | None, *, until: int = 16) -> str:
    """How a run ended, and the first characters of when."""
    when = (run.ended or run.started)[:until].replace("T", " ") if run else ""
    return ", ".join(filter(None, (run.status, when))) if run else "none yet"


def show_trend(each: Overview) -> list[NotebookNode]:
    """The figure of the first metric over the last candidates; nothing while there are fewer than two."""
    metric = next((name for scores in (each.scores, *reversed(each.candidates.values())) for name in scores), "")
    values = {sha256: scores[metric][0] for sha256, scores in each.candidates.items() if metric in scores}
    if len(values) < 2:
        return []
    sha256s, shown = [*values], [*map(format_value, values.values())]
    place = sha256s.index(each.champion.sha256) if each.champion and each.champion.sha256 in values else None
    ends = f"first {shown[0]}, last {shown[-1]}"
    said = f"{metric} of {len(shown)} candidates: {ends}{'; the large dot is the champion' * (place is not None)}"
    return [figure(draw_trend([*values.values()], champion=place), caption=escape(said), alt=f"Trend of {said}")]


def draw_trend(values: Sequence[float], *, champion: int | None) -> str:
    """SVG of a line through two `values` or more, with a dot for each and a larger one for that of the champion."""
    low, spread, last = min(values), max(values) - min(values), len(values) - 1
    xs = [MARGIN + n / last * (WIDTH - 2 * MARGIN) for n in range(len(values))]
    ys = [HEIGHT - MARGIN - ((v - low) / spread if spread else 0.5) * (HEIGHT - 2 * MARGIN) for v in values]
    line = " ".join(f"{x:.1f},{y:.1f}" for x, y in zip(xs, ys, strict=True))
    sizes = [5 if n == champion else 2 for n in range(len(values))]
    dots = [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{r}"/>' for x, y, r in zip(xs, ys, sizes, strict=True)]
    return SVG.format(line, "".join(dots))
