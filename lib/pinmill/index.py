"""The index: every workflow with its champion, its last run and its trend, as a page that the library builds."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from math import isfinite
from pathlib import Path
from typing import Any

from nbformat import NotebookNode, v4

from pinmill.card import INTERVAL, NAMES, format_score, in_words
from pinmill.champion import Champion, read_champion
from pinmill.errors import PinmillError
from pinmill.markdown import Markdown, bullets, callout, code, escape, join, table, value_list
from pinmill.page import Page, figure
from pinmill.pages import read_mark
from pinmill.pin import Pin
from pinmill.plan import WORKFLOW, load_workflow
from pinmill.project import Project
from pinmill.runs import FINISHED, RunRecord, read_records
from pinmill.version import now_utc

SUBTITLE = "Each workflow with its champion, its last run and its trend, as of {:%Y-%m-%d %H:%M}; times are UTC"
KNOWN = ("model-card", "evaluation", "training", "data", "monitoring", "scores")  # pages, in the order of their links
PAGES = {page: page.replace("-", " ").capitalize() for page in KNOWN}
ENDINGS = {
    "failed": "failed",
    "rejected": "was rejected",
    "interrupted": "was interrupted",
    "running": "is at work",
    "unreadable": "cannot be read",
}
NAME, RUN = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*"), re.compile(r"(?a)(\d{4})(\d\d)(\d\d)T(\d\d)(\d\d)\d\dZ-[\w-]+")
PAIR = re.compile(r"\d{8}T\d{6}Z-(\w+)-\d{8}T\d{6}Z-(\w+)")  # two versions
FAILED = re.compile(r"does not beat|misses its threshold|may be worse than the champion|has no value on")  # of the gate
RECENT, FEW, LONGEST, LINKED = 30, 3, 300, 5  # candidates drawn; facts told; characters of an error; comparisons, runs
SVG = '<svg xmlns="http://www.w3.org/2000/svg" width="240" height="48" viewBox="0 0 240 48" fill="#2f6f9f">{}</svg>'
LINE = '<polyline points="{}" fill="none" stroke="#2f6f9f" stroke-width="1.5"/>'
WIDTH, HEIGHT, MARGIN = 240, 48, 6  # of that [px]
Scores = Mapping[str, tuple[float, str]]  # readable name of a metric -> value, and its interval in words


@dataclass(frozen=True)
class Overview:
    """What is known of one workflow; `problems` say what cannot be read."""

    workflow: str
    title: str  # as Markdown
    problems: Sequence[str] = ()
    champion: Champion | None = None
    scores: Scores = field(default_factory=dict)  # the champion's
    candidates: Mapping[str, Scores] = field(default_factory=dict)  # the last ones, oldest first, by their SHA-256
    run: RunRecord | None = None  # the last training that was not skipped
    monitored: str = ""  # what the last monitoring found, or how it ended
    alerts: int = 0  # how many of its rules fire
    links: Mapping[str, Markdown] = field(default_factory=dict)  # to pages, by what those are


def read_index(project: Project) -> Page:
    """The index as things stand now; what is damaged in one workflow is said there, and hides no other."""
    every = [read_overview(project, workflow) for workflow in project.workflows()]
    cells = [v4.new_markdown_cell(show_all(every)), *(cell for each in every for cell in show_workflow(each))]
    lead = tell_all(every) if every else Markdown("There is no workflow yet: each is a file in `params/`.")
    notebook, subtitle = v4.new_notebook(cells=cells if every else []), SUBTITLE.format(now_utc())
    return Page("index", notebook, "Models", subtitle, source="the board and the records of runs", lead=lead)


def read_overview(project: Project, workflow: str) -> Overview:
    """What is known of a workflow, from its newest records and the metadata of few pins."""
    board, problems, title = project.board, [], escape(workflow)

    def attempt(read: Callable[..., Any], *given: Any) -> Any:
        """What `read` returns; None, with its words among the problems, when it fails."""
        try:
            return read(*given)
        except (PinmillError, OSError) as error:
            problems.append(str(error).replace(f"{project.root}/", ""))

    def read_scores(versions: Sequence[str]) -> dict[str, Scores]:
        """By the SHA-256 of the model, what some of the gate's decisions tell; the newest of each model counts."""
        pins = filter(None, [attempt(board.pin, f"{workflow}-metrics", version) for version in versions])
        return {str(pin.facts.get("candidate_sha256")): keep_scores(pin.facts.get("headline")) for pin in pins}

    if params := attempt(load_workflow, project, workflow):
        title = escape(params.values.get("title") or "").strip() or title
        problems += params.problems
    if not WORKFLOW.fullmatch(workflow):
        return Overview(workflow, title, problems)
    run, watch = attempt(read_last, project.runs_folder(workflow)) or (None, None)
    champion, decided = attempt(read_champion, board, workflow), attempt(board.versions, f"{workflow}-metrics") or []
    recent, scores = read_scores(decided[-RECENT:]), {}
    if champion:
        attempt(board.pin, f"{workflow}-model", champion.version)
        found = recent if champion.sha256 in recent else read_scores([d for d in decided if d > champion.version][:FEW])
        scores = found.get(champion.sha256, {})
    shown, watched = read_mark(project, workflow), attempt(board.versions, f"{workflow}-monitoring")
    seen = attempt(board.pin, f"{workflow}-monitoring", watched[-1]) if watched else None
    former = {} if not champion or shown["version"] in ("", champion.version) else shown
    rejected = run.run if run and run.status == "rejected" and RUN.fullmatch(run.run) else ""
    links = attempt(read_links, project.pages_folder(workflow), rejected, former) or {}
    told = tell_monitoring(seen, watch)
    return Overview(workflow, title, [*dict.fromkeys(problems)], champion, scores, recent, run, *told, links)


