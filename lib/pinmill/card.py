"""The model card of Mitchell et al. (2019), "Model Cards for Model Reporting": one function for each section.

Pure: plain dicts of facts in, Markdown out. Where people have yet to write, a loud box says who does, and where.
"""

import re
from collections.abc import Mapping, Sequence
from itertools import zip_longest
from typing import Any

from pinmill.markdown import Markdown, bullets, callout, code, escape, format_value, is_numeric, join, table, value_list

Facts = Mapping[str, Any]
HUMAN_PARTS = {  # the key in the params: who writes it, and what it has to say
    "intended_use": ("The model's owner", "what it is for, who uses it, and what it must not be used for"),
    "factors": ("The data team", "which groups, sources and conditions could make it better or worse"),
    "ethical_considerations": ("The model's owner", "whom a wrong or a right prediction could harm, and what is done"),
    "caveats": ("The modeller", "what was not tested, what will go stale, and what to do about it"),
}
METRICS = {  # readable name, meaning, what a perfect score is
    "roc_auc": ("ROC AUC", "Chance that a random positive ranks above a random negative; guessing gives 0.5", "1"),
    "roc_auc_ovr": ("ROC AUC, one against the rest", "The mean over classes; guessing gives 0.5", "1"),
    "average_precision": ("Average precision", "Precision averaged over all thresholds", "1"),
    "f1": ("F1", "Balance of precision and recall for the positive class", "1"),
    "f1_macro": ("Macro F1", "Balance of precision and recall, every class counting the same", "1"),
    "accuracy": ("Accuracy", "Share of rows predicted right", "1"),
    "precision": ("Precision", "Share of rows predicted positive that are positive", "1"),
    "precision_macro": ("Macro precision", "Precision, every class counting the same", "1"),
    "recall": ("Recall", "Share of positive rows that are found", "1"),
    "recall_macro": ("Macro recall", "Recall, every class counting the same", "1"),
    "log_loss": ("Log loss", "How wrong the stated probabilities are; sure and wrong costs most", "0"),
    "brier": ("Brier score", "Mean squared error of the stated probability", "0"),
    "r2": ("R²", "Share of the variation that is explained; predicting the mean gives 0", "1"),
    "mae": ("Mean absolute error", "How far off a prediction is on average, in the label's unit", "0"),
    "rmse": ("Root mean squared error", "How far off it is, large misses counting more, in the label's unit", "0"),
}
NAMES = {name: readable for name, (readable, *_) in METRICS.items()}
NAMED = re.compile(rf"\b({'|'.join(METRICS)})(?= (?:[-+\d]|has no value))")  # in a sentence of the gate
GAINS = {"better": "than", "as good": "as", "worse": "than", "not comparable": "with"}  # told in this order
FOLDERS = re.compile(r"^(?:(?:file|sqlite[+\w]*):\S*/|(?![A-Za-z][\w+.-]+:).*/)")  # of this machine; for no reader
INTERVAL = "95 % interval"


def in_words(reason: str) -> str:
    """What the gate said, with the names that people read for metrics."""
    return NAMED.sub(lambda found: NAMES[found[0]], reason)


def format_score(value: object) -> str:
    """A value as score tables show it: amounts of 100 and more whole and with separators, for no years stand there."""
    return f"{value:,.0f}" if is_numeric([value]) and abs(value) >= 100 else format_value(value)


def tell_gains(counts: Mapping[str, int], rival: str) -> str:
    """Such as "better than a guess on 1 and worse on 2 of 3 metrics"; `counts` has numbers by key of GAINS."""
    first, *rest = [how for how in GAINS if counts.get(how)]
    told = [f"{first} {GAINS[first]} {rival} on {counts[first]}", *(f"{how} on {counts[how]}" for how in rest)]
    n, last = sum(counts.values()), told.pop()
    return f"{', '.join(told)} and {last}".removeprefix(" and ") + f" of {n} metric{'s' * (n > 1)}"


def human_part(name: str, text: str, *, workflow: str) -> Markdown:
    """What people wrote, or the box that stands where they have not written yet: a key of HUMAN_PARTS."""
    if text.strip():
        return join(text)
    who, what = HUMAN_PARTS[name]
    ask = Markdown(f"{who} writes it in {code(f'params/{workflow}.yaml')}, key {code(name)}: {what}.")
    return callout(ask, "important", title=f"Missing: {name.replace('_', ' ')}")


