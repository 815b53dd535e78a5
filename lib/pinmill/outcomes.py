"""What came true of what was predicted: calls joined with labels that people gave their inputs, maybe weeks later."""

import inspect
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas
import sqlalchemy as sql
from pandas import DataFrame, Series

from pinmill.annotations import ACTIVE, cast_values, current_labels
from pinmill.bootstrap import bootstrap_weights, score_table, summarise
from pinmill.errors import DataError, ParameterError, describe_problems, did_you_mean
from pinmill.metrics import DEFAULT_METRICS, METRICS, OF_PROBABILITIES, OTHER_METRICS, Predictions, as_labels
from pinmill.periods import IS_SCORED, Period, list_outputs, select_calls
from pinmill.store import ANNOTATIONS, CALLS, Store
from pinmill.table import remove_repeats

CELLS = 20_000_000  # of draws times rows: 40 MB of weights
CALLED = 1_000_000  # of draws times rows, of a function that is called for each draw: some seconds
FEWEST = 50  # draws that an interval needs
LEVEL = 0.95
AMOUNTS = [1.0, 2.0, 3.0, 4.0]  # that any metric of amounts can be tried on


def read_truth(store: Store, workflow: str) -> tuple[dict[str, Any], int]:
    """The label of each input that people labelled, by hash: the commonest, of equally common ones the last.

    Inputs that have a label only because the model chose them (by uncertainty or disagreement) are left out, as they
    are the hard ones; and how many these are.
    """
    labels = current_labels(store.read_annotations(workflow)).set_index("id", drop=False)
    fair = labels["hash"].isin(labels["hash"][~labels["strategy"].isin(ACTIVE)])
    taken, _ = remove_repeats(labels[fair], labels["hash"][fair], "label")
    return dict(zip(taken["hash"], taken["label"], strict=True)), labels["hash"][~fair].nunique()


def read_outcomes(store: Store, workflow: str, period: Period, truth: Mapping[str, Any]) -> DataFrame:
    """The calls of a period that were scored and whose input has a label in `truth`, as `read_truth` gives it.

    Only calls from before anybody labelled their input: a model that answered later may have learned that label.
    Columns: truth, those of `periods.list_outputs`, version, hash (of the input). No other calls are read.
    """
    of, said = CALLS.c, ANNOTATIONS.c
    labels = sql.select(said.hash, sql.func.min(said.created).label("first")).where(said.workflow == workflow)
    labels = labels.where(said.label.is_not(sql.null())).group_by(said.hash).subquery()
    chosen = select_calls(workflow, period) & IS_SCORED & (of.time < labels.c.first)
    query = sql.select(of.input_hash, of.output, of.version).join(labels, labels.c.hash == of.input_hash)
    rows = [row for row in store.read(query.where(chosen).order_by(of.id)) if row.input_hash in truth]
    told = Series([truth[row.input_hash] for row in rows], name="truth", dtype=object)
    frame = pandas.concat([told, list_outputs([row.output for row in rows])], axis="columns")
    return frame.assign(version=[row.version for row in rows], hash=[row.input_hash for row in rows])


def list_unknown(outcomes: DataFrame, *, task: str, classes: Sequence[Any]) -> dict[str, int]:
    """How many rows have each true label that is none of `classes`, or for a regression no amount, by label as text."""
    truth = _cast(outcomes["truth"], task=task, classes=classes)
    wrong = truth.isna() if task == "regression" else ~truth.isin([*classes])
    return outcomes["truth"][wrong].map(str).value_counts().to_dict()


