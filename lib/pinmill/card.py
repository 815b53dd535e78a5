"""The model card of Mitchell et al. (2019), "Model Cards for Model Reporting", section by section.

Pure: plain dicts of facts in, Markdown out. What a machine can know is computed; what only people know comes as text
from the params, and where that is empty a loud box says who writes it and where. A section has no heading of its own:
the notebook has (`SECTIONS` holds them in order).
"""

from collections.abc import Mapping, Sequence
from typing import Any

from pinmill.markdown import (
    Align,
    Markdown,
    bullets,
    callout,
    code,
    format_value,
    is_missing,
    join,
    paragraphs,
    table,
    value_list,
)

Facts = Mapping[str, Any]
Scores = Sequence[Mapping[str, Any]]  # rows of {metric, value, low, high, n}

SECTIONS = {
    "details": "Model details",
    "intended_use": "Intended use",
    "factors": "Factors",
    "metrics": "Metrics",
    "evaluation_data": "Evaluation data",
    "training_data": "Training data",
    "quantitative_analyses": "Quantitative analyses",
    "ethical_considerations": "Ethical considerations",
    "caveats": "Caveats and recommendations",
}
HUMAN_PARTS = {  # the key in the params: who writes it, and what it has to say
    "intended_use": ("the model's owner", "what it is for, who uses it, and what it must not be used for"),
    "factors": ("the data team", "which groups, sources and conditions could make it better or worse"),
    "ethical_considerations": ("the model's owner", "whom a wrong or a right prediction could harm, and what is done"),
    "caveats": ("the modeller", "what was not tested, what will go stale, and what to do about it"),
}
METRICS = {  # readable name, meaning, what a perfect score is
    "roc_auc": ("ROC AUC", "chance that a random positive ranks above a random negative; guessing gives 0.5", "1"),
    "roc_auc_ovr": ("ROC AUC, one against the rest", "the mean over classes; guessing gives 0.5", "1"),
    "average_precision": ("average precision", "precision averaged over all thresholds", "1"),
    "f1": ("F1", "balance of precision and recall for the positive class", "1"),
    "f1_macro": ("macro F1", "balance of precision and recall, every class counting the same", "1"),
    "accuracy": ("accuracy", "share of rows predicted right", "1"),
    "precision": ("precision", "share of rows predicted positive that are positive", "1"),
    "precision_macro": ("macro precision", "precision, every class counting the same", "1"),
    "recall": ("recall", "share of positive rows that are found", "1"),
    "recall_macro": ("macro recall", "recall, every class counting the same", "1"),
    "log_loss": ("log loss", "how wrong the stated probabilities are; sure and wrong costs most", "0"),
    "brier": ("Brier score", "mean squared error of the stated probability", "0"),
    "r2": ("R²", "share of the variation that is explained; predicting the mean gives 0", "1"),
    "mae": ("mean absolute error", "how far off a prediction is on average, in the label's unit", "0"),
    "rmse": ("root mean squared error", "how far off it is, large misses counting more, in the label's unit", "0"),
}
UNKNOWN = ("", "", "")
RIGHT: Mapping[str, Align] = dict.fromkeys(("95 % interval", "Best", "Rows", "Share"), "right")  # text of digits
NOT_RECORDED = "not recorded"


def missing_part(name: str, workflow: str) -> Markdown:
    """The box that stands where people have not written yet. Raises KeyError if `name` is no part that people write."""
    who, what = HUMAN_PARTS[name]
    text = f"{_capital(who)} writes it in {code(f'params/{workflow}.yaml')}, key {code(name)}: {what}."
    return callout(Markdown(text), "important", title=f"Missing: {SECTIONS[name].lower()}")


def summary(*, model: Facts, results: Facts) -> Markdown:
    """The card in a few plain sentences: what it predicts, how well, against what, and whether it passed the gate."""
    scores, baseline = _by_metric(results.get("metrics")), _by_metric(results.get("baseline"))
    decision = results.get("decision") or {}
    metric = decision.get("metric") or next(iter(scores), "")
    score, champion = scores.get(metric), _by_metric(results.get("champion")).get(metric)
    sentences = [_say_task(model), _say_score(metric, score)]
    if metric in scores and metric in baseline:
        sentences.append(f"A guess that never looks at the input scores {_number(baseline[metric])}.")
    if champion:
        fewer = champion.get("n") and champion["n"] != (score or {}).get("n")
        rows = f" on the {_count(champion['n'])} of them that it was not trained on" if fewer else ""
        sentences.append(f"The champion at the time scores {_number(champion)}{rows}.")
    kind = "note" if decision.get("passed") is True else "warning"
    return callout(" ".join([*sentences, _say_decision(decision)]), kind, title="In short")


