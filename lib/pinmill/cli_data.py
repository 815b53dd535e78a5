"""Commands about people's labels: add examples, also with labels, list the labels, export and retract them."""

import getpass
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pinmill.errors import DataError, did_you_mean
from pinmill.project import Project, open_project
from pinmill.terminal import AsJson, Workflow, print_json, print_table
from pinmill.version import now_utc

if TYPE_CHECKING:
    from pandas import DataFrame

app = typer.Typer()
examples = typer.Typer(help="The examples that people label.\n\nExample: pinmill examples add docstrings new.csv")
examples.callback()(lambda: None)  # keeps `add` a word of its own while it is the only one
app.add_typer(examples, name="examples")


@examples.command()
def add(
    workflow: Workflow,
    file: Annotated[Path, typer.Argument(help="A table: csv, tsv, parquet, jsonl.", exists=True, dir_okay=False)],
    annotator: Annotated[str, typer.Option(help="Who gave the labels in it; default: you.", show_default=False)] = "",
) -> None:
    """Add the rows of a file as examples; where they have a label, it becomes an annotation.

    Once the workflow has run, all rows must fit the columns of its newest data; if one does not, nothing is added.

    Example: pinmill examples add docstrings new.csv --annotator ann
    """
    from pinmill.annotations import check_examples, find_new_labels, read_examples
    from pinmill.plan import read_values
    from pinmill.store import Annotation
    from pinmill.table import load_table

    project, who = open_project(), annotator or getpass.getuser()
    columns = {name: read_values(project, workflow)[name] for name in ("text", "features", "ignore", "label")}
    frame, data, classes = load_table(file.read_bytes(), file.name, str(file)), f"{workflow}-data", {}
    if project.board.versions(data):
        pin, label = project.board.pin(data), columns["label"]
        like, inputs = project.board.read_table(pin), [*pin.facts["text"], *pin.facts["features"]]
        classes = check_examples(frame, like, inputs=inputs, label=label, classes=pin.facts["classes"])
    rows, empty = read_examples(frame, **columns)
    labels = find_new_labels(rows, project.store.read_annotations(workflow), annotator=who)
    hashes, now, origin = rows["hash"].tolist(), now_utc(), f"file {file.name}"
    added, known = project.store.add_examples(workflow, rows["record"].tolist(), hashes=hashes, origin=origin, when=now)
    given = [Annotation(**label, strategy="given") for label in labels.to_dict("records")]
    project.store.add_annotations(workflow, given, annotator=who, when=now)
    print(f"{workflow}: {added} examples added, {known} known already, {empty} without an input left out")
    print(f"{workflow}: {len(given)} labels by {who} added, {rows['label'].count() - len(given)} known already")
    for name, n in classes.items():
        guess, back = did_you_mean(name, pin.facts["classes"]), f"pinmill annotations {workflow} --retract ID"
        print(
            f"warning: {n} labels are {name!r}, a class of its own that {data} does not have.{guess}", file=sys.stderr
        )
        print(f"To take them back, see their ids with --export, then: {back}", file=sys.stderr)


@app.command()
def annotations(
    workflow: Workflow,
    export: Annotated[Path | None, typer.Option(help="Write all current labels: .csv, .parquet or .jsonl.")] = None,
    retract: Annotated[list[int] | None, typer.Option(help="Take back the label of this id, also several.")] = None,
    as_json: AsJson = False,
) -> None:
    """List who gave how many labels, of which kind, and when last; and how many inputs got different ones.

    A label that is taken back counts no more, and what its annotator said of that input before counts again.

    Example: pinmill annotations docstrings --export labels.csv

    Example: pinmill annotations docstrings --retract 12 --retract 15
    """
    from pinmill.annotations import current_labels
    from pinmill.plan import read_values

    project = open_project()
    name = read_values(project, workflow)["label"]
    retract_labels(project, workflow, retract or [])
    labels = current_labels(project.store.read_annotations(workflow))
    kinds = labels["label"].map(str)
    differing = int((kinds.groupby(labels["hash"]).nunique() > 1).sum())
    if export:
        export_labels(labels, export, label=name)
    counts = [
        {"annotator": who, "n": len(own), "labels": kinds[own.index].value_counts().to_dict(), "last": max(own.created)}
        for who, own in labels.groupby("annotator")
    ]
    if as_json:
        print_json({"annotators": counts, "conflicts": differing})
        return
    rows = [{**row, "labels": [f"{n} {kind}" for kind, n in row["labels"].items()]} for row in counts]
    print_table(rows, ["annotator", "n", "labels", "last"])
    print(f"{differing} inputs have labels that differ" + f"; all {len(labels)} are in {export}" * bool(export))


def retract_labels(project: Project, workflow: str, ids: list[int]) -> None:
    """Take back labels of `workflow`, and say so; none of them, with a DataError, if one of `ids` is no label of it."""
    said = project.store.read_annotations(workflow)
    if unknown := sorted({*ids}.difference(said["id"][said["retracts"].isna()])):
        step = f"See the ids with: pinmill annotations {workflow} --export labels.csv"
        raise DataError(f"{workflow} has no label of id {', '.join(map(str, unknown))}; nothing was retracted. {step}")
    for one in dict.fromkeys(ids):
        project.store.retract(one, annotator=getpass.getuser(), when=now_utc())
        (row,) = said[said["id"] == one].to_dict("records")
        print(f"{workflow}: label {one} retracted: {row['label']!r} by {row['annotator']}", file=sys.stderr)


def export_labels(labels: "DataFrame", file: Path, *, label: str) -> None:
    """Write a row for each label, whole or not at all: its id, its record's columns, the label, who, when and how."""
    from pandas import DataFrame

    from pinmill.annotations import list_records
    from pinmill.runs import write_whole

    records = DataFrame(labels["record"].tolist(), index=labels.index).assign(**{label: labels["label"]})
    about = labels[["annotator", "created", "seconds", "note", "strategy"]]
    known = labels[["id"]].join(records, lsuffix="_of_label")
    frame = known.join(about, rsuffix="_of_label").infer_objects()
    write = {
        ".csv": lambda: frame.to_csv(index=False).encode(),
        ".parquet": lambda: frame.to_parquet(index=False),
        ".jsonl": lambda: "".join(f"{json.dumps(row, ensure_ascii=False)}\n" for row in list_records(frame)).encode(),
    }
    try:
        write_whole(file, write[file.suffix]())
    except KeyError:
        raise DataError(f"the labels cannot be written to {file}: its suffix must be {', '.join(write)}") from None
    except (ValueError, TypeError) as error:  # Parquet takes no column of several types
        raise DataError(f"the labels cannot be written to {file}: {error}. Take .jsonl") from None