def read_last(folder: Path) -> tuple[RunRecord | None, RunRecord | None]:
    """The last training and the last monitoring that were not skipped; without a training the last run of another job.

    A record that is damaged may be of a training. A serving notebook that was run as a job only shows its cells.
    """
    found, kinds = dict[str, RunRecord](), {"train": "train", "": "train", "monitor": "monitor"}
    for run in read_records(folder):
        if run.job != "serve" and run.status != "skipped":
            found.setdefault(kinds.get(run.job, "other"), run)
        if {"train", "monitor"} <= {*found}:
            break
    return found.get("train") or found.get("other"), found.get("monitor")


def tell_monitoring(pin: Pin | None, run: RunRecord | None) -> tuple[str, int]:
    """What the newest monitoring pin found, before that how the last run ended unless well; and how many alerts."""
    found = pin.facts.get("alerts") if pin else None
    firing = [a for a in found if isinstance(a, Mapping) and a.get("firing")] if isinstance(found, list) else []
    bad = run is not None and run.status not in FINISHED
    said = [f"the last run {ENDINGS[run.status]}, {run.started[:16]}".replace("T", " ")] if bad else []
    if firing:
        count = f"{len(firing)} alert{'s' * (len(firing) > 1)}"
        said.append(f"{count}: {' '.join(str(a.get('text')) for a in firing)}")
    elif isinstance(found, list):
        said.append(f"no alert, as of {pin.created:%Y-%m-%d %H:%M}")
    return shorten("; ".join(said)), len(firing)


def shorten(text: str) -> str:
    """The text, or its first words."""
    return f"{text[:LONGEST].rpartition(' ')[0] or text[:LONGEST]} …" if len(text) > LONGEST else text


def read_links(folder: Path, rejected: str, former: Mapping[str, Any]) -> dict[str, Markdown]:
    """Links to the pages in a workflow's folder, by what they are; `former` are the version and names of some."""
    runs = sorted({run.name for run in folder.glob("*Z-*") if RUN.fullmatch(run.name)} - {rejected}, reverse=True)
    found = (links[0] for run in runs if (links := link_pages(folder, f"{run}/", RUN.sub(r"\1-\2-\3 \4:\5", run))))
    old = former.get("pages", ())
    rows = {"Pages": link_pages(folder, without=old), "Pages of the former champion": link_pages(folder, only=old)}
    rows["Pages of the rejected run"] = link_pages(folder, f"{rejected}/") if rejected else []
    rows |= {"Comparisons": link_pages(folder, "compare/")[:LINKED], "Pages by run": [*islice(found, LINKED)]}
    note = f" (of {code(former.get('version', ''))}; they could not be rendered again)"
    return {what: Markdown(" · ".join(row) + note * ("former" in what)) for what, row in rows.items() if row}


def link_pages(
    folder: Path, below: str = "", told: str = "", *, without: Sequence[str] = (), only: Sequence[str] | None = None
) -> list[str]:
    """Links to the pages `below` a folder whose names can stand in an address: the known ones, then the newest."""
    files = [file for file in (folder / below).glob("*.html") if NAME.fullmatch(file.stem) and file.stem not in without]
    files = files if only is None else [file for file in files if file.stem in only]
    files.sort(key=lambda file: ([*PAGES, file.stem].index(file.stem), -file.stat().st_mtime, file.stem))
    titles = {file.stem: told or PAGES.get(file.stem, PAIR.sub(r"\1 against \2", file.stem)) for file in files}
    return [f"[{whole(title)}]({folder.name}/{below}{name}.html)" for name, title in titles.items()]


def keep_scores(headline: Any) -> Scores:
    """What a notebook gave as headline metrics, without those that have no value."""
    kept = {}
    for name, score in headline.items() if isinstance(headline, Mapping) else ():
        value, low, high = map(score.get, ("value", "low", "high")) if isinstance(score, Mapping) else (None,) * 3
        if isinstance(value, int | float) and isfinite(value):
            span = "not known" if low is None else f"{format_score(low)} to {format_score(high)}"
            kept[NAMES.get(name, str(name))] = value, span
    return kept