def details(model: Facts, lineage: Facts, *, version: str = "", sha256: str = "") -> Markdown:
    """Who made it, from what and how: version, run, code, packages, seed, cost; then hyperparameters and inputs."""
    time, memory = lineage.get("time"), model.get("peak_memory_mb")
    facts = {
        "Version": _coded(version or None),
        "SHA-256": _coded(sha256 or None),
        "Task": model.get("task"),
        "Classes": model.get("classes") or None,
        "Run": _coded(lineage.get("run")),
        "Trained": f"{str(time)[:16].replace('T', ' ')} UTC" if time else None,
        "By": lineage.get("by"),
        "Training took": _seconds(model.get("training_seconds")),
        "Peak memory": None if is_missing(memory) else f"{memory:,.0f} MB",
        "Code": _git(lineage.get("git")),
        "Seed": lineage.get("seed"),
        "Packages": lineage.get("packages") or None,
    }
    return join(
        value_list(_recorded(facts)),
        _settings(model.get("hyperparameters") or {}),
        _inputs(lineage.get("inputs") or []),
        _prototype(model.get("prototype") or {}),
    )


def intended_use(text: str, *, workflow: str) -> Markdown:
    """The owner's words, or the box that asks for them."""
    return _human("intended_use", text, workflow)


def factors(text: str, results: Facts, *, workflow: str) -> Markdown:
    """The data team's words, or the box that asks for them; then the slices that were measured."""
    slices = [str(row["slice"]) for row in results.get("slices") or []]
    measured = f"Measured apart, in the quantitative analyses: {', '.join(slices)}." if slices else ""
    return join(_human("factors", text, workflow), measured or "No slice was measured apart.")


def metrics(results: Facts) -> Markdown:
    """What each metric means, which one decides, and how its uncertainty was found."""
    decides = (results.get("decision") or {}).get("metric")
    rows = [
        {"Metric": _title(row["metric"]), "Meaning": _capital(METRICS.get(row["metric"], UNKNOWN)[1]),
         "Best": METRICS.get(row["metric"], UNKNOWN)[2], "Decides": "yes" if row["metric"] == decides else ""}
        for row in results.get("metrics") or []
    ]
    if not rows:
        return paragraphs("No metrics were recorded.")
    how = "Intervals hold 95 % of bootstrap draws of the test rows: what another test part of this size could say."
    return join(table(rows, align=RIGHT), how)


def evaluation_data(data: Facts, results: Facts) -> Markdown:
    """The test part: how many rows, how they were chosen, and on how many the champion was compared."""
    decision = results.get("decision") or {}
    compared = decision.get("n") if decision.get("compared") else None
    facts = {
        "Test rows": _count(data.get("test")),
        "Share of all rows": _share(data.get("test"), data.get("rows")),
        "Split": data.get("split"),
        "Compared with the champion on": None if compared is None else f"{_count(compared)} rows",
    }
    alone = "The candidate was not compared with a champion." if decision and not decision.get("compared") else ""
    return join(value_list(_recorded(facts, keep=("Test rows", "Split"))), alone)


def training_data(data: Facts) -> Markdown:
    """Where the rows come from, how many there are by class, and which were left out and why."""
    facts = {
        "Source": data.get("source"),
        "SHA-256 of the source": _coded(data.get("source_sha256")),
        "Rows": _count(data.get("rows")),
        "Training rows": _count(data.get("train")),
    }
    classes, dropped = data.get("classes") or {}, data.get("dropped") or {}
    total = sum(classes.values())
    counts = [{"Class": name, "Rows": _count(n), "Share": _share(n, total)} for name, n in classes.items()]
    left_out = [{"Left out because": reason, "Rows": _count(n)} for reason, n in dropped.items() if n]
    return join(
        value_list(_recorded(facts, keep=("Source", "Rows", "Training rows"))),
        table(counts, caption="Rows by class", align=RIGHT) if counts else "",
        table(left_out, caption="Rows left out", align=RIGHT) if left_out else "No row was left out.",
    )


