"""Alert rules: what is wrong with them, and when they fire, by tables of cases."""

import math
import re
from datetime import UTC, datetime
from typing import Any

import pandas as pd
import pytest
from pinmill.alerts import TRAFFIC, find_idle, judge, read_rules
from pinmill.errors import ParameterError
from pinmill.history import COLUMNS, make_history, traffic_rows
from pinmill.periods import list_periods

WEEKS = ["2026-10-05", "2026-10-12", "2026-10-19", "2026-10-26"]
NAN = math.nan


def make_rows(metric: str, values: list[float], **about: Any) -> list[dict[str, Any]]:
    """One row for each of the last weeks."""
    weeks = WEEKS[-len(values) :]
    common = {"subject": "score", "metric": metric, "n": 100} | about
    return [{"period": week, "value": value, **common} for week, value in zip(weeks, values, strict=True)]


def judge_rule(rule: dict[str, Any], *rows: list[dict[str, Any]], complete: list[str] = WEEKS) -> list[dict[str, Any]]:
    """What one rule says of a history of these rows."""
    history = make_history([row for part in rows for row in part])
    return judge(read_rules([rule]), history, complete=complete, length="week")


BELOW = {"metric": "accuracy", "direction": "below", "threshold": 0.85}
ABOVE = {"metric": "log_loss", "direction": "above", "threshold": 0.5}


@pytest.mark.parametrize(
    ("rule", "values", "fires", "period"),
    [
        (BELOW, [0.9, 0.9, 0.9, 0.84], True, WEEKS[3]),
        (BELOW, [0.8, 0.8, 0.8, 0.9], False, WEEKS[3]),  # it recovered
        (BELOW, [0.9, 0.9, 0.9, 0.85], False, WEEKS[3]),  # the threshold itself is good enough
        (ABOVE, [0.4, 0.51], True, WEEKS[3]),  # of a loss, more is worse
        (ABOVE, [0.4, 0.5], False, WEEKS[3]),
        (ABOVE, [0.4, math.inf], True, WEEKS[3]),
        (BELOW | {"periods": 2}, [0.9, 0.8], False, WEEKS[3]),
        (BELOW | {"periods": 2}, [0.8, 0.8], True, WEEKS[3]),
        (BELOW | {"periods": 2}, [0.8], False, WEEKS[3]),  # there is only one yet
        (BELOW | {"periods": 2}, [0.8, 0.9, 0.8], False, WEEKS[3]),
        (BELOW | {"periods": 2}, [0.8, 0.8, NAN], True, WEEKS[2]),  # nothing new was learnt
        (BELOW, [0.9, NAN], False, WEEKS[2]),
        (BELOW, [NAN, NAN], False, ""),
        (BELOW | {"min_n": 100}, [0.8], True, WEEKS[3]),
        (BELOW | {"min_n": 101}, [0.8], False, ""),
        ({"metric": "requests", "direction": "below", "threshold": 1}, [5, 0], True, WEEKS[3]),
    ],
)
def test_a_rule_fires_while_the_newest_periods_are_beyond_the_threshold(
    rule: dict[str, Any], values: list[float], fires: bool, period: str
) -> None:
    (verdict,) = judge_rule(rule, make_rows(rule["metric"], values, n=0 if rule["metric"] == "requests" else 100))
    assert (verdict["firing"], verdict["period"]) == (fires, period)


def test_periods_of_too_few_cases_are_passed_over() -> None:
    enough = [row | {"n": n} for row, n in zip(make_rows("accuracy", [0.8, 0.99, 0.8]), [50, 9, 50], strict=True)]
    (verdict,) = judge_rule(BELOW | {"min_n": 50, "periods": 2}, enough)
    assert verdict["firing"]


def test_the_order_of_the_history_does_not_matter() -> None:
    rows = make_rows("accuracy", [0.9, 0.8])
    assert judge_rule(BELOW, rows[::-1]) == judge_rule(BELOW, rows)


