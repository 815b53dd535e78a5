"""What monitoring holds calls against: what the champion was made from, what it says of that, and its evaluation."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

from pandas import DataFrame, Series

from pinmill.annotations import list_records
from pinmill.card import NAMES, format_score
from pinmill.drift import SHIFTED, Reference, make_reference
from pinmill.errors import DataError, ParameterError
from pinmill.metrics import LOSSES
from pinmill.performance import find_evaluation
from pinmill.periods import Period, list_outputs
from pinmill.pin import Pin
from pinmill.rival import take_inputs
from pinmill.scorer import make_scorer
from pinmill.session import Run
from pinmill.version import now_utc

MOST_NAMED = 5  # columns in a sentence
LONGEST_NAME = 60  # characters of a column's name in it
MOST_LABELS, LONGEST_LABEL = 5, 40  # unknown labels in a sentence, and their characters
ONCE = 0.95  # of the test rows: with more repeats equal inputs are different cases, as in a table of few values
CHANGED = ("shifted", "new", "gone")  # what counts as shifted
MOST_HELD = 20_000  # test rows: of more the distributions would not be told better
KINDS = {"integer": "number", "datetime": "date"}  # what `find_kinds` calls some types of a prototype
ORDER = ("shifted", "new", "gone", "failed", "all missing", "constant", "too few", "hidden", "ok")  # the worst first
HEAD = ("Column", "State", "Rows", "p")
MEASURES = {  # as tables name them
    "psi": "PSI",
    "ks": "KS",
    "length_psi": "PSI of lengths",
    "length_ks": "KS of lengths",
    "js": "JS",
    "unseen_share": "Unseen",
    "oov_share": "New words",
    "missing_share": "Missing",
    "unreadable_share": "Unreadable",
}


@dataclass(frozen=True)
class Expected:
    """What a champion lets expect; its `version` and the `facts` of its pin are empty where there is none.

    `scores` has the {value, low, high, n} of its evaluation by metric. `inputs` and `outputs` are None, and `said` has
    no rows, where its training data cannot be had: `absent` says why. `once` tells that each input is compared once, as
    the test rows have hardly any repeats.
    """

    absent: str = ""
    version: str = ""
    facts: Mapping[str, Any] = field(default_factory=dict)
    scores: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    said: DataFrame = field(default_factory=lambda: list_outputs([]))  # of the test rows, as `read_outputs` of calls
    inputs: Reference | None = None
    outputs: Reference | None = None
    once: bool = True


def read_moment(until: str) -> datetime:
    """In UTC the moment that an ISO 8601 text names, by itself in UTC, too; now for none.

    Raises ParameterError for another text, and for the future.
    """
    now = now_utc()
    try:
        given = datetime.fromisoformat(until) if until else now
        when = (given if given.tzinfo else given.replace(tzinfo=UTC)).astimezone(UTC)
    except (ValueError, OverflowError):
        raise ParameterError(
            f"until is {until!r}; a date or time in ISO 8601 such as 2026-11-20 was expected"
        ) from None
    if when > now:
        raise ParameterError(f"until is {until!r}, which has not come yet; leave it empty for now")
    return when


def read_expected(run: Run) -> Expected:
    """What the champion at the time lets expect of its calls. Raises IntegrityError for a damaged one."""
    pin, data = run.read_champion_pin(), run.read_champion_training()
    if pin is None:
        return Expected(absent="there is no champion")
    evaluation = find_evaluation(run.board, pin)
    scores = run.board.read_json(evaluation)["metrics"] if evaluation else []
    known = Expected(version=pin.version, facts=pin.facts, scores={row["metric"]: row for row in scores})
    return read_training(run, known, data) if data else replace(known, absent="nobody knows what it was trained on")


def read_training(run: Run, known: Expected, data: Pin) -> Expected:
    """`known` with what the data of the champion lets expect."""
    prototype = known.facts["prototype"]
    try:
        rows = run.board.read_table(data, columns=["_part", "_hash", *prototype])
        inputs = take_inputs(rows, prototype, text=data.facts["text"])
    except DataError as error:
        return replace(known, absent=f"its training data is not of the form that it takes: {error}")
    train, held = (inputs[rows["_part"] == part] for part in ("train", "test"))
    hashes = rows["_hash"][rows["_part"] == "test"]
    held = held.sample(min(len(held), MOST_HELD), random_state=0)
    said = list_outputs(make_scorer(run.read_champion_model(), prototype)(list_records(held)))
    kinds = {name: data.facts["kinds"].get(name) or KINDS.get(p["type"], p["type"]) for name, p in prototype.items()}
    outputs = choose_outputs(said, known.facts)
    return replace(
        known,
        said=said,
        once=is_told_once(hashes),
        inputs=make_reference(train, held, kinds=kinds),
        outputs=make_reference(outputs, outputs, kinds={n: "category" if n == "label" else "number" for n in outputs}),
    )


def is_told_once(hashes: Series) -> bool:
    """Whether rows with these hashes have hardly any repeats; if not, equal inputs are different cases."""
    return hashes.nunique() >= ONCE * len(hashes)


def choose_outputs(said: DataFrame, facts: Mapping[str, Any]) -> DataFrame:
    """The columns of outputs that are compared: labels as text with how sure they are, or amounts.

    Of two classes it is the probability of the positive one, as that of the other says the same.
    """
    if facts["task"] == "regression":
        return said[["value"]]
    positive = facts["classes"][-1] if facts["positive"] is None else facts["positive"]
    sure = f"probability of {positive}" if facts["task"] == "binary" else "value"
    return said.reindex(columns=["label", sure]).assign(label=said["label"].map(str, na_action="ignore"))


def rank_status(status: str) -> int:
    """The place of a column's status in ORDER, the worst first; what stands behind a colon does not count."""
    return ORDER.index(status.partition(":")[0])