def summary(*, model: Facts, results: Facts) -> Markdown:
    """The card in a few plain sentences: what it predicts, how well, against what, and last what the gate found."""
    decision, classes = results["decision"], model.get("classes") or []
    named = ", ".join(map(str, classes[:6])) + (", …" if len(classes) > 6 else "")
    kind = f"one of {len(classes)} classes ({named})" if classes else "an amount"
    name, _, best = METRICS[decision["metric"]]
    score, guess, champion = (scored.get(decision["metric"]) for scored in _by_metric(results))
    said = (
        f", {kind}, for each row. {name} is {format_score(score['value'])} on {score['n']:,} rows kept apart from "
        f"training (95 % interval {_interval(score)}; {'lower is better' if best == '0' else '1 is perfect'}). "
        f"A guess that never looks at the input scores {format_score(guess['value'])}. "
    )
    if champion:
        said += (
            f"The champion at the time scores {format_score(champion['value'])} on {champion['n']:,} rows new to it. "
        )
    said += (
        f"It is {results['gains']}. {name} decides, and {'' if decision['passed'] else 'not '}all that is asked is met."
    )
    return Markdown(f"This model predicts {code(model['label'])}{escape(said)}")


def details(model: Facts, lineage: Facts, *, version: str = "", sha256: str = "") -> Markdown:
    """Who made it, from what and how: version, run, code, packages, seed, cost; then hyperparameters and inputs."""
    git, seconds, memory = lineage.get("git") or {}, model.get("training_seconds"), model.get("peak_memory_mb")
    facts = {
        "Version": version and code(version),
        "SHA-256": sha256 and code(sha256),
        "Kind of model": model.get("described"),
        "Predicts": model.get("label") and Markdown(f"{code(model['label'])} ({escape(model['task'])})"),
        "Classes": model.get("classes") or (model.get("task") == "regression" and "none, as it predicts an amount"),
        "Run": lineage.get("run") and code(lineage["run"]),
        "Trained": lineage.get("time") and f"{lineage['time'][:16].replace('T', ' ')} UTC",
        "By": lineage.get("by"),
        "Training took": seconds and f"{format_value(seconds, digits=1)} seconds",
        "Peak memory": memory and f"{memory:,.0f} MB",
        "Code": git.get("commit") and Markdown(code(git["commit"][:12]) + " with uncommitted changes" * git["dirty"]),
        "Seed": lineage.get("seed"),
        "Packages": lineage.get("packages"),
    }
    settings = [(name, str(value)) for name, value in (model.get("hyperparameters") or {}).items()]
    inputs = [(p["kind"], code(p["name"]), code(p["version"]), code(p["sha256"][:12])) for p in lineage["inputs"]]
    columns = [(name, column["type"], column["nullable"]) for name, column in (model.get("prototype") or {}).items()]
    return join(
        _value_list(facts),
        _table("Hyperparameters", ["Hyperparameter", "Value"], settings),
        _table("Made from", ["Input", "Pin", "Version", "SHA-256"], inputs),
        _table("What it takes", ["Column", "Type", "May be empty"], columns),
    )


def factors(text: str, results: Facts, *, workflow: str) -> Markdown:
    """The data team's words, or the box that asks for them; then the slices that were measured."""
    slices = ", ".join(row["slice"] for row in results["slices"])
    measured = f"Measured apart, in the quantitative analyses: {slices}." if slices else "No slice was measured apart."
    return join(human_part("factors", text, workflow=workflow), measured)


def metrics(results: Facts) -> Markdown:
    """What each metric means, which one decides (the first), and how its uncertainty was found."""
    rows = [(*METRICS[row["metric"]], "" if place else "yes") for place, row in enumerate(results["metrics"])]
    how = "Intervals hold 95 % of bootstrap draws of the test rows: what another test part of this size could say."
    return join(_table("", ["Metric", "Meaning", "Best", "Decides"], rows), how)


def evaluation_data(data: Facts, results: Facts) -> Markdown:
    """The test part: how many rows, how they were chosen, and on how many the champion was compared."""
    compared = f"{results['decision']['n']:,} rows" if results["decision"]["compared"] else "there was no comparison"
    facts = {
        "Test rows": f"{data['test']:,}, which is {100 * data['test'] / data['rows']:.1f} % of all",
        "Split": data.get("split"),
        "Compared with the champion on": compared,
    }
    return _value_list(facts)


def training_data(data: Facts) -> Markdown:
    """Where the rows and labels come from, how many there are by class, and what was left out and why."""
    labels, left_out = (data.get("annotations") or {}).get("by") or {}, data.get("left_out") or {}
    facts = {
        "Source": FOLDERS.sub("", data.get("source") or ""),
        "SHA-256 of the source": data.get("source_sha256") and code(data["source_sha256"]),
        "Rows": f"{data['rows']:,}",
        "Training rows": f"{data['train']:,}",
        "Labels by people": ", ".join(f"{n:,} by {name}" for name, n in labels.items()) or "none",
        "Columns left out": ", ".join(f"{name} ({why})" for name, why in left_out.items()) or "none",
    }
    classes = [(name, n, f"{100 * n / data['rows']:.1f} %") for name, n in data["classes"].items()]
    dropped = [(reason, n) for reason, n in data["dropped"].items() if n]
    return join(
        _value_list(facts),
        _table("Rows by class", ["Class", "Rows", "Share"], classes),
        _table("Rows left out", ["Left out because", "Rows"], dropped) or "No row was left out.",
    )


