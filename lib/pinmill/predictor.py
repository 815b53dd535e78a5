"""A model version as a function from rows to predictions, wherever it is: on this board, or behind a service."""

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pinmill.errors import ChampionError, ModelError, WrongColumnsError

if TYPE_CHECKING:
    import pyarrow as pa

    from pinmill.session import Run

MOST_SENT = 5_000  # rows at a time to a service: of more the client would draw a bar into the notebook
Row = Mapping[str, Any]
Items = list[dict[str, Any]]


@dataclass(frozen=True)
class Predictor:
    """One model version, wherever it is. `kinds` are its input columns with the type of each.

    `score` gives an item for each row, {label, value, probability_<class>} or {error}; `example` is such an item.
    """

    version: str
    kinds: Mapping[str, str]
    score: Callable[[Sequence[Row]], Items]
    example: Row

    @property
    def fields(self) -> "list[pa.Field]":
        """The columns that are added to a table."""
        import pyarrow as pa

        added = {**self.example, "version": "", "error": ""}
        return [pa.field(name, pa.scalar(value).type) for name, value in added.items()]


def open_local(run: "Run", version: str = "") -> Predictor:
    """The champion of this project's board, or another version. Raises ChampionError, BoardError, ModelError."""
    from pinmill.rows import RowError, list_examples
    from pinmill.service import Service

    if not version and run.champion is None:
        how = f"Train and promote one with: pinmill run {run.workflow}"
        raise ChampionError(f"{run.workflow} has no champion yet. {how}")
    loaded = Service(run).load(version or run.champion.version)

    def check(row: Row) -> dict[str, str]:
        """{error} of a row that does not fit."""
        try:
            loaded.check(row)
        except RowError as error:
            return {"error": "; ".join(f"{name} {problem}" for name, problem in error.problems)}
        return {}

    def score(rows: Sequence[Row]) -> Items:
        """The items of rows."""
        wrong = list(map(check, rows))
        made = iter(loaded.score([row for row, error in zip(rows, wrong, strict=True) if not error]))
        return [error or flatten(next(made)) for error in wrong]

    kinds = {name: entry["type"] for name, entry in loaded.prototype.items()}
    return Predictor(loaded.version, kinds, score, take_example(score(list_examples(loaded.prototype)[:1])))


def take_example(items: Items) -> dict[str, Any]:
    """The only item. Raises ModelError where there is none, or an error."""
    if not items or "error" in items[0]:
        raise ModelError("the model cannot score an example of its own. Train it again.")
    return items[0]


def flatten(item: Row) -> dict[str, Any]:
    """An item of a model with each probability as a field of its own."""
    shares = {f"probability_{label}": share for label, share in item.get("probability", {}).items()}
    return {name: value for name, value in item.items() if name != "probability"} | shares


def open_remote(run: "Run", url: str, version: str = "") -> Predictor:
    """The champion of a service, or another version. Raises ClientError."""
    from pandas import DataFrame

    from pinmill.client import Client

    client = Client(url, run.project.settings.get("PINMILL_TOKEN", ""))
    schema = client.prototype()
    record = next(each for each in schema.get("anyOf", [schema]) if "properties" in each)
    kinds = {name: "datetime" if "anyOf" in entry else entry["type"] for name, entry in record["properties"].items()}
    kinds = {name: kind if isinstance(kind, str) else kind[0] for name, kind in kinds.items()}

    def predict(rows: Sequence[Row], version: str) -> Items:
        """The items of rows, with their version."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # rows without a prediction are counted here
            frame = client.predict(DataFrame(rows, columns=list(kinds), dtype=object), version=version).astype(object)
        return frame.where(frame.notna(), None).to_dict("records")

    def score(rows: Sequence[Row]) -> Items:
        """The items of rows; the service refuses many for one that does not fit, so they are sent without it."""
        items, todo = [{} for _ in rows], list(range(len(rows)))
        while todo:
            sent = todo[:MOST_SENT]
            try:
                found = dict(zip(sent, predict([rows[n] for n in sent], pinned), strict=True))
            except WrongColumnsError as error:
                told = [each for each in error.errors if each.get("field") and each.get("row") in range(len(sent))]
                found = {sent[each["row"]]: {"error": f"{each['field']} {each['problem']}"} for each in told}
                if not found:
                    raise
            items = [found.get(n, item) for n, item in enumerate(items)]
            todo = [n for n in todo if not items[n]]
        return items

    examples = [row for row in schema["examples"] if isinstance(row, dict)]
    example = take_example(predict(examples[:1], version))
    pinned = example.pop("version")
    return Predictor(pinned, kinds, score, example)
