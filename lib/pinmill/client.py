"""The client: a service's predictions, labels and models as DataFrames, with `from pinmill import Client`."""

import os
import time
import warnings
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from typing import Any
from urllib.parse import quote
from uuid import uuid4

from pandas import DataFrame, Series, concat

from pinmill.annotations import current_labels, list_records
from pinmill.batch import (
    Batch,
    Rows,
    check_labels,
    check_rows,
    pack,
    read_items,
    send_ahead,
    show_progress,
    take_rows,
    tell_failures,
)
from pinmill.connection import Connection
from pinmill.errors import BusyError, ClientError, ModelChangedError

ANNOTATION = "id hash record label annotator created seconds note strategy retracts"  # columns
CALL = "id workflow time version endpoint caller input_hash status input output milliseconds cached request row"
RUNNING = ("starting", "running")
FAILED = ("failed", "interrupted", "skipped")
LOOK = 2.0  # s between two looks at a run
UPLOAD_SECONDS = 330.0  # a service checks a model for at most 300


class Client:
    """A service by its address and a token, by default from PINMILL_URL and PINMILL_TOKEN; for any thread.

    Each method raises ClientError, whose kinds and words say what to do. What only reads, and what has a key
    (labels, undo), is asked again where that may help; what moves the champion or starts a run is never done twice.
    """

    def __init__(self, url: str | None = None, token: str | None = None, *, timeout: float = 30.0) -> None:
        """`timeout` is in seconds, of one request."""
        url = url or os.environ.get("PINMILL_URL", "")
        token = os.environ.get("PINMILL_TOKEN", "") if token is None else token
        self._at, self._has_token = Connection(url, token.strip(), timeout=timeout), bool(token.strip())

    def __enter__(self) -> "Client":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"Client({self._at.url!r}, {'with' if self._has_token else 'without'} a token)"

    def close(self) -> None:
        """Let go of the connections."""
        self._at.close()

    # Predictions

    def predict(self, rows: Rows, *, explain: bool = False, version: str = "", skip_cache: bool = False) -> DataFrame:
        """The prediction for each row, under the same index: label, value, version, and probability_<class> of each.

        `rows` are texts, or a DataFrame with the model's columns; others are left out. `value` is the probability of
        the label, or of a regression the amount. `explain` adds what pushed each one, the strongest first. All rows are
        scored by one version, the champion unless another is named. A row that the model fails on has no label, and the
        reason in the column `error`. Raises WrongColumnsError before anything is sent if columns or values do not fit.
        """
        answer = self._at.ask("GET", "/prototype")
        schema, asked = self._at.parse(answer), version or answer.headers.get("X-Model-Version", "")
        frame = check_rows(rows, schema)
        options = {"version": asked, "explain": "true" * explain, "skip_cache": "true" * skip_cache}
        score, tables, done = partial(self._score, options=options, is_named=bool(version)), [], 0
        for table in send_ahead(score, pack(frame)):
            tables.append(table)
            done += len(table)
            show_progress(done, len(frame))
        return tell_failures(concat(tables)) if tables else DataFrame(columns=["label", "value", "version"])

    def _score(self, batch: Batch, *, options: Mapping[str, str], is_named: bool) -> DataFrame:
        """The predictions for some rows."""
        try:
            answer = self._at.ask("POST", "/predictions", batch.body, options=options, rows=batch.rows)
        except ClientError as error:
            if error.status != 404 or is_named:
                raise
            said = f"the model changed meanwhile: {error}. Ask again, and all rows are scored by the new one"
            raise ModelChangedError(said, status=404) from None
        return read_items(self._at.parse(answer), batch.rows)

    # Examples and labels

    def add_examples(self, rows: Rows) -> dict[str, int]:
        """How many of the rows are new, as examples for people to label, and how many were known: {added, known}.

        `rows` are texts, or a DataFrame with the model's columns and those that the workflow keeps beside them.
        """
        counts = {"added": 0, "known": 0}
        for batch in pack(take_rows(rows)):
            said = self._save("/examples", batch, done=sum(counts.values()))
            counts = {name: counts[name] + said[name] for name in counts}
        return counts

    def upload_annotations(
        self,
        frame: DataFrame,
        *,
        label: str = "label",
        columns: Sequence[str] = (),
        seconds: str = "",
        note: str = "",
        key: str = "",
    ) -> DataFrame:
        """Save the label of each row as yours: its id, label, and whether it was known, under the same index.

        `label`, and if they are there `seconds`, `note` and `key`, name columns; `columns` are the row itself, by
        default all others. A key is saved once, however often it is sent; without them each row gets one of its own.
        """
        special = {"label": label, "seconds": seconds, "note": note, "key": key}
        named = {name: column for name, column in special.items() if column}
        columns = list(columns) or [name for name in frame.columns if name not in named.values()]
        check_labels(frame, [*columns, *named.values()], label)
        said = list_records(frame[list(named.values())].set_axis(list(named), axis=1))
        items = [
            {"key": uuid4().hex, "record": record} | {name: value for name, value in each.items() if value is not None}
            for record, each in zip(list_records(frame[columns]), said, strict=True)
        ]
        saved: list[dict[str, Any]] = []
        for batch in pack(Series(items, frame.index, dtype=object)):
            saved += self._save("/annotations", batch, done=len(saved))["annotations"]
        return DataFrame(saved, columns=["id", "label", "known"]).set_axis(frame.index)

    def annotations(self, all: bool = False) -> DataFrame:
        """The labels that count: of each annotator the last on an input. With `all` every row, also what was undone."""
        said = self._at.read("GET", "/annotations")
        rows = DataFrame(said, columns=ANNOTATION.split(), dtype=object)  # 1 stays 1 beside None
        return rows if all else current_labels(rows).reset_index(drop=True).infer_objects()

    def query(self, sql: str) -> DataFrame:
        """What a SELECT from the tables examples, annotations and predictions of the workflow gives.

        `attrs["complete"]` is False, and a warning says so, where rows are missing because the service's limit was met.
        """
        said = self._at.read("GET", "/data", options={"query": sql})
        table = DataFrame(said["rows"], columns=said["columns"])
        table.attrs["complete"] = said["complete"]
        if not said["complete"]:
            why = f"{said.get('cut') or 'the service has a limit'}. Ask for fewer rows, or in parts"
            warnings.warn(f"rows are missing after the first {len(table):,}: {why}", stacklevel=2)
        return table

    def _save(self, path: str, batch: Batch, *, done: int) -> Any:
        """What a service says to some rows that it is to keep."""
        try:
            return self._at.read("POST", path, batch.body, rows=batch.rows)
        except ClientError as error:
            if done:
                error.add_note(f"The first {done:,} rows are saved; those after them are not")
            raise

    def queue(self, n: int = 1, strategy: str = "") -> dict[str, Any]:
        """The next `n` examples for you to label, leased to you, with labels, guideline and your progress."""
        return self._at.read("GET", "/queue", options={"n": n, "strategy": strategy})

    def annotate(self, items: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """Save labels: {id, text or record; label; seconds, note, key}; each as {id, label, known}."""
        keyed = [{"key": uuid4().hex, **item} for item in items]
        return self._at.read("POST", "/annotations", keyed)["annotations"]

    def skip(self, id: str, key: str, note: str = "", seconds: float | None = None) -> dict[str, Any]:
        """Take no side on an example of the queue."""
        said = {"key": key, "note": note, "seconds": seconds}
        return self._at.read("POST", f"/queue/{quote(id, safe='')}/skip", said)

    def undo(self) -> dict[str, Any]:
        """Take back your last label or skip: {item, progress}; the item is leased to you again."""
        return self._at.read("POST", "/queue/undo", {"key": uuid4().hex})

    # The model

    def models(self) -> DataFrame:
        """All versions of the model, oldest first, with their scores and what became of them."""
        return DataFrame(self._at.read("GET", "/models")["models"])

    def promote(self, version: str, why: str, override: bool = False) -> dict[str, Any]:
        """Make a version, which may be shortened, the champion; `override` also one that the gate has not passed."""
        return self._move({"version": version, "why": why, "override": override})

    def rollback(self, why: str, to: str | None = None) -> dict[str, Any]:
        """Go back to the champion before this one, or to an earlier one."""
        return self._move({"action": "rollback", "why": why, "to": to})

    def _move(self, decision: Mapping[str, Any]) -> dict[str, Any]:
        """The decision as it was recorded."""
        return self._at.read("PUT", "/models/champion", decision, repeat=False)

    def upload_model(self, pipeline: Any, prototype_data: DataFrame, note: str = "") -> dict[str, Any]:
        """Send a fitted pipeline as a candidate, which the gate is then asked about; where to follow that.

        `prototype_data` are rows as the pipeline takes them: their columns must be the model's. Needs pinmill[work].
        """
        try:
            from pinmill.model import save_model
        except ImportError as error:
            said = f"to save a model takes scikit-learn and skops, and {error.name} is not installed"
            raise ClientError(f"{said}. Install them with: pip install 'pinmill[work]'") from None
        check_rows(prototype_data, self.prototype())
        sent = {"options": {"note": note}, "headers": {"Content-Type": "application/octet-stream"}}
        return self._at.read("POST", "/models", save_model(pipeline), **sent, timeout=UPLOAD_SECONDS, repeat=False)

    def retrain(self, wait: bool = False, **set: Any) -> dict[str, Any]:
        """Start a training run, with parameters for this run alone; with `wait` what came of it, which takes minutes.

        Raises BusyError while another is at work, and with `wait` ClientError for a run that did not reach its end.
        """
        run = self._at.read("POST", "/runs", {"job": "train", "set": set}, repeat=False, conflict=BusyError)
        while wait and run["status"] in RUNNING:
            time.sleep(LOOK)
            run = self.run(run["run"])
        if run["status"] in FAILED:
            raise ClientError(f"run {run['run']} {run['status']}: {run.get('error') or 'see run(…) and its log'}")
        return run

    def run(self, id: str) -> dict[str, Any]:
        """What a run does or did: its status, stages and reasons."""
        return self._at.read("GET", f"/runs/{quote(id, safe='')}")

    def prototype(self) -> dict[str, Any]:
        """JSON Schema of a row as the champion takes it, with examples."""
        return self._at.read("GET", "/prototype")

    def performance(self, filter: str = "") -> dict[str, Any]:
        """How good the champion is: overall, by class, by slice; `filter` keeps rows in whose name it stands."""
        return self._at.read("GET", "/performance", options={"filter": filter})

    def last_updated(self) -> dict[str, Any]:
        """The champion's version, when it was trained, and when it was promoted."""
        return self._at.read("GET", "/last-updated")

    def recent_log(self, hours: int = 24) -> DataFrame:
        """Your own calls of the last hours, of an admin all, oldest first."""
        return DataFrame(self._at.read("GET", "/recent-log", options={"hours": hours}), columns=CALL.split())

    def health(self) -> dict[str, Any]:
        """{status: ready, version}, or {status: not ready, problem}, at once. UnreachableError where nobody answers."""
        try:
            return self._at.read("GET", "/ready", tries=1)
        except BusyError as error:
            return {"status": "not ready", "problem": str(error)}
