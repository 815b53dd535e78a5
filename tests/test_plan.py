"""What a run is asked to do, checked as a whole before its first stage."""

from pathlib import Path

import pytest
from pinmill.errors import ParameterError, ProjectError
from pinmill.notebook import Stage
from pinmill.plan import find_forced, make_plan
from pinmill.project import Project


def stages(*stems: str) -> list[Stage]:
    return [Stage(stem.partition("-")[2], Path(f"{stem}.ipynb"), stem, "train", (), (), {}, ()) for stem in stems]


THREE = stages("01-prepare", "02-train-tabular", "03-evaluate")


@pytest.mark.parametrize(
    ("force", "start_from", "names"),
    [
        (False, "", set()),
        (True, "", {"prepare", "train-tabular", "evaluate"}),
        (False, "prepare", {"prepare", "train-tabular", "evaluate"}),
        (False, "02-train-tabular", {"train-tabular", "evaluate"}),
        (False, "evaluate", {"evaluate"}),
        (True, "evaluate", {"evaluate"}),
    ],
)
def test_forced_are_all_stages_or_those_from_one_on(force: bool, start_from: str, names: set) -> None:
    assert find_forced(THREE, force=force, start_from=start_from) == names


def test_a_stage_that_is_none_is_named_with_those_there_are() -> None:
    with pytest.raises(ProjectError) as caught:
        find_forced(THREE, force=False, start_from="evalute")
    assert str(caught.value) == (
        "no stage 'evalute': the stages are prepare, train-tabular, evaluate. Did you mean 'evaluate'?"
    )


def test_a_plan_knows_each_value_and_where_it_comes_from(small) -> None:
    plan = make_plan(Project(small.root, {}), "small", job="train", assignments=["power=3"])
    assert [stage.stem for stage in plan.stages] == ["01-prepare", "02-train", "03-evaluate", "04-model-card"]
    assert plan.values == {
        "workflow": "small", "source": "numbers.txt", "power": 3, "score": 0.9, "threshold": 0.5, "caveats": "",
    }  # fmt: skip
    assert plan.origins == {
        "workflow": "params file", "source": "params file", "power": "--set", "score": "default",
        "threshold": "default", "caveats": "default",
    }  # fmt: skip
    assert (plan.title, plan.forced, plan.settings.seconds("train")) == ("small", frozenset(), 3600)


def test_a_plan_is_refused_with_all_problems_at_once(small) -> None:
    small.params("source: numbers.txt\npwoer: 2\nworkflow: small\n", "small")
    with pytest.raises(ParameterError, match=r"2 problems in params/small.yaml: .*'pwoer'.*; .*score"):
        make_plan(Project(small.root, {}), "small", job="train", assignments=["score=2"])


def test_a_workflow_may_replace_a_stage_s_notebook(small) -> None:
    (small.root / "notebooks" / "02-train.ipynb").rename(small.root / "mine.ipynb")
    path = small.root / "mine.ipynb"
    path.write_text(path.read_text().replace("job: train", "job: train\\n  stage: train"))
    small.params("source: numbers.txt\nrun:\n  notebooks: {train: mine.ipynb}\nworkflow: small\n", "small")
    plan = make_plan(Project(small.root, {}), "small", job="train", assignments=[])
    assert {stage.name: stage.stem for stage in plan.stages}["train"] == "mine"


def test_a_missing_notebook_of_a_workflow_is_named(small) -> None:
    small.params("run: {notebooks: {train: nowhere.ipynb}}\nworkflow: small\n", "small")
    with pytest.raises(ProjectError, match=r"no notebook at .*nowhere.ipynb"):
        make_plan(Project(small.root, {}), "small", job="train", assignments=[])