def test_a_running_period_does_not_count() -> None:
    rows = make_rows("accuracy", [0.9, 0.8])
    assert [v["firing"] for v in judge_rule(BELOW, rows, complete=WEEKS[:3])] == [False]
    assert [v["firing"] for v in judge_rule(BELOW, rows)] == [True]


def test_the_verdict_is_told_whole() -> None:
    assert judge_rule(BELOW | {"min_n": 20, "periods": 2}, make_rows("accuracy", [0.9, 0.84, 0.7999], n=1234)) == [
        {
            "key": "score//accuracy below",
            "text": "Accuracy was 0.84, then 0.7999, below the limit of 0.85, in 2 weeks in a row, "
            "the last in the week of 26 October 2026 (n = 1,234).",
            "firing": True,
            "subject": "score",
            "metric": "accuracy",
            "direction": "below",
            "column": "",
            "value": 0.7999,
            "threshold": 0.85,
            "period": "2026-10-26",
            "n": 1234,
            "min_n": 20,
            "periods": 2,
        }
    ]


@pytest.mark.parametrize(
    ("rule", "rows", "text"),
    [
        (
            BELOW,
            make_rows("accuracy", [0.9]),
            "Accuracy was 0.9, within the limit of 0.85, in the week of 26 October 2026 (n = 100).",
        ),
        (
            BELOW | {"periods": 3},
            make_rows("accuracy", [0.8]),
            "Accuracy was 0.8, below the limit of 0.85, in the week of 26 October 2026, but not in 3 weeks (n = 100).",
        ),
        (
            {"metric": "error_share", "direction": "above", "threshold": 0.05},
            make_rows("error_share", [0.00918], n=871),
            "Errors: 0.918 % of 871 requests failed in the week of 26 October 2026, within the limit of 5 %.",
        ),
        (
            {"metric": "error_share", "direction": "above", "threshold": 0.05},
            make_rows("error_share", [1 / 3], n=3),
            "Errors: 33.3 % of 3 requests failed in the week of 26 October 2026; the limit is 5 %.",
        ),
        (
            {"metric": "p95_ms", "direction": "above", "threshold": 20},
            make_rows("p95_ms", [31.25], subject="traffic"),
            "The time within which 95 % of requests were answered was 31.25 ms, above the limit of 20 ms, "
            "in the week of 26 October 2026 (n = 100).",
        ),
        (
            BELOW | {"periods": 2},
            make_rows("accuracy", [0.8, NAN, 0.7]),
            "Accuracy was 0.8, then 0.7, below the limit of 0.85, in 2 of 3 weeks, "
            "the last in the week of 26 October 2026 (n = 100).",
        ),
        (
            BELOW,
            make_rows("accuracy", [0.8, NAN, NAN]),
            "Accuracy is not known any more: the last value was 0.8 in the week of 12 October 2026.",
        ),
        (BELOW, [], "No complete week has Accuracy yet."),
        (BELOW, make_rows("f1", [0.8]), "No complete week has Accuracy yet."),
        (
            BELOW | {"min_n": 500},
            make_rows("accuracy", [0.8]),
            "No complete week has Accuracy of at least 500 cases yet.",
        ),
        (
            {"metric": "psi", "direction": "above", "threshold": 0.2},
            make_rows("psi", [0.31], subject="input", column="x" * 70),
            f"The population stability index of the input column {'x' * 60}… was 0.31, above the limit of 0.2, "
            "in the week of 26 October 2026 (n = 100).",
        ),
        (
            {"metric": "psi", "direction": "above", "threshold": 0.2, "column": "price", "subject": "input"},
            make_rows("ks", [0.31], subject="input", column="price"),
            "No complete week has the population stability index of the input column price yet.",
        ),
    ],
)
def test_each_verdict_is_one_sentence_for_a_chat(rule: dict, rows: list, text: str) -> None:
    assert [verdict["text"] for verdict in judge_rule(rule, rows)] == [text]


