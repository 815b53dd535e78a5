"""What the browser may send to the screen of an annotator, and how it is sent examples, predictions and labels."""

import json
import logging
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StrictBool, StrictFloat, StrictInt, StrictStr, ValidationError

from pinmill.errors import DataError, PinmillError
from pinmill.highlight import find_pushes, find_spans

Item = Mapping[str, Any]


class Message(BaseModel):
    """What the browser may send; `request` names the message in its answer, and stays its name if it is sent again."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)
    do: Literal["hello", "sign_in", "label", "skip", "undo", "score"]
    request: Annotated[str, Field(max_length=60)]
    given: Annotated[str, Field(max_length=1_000)] = ""  # a token or a name
    id: Annotated[str, Field(max_length=100)] = ""
    label: StrictBool | StrictInt | StrictFloat | StrictStr | None = None
    text: Annotated[str, Field(max_length=1_000_000)] | None = None  # as edited; None: as it was
    note: Annotated[str, Field(max_length=2_000)] = ""
    seconds: Annotated[float, Field(ge=0, le=86_400, allow_inf_nan=False)] | None = None


def read_message(content: Any) -> Message:
    """A message of the browser. Raises DataError that names each violation, and repeats no value."""
    try:
        return Message.model_validate(content)
    except ValidationError as error:
        told = [f"{'.'.join(map(str, each['loc'])) or 'message'}: {each['msg']}" for each in error.errors()]
        raise DataError(f"The screen sent what nobody understands ({'; '.join(told)}). Reload the page.") from None


def describe_error(error: Exception) -> str:
    """What to tell people who cannot see the log; what nobody foresaw is written there."""
    if isinstance(error, PinmillError):
        return str(error)
    logging.getLogger(__name__).error("the screen could not do what was asked", exc_info=error)
    return f"Something went wrong ({type(error).__name__}), and this was not saved. Try again, or tell who runs this."


def describe_label(label: Any) -> str:
    """A label as people read it."""
    return label if isinstance(label, str) else json.dumps(label)


def describe_item(item: Item, text: str, labels: list[Any] | None) -> dict[str, Any]:
    """An example as the screen shows it: `text` with its spans, or the columns of a record with what each pushes.

    `said`, where the item has it ({annotator: label}), is what others said.
    """
    prediction, record = item.get("prediction"), item["record"]
    explanation = (prediction or {}).get("explanation") or []
    said = [[name, describe_label(label)] for name, label in (item.get("said") or {}).items()]
    told = {"id": item["id"], "said": said, "prediction": describe_prediction(prediction, labels)}
    if text:
        shown = str(record.get(text) or "").replace("\r\n", "\n").replace("\r", "\n")  # as a text box keeps it
        return {**told, **describe_score(prediction, shown, labels), "text": shown, "columns": None}
    pushes = find_pushes(record, explanation)
    columns = [[name, value, pushes.get(name, 0.0)] for name, value in record.items()]
    return {**told, "text": None, "spans": [], "columns": columns}


def describe_score(prediction: Item | None, text: str, labels: list[Any] | None) -> dict[str, Any]:
    """What the model makes of a text, with its spans."""
    spans = find_spans(text, (prediction or {}).get("explanation") or [])
    return {"prediction": describe_prediction(prediction, labels), "spans": spans}


def describe_prediction(prediction: Item | None, labels: list[Any] | None) -> dict[str, Any] | None:
    """What the model says (`label`, or for amounts `value`), and its probability for each of `labels`, where known."""
    if not prediction or "error" in prediction:
        return None
    shares = prediction.get("probability") or {}
    known = [shares.get(str(label)) for label in labels or []]
    said = describe_label(prediction["label"]) if prediction.get("label") is not None else None
    return {"label": said, "value": prediction.get("value"), "shares": known if shares else None}
