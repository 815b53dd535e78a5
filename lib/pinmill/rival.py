"""The champion beside the candidate: its predictions for the same rows, and which rows it was not trained on."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from pinmill.bootstrap import score_table
from pinmill.metrics import Predictions, predict
from pinmill.session import Run


@dataclass(frozen=True)
class Rival:
    """The champion at the time; without one, or when it cannot score these rows, `predictions` is None.

    `comparable` (n,) masks the test rows that are fair to both; `note` says in words what was compared.
    """

    predictions: Predictions | None
    comparable: np.ndarray
    note: str

    def scores(self, names: Sequence[str], *, draws: int, seed: int) -> list[dict[str, Any]] | None:
        """The champion's scores on the comparable rows, as rows of {metric, value, low, high, n}."""
        if self.predictions is None or not self.comparable.any():
            return None
        return score_table(self.predictions.take(self.comparable), names, draws=draws, seed=seed).to_dict("records")


def predict_champion(run: Run, test: pd.DataFrame, about: Mapping[str, Any]) -> Rival:
    """The champion's predictions for the test rows; `about` are the facts of the data pin."""
    everything = np.ones(len(test), dtype=bool)
    pin = run.read_champion_pin()
    if pin is None:
        return Rival(None, everything, "There is no champion yet.")
    needed = list(pin.facts["prototype"])
    if lacking := [column for column in needed if column not in test.columns]:
        return Rival(None, everything, f"The champion needs {', '.join(lacking)}, which this data lacks: not compared.")
    if pin.facts["task"] != about["task"] or pin.facts["label"] != about["label"]:
        return Rival(None, everything, "The champion predicts something else: not compared.")
    if about["task"] != "regression" and {str(c) for c in pin.facts["classes"]} != set(about["classes"]):
        return Rival(None, everything, "The champion knows other labels than this data: not compared.")
    seen = run.read_champion_training()
    if seen is None:
        return Rival(None, everything, "The rows that the champion was trained on are not known: not compared.")
    model = run.read_champion_model()
    truth = test[about["label"]]
    predictions = predict(model, test[needed], truth, task=about["task"], positive=about["positive"])
    unseen = ~test["_hash"].isin(seen).to_numpy()
    note = f"On the {unseen.sum():,} of {len(test):,} test rows that the champion {pin.version} was not trained on"
    return Rival(predictions, unseen, note)