def test_the_columns_that_shifted_are_named() -> None:
    names = [*"fedcba", "calm"]
    drift = [
        {"period": WEEKS[3], "subject": "input", "column": name, "metric": "psi", "status": "shifted"}
        for name in names[:-1]
    ]
    calm = [{"period": WEEKS[3], "subject": "input", "column": "calm", "metric": "psi"}]
    other = [{"period": WEEKS[3], "subject": "prediction", "column": "label", "metric": "js", "status": "shifted"}]
    rows = make_rows("shifted_columns", [6.0], subject="input", n=7, status="shifted")
    (verdict,) = judge_rule(
        {"metric": "shifted_columns", "direction": "above", "threshold": 0}, rows, drift, calm, other
    )
    assert verdict["text"] == (
        "What callers send has changed: 6 of 7 input columns (a, b, c, d, e, …) shifted in the week of 26 October 2026."
    )


@pytest.mark.parametrize(
    ("values", "more", "text"),
    [
        ([0.0], {}, "has not changed: 0 of 2 prediction columns shifted in the week of 26 October 2026."),
        (
            [1.0, 2.0],
            {"threshold": 1, "periods": 2},
            "has changed: 1 of 2, then 2 of 2 prediction columns shifted in 2 weeks in a row, "
            "the last in the week of 26 October 2026; the limit is 1 in 2 weeks.",
        ),
    ],
)
def test_what_the_model_says_is_told_apart(values: list[float], more: dict[str, Any], text: str) -> None:
    rule = {"metric": "shifted_columns", "direction": "above", "threshold": 0} | more
    (verdict,) = judge_rule(rule, make_rows("shifted_columns", values, subject="prediction", n=2))
    assert verdict["text"] == f"What the model says {text}"


def test_a_column_that_is_gone_or_new_is_named() -> None:
    rows = make_rows("shifted_columns", [2.0], subject="input", n=3, status="shifted")
    odd = [make_rows("psi", [NAN], subject="input", column=name, status=name) for name in ("gone", "new")]
    (verdict,) = judge_rule({"metric": "shifted_columns", "direction": "above", "threshold": 0}, rows, *odd)
    assert "2 of 3 input columns (gone, new) shifted" in verdict["text"]


PSI = {"metric": "psi", "direction": "above", "threshold": 0.2}


def test_a_rule_holds_for_each_column_by_itself_and_its_key_stays() -> None:
    price = make_rows("psi", [0.1, 0.3], subject="input", column="price")
    city = make_rows("psi", [0.3, 0.1], subject="input", column="city")
    sure = make_rows("psi", [0.5, 0.5], subject="prediction", column="value")
    told = {verdict["key"]: verdict["firing"] for verdict in judge_rule(PSI, price, city, sure)}
    assert told == {"input/city/psi above": False, "input/price/psi above": True, "prediction/value/psi above": True}
    before = judge_rule(PSI, price, city, sure, complete=WEEKS[:3])
    assert {verdict["key"]: verdict["firing"] for verdict in before} == dict(
        zip(told, [True, False, True], strict=True)
    )


@pytest.mark.parametrize(
    ("chosen", "columns"),
    [
        ({"column": "price"}, ["price"]),
        ({"subject": "prediction"}, ["value"]),
        ({"column": "price", "subject": "prediction"}, ["price"]),  # there is none: this is told
        ({"column": None, "subject": None}, ["price", "value"]),
    ],
)
def test_a_rule_may_be_for_one_column_or_subject(chosen: dict[str, Any], columns: list[str]) -> None:
    rows = [
        make_rows("psi", [0.1], subject=subject, column=name)
        for subject, name in [("input", "price"), ("prediction", "value")]
    ]
    assert [verdict["column"] for verdict in judge_rule(PSI | chosen, *rows)] == columns


