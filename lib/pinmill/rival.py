"""The champion beside the candidate: its predictions for the same rows, and which rows it was not trained on."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from pinmill.bootstrap import score_table
from pinmill.errors import DataError
from pinmill.metrics import Predictions, predict
from pinmill.pin import Pin
from pinmill.prototype import check_inputs
from pinmill.session import Run
from pinmill.table import hash_rows

INPUTS = ("text", "features", "kinds")  # of the facts of a data pin, those that its `_hash` depends on
FULL = ("integer", "boolean")  # types of a prototype that have no room for a missing value


@dataclass(frozen=True)
class Rival:
    """The champion at the time; without one, or when it cannot score these rows, `predictions` is None.

    `comparable` (n,) masks the test rows that are fair to both; `note` says in words what was compared, and `absent`
    why nothing was.
    """

    predictions: Predictions | None
    comparable: np.ndarray
    note: str
    absent: str = ""

    def scores(self, names: Sequence[str], *, draws: int, seed: int) -> list[dict[str, Any]] | None:
        """The champion's scores on the comparable rows, as rows of {metric, value, low, high, n}."""
        if self.predictions is None or not self.comparable.any():
            return None
        return score_table(self.predictions.take(self.comparable), names, draws=draws, seed=seed).to_dict("records")


def predict_champion(run: Run, test: pd.DataFrame, about: Mapping[str, Any]) -> Rival:
    """The champion's predictions for the test rows; `about` are the facts of the data pin."""
    pin, data = run.read_champion_pin(), run.read_champion_training()
    if absent := _find_obstacle(pin, data, test, about):
        return _without(absent, len(test))
    prototype, truth = pin.facts["prototype"], test[about["label"]]
    trained = run.board.read_table(data, columns=["_hash", "_part", *prototype])
    try:
        inputs, unseen = find_unseen(test, about, trained=trained, then=data.facts, prototype=prototype)
    except DataError as error:
        return _without(f"the inputs differ: {error}", len(test))
    model = run.read_champion_model()
    predictions = predict(model, inputs, truth, task=about["task"], positive=about["positive"])
    note = f"On the {unseen.sum():,} of {len(test):,} test rows that the champion {pin.version} was not trained on"
    return Rival(predictions, unseen, note)


def _find_obstacle(pin: Pin | None, data: Pin | None, test: pd.DataFrame, about: Mapping[str, Any]) -> str:
    """Why the champion cannot be compared, or an empty string."""
    if pin is None:
        return "there is none yet"
    if lacking := [column for column in pin.facts["prototype"] if column not in test.columns]:
        return f"the inputs differ: it needs {', '.join(lacking)}, which this data lacks"
    if pin.facts["task"] != about["task"] or pin.facts["label"] != about["label"]:
        return "it predicts something else"
    if about["task"] != "regression" and {str(c) for c in pin.facts["classes"]} != set(about["classes"]):
        return "it knows other labels than this data"
    return "" if data else "the rows that it was trained on are not known"


def _without(absent: str, n: int) -> Rival:
    return Rival(None, np.ones(n, dtype=bool), f"Not compared with the champion: {absent}.", absent)


def find_unseen(
    test: pd.DataFrame, now: Mapping[str, Any], *, trained: pd.DataFrame, then: Mapping[str, Any], prototype: Mapping
) -> tuple[pd.DataFrame, np.ndarray]:
    """The test rows as inputs of a model with this prototype, and (n,) whether it was not trained on such an input.

    `trained` is the model's own data; `now` and `then` are the facts of the two data pins. Where their inputs are not
    the same, rows are the same that are so in the model's own columns and types. Raises DataError for other types.
    """
    train = trained[trained["_part"] == "train"]
    if all(now.get(fact) == then.get(fact) for fact in INPUTS):
        return test[list(prototype)], ~test["_hash"].isin(train["_hash"]).to_numpy()
    inputs, known = (take_inputs(rows, prototype, text=then["text"]) for rows in (test, train))
    return inputs, ~hash_rows(inputs, list(prototype)).isin(hash_rows(known, list(prototype))).to_numpy()


def take_inputs(rows: pd.DataFrame, prototype: Mapping[str, Mapping], *, text: Sequence[str]) -> pd.DataFrame:
    """The inputs of a model with this prototype, in its types, from any data pin; a missing `text` is an empty one.

    Other values may be missing where the type has room for that. Raises DataError for what cannot be of that type.
    """
    roomy = {name: {**p, "nullable": p["nullable"] or p["type"] not in FULL} for name, p in prototype.items()}
    return check_inputs(rows, roomy).fillna(dict.fromkeys(text, ""))