def tell_all(every: Sequence[Overview]) -> Markdown:
    """How things stand, in a sentence."""
    n, runs = sum(each.champion is not None for each in every), {e.workflow: e.run.status for e in every if e.run}
    have = f"{n or 'None'} of {len(every)} workflow{'s' * (len(every) > 1)} {'have' if n > 1 else 'has'} a champion"
    groups = {f"the last run of {{}} {ENDINGS[end]}": [w for w in runs if runs[w] == end] for end in ENDINGS}
    groups["there are alerts for {}"] = [each.workflow for each in every if each.alerts]
    groups["not all of {} can be read"] = [each.workflow for each in every if each.problems]
    names = [" and ".join(map(escape, g)) if len(g) <= FEW else f"{len(g)} workflows" for g in groups.values()]
    said = [words.format(names) for words, names in zip(groups, names, strict=True) if names]
    return Markdown("; ".join([have, *(said or ["every last run succeeded" if runs else "nothing has run yet"])]) + ".")


def show_all(every: Sequence[Overview]) -> Markdown:
    """All workflows in one table, narrow enough for a phone."""
    rows = []
    for each in every:
        told = "not scored" if each.champion else "none yet"
        for metric, (value, span) in islice(each.scores.items(), 1):
            told = Markdown(f"{escape(metric)}\u00a0{whole(format_score(value))} ({whole(span)})")
        card = f"({each.workflow}/model-card.html)"
        name = Markdown(f"[{each.title}]{card}" if card in each.links.get("Pages", "") else each.title)
        rows.append({"Workflow": name, f"Champion ({INTERVAL})": told, "Last run": tell_run(each.run, until=10)})
    return table(rows)


def whole(text: str) -> Markdown:
    """`text` that stays on one line: browsers would break a date after its hyphens."""
    return Markdown(escape(text).replace(" ", "\u00a0").replace("&#45;", "&#45;\u2060"))


def show_workflow(it: Overview) -> list[NotebookNode]:
    """The section of one workflow: what is served, how well it does, since when, by whom and why, and the last run."""
    facts, champion, run = {"Workflow": code(it.workflow), "Champion": "none yet"}, it.champion, it.run
    if champion:
        scores = {m: f"{format_score(v)} ({INTERVAL} {span})" for m, (v, span) in islice(it.scores.items(), FEW)}
        did = f"{'promoted' if champion.action == 'promote' else 'rolled back to'} by {champion.by}"
        did += ", though the gate had not passed it" * champion.override
        since = Markdown(f"{whole(champion.when[:16].replace('T', ' '))}, {escape(did)}")
        facts |= {"Champion": code(champion.version)} | (scores or {"Scores": "not recorded"})
        facts |= {"Since": since, "Why": in_words(champion.why)}
    nothing = "; nothing was new" * bool(run and {stage.status for stage in run.stages} == {"reused"})
    facts["Last run"] = Markdown(f"{tell_run(run)}{nothing}")
    if run:
        reasons = " ".join(sorted(run.reasons, key=lambda reason: not FAILED.search(reason)))
        went = in_words(reasons) if run.status == "rejected" else run.error.strip().partition("\n")[0]
        facts |= {"What happened": shorten(went)} if went else {}
    facts |= {"Monitoring": it.monitored} if it.monitored else {}
    box = callout(bullets(it.problems[:FEW]), title="Not all of it can be read") if it.problems else ""
    return [v4.new_markdown_cell(join(Markdown(f"## {it.title}"), box, value_list(facts | it.links))), *show_trend(it)]


def tell_run(run: RunRecord | None, *, until: int = 16) -> Markdown:
    """How a run ended, and the first characters of when."""
    when = (run.ended or run.started)[:until].replace("T", " ") if run else ""
    return Markdown(", ".join(map(whole, filter(None, (run.status, when)))) if run else "none yet")


def show_trend(each: Overview) -> list[NotebookNode]:
    """The figure of the first metric over the last candidates; nothing while there are fewer than two."""
    metric = next((name for scores in (each.scores, *reversed(each.candidates.values())) for name in scores), "")
    values = {sha256: scores[metric][0] for sha256, scores in each.candidates.items() if metric in scores}
    if len(values) < 2:
        return []
    sha256s, shown = [*values], [*map(format_score, values.values())]
    place = sha256s.index(each.champion.sha256) if each.champion and each.champion.sha256 in values else None
    said = f"{metric} of {len(shown)} candidates: first {shown[0]}, last {shown[-1]}"
    said += "; the large dot is the champion" * (place is not None)
    return [figure(draw_trend([*values.values()], champion=place), caption=escape(said), alt=f"Trend of {said}")]


def draw_trend(values: Sequence[float], *, champion: int | None) -> str:
    """SVG of a line through two `values` or more, with a dot for each and a larger one for that of the champion."""
    low, spread, step = min(values), max(values) - min(values), (WIDTH - 2 * MARGIN) / (len(values) - 1)
    ys = [f"{HEIGHT - MARGIN - ((v - low) / spread if spread else 0.5) * (HEIGHT - 2 * MARGIN):.1f}" for v in values]
    spots = [(f"{MARGIN + n * step:.1f}", y, 5 if n == champion else 2) for n, y in enumerate(ys)]
    dots = "".join(f'<circle cx="{x}" cy="{y}" r="{radius}"/>' for x, y, radius in spots)
    return SVG.format(LINE.format(" ".join(f"{x},{y}" for x, y, _ in spots)) + dots)
