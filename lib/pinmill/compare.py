"""Two model versions side by side: scores on the same rows, changed predictions, parameters, data and code."""

import difflib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pinmill.champion import read_champion
from pinmill.errors import ChampionError, DataError, PinmillError
from pinmill.models import find_model, list_models
from pinmill.notebook import read_cells, read_tags
from pinmill.pin import Pin, plain
from pinmill.project import Project
from pinmill.trace import executed_notebook

if TYPE_CHECKING:
    from pandas import DataFrame

    from pinmill.metrics import Predictions

LONGEST = 200  # characters of an input that are shown
COMPARED = ("code", "lock", "seed", "python", "platform", "cpu", "threads", "blas")  # of two lineages, one by one
GROUPS = {"parameters": "parameter", "packages": "package", "modules": "module"}  # and these by their names
PARAMETERS = {"parameters", "injected-parameters"}  # tags of the cells that are not code


@dataclass(frozen=True)
class Side:
    """A model version and what can still be had of it; what cannot is None, and its `problems` say why."""

    told: Mapping[str, Any]  # version, status, problems …
    lineage: Mapping[str, Any]
    facts: Mapping[str, Any]
    model: Any
    data: Pin | None
    rows: "DataFrame | None"  # of its data
    code: list[str] | None  # lines of its notebook as executed


def find_version(project: Project, workflow: str, given: str) -> dict[str, Any]:
    """The model, as `list_models` tells it, that `champion` or a unique beginning or end of its version means."""
    champion = read_champion(project.board, workflow) if given == "champion" else None
    if given == "champion" and champion is None:
        raise ChampionError(f"{workflow} has no champion yet. Train and promote one with: pinmill run {workflow}")
    return find_model(list_models(project.board, workflow), champion.version if champion else given)


def read_side(project: Project, workflow: str, given: str) -> Side:
    """What can still be had of a model version."""
    from pinmill.model import load_model

    board, listed, problems = project.board, find_version(project, workflow, given), []

    def attempt(read: Callable) -> Any:
        """What `read` returns; None, with its words among the problems, when it fails."""
        try:
            return read()
        except PinmillError as error:
            problems.append(str(error))
            return None

    pin = attempt(lambda: board.pin(f"{workflow}-model", listed["version"]))
    lineage, facts = (pin.lineage, pin.facts) if pin else ({}, {})
    model = pin and attempt(lambda: load_model(board.read_file(pin)))
    inputs = [each for each in lineage.get("inputs", []) if each["kind"] == "data"]
    data = attempt(lambda: board.pin(inputs[0]["name"], inputs[0]["version"])) if inputs else None
    rows = data and attempt(lambda: board.read_table(data))
    code = pin and attempt(lambda: read_code(executed_notebook(project, workflow, lineage)))
    told = {key: listed[key] for key in ("version", "status", "created", "by", "run")} | {"problems": problems}
    return Side(told, lineage, facts, model, data, rows, code)


def read_code(executed: Path) -> list[str]:
    """Lines of the code of an executed notebook, parameters left out. Raises ProjectError when it is gone."""
    cells = [c["source"] for c in read_cells(executed) if c["cell_type"] == "code" and not {*read_tags(c)} & PARAMETERS]
    return "\n# %%\n".join(cells).splitlines()