def score_outcomes(
    outcomes: DataFrame,
    names: Sequence[str],
    *,
    task: str,
    classes: Sequence[Any],
    positive: Any,
    draws: int,
    seed: int,
) -> list[dict[str, Any]]:
    """{metric, value, low, high, n} of each of `names`: ours, or functions of `sklearn.metrics` of (y_true, y_pred).

    `classes` and `positive` are the model's. A true label that is none of them counts as predicted wrong. Metrics of
    probabilities take only rows that have one for each class, and n says how many. What has no meaning, or no rows, is
    NaN. Every call counts in value and n; intervals are of 95 %, by bootstrap over inputs, as calls of the same input
    are right or wrong together, with fewer than `draws` of many rows. Raises ParameterError, see `check_names`.
    """
    check_names(names, task=task, classes=classes, positive=positive)
    p, inputs = make_predictions(outcomes, task=task, classes=classes, positive=positive)
    whole = np.ones(len(inputs), bool) if p.probability is None else ~np.isnan(p.probability).any(axis=1)
    found: dict[str, dict[str, Any]] = {}
    for rows, of, is_in in ((p, inputs, False), (p.take(whole), inputs[whole], True)):
        own = [name for name in names if name in METRICS and (name in OF_PROBABILITIES) == is_in]
        fewer = min(draws, max(FEWEST, CELLS // max(len(rows.truth), 1)))
        groups = pandas.factorize(of)[0]
        table = score_table(rows, own, draws=fewer, seed=seed, level=LEVEL, groups=groups) if own else DataFrame()
        found |= {row["metric"]: row for row in table.drop(columns="undefined", errors="ignore").to_dict("records")}
    others = [name for name in names if name not in METRICS]
    found |= {name: _score_function(name, p, inputs, draws=draws, seed=seed) for name in others}
    return [found[name] for name in names]


def make_predictions(
    outcomes: DataFrame, *, task: str, classes: Sequence[Any], positive: Any
) -> tuple[Predictions, np.ndarray]:
    """The rows of `outcomes` that hold a prediction, as metrics take them, and the hashes of their inputs.

    Probabilities that a row has not are NaN. Labels become what training would make of them, 1 of "1" where the classes
    are numbers. Labels that were predicted and are none of `classes` (by another model) are further classes. DataError
    if `positive` is none of them.
    """
    truth = _cast(outcomes["truth"], task=task, classes=classes)
    if task == "regression":
        rows = truth.notna() & np.isfinite(outcomes["value"])
        amounts = (side[rows].to_numpy(float) for side in (truth, outcomes["value"]))
        return Predictions(*amounts, None, ()), outcomes["hash"][rows].to_numpy()
    positive = None if task != "binary" else classes[-1] if positive in (None, "") else positive
    if positive is not None and positive not in classes:
        raise DataError(f"The positive class {positive!r} is none of the model's {list(classes)}.")
    rows = outcomes["label"].notna()
    predicted = _cast(outcomes["label"][rows], task=task, classes=classes)
    more = [label for label in predicted.unique() if label not in classes]
    columns = [f"probability of {name}" for name in classes]
    shares = outcomes[rows].reindex(columns=columns).to_numpy(float)
    padded = np.pad(shares, ((0, 0), (0, len(more))))
    p = Predictions(as_labels(truth[rows]), as_labels(predicted), padded, (*classes, *more), positive)
    return p, outcomes["hash"][rows].to_numpy()


def _cast(labels: Series, *, task: str, classes: Sequence[Any]) -> Series:
    """Labels with the type of the classes, or as amounts; what cannot be that stays, or for amounts is NaN."""
    if task == "regression":
        amounts = pandas.to_numeric(labels, errors="coerce").astype(float)
        return amounts.where(np.isfinite(amounts))
    cast, known = (
        cast_values(labels, Series([*classes]).infer_objects()).astype(object),
        {each: each for each in classes},
    )
    return cast.where(cast.notna(), labels).map(lambda label: known.get(label, label))  # 1, not the 1.0 beside a NaN


def check_names(names: Sequence[str], *, task: str, classes: Sequence[Any], positive: Any) -> None:
    """Raises ParameterError that tells each name which is no metric of the task: neither ours nor scikit-learn's."""
    own, functions = DEFAULT_METRICS[task] + OTHER_METRICS.get(task, []), list_functions()
    problems = []
    for name in names:
        if name in own:
            continue
        if name in METRICS or name not in functions:
            problems.append(f"{name!r} is no metric of a {task} task.{did_you_mean(name, [*own, *functions])}")
        elif said := _try_function(functions[name], task=task, classes=classes, positive=positive):
            problems.append(f"{name!r} of scikit-learn gives no number for a {task} task: {said}")
    if problems:
        known = f"Known: {', '.join(own)}, and what sklearn.metrics computes from labels or amounts alone."
        raise ParameterError(f"{describe_problems('the metrics', [p.removesuffix('.') for p in problems])}. {known}")


def list_functions() -> dict[str, Callable[..., Any]]:
    """The public functions of `sklearn.metrics` whose first two arguments are y_true and y_pred, by name."""
    from sklearn import metrics

    found = {name: getattr(metrics, name) for name in metrics.__all__}
    found = {name: function for name, function in found.items() if inspect.isfunction(function)}
    return {name: f for name, f in found.items() if [*inspect.signature(f).parameters][:2] == ["y_true", "y_pred"]}


def _try_function(function: Callable[..., Any], *, task: str, classes: Sequence[Any], positive: Any) -> str:
    """What such a function says if it has no number for outcomes of this kind; empty if it has."""
    sides = np.array(AMOUNTS if task == "regression" else [*classes] * 2)
    chosen = positive if positive not in (None, "") else sides[-1]
    try:
        _call(function, sides, sides, positive=chosen if task == "binary" else None)
    except (ValueError, TypeError, ArithmeticError) as error:
        return str(error).strip().partition("\n")[0]
    return ""


def _call(function: Callable[..., Any], truth: np.ndarray, predicted: np.ndarray, *, positive: Any) -> float:
    """What a function of scikit-learn says of two sides; its warnings are left out."""
    takes = positive is not None and "pos_label" in inspect.signature(function).parameters
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return float(function(truth, predicted, **({"pos_label": positive} if takes else {})))


def _score_function(name: str, p: Predictions, inputs: np.ndarray, *, draws: int, seed: int) -> dict[str, Any]:
    """The value and the interval that such a function gives, NaN where it refuses the rows."""
    function, n = list_functions()[name], len(p.truth)
    sides = np.array([*p.truth, *p.predicted, *([] if p.positive is None else [p.positive])])  # of one type for all

    def score(rows: np.ndarray) -> float:
        """The value for some rows."""
        try:
            return _call(function, sides[rows], sides[n + rows], positive=None if p.positive is None else sides[-1])
        except (ValueError, TypeError, ArithmeticError):
            return np.nan

    fewer = min(draws, max(FEWEST, CALLED // n)) if n else 0
    weights = bootstrap_weights(n, draws=fewer, seed=seed, groups=pandas.factorize(inputs)[0])
    values = [score(np.repeat(np.arange(n), often)) for often in weights]
    value, low, high, _ = summarise(np.array(values), level=LEVEL)
    return {"metric": name, "value": value, "low": low, "high": high, "n": n}