def list_columns(history: DataFrame, period: str, subject: str) -> DataFrame:
    """What drift found in a period, a row for each column of a subject as people read it: the shifted first."""
    rows, listed = history[(history["period"] == period) & (history["subject"] == subject)], []
    for column, own in rows[rows["column"] != ""].groupby("column"):
        values = dict(zip(own["metric"], map(format_score, own["value"]), strict=True))
        state = min(own["status"], key=rank_status)
        about = {"Column": column, "State": state, "Rows": f"{own['n'].max():,}", "p": format_p(own["p"].min())}
        listed.append(about | {named: values[name] for name, named in MEASURES.items() if name in values})
    found = DataFrame(sorted(listed, key=lambda each: rank_status(each["State"])))
    return found[[name for name in (*HEAD, *MEASURES.values()) if name in found]]


def format_p(p: float) -> str:
    """A p-value as people read it."""
    return "< 0.001" if p < 0.001 else format_score(p)


def name_period(name: str, length: str) -> str:
    """A period as a sentence says it, such as "in the week of 16 November 2026" of the week 2026-11-16."""
    start = datetime.fromisoformat(name)
    day = f"{start.day} {start:%B %Y}"
    return {"day": f"on {day}", "week": f"in the week of {day}", "month": f"in {start:%B %Y}"}[length]


def tell_unknown(unknown: Mapping[str, int]) -> str:
    """For people: true labels that a champion does not know, as `list_unknown` counts them; "" for none."""
    common = sorted(unknown.items(), key=lambda each: (-each[1], each[0]))[:MOST_LABELS]
    named = ", ".join(f"{name[:LONGEST_LABEL]}{'…' * (len(name) > LONGEST_LABEL)} ({n:,})" for name, n in common)
    more = ", …" * (len(unknown) > MOST_LABELS)
    calls, labels = sum(unknown.values()), len(unknown)
    told = f"{labels:,} label{'s' * (labels != 1)} of {calls:,} call{'s' * (calls != 1)}: {named}{more}"
    return told if unknown else ""


def tell_state(history: DataFrame, period: Period, *, length: str, metric: str, expected: Expected, firing: int) -> str:
    """For people, in a few sentences: the alerts, and how good the champion was in a period, how used, what shifted.

    `length` is day, week or month; `metric` is the one that decides, empty without a champion; `firing` counts alerts.
    """
    alerts = f"{firing or 'No'} alert{'s fire' if firing > 1 else ' fires'}."
    own, when = history[history["period"] == period.name], name_period(period.name, length)
    rows = {(row["subject"], row["metric"]): row for row in own[own["column"] == ""].to_dict("records")}
    requests = rows["traffic", "requests"]["value"]
    if not requests:
        return f"{alerts} Nobody asked anything {when}."
    errors = 100 * rows["traffic", "error_share"]["value"]
    good = tell_score(metric, rows.get(("score", metric)), expected) if metric else expected.absent
    tested = rows.get(("input", SHIFTED), {"value": 0, "n": 0})
    is_shifted = (own["subject"] == "input") & own["status"].isin(CHANGED) & (own["column"] != "")
    moved = count_shifted([tested], own[is_shifted]["column"].unique(), "input")
    moved = moved if tested["n"] else "whether the inputs have shifted is not known"
    used = f"was 1 request, {errors:.0f}" if requests == 1 else f"were {requests:,.0f} requests, {errors:.1f}"
    return f"{alerts} {when[0].upper()}{when[1:]} {good}. There {used} % of them errors; {moved}."


def count_shifted(counted: Sequence[Mapping[str, Any]], names: Collection[str], of: str) -> str:
    """As "1 of 15 input columns (age) shifted", by rows of SHIFTED, the oldest first; `names` are of the newest."""
    counts = ", then ".join(f"{row['value']:.0f} of {row['n']:,}" for row in counted)
    listed = ", ".join(map(shorten_name, sorted(names)[:MOST_NAMED])) + ", …" * (len(names) > MOST_NAMED)
    plural = "s" * (counted[-1]["n"] != 1)
    return f"{counts} {of} column{plural}{f' ({listed})' if names else ''} shifted"


def shorten_name(column: str) -> str:
    """The name of a column, or its first characters."""
    return f"{column[:LONGEST_NAME]}{'…' * (len(column) > LONGEST_NAME)}"


def tell_score(metric: str, score: Mapping[str, Any] | None, expected: Expected) -> str:
    """What the calls with a label say of a metric, beside what the evaluation promised."""
    name, promised = NAMES.get(metric, metric), expected.scores.get(metric)
    if not score or not score["n"]:
        return f"no call had an input with a label, so that nobody knows its {name}"
    beside = f", beside the {_tell_interval(promised)} that its evaluation promised" if promised else ""
    former = {*score["model"].split(", ")} - {expected.version, ""}
    if former:
        whose = f"{len(former)} former version{'s' * (len(former) > 1)}"
        whose = f"it and {whose}" if expected.version in score["model"] else whose
        beside = beside.replace("that its", "that the champion's")
        return f"the {name} of {whose} was {_tell_interval(score)} on {score['n']:,} calls with a label{beside}"
    if promised and promised["low"] is not None:
        is_loss = metric in LOSSES
        is_worse = score["low"] > promised["high"] if is_loss else score["high"] < promised["low"]
        beside = beside.replace("beside", "worse than", 1) if is_worse else beside
    return f"its {name} was {_tell_interval(score)} on {score['n']:,} calls with a label{beside}"


def _tell_interval(score: Mapping[str, Any]) -> str:
    return f"{format_score(score['value'])} ({format_score(score['low'])} to {format_score(score['high'])})"
