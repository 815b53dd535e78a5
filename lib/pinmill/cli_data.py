"""Commands about people's labels: add examples, also with labels, list the labels and export them."""

import getpass
import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pinmill.errors import DataError
from pinmill.project import Project, open_project
from pinmill.terminal import AsJson, Workflow, print_json, print_table
from pinmill.version import now_utc

if TYPE_CHECKING:
    from pandas import DataFrame

app = typer.Typer()
examples = typer.Typer(help="The examples that people label.\n\nExample: pinmill examples add docstrings new.csv")
examples.callback()(lambda: None)  # keeps `add` a word of its own while it is the only one
app.add_typer(examples, name="examples")


def read_values(project: Project, workflow: str) -> dict[str, Any]:
    """The parameters of a workflow, checked."""
    from pinmill.params import check_params
    from pinmill.plan import load_workflow, read_notebooks

    given = load_workflow(project, workflow)
    return check_params(given, read_notebooks(project, given), project.settings)[0]


@examples.command()
def add(
    workflow: Workflow,
    file: Annotated[Path, typer.Argument(help="A table: csv, tsv, parquet, jsonl.", exists=True, dir_okay=False)],
    annotator: Annotated[str, typer.Option(help="Who gave the labels in it; default: you.", show_default=False)] = "",
) -> None:
    """Add the rows of a file as examples; where they have a label, it becomes an annotation.

    Example: pinmill examples add docstrings new.csv --annotator ann
    """
    from pinmill.annotations import find_new_labels, read_examples
    from pinmill.store import Annotation
    from pinmill.table import load_table

    project, who = open_project(), annotator or getpass.getuser()
    columns = {name: read_values(project, workflow)[name] for name in ("text", "features", "ignore", "label")}
    rows, empty = read_examples(load_table(file.read_bytes(), file.name, str(file)), **columns)
    labels = find_new_labels(rows, project.store.read_annotations(workflow), annotator=who)
    hashes, now, origin = rows["hash"].tolist(), now_utc(), f"file {file.name}"
    added, known = project.store.add_examples(workflow, rows["record"].tolist(), hashes=hashes, origin=origin, when=now)
    given = [Annotation(**label, strategy="given") for label in labels.to_dict("records")]
    project.store.add_annotations(workflow, given, annotator=who, when=now)
    print(f"{workflow}: {added} examples added, {known} known already, {empty} without an input left out")
    print(f"{workflow}: {len(given)} labels by {who} added, {rows['label'].count() - len(given)} known already")


@app.command()
def annotations(
    workflow: Workflow,
    export: Annotated[Path | None, typer.Option(help="Write all current labels: .csv, .parquet or .jsonl.")] = None,
    as_json: AsJson = False,
) -> None:
    """List who gave how many labels, of which kind, and when last; and how many inputs got different ones.

    Example: pinmill annotations docstrings --export labels.csv
    """
    from pinmill.annotations import current_labels

    project = open_project()
    name = read_values(project, workflow)["label"]
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


def export_labels(labels: "DataFrame", file: Path, *, label: str) -> None:
    """Write a row for each label, whole or not at all: the columns of its record, the label, who, when and how."""
    from pandas import DataFrame

    from pinmill.annotations import list_records
    from pinmill.runs import write_whole

    records = DataFrame(labels["record"].tolist(), index=labels.index).assign(**{label: labels["label"]})
    about = labels[["annotator", "created", "seconds", "note", "strategy"]]
    frame = records.join(about, rsuffix="_of_label").infer_objects()
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
