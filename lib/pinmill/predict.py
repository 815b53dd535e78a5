"""One prediction from the champion, from the shell."""

import json
from typing import Any

from pinmill.board import Board
from pinmill.champion import read_champion
from pinmill.errors import ChampionError, DataError, IntegrityError


def read_record(text: str, prototype: dict[str, Any]) -> dict[str, Any]:
    """A row for the model from what a person typed: a JSON object, or the text of the only text column.

    Raises DataError when it is neither.
    """
    if text.lstrip().startswith("{"):
        try:
            return json.loads(text)
        except ValueError as error:
            raise DataError(f"this is no JSON object: {error}. Quote names and texts with double quotes.") from None
    if len(prototype) == 1:
        return {next(iter(prototype)): text}
    raise DataError(f"the model expects the columns {', '.join(prototype)}: give a JSON object with them.")


def predict_one(board: Board, workflow: str, text: str) -> dict[str, Any]:
    """Label (or value), probability by label, and model version for one text or record.

    Raises ChampionError without a champion, IntegrityError when it is damaged, DataError for a wrong input.
    """
    import pandas as pd

    from pinmill.model import load_model
    from pinmill.prototype import check_inputs

    champion = read_champion(board, workflow)
    if champion is None:
        raise ChampionError(f"{workflow} has no champion yet. Train and promote one with: pinmill run {workflow}")
    pin = board.pin(f"{workflow}-model", champion.version)
    if pin.sha256 != champion.sha256:
        raise IntegrityError(f"the champion {pin.version} is not the model that was promoted: its SHA-256 differs.")
    prototype = pin.facts["prototype"]
    row = check_inputs(pd.DataFrame([read_record(text, prototype)]), prototype)
    model = load_model(board.read_file(pin))
    label = model.predict(row)[0]
    scores = {"label": getattr(label, "item", lambda: label)(), "version": pin.version}
    if not hasattr(model, "predict_proba"):
        return scores
    shares = model.predict_proba(row)[0]
    labels = [str(getattr(value, "item", lambda value=value: value)()) for value in model.classes_]
    return {**scores, "probability": dict(zip(labels, map(float, shares), strict=True))}
