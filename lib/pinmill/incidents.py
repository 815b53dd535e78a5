"""What people must know of a workflow: its incidents, from the record of a run, and which are new, known or over."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from pinmill.runs import RunRecord, StageRecord

LONGEST, LINES = 240, 12  # characters of a line and lines of an error: a message is read on a telephone
UNDECIDED = {"failed": ("rejected", "alert")}  # status of a run -> kinds of incidents that it says nothing of
KEPT = 20  # incidents that are over and that somebody, whose service is down, has still to be told of


@dataclass(frozen=True)
class Incident:
    """Something that people must know of; `kind` and `key` are the same as long as it is the same."""

    kind: str  # rejected | failed | missed | alert
    workflow: str
    job: str
    key: str
    title: str  # what happened, in a few words
    text: str  # the facts, one a line

    @property
    def id(self) -> tuple[str, str]:
        return self.kind, self.key


@dataclass(frozen=True)
class Known:
    """An incident as it was last found, and who was told of it; times are ISO 8601, UTC."""

    incident: Incident
    since: str
    last: str  # when it was last found
    told: tuple[str, ...] = ()  # marks of the addresses that were told of it and, when it is over, not yet of that
    over: str = ""  # since when it is not found any more

    @property
    def title(self) -> str:
        return f"recovered, {self.incident.title}" * bool(self.over) or self.incident.title

    @property
    def text(self) -> str:
        """The facts; of an incident that is over, from when to when it was so."""
        if not self.over:
            return self.incident.text
        about = {"workflow": self.incident.workflow, "job": self.incident.job, "recovered": self.incident.title}
        return list_facts({**about, "since": self.since, "until": self.over})


def compare(
    known: Iterable[Known], found: Iterable[Incident], *, unknown: Collection[str | tuple[str, str]], now: str
) -> list[Known]:
    """Each incident as it stands now that `found` were found, and of `unknown` kinds and ids nobody can tell. Pure.

    Those that nobody was told of are forgotten when they are over; so is a rejected candidate when another one is
    rejected, and a failure when another stage fails, for nothing has recovered then.
    """
    before, stand = {each.incident.id: each for each in known}, {}
    for incident in found:
        former = before.get(incident.id)
        is_same = former is not None and not former.over
        stand[incident.id] = replace(former, incident=incident, last=now) if is_same else Known(incident, now, now)
    is_replaced = {"rejected", "failed"} & {kind for kind, _ in stand}
    over = []
    for (kind, key), each in before.items():
        if (kind, key) in stand:
            continue
        if not {kind, (kind, key)}.isdisjoint(unknown) and not each.over:
            stand[kind, key] = each
        elif each.told and (each.over or kind not in is_replaced):
            over.append(each if each.over else replace(each, over=now))
    return [*stand.values(), *sorted(over, key=lambda each: each.over)[-KEPT:]]


def find_due(known: Iterable[Known], mark: str) -> list[Known]:
    """Those of which an address has still to be told: open ones of which it was not, and that others are over."""
    return [each for each in known if (mark in each.told) == bool(each.over)]


def note_told(known: Iterable[Known], told: Collection[str], marks: Collection[str]) -> list[Known]:
    """The same after the addresses `told` were told of all; without those over that none of `marks` waits for."""
    noted = []
    for each in known:
        waiting = [mark for mark in each.told if mark in marks and mark not in told]
        marked = waiting if each.over else sorted({*each.told, *told})
        noted += [] if each.over and not waiting else [replace(each, told=tuple(marked))]
    return noted


def find_incidents(
    record: RunRecord, *, title: str, last: RunRecord | None, alerts: Iterable[Mapping[str, Any]], pages: str
) -> list[Incident]:
    """The incidents that a finished run found; `last` is the finished run before it. Pure.

    `title` is the workflow's, `alerts` are facts of its monitoring pin, and `pages` is where the pages stand: a folder
    or an address.
    """
    about = {"workflow": f"{record.workflow} ({title})", "job": record.job, "run": record.run}
    changed = [f"{s.notebook}: {'; '.join(s.why[:3])}" for s in record.stages if s.why and s.status != "reused"]
    own = next(reversed(record.pages.values()), "reports/_pages/index.html")
    page = {"page": f"{pages}/{own.removeprefix('reports/_pages/')}"}
    job = "" if record.job == "train" else f" --job {record.job}"
    before = {"changed": changed, "last finished run": last and f"{last.run}, {last.status}"}

    def make(kind: str, key: str, said: str, facts: Mapping[str, Any], step: str) -> Incident:
        """One incident, with what is the same in all."""
        text = list_facts({**about, **facts, **page, "next": step})
        return Incident(kind, record.workflow, record.job, key, one_line(said), text)

    if record.status == "failed":
        stage = next((stage.notebook for stage in record.stages if stage.status == "failed"), "")
        facts = {"stage": stage, "error": shorten(record.error), **before}
        return [make("failed", stage, f"failed in {stage or record.job}", facts, f"pinmill run {record.workflow}{job}")]
    found = []
    if record.status == "rejected":
        model = record.output("model") or {}
        facts = {"stage": name_writer(record.stages, "metrics"), "candidate": record.candidate}
        facts |= {"reasons": record.reasons, "champion": record.champion_after, **before}
        step = f"pinmill models {record.workflow}"
        found += [make("rejected", model.get("sha256", record.candidate), "rejected by the gate", facts, step)]
    for alert in alerts:
        if alert["firing"]:
            facts = {name: alert.get(name) for name in ("metric", "column", "value", "threshold", "period", "n")}
            facts = {"stage": name_writer(record.stages, "monitoring"), "alert": alert["text"], **facts}
            step = f"look at the page, then: pinmill run {record.workflow}"
            found += [make("alert", str(alert["key"]), f"alert, {one_line(alert['text'], 80)}", facts, step)]
    return found


def name_writer(stages: Sequence[StageRecord], kind: str) -> str:
    """The notebook that wrote a kind of pin."""
    return next((stage.notebook for stage in stages if kind in stage.outputs), "")


def list_facts(facts: Mapping[str, Any]) -> str:
    """Facts as lines of text, without those that are empty; several values of one stand below its name."""
    lines = []
    for name, value in facts.items():
        if isinstance(value, list | tuple):
            lines += [f"{name}:", *(f"    {one_line(each)}" for each in value)] if value else []
        elif value not in (None, ""):
            lines.append(f"{name}: {one_line(value)}")
    return "\n".join(lines)


def one_line(value: Any, most: int = LONGEST) -> str:
    """A value, which may be hostile, as one line of text, cut, without control and formatting characters."""
    shown = f"{value:.6g}" if isinstance(value, float) else str(value)[: 10 * most]
    text = " ".join("".join(each if each.isprintable() else " " for each in shown).split())
    return text if len(text) <= most else f"{text[:most]} …"


def shorten(error: str) -> list[str]:
    """The lines of an error; of a long one the first and the last."""
    lines = [line for line in error.splitlines() if line.strip()]
    return lines if len(lines) <= LINES else [*lines[: LINES // 2], "…", *lines[-LINES // 2 :]]
