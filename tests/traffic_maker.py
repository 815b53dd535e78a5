"""Simulated traffic: months of calls in a project's real store, their outputs really made by a version of its model.

Everything is drawn from a seed and ends where the caller says, so that it is the same every time.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from itertools import groupby, pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import sqlalchemy as sql
from pinmill.annotations import list_records
from pinmill.champion import read_champion
from pinmill.metrics import as_labels
from pinmill.model import load_model
from pinmill.project import open_project
from pinmill.rows import RowError, hash_input, make_checker
from pinmill.scorer import make_scorer
from pinmill.store import CALLS, Annotation, stamp

CALLERS = {"shop": 0.6, "mobile-app": 0.3, "nightly-batch": 0.1}  # and how much each of them asks
BATCH = 10_000  # rows in one transaction
DELAY = timedelta(days=2)  # until somebody knows what was right: half of the labels come earlier
HOURS = np.array([1, 1, 1, 1, 1, 2, 4, 8, 12, 14, 14, 13, 12, 13, 14, 14, 13, 10, 8, 6, 5, 4, 2, 1], dtype=float)


@dataclass(frozen=True)
class Spell:
    """Calls between two moments (aware): `n` rows drawn from `rows`, which also hold the truth; all else are shares."""

    start: datetime
    end: datetime
    rows: pd.DataFrame
    n: int
    labelled: float = 0.0  # of the inputs: people say later what they were
    errors: float = 0.003  # of the requests: refused, and without a row
    slow: float = 1.0  # how much slower than usual
    repeated: float = 0.3  # of the calls: of an input that was asked before, some of them very often


@dataclass(frozen=True)
class Scored:
    """What one version of a model says of distinct rows; the lists have one entry for each."""

    version: str
    hashes: Sequence[str]
    records: Sequence[Mapping[str, Any]]
    inputs: Sequence[Any]  # as they were sent: a text where that is all
    outputs: Sequence[Mapping[str, Any]]
    truth: Sequence[Any]


def score_rows(root: Path, workflow: str, rows: pd.DataFrame, *, label: str, version: str = "") -> Scored:
    """Rows as a version (default: the champion) scores them; those that it would refuse are left out."""
    board = open_project(root, {}).board
    version = version or read_champion(board, workflow).version
    pin = board.pin(f"{workflow}-model", version)
    prototype = pin.facts["prototype"]
    check, score = make_checker(prototype), make_scorer(load_model(board.read_file(pin)), prototype)
    records, kept = list_records(rows[list(prototype)]), []
    for place, record in enumerate(records):
        try:
            kept.append((place, hash_input(check(record))))
        except RowError:
            continue
    places, hashes = zip(*kept, strict=True)
    (name, entry), *others = prototype.items()
    good = [records[place] for place in places]
    inputs = [record[name] for record in good] if entry["type"] == "text" and not others else good
    truth = as_labels(rows[label].iloc[list(places)]).tolist() if label in rows else [None] * len(good)
    return Scored(version, hashes, good, inputs, score(good), truth)


def draw_times(spell: Spell, n: int, chance: np.random.Generator) -> list[datetime]:
    """The moments of n requests in order: fewer at weekends and at night."""
    days = [spell.start + timedelta(days=day) for day in range(math.ceil((spell.end - spell.start) / timedelta(1)))]
    weights = np.array([0.4 if day.weekday() > 4 else 1.0 for day in days])
    drawn = chance.choice(len(days), 2 * n + 50, p=weights / weights.sum())
    hours = chance.choice(24, len(drawn), p=HOURS / HOURS.sum()) + chance.random(len(drawn))
    times = [days[day] + timedelta(hours=float(hour)) for day, hour in zip(drawn, hours, strict=True)]
    return sorted([when for when in times if spell.start <= when < spell.end][:n])


def draw_places(rows: int, n: int, *, repeated: float, chance: np.random.Generator) -> list[int]:
    """Which of so many rows each of `n` calls is of: a new one while there are any, or that of an earlier call."""
    places = np.resize(chance.permutation(rows), n)
    for call in np.flatnonzero(chance.random(n) < repeated):
        places[call] = places[chance.integers(call + 1)]
    return places.tolist()


def make_calls(
    spell: Spell, scored: Scored, workflow: str, *, chance: np.random.Generator, seen: set[str], log_inputs: bool
) -> list[dict[str, Any]]:
    """The rows of the call log of a spell, in order; `seen` are the hashes that the cache knows, and grows."""
    sizes = np.where(chance.random(spell.n) < 0.9, 1, chance.integers(2, 9, spell.n))
    sizes = sizes[: int(np.searchsorted(np.cumsum(sizes), spell.n, side="left")) + 1]
    sizes[-1] -= sizes.sum() - spell.n
    chosen = iter(draw_places(len(scored.hashes), spell.n, repeated=spell.repeated, chance=chance))
    callers = chance.choice(list(CALLERS), len(sizes), p=list(CALLERS.values()))
    refused = chance.random(len(sizes)) < spell.errors
    took = spell.slow * chance.lognormal(1.2, 0.6, len(sizes))  # ms: half of them below 3.3
    calls = []
    for number, when in enumerate(draw_times(spell, len(sizes), chance)):
        about = {"workflow": workflow, "time": stamp(when), "version": scored.version, "caller": str(callers[number])}
        about |= {"endpoint": "POST /prediction" if sizes[number] == 1 else "POST /predictions"}
        about |= {"milliseconds": round(float(took[number]), 3), "request": f"{stamp(when)}-{number}"}
        if refused[number]:
            nothing = {"input_hash": "", "input": None, "output": None, "cached": False, "row": 0}
            calls.append({**about, **nothing, "status": 422})
            continue
        for row, place in zip(range(int(sizes[number])), chosen, strict=False):
            key = scored.hashes[place]
            told = {"input_hash": key, "input": scored.inputs[place] if log_inputs else None, "row": row}
            told |= {"output": scored.outputs[place], "cached": key in seen, "status": 200}
            calls.append({**about, **told})
            seen.add(key)
    return calls


def make_labels(
    spell: Spell, scored: Scored, calls: Sequence[Mapping[str, Any]], *, until: datetime, chance: np.random.Generator
) -> list[tuple[datetime, Annotation]]:
    """What people said later of a share of the inputs, once of each, in the order in which it came before `until`."""
    first = {}
    for call in calls:
        first.setdefault(call["input_hash"], datetime.fromisoformat(call["time"]))
    labels = []
    for key, record, truth in zip(scored.hashes, scored.records, scored.truth, strict=True):
        when = first.get(key, until) + DELAY * float(chance.exponential())
        if key in first and chance.random() < spell.labelled and when < until:
            labels.append((when, Annotation(key, record, truth, f"truth:{key}", "given")))
    return sorted(labels, key=lambda each: each[0])


def add_traffic(
    root: Path, workflow: str, spells: Sequence[Spell], *, label: str, until: datetime, seed: int = 0,
    log_inputs: bool = True, version: str = "",
) -> int:  # fmt: skip
    """Write the calls of all spells, and the labels that came before `until`, into the store; how many rows."""
    store, chance, seen, rows = open_project(root, {}).store, np.random.default_rng(seed), set(), 0
    of_rows = {id(spell.rows): spell.rows for spell in spells}
    known = {key: score_rows(root, workflow, each, label=label, version=version) for key, each in of_rows.items()}
    make = partial(make_calls, workflow=workflow, chance=chance, seen=seen, log_inputs=log_inputs)
    for spell in spells:
        scored = known[id(spell.rows)]
        calls = make(spell, scored)
        for place in range(0, len(calls), BATCH):
            with store.writing() as connection:
                connection.execute(sql.insert(CALLS), calls[place : place + BATCH])
        labels = make_labels(spell, scored, calls, until=until, chance=chance)
        for _, of_a_day in groupby(labels, key=lambda each: each[0].date()):
            times, said = zip(*of_a_day, strict=True)
            store.add_annotations(workflow, said, annotator="customer-service", when=times[-1])
        rows += len(calls)
    store.close()
    return rows


def repeat_calls(root: Path, workflow: str, times: int) -> int:
    """Have every call of a workflow in the store so many times, as calls of their own; how many rows there are then."""
    store = open_project(root, {}).store
    names = [column.name for column in CALLS.columns if column.name != "id"]
    kept = ", ".join(f'"{name}"' for name in names)
    again = ", ".join("request || '-' || n" if name == "request" else f'"{name}"' for name in names)
    numbers = "WITH RECURSIVE more(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM more WHERE n < :most)"
    query = f"INSERT INTO calls ({kept}) {numbers} SELECT {again} FROM more, calls WHERE workflow = :workflow"
    with store.writing() as connection:
        connection.execute(sql.text(query), {"most": times - 1, "workflow": workflow})
        total = connection.scalar(sql.select(sql.func.count()).select_from(CALLS))
    store.close()
    return total


def list_months(first: datetime, n: int) -> list[tuple[datetime, datetime]]:
    """The beginning and end of n calendar months, from the one that begins at `first`."""
    begins = [first.replace(year=first.year + (first.month - 1 + k) // 12, month=(first.month - 1 + k) % 12 + 1)
              for k in range(n + 1)]  # fmt: skip
    return list(pairwise(begins))