def list_changes(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[dict[str, Any]]:
    """{what, before, now} for each part of two lineages that is not the same; what was not recorded is None."""
    old, new = (
        {name: side.get(name) for name in COMPARED}
        | {f"{noun} {name}": value for group, noun in GROUPS.items() for name, value in (side.get(group) or {}).items()}
        for side in (before, now)
    )
    return [{"what": n, "before": old.get(n), "now": new.get(n)} for n in {**old, **new} if old.get(n) != new.get(n)]


def read_comparison(
    project: Project, workflow: str, a: str, b: str, *, rows: int = 10, draws: int = 1000, seed: int = 42
) -> dict[str, Any]:
    """How model version B differs from A, as plain values.

    `metrics` and `changed` (predictions; the first `rows` of them) are of the test rows of B's data that neither was
    trained on: `note` says which, or why there are none. A positive difference means that B is better. `changes` is
    as in `list_changes`, with the data's own parameters and code marked "data: "; `data` is as in `compare_data`,
    `diff` that of the code: None when a notebook is gone.
    """
    old, new = (read_side(project, workflow, given) for given in (a, b))
    diff = difflib.unified_diff(old.code or [], new.code or [], "A", "B", n=2, lineterm="")
    sides = {"workflow": workflow, "a": old.told, "b": new.told}
    scores = compare_scores(old, new, rows=rows, draws=draws, seed=seed)
    changes = list_changes(old.lineage, new.lineage)
    if old.data and new.data:
        prepared = ({part: side.data.lineage.get(part) for part in ("code", "parameters")} for side in (old, new))
        changes += [{**change, "what": f"data: {change['what']}"} for change in list_changes(*prepared)]
    changes = {"changes": changes, "data": compare_data(old, new)}
    diff = None if None in (old.code, new.code) else list(diff)
    return plain({**sides, **scores, **changes, "diff": diff}, "the comparison")


def find_fair(a: Side, b: Side) -> tuple["tuple[DataFrame, DataFrame] | None", str]:
    """The test rows of B's data that neither was trained on, as A and as B take them, or None; and why, in words."""
    from pinmill.rival import find_unseen

    if lost := [name for name, side in (("A", a), ("B", b)) if side.model is None or side.rows is None]:
        return None, f"Not scored: the model or the data of {' and '.join(lost)} cannot be read."
    differing = [what for what in ("task", "label", "classes") if a.facts[what] != b.facts[what]]
    differing += [f"column {name}" for name in a.facts["prototype"] if name not in b.rows.columns]
    if differing:
        return None, f"Not scored: the two differ in what they predict, or from what: {', '.join(differing)}."
    test, unseen, rows = b.rows[b.rows["_part"] == "test"], True, []
    try:
        for side in (a, b):
            given = {"trained": side.rows, "then": side.data.facts, "prototype": side.facts["prototype"]}
            inputs, new = find_unseen(test, b.data.facts, **given)
            unseen, rows = unseen & new, [*rows, test.assign(**inputs)]
    except DataError as error:
        return None, f"Not compared: the inputs differ: {error}."
    said = f"{unseen.sum():,} of the {len(test):,} test rows of B's data are ones that neither was trained on."
    return ((rows[0][unseen], rows[1][unseen]) if unseen.any() else None), said


def compare_scores(a: Side, b: Side, *, rows: int, draws: int, seed: int) -> dict[str, Any]:
    """{note, n, metrics, changed}: scores of both on the rows that are fair to both, and predictions that differ."""
    from pinmill.bootstrap import paired_difference
    from pinmill.metrics import DEFAULT_METRICS, OF_PROBABILITIES, metric_values

    fair, note = find_fair(a, b)
    if fair is None:
        return {"note": note, "n": 0, "metrics": [], "changed": None}
    sides = zip((a, b), fair, strict=True)
    old, new = (predict_rows(side.model, side.facts | {"positive": b.facts["positive"]}, rows) for side, rows in sides)
    lacking = OF_PROBABILITIES if old.probability is None or new.probability is None else ()
    metrics = []
    for name in (name for name in DEFAULT_METRICS[new.task] if name not in lacking):
        values = {side: metric_values(p, [name])[name][0] for side, p in (("a", old), ("b", new))}
        gain = paired_difference(new, old, name, draws=draws, seed=seed, level=0.95)
        metrics.append({"metric": name, **values, "difference": gain.value, "low": gain.low, "high": gain.high})
    changed = (old.predicted != new.predicted).nonzero()[0]
    texts = fair[1][list(b.facts["prototype"])].astype(str)
    shown = [
        {"true": new.truth[row], "a": old.predicted[row], "b": new.predicted[row]}
        | {"inputs": {name: text[:LONGEST] for name, text in texts.iloc[row].items()}}
        for row in changed[:rows]
    ]
    return {"note": note, "n": len(texts), "metrics": metrics, "changed": {"n": len(changed), "rows": shown}}


def predict_rows(model: Any, facts: Mapping[str, Any], rows: "DataFrame") -> "Predictions":
    """A model's predictions for rows of a data pin, beside the truth; `facts` are those of the model's pin."""
    from pinmill.metrics import predict

    inputs, truth = rows[list(facts["prototype"])], rows[facts["label"]]
    return predict(model, inputs, truth, task=facts["task"], positive=facts["positive"])


def compare_data(a: Side, b: Side) -> dict[str, int] | None:
    """How many distinct inputs B's data has more than A's, how many less, and how many with another label.

    None where the data of one is gone, or its inputs are other columns.
    """
    from pinmill.rival import INPUTS

    if a.rows is None or b.rows is None or any(a.data.facts.get(name) != b.data.facts.get(name) for name in INPUTS):
        return None
    old, new = (s.rows.drop_duplicates("_hash").set_index("_hash")[s.facts["label"]].astype(object) for s in (a, b))
    both = old.index.intersection(new.index)
    relabelled = int((old[both] != new[both]).sum())
    return {"added": len(new) - len(both), "removed": len(old) - len(both), "relabelled": relabelled}
