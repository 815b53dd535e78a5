"""What the evaluation of the champion found, as the serving notebook tells it: overall, by class, by slice."""

import json
from collections.abc import Mapping
from typing import Any

import numpy as np

from pinmill.board import Board
from pinmill.errors import IntegrityError
from pinmill.metrics import as_labels
from pinmill.pin import Pin
from pinmill.service import Loaded, Service, find_input, read_option

MOST_TESTED = 10_000  # rows that are scored for one request: about a second
PARTS = {"overall": "metrics", "baseline": "baseline", "slices": "slices", "intersections": "intersections"}


def read_performance(service: Service, request: str) -> dict[str, Any]:
    """What the evaluation of the champion found: overall, per class, by slice; empty where it was not evaluated.

    The option `filter` keeps the rows in whose metric, class or slice its text stands. Raises Problem.
    """
    loaded, wanted = service.read(), (read_option(json.loads(request), "filter") or "").lower()
    pin = find_evaluation(service.board, loaded.pin)
    results = service.board.read_json(pin) if pin else {}
    rows = {name: results.get(key) or [] for name, key in PARTS.items()}
    if pin and pin.version not in service.classes:
        service.classes[pin.version] = score_classes(service.board, loaded, pin)
    rows["classes"] = service.classes[pin.version] if pin else []
    kept = {name: [row for row in each if wanted in name_row(row).lower()] for name, each in rows.items()}
    evaluated = pin.created.isoformat() if pin else None
    return {"version": loaded.version, "evaluated": evaluated, **kept, "decision": results.get("decision")}


def name_row(row: Mapping[str, Any]) -> str:
    """What a row of an evaluation is about."""
    return " ".join(str(row[name]) for name in ("metric", "class", "slice") if name in row)


def find_evaluation(board: Board, model: Pin) -> Pin | None:
    """The newest pin of metrics in which the gate decided on a model; None if there is none."""
    name = f"{model.name.removesuffix('-model')}-metrics"
    for version in reversed(board.versions(name)):
        try:
            pin = board.pin(name, version)
        except IntegrityError:
            continue  # `pinmill pins verify` tells
        if pin.facts["candidate_sha256"] == model.sha256:
            return pin
    return None


def score_classes(board: Board, loaded: Loaded, evaluation: Pin) -> list[dict[str, Any]]:
    """Precision, recall and F1 of each class on n test rows of it; nothing for amounts, or when the data is gone.

    Of more than MOST_TESTED test rows these are a sample: the request waits for it.
    """
    data, facts = find_input(board, evaluation, "data"), loaded.pin.facts
    if data is None or not facts["classes"]:
        return []
    from sklearn.metrics import precision_recall_fscore_support

    table = board.read_table(data, columns=[*loaded.prototype, facts["label"], "_part"])
    whole = table[table["_part"] == "test"]
    test = whole.sample(min(len(whole), MOST_TESTED), random_state=0)
    sides = [np.array(as_labels(side).tolist()) for side in (test[facts["label"]], loaded.model.predict(test))]
    *scores, counts = precision_recall_fscore_support(*sides, labels=facts["classes"], zero_division=0.0)
    of_classes = list(zip(facts["classes"], counts.tolist(), strict=True))
    return [
        {"class": label, "metric": metric, "value": value, "n": n}
        for metric, values in zip(("precision", "recall", "f1"), scores, strict=True)
        for (label, n), value in zip(of_classes, values.tolist(), strict=True)
    ]