def test_a_column_that_is_gone_does_not_fire_for_ever() -> None:
    gone = [row | {"period": WEEKS[2]} for row in make_rows("psi", [0.9], subject="input", column="old")]
    there = make_rows("psi", [0.1, 0.1], subject="input", column="price")
    assert [verdict["column"] for verdict in judge_rule(PSI, gone, there)] == ["price"]


@pytest.mark.parametrize("later", [[], [NAN] * 2, "too few"])
def test_an_alert_recovers_when_nothing_more_is_known(later: Any) -> None:
    rows = make_rows("psi", [0.9, 0.9, 0.9], subject="input", column="price")
    if later == "too few":
        rows = [row | {"n": n} for row, n in zip(rows, [100, 9, 9], strict=True)]
    else:
        rows = [rows[0], *(row | {"value": NAN} for row in rows[1 : 1 + len(later)])]
    fired = [
        verdict["firing"]
        for end in (2, 3, 4)
        for verdict in judge_rule(PSI | {"min_n": 50}, rows, complete=WEEKS[:end])
    ]
    assert fired == [True, True, False]  # one period without a value is waited for
    assert "is not known any more" in judge_rule(PSI | {"min_n": 50}, rows)[0]["text"]


def test_a_key_stays_when_the_rule_is_edited_and_several_rules_of_one_metric_are_numbered() -> None:
    history = make_history(make_rows("accuracy", [0.8, 0.8]))
    for edited in ({"threshold": 0.9}, {"min_n": 5}, {"periods": 2}):
        (verdict,) = judge(read_rules([BELOW | edited]), history, complete=WEEKS, length="week")
        assert verdict["key"] == "score//accuracy below"
    rules = read_rules([BELOW, BELOW | {"threshold": 0.7}, BELOW | {"direction": "above"}, BELOW])
    assert [verdict["key"] for verdict in judge(rules, history, complete=WEEKS, length="week")] == [
        "score//accuracy below", "score//accuracy below 2", "score//accuracy above"
    ]  # fmt: skip
    twice = judge(read_rules([BELOW, BELOW]), make_history([]), complete=[], length="week")
    assert len(twice) == 1


COMPUTED = {
    "traffic": (TRAFFIC, [""]),
    "score": (["accuracy", "f1"], [""]),
    "input": (["psi", "js"], ["price", "city"]),
    "prediction": (["psi", "js"], ["label"]),
}


@pytest.mark.parametrize(
    ("rule", "said"),
    [
        (BELOW, []),
        (PSI, []),
        (PSI | {"column": "city"}, []),
        (PSI | {"column": "label", "subject": "prediction"}, []),
        (BELOW | {"metric": "rmse"}, ["Rule 1 never fires: rmse is not computed here."]),
        (PSI | {"column": "prise"}, ["Rule 1 never fires: psi has no column 'prise'. Did you mean 'price'?"]),
        (BELOW | {"subject": "input"}, ["Rule 1 never fires: accuracy of subject input is not computed here."]),
        (PSI | {"column": "price", "subject": "prediction"}, ["Rule 1 never fires: psi has no column 'price'."]),
        (BELOW | {"column": "price"}, ["Rule 1 never fires: accuracy has no column 'price'."]),
    ],
)
def test_a_rule_that_can_never_fire_is_told(rule: dict[str, Any], said: list[str]) -> None:
    assert find_idle(read_rules([rule]), COMPUTED) == said


def test_the_same_rule_twice_is_one_alert() -> None:
    rules = read_rules([PSI, PSI | {"column": "price"}])
    history = make_history(make_rows("psi", [0.9], subject="input", column="price"))
    assert [verdict["column"] for verdict in judge(rules, history, complete=WEEKS, length="week")] == ["price"]