def quantitative_analyses(model: Facts, results: Facts) -> Markdown:
    """The scores beside baseline and champion, by slice, in cross-validation, and the gate's decision with reasons."""
    return join(
        _score_table(results),
        _slice_table(results.get("slices") or []),
        _cv_table(model.get("cv_scores") or {}),
        decision_box(results.get("decision") or {}),
    )


def decision_box(decision: Facts) -> Markdown:
    """The gate's decision and each of its reasons."""
    if not decision:
        return callout("The gate has not decided about this model.", "warning", title="No decision")
    passed = decision.get("passed") is True
    reasons = bullets(decision.get("reasons") or ["no reason was recorded"])
    kind, title = ("tip", "Passed the gate") if passed else ("warning", "Rejected by the gate")
    return callout(reasons, kind, title=title)


def telling(model: Facts) -> Markdown:
    """The features that speak most for each class; nothing for a model that cannot tell."""
    features = model.get("telling") or {}
    if not features:
        return Markdown("")
    rows = [
        {"Rank": rank, **dict(zip(features, each, strict=True))}
        for rank, each in enumerate(zip(*features.values(), strict=True), start=1)
    ]
    return table(rows, caption="What gives the answer away: the most telling features of each class")


def ethical_considerations(text: str, *, workflow: str) -> Markdown:
    """The owner's words, or the box that asks for them."""
    return _human("ethical_considerations", text, workflow)


def caveats(text: str, *, workflow: str, data: Facts, lineage: Facts) -> Markdown:
    """The modeller's words, or the box that asks for them; then what the record itself warns of."""
    git, test = lineage.get("git"), data.get("test")
    found = []
    if not git:
        found.append("The code was not under version control, so this run cannot be traced to a commit.")
    elif isinstance(git, Mapping) and git.get("dirty"):
        found.append("The code had changes that were not committed when this model was trained.")
    if str(lineage.get("run", "")).startswith("adhoc-"):
        found.append("This model was trained by hand in a notebook, not by a scheduled run.")
    if isinstance(test, int) and test < 100:
        found.append(f"The test part has {test} rows; differences of a few rows mean little.")
    return join(_human("caveats", text, workflow), bullets(found))


def _human(name: str, text: str, workflow: str) -> Markdown:
    return paragraphs(str(text)) if text and str(text).strip() else missing_part(name, workflow)


def _say_task(model: Facts) -> str:
    classes = [str(name) for name in model.get("classes") or []]
    if model.get("task") == "regression":
        return "This model predicts a number for each row."
    if not classes:
        return "This model predicts a class for each row."
    named = ", ".join(classes[:6]) + (" and others" if len(classes) > 6 else "")
    return f"This model sorts each row into one of {len(classes)} classes ({named})."


def _say_score(metric: str, score: Facts | None) -> str:
    if not score or is_missing(score.get("value")):
        return "It has not been scored."
    aim = "lower is better" if _lower_is_better(metric) else "1 is perfect"
    interval = _interval(score)
    spread = f" (95 % interval {interval}; {aim})" if interval else f" ({aim})"
    rows = f"{_count(score['n'])} rows kept apart from training" if score.get("n") else "the test rows"
    return f"On {rows}, its {_name(metric)} is {_number(score)}{spread}."


def _say_decision(decision: Facts) -> str:
    if not decision:
        return "The gate has not decided about it."
    if decision.get("passed") is True:
        return "It passed the gate."
    reasons = "; ".join(str(reason).rstrip(".") for reason in decision.get("reasons") or ["no reason was recorded"])
    return f"It was rejected by the gate: {reasons}."


def _score_table(results: Facts) -> Markdown:
    scores = results.get("metrics") or []
    others = {
        title: _by_metric(results.get(key)) for key, title in (("baseline", "Baseline"), ("champion", "Champion"))
        if results.get(key)
    }
    rows = [
        {"Metric": _title(row["metric"]), "Score": row.get("value"), "95 % interval": _interval(row),
         **{title: found.get(row["metric"], {}).get("value") for title, found in others.items()},
         "Rows": _count(row.get("n"))}
        for row in scores
    ]
    if not rows:
        return paragraphs("No scores were recorded.")
    note = "The baseline never looks at the input: it gives the training rows' most frequent class, or their mean."
    return join(
        table(rows, caption="Scores on the test rows", align=RIGHT),
        note if "Baseline" in others else "",
        _say_champion_rows(scores, results.get("champion") or []),
    )