def quantitative_analyses(model: Facts, results: Facts) -> Markdown:
    """The scores beside baseline and champion, by slice, in cross-validation, and the gate's decision with reasons."""
    cv, decision = model.get("cv_scores") or {}, results["decision"]
    scored = {metric: [score for score in scores if score is not None] for metric, scores in cv.items()}
    folds = [(NAMES.get(m, m), sum(x) / len(x), min(x), max(x), len(x)) for m, x in scored.items() if x]
    kind, verdict = ("tip", "Passed the gate") if decision["passed"] else ("warning", "Rejected by the gate")
    return join(
        _show_scores(results),
        _show_slices(results["slices"], "by slice") if results["slices"] else "No slice was measured apart.",
        _show_slices(both, "where two slices meet") if (both := results.get("intersections")) else "",
        _table("Cross-validation within the training rows", ["Metric", "Mean", "Lowest", "Highest", "Folds"], folds),
        callout(bullets(map(in_words, decision["reasons"])), kind, title=verdict),
    )


def telling(model: Facts) -> Markdown:
    """The features that speak most, for each class if there are any; for a model that cannot tell, that it cannot."""
    features = model.get("telling") or {}
    rows = [(rank, *each) for rank, each in enumerate(zip_longest(*features.values(), fillvalue=""), start=1)]
    return join(_table("The most telling first", ["Rank", *features], rows) or "It cannot be told what it goes by.")


def caveats(text: str, *, workflow: str, data: Facts, lineage: Facts) -> Markdown:
    """The modeller's words, or the box that asks for them; then what the record itself warns of."""
    warnings = {
        "The code was not under version control, so this run cannot be traced to a commit.": not lineage.get("git"),
        "The code had changes that were not committed.": lineage.get("git") and lineage["git"]["dirty"],
        "This model was trained by hand in a notebook, not by a scheduled run.": lineage["run"].startswith("adhoc-"),
        f"The test part has {data['test']} rows; differences of a few rows mean little.": data["test"] < 100,
    }
    return join(human_part("caveats", text, workflow=workflow), bullets(w for w, holds in warnings.items() if holds))


def _show_scores(results: Facts) -> Markdown:
    scores, baseline, champion = _by_metric(results)
    rivals = {"Baseline": baseline, "Champion": champion} if champion else {"Baseline": baseline}
    others = {metric: [rival.get(metric, {}).get("value") for rival in rivals.values()] for metric in scores}
    rows = [(NAMES[m], row["value"], _interval(row), *others[m], row["n"]) for m, row in scores.items()]
    note = "The baseline never looks at the input: it gives the training rows' most frequent class, or their mean."
    said = champion and f"The champion was scored on {max(r['n'] for r in champion.values()):,} rows, all new to it."
    return join(_table("Scores on the test rows", ["Metric", "Score", INTERVAL, *rivals, "Rows"], rows), note, said)


def _show_slices(slices: Sequence[Facts], which: str) -> Markdown:
    metric, _, best = METRICS[slices[0]["metric"]]
    rows = [(row["slice"], row["n"], row["value"], _interval(row)) for row in slices]
    scored = [row for row in slices if row["value"] is not None]
    weakest = (max if best == "0" else min)(scored, key=lambda row: row["value"], default={})
    said = weakest and f"Weakest: {weakest['slice']}, with {format_score(weakest['value'])} on {weakest['n']:,} rows."
    return join(_table(f"{metric} {which}", ["Slice", "Rows", "Score", INTERVAL], rows), said)


def _by_metric(results: Facts) -> list[dict[str, Facts]]:
    return [{row["metric"]: row for row in results[part] or []} for part in ("metrics", "baseline", "champion")]


def _table(caption: str, names: Sequence[str], rows: Sequence[Sequence[object]]) -> Markdown:
    """A table, or nothing if it would have no rows."""
    right = [name for name, *column in zip(names, *rows, strict=True) if is_numeric(column)]
    shown = [dict(zip(names, map(format_score, row), strict=True)) for row in rows]
    return table(shown, caption=caption, right=(INTERVAL, "Best", "Share", *right)) if rows else Markdown("")


def _value_list(facts: Facts) -> Markdown:
    return value_list({k: "not recorded" if v in (None, False, "", [], {}) else v for k, v in facts.items()})


def _interval(score: Facts) -> str:
    return "" if score["low"] is None else f"{format_score(score['low'])} to {format_score(score['high'])}"