@pytest.mark.parametrize("history", [pd.DataFrame(), pd.DataFrame(columns=COLUMNS), make_history([])])
def test_without_a_history_nothing_fires(history: pd.DataFrame) -> None:
    (verdict,) = judge(read_rules([BELOW]), history, complete=[], length="week")
    assert (verdict["firing"], verdict["period"], verdict["n"]) == (False, "", 0)
    assert math.isnan(verdict["value"])
    assert judge([], history, complete=WEEKS, length="week") == []


@pytest.mark.parametrize("metric", [*TRAFFIC, "accuracy", "psi", "shifted_columns", "balanced_accuracy_score"])
def test_traffic_drift_scores_and_scikit_learn_may_be_watched(metric: str) -> None:
    assert [rule.metric for rule in read_rules([BELOW | {"metric": metric}])] == [metric]


def test_every_metric_of_traffic_may_be_watched() -> None:
    now = datetime(2026, 10, 20, tzinfo=UTC)
    (period,) = list_periods(now, now, period="week")
    numbers = dict.fromkeys((*TRAFFIC, "complete", "timed"), 1)
    rows = traffic_rows(period, numbers | {"versions": []}, now=now)
    assert {row["metric"] for row in rows} - {"complete"} == {*TRAFFIC}


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (None, "alerts is None, a list such as [{metric: …, direction: …}] was expected."),
        ({"metric": "psi"}, "alerts is {'metric': 'psi'}, a list such as [{metric: …, direction: …}] was expected."),
        (
            [BELOW, "accuracy < 0.8", BELOW | {"metric": "acuracy", "min_m": 5, "direction": "bellow"}],
            "4 problems in 'alerts': "
            "rule 2 is 'accuracy < 0.8', a mapping with metric, direction and threshold was expected; "
            "rule 3: there is no metric 'acuracy'. Did you mean 'accuracy'?; "
            "rule 3: direction is 'bellow', above or below was expected. Did you mean 'below'?; "
            "rule 3 has a key 'min_m', which no rule has. Did you mean 'min_n'?",
        ),
        (
            [{}, {1: 2}],
            "7 problems in 'alerts': "
            "rule 1 has no metric: give the name of a metric; "
            "rule 1 has no direction: give above or below; "
            "rule 1 has no threshold: give a number; "
            "rule 2 has no metric: give the name of a metric; "
            "rule 2 has no direction: give above or below; "
            "rule 2 has no threshold: give a number; "
            "rule 2 has a key '1', which no rule has",
        ),
        (
            [
                BELOW
                | {"metric": ["psi"], "threshold": NAN, "min_n": -1, "periods": 0, "column": 3, "subject": "inputs"}
            ],
            "6 problems in 'alerts': "
            "rule 1: metric is ['psi'], the name of a metric was expected; "
            "rule 1: threshold is nan, a number was expected; "
            "rule 1: min_n is -1, a whole number of at least 0 was expected; "
            "rule 1: periods is 0, a whole number of at least 1 was expected; "
            "rule 1: column is 3, the name of a column was expected; "
            "rule 1: subject is 'inputs', one of traffic, score, input, prediction was expected. Did you mean 'input'?",
        ),
        (
            [BELOW | {"threshold": True, "min_n": 1.5, "periods": "2"}],
            "3 problems in 'alerts': "
            "rule 1: threshold is True, a number was expected; "
            "rule 1: min_n is 1.5, a whole number of at least 0 was expected; "
            "rule 1: periods is '2', a whole number of at least 1 was expected",
        ),
    ],
)
def test_all_that_is_wrong_with_rules_is_told_at_once(given: Any, message: str) -> None:
    with pytest.raises(ParameterError, match=f"^{re.escape(message)}$"):
        read_rules(given)


def test_no_rules_are_none_and_a_whole_number_is_a_number() -> None:
    assert read_rules([]) == []
    (rule,) = read_rules([BELOW | {"threshold": 1}])
    assert (rule.threshold, rule.min_n, rule.periods, rule.column, rule.subject) == (1.0, 0, 1, None, None)