def _say_champion_rows(scores: Scores, champion: Scores) -> str:
    """A sentence where the champion was scored on fewer rows than the candidate."""
    ours, theirs = ({row.get("n") for row in rows} - {None} for rows in (scores, champion))
    if not theirs or ours == theirs:
        return ""
    return f"The champion was scored on {_count(max(theirs))} rows, those that it was not trained on."


def _slice_table(slices: Scores) -> Markdown:
    if not slices:
        return Markdown("")
    metric = slices[0].get("metric")
    rows = [{"Slice": row["slice"], "Rows": _count(row.get("n")), "Score": row.get("value"),
             "95 % interval": _interval(row)} for row in slices]
    caption = f"{_title(metric)} by slice" if metric else "By slice"
    return join(table(rows, caption=caption, align=RIGHT), _say_weakest(slices, metric))


def _say_weakest(slices: Scores, metric: str | None) -> str:
    scored = [row for row in slices if not is_missing(row.get("value"))]
    if len(scored) < 2:
        return ""
    weakest = (max if metric and _lower_is_better(metric) else min)(scored, key=lambda row: row["value"])
    return f"Weakest: {weakest['slice']}, with {_number(weakest)} on {_count(weakest.get('n'))} rows."


def _cv_table(scores: Mapping[str, Sequence[float]]) -> Markdown:
    rows = [
        {"Metric": _title(metric), "Mean": sum(folds) / len(folds), "Lowest": min(folds), "Highest": max(folds),
         "Folds": len(folds)}
        for metric, folds in scores.items() if folds
    ]
    return table(rows, caption="Cross-validation within the training rows") if rows else Markdown("")


def _settings(hyperparameters: Facts) -> Markdown:
    rows = [{"Hyperparameter": name, "Value": str(value)} for name, value in hyperparameters.items()]
    return table(rows, caption="Hyperparameters") if rows else Markdown("")


def _inputs(inputs: Sequence[Facts]) -> Markdown:
    rows = [
        {"Input": item.get("kind"), "Pin": _coded(item.get("name")), "Version": _coded(item.get("version")),
         "SHA-256": _coded(str(item.get("sha256") or "")[:12])}
        for item in inputs
    ]
    return table(rows, caption="Made from") if rows else Markdown("")


def _prototype(prototype: Mapping[str, Facts]) -> Markdown:
    rows = [{"Column": name, "Type": column.get("type"), "May be empty": bool(column.get("nullable"))}
            for name, column in prototype.items()]
    return table(rows, caption="What it takes") if rows else Markdown("")


def _by_metric(scores: Scores | None) -> dict[str, Facts]:
    return {row["metric"]: row for row in scores or []}


def _name(metric: str) -> str:
    return METRICS[metric][0] if metric in METRICS else metric


def _title(metric: str) -> str:
    return _capital(_name(metric))


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def _lower_is_better(metric: str) -> bool:
    return metric in METRICS and METRICS[metric][2] == "0"


def _number(score: Facts) -> str:
    return format_value(score.get("value"))


def _interval(score: Facts) -> str:
    low, high = score.get("low"), score.get("high")
    return "" if is_missing(low) or is_missing(high) else f"{format_value(low)} to {format_value(high)}"


def _count(n: int | None) -> str | None:
    return None if is_missing(n) else f"{n:,d}"


def _share(part: int | None, whole: int | None) -> str | None:
    return f"{part / whole:.1%}".replace("%", " %") if part is not None and whole else None


def _recorded(facts: Facts, *, keep: Sequence[str] | None = None) -> dict[str, Any]:
    """`facts` with 'not recorded' for a missing value; with `keep`, only those names are shown when missing."""
    shown = {name: value for name, value in facts.items() if keep is None or name in keep or not is_missing(value)}
    return {name: NOT_RECORDED if is_missing(value) else value for name, value in shown.items()}


def _coded(value: object) -> Markdown | None:
    return code(value) if value else None


def _seconds(value: float | None) -> str | None:
    if is_missing(value):
        return None
    return f"{value:.1f} seconds" if value < 120 else f"{value / 60:.0f} minutes"


def _git(git: object) -> str | None:
    if not isinstance(git, Mapping):
        return _coded(git)
    changes = " with uncommitted changes" if git.get("dirty") else ""
    return Markdown(f"{code(str(git.get('commit', ''))[:12])}{changes}") if git.get("commit") else None
