"""What a run is asked to do, checked as a whole before its first stage."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pinmill.errors import ParameterError, ProjectError, did_you_mean
from pinmill.models import find_model, list_models
from pinmill.notebook import Stage, order_stages, read_stages
from pinmill.params import Params, RunSettings, check_params, override, parse_params
from pinmill.project import Project

WORKFLOW = re.compile(r"[a-z0-9][a-z0-9_-]{0,47}")  # a pin's name is at most 64 characters: `W-champion` must fit


@dataclass(frozen=True)
class Plan:
    """A checked request: stages in order, every parameter's value and where it comes from."""

    workflow: str
    job: str
    stages: tuple[Stage, ...]
    values: Mapping[str, Any]
    origins: Mapping[str, str]
    settings: RunSettings
    forced: frozenset[str] = frozenset()
    model: str = ""  # the version that is evaluated; empty: the one that the job trains

    @property
    def title(self) -> str:
        """What people call the workflow."""
        return str(self.values.get("title") or self.workflow)


def load_workflow(project: Project, workflow: str) -> Params:
    """The params file of a workflow of this project. Raises ParameterError."""
    if not WORKFLOW.fullmatch(workflow):
        expected = "lower-case letters, digits, - and _ were expected, at most 48: the name of a file in params/"
        raise ParameterError(f"{workflow!r} is no workflow: {expected}, without .yaml.")
    file = project.params_file(workflow)
    where = project.relative(file)
    try:
        text = file.read_text(encoding="utf-8")
    except FileNotFoundError:
        known = project.workflows()
        there = f"{did_you_mean(workflow, known)} The workflows here are: {', '.join(known) or 'none'}."
        raise ParameterError(f"no workflow {workflow!r}: {where} does not exist.{there}") from None
    except UnicodeDecodeError as error:
        raise ParameterError(f"{where} is not UTF-8 (byte {error.start}). Save it as UTF-8.") from None
    return parse_params(text, workflow=workflow, where=where, settings=project.settings)


def read_notebooks(project: Project, params: Params) -> list[Stage]:
    """All stages, with those notebooks that the params file puts in place of others."""
    run = params.values.get("run")
    replaced = run.get("notebooks") if isinstance(run, dict) else None
    paths = {name: project.root / path for name, path in replaced.items()} if isinstance(replaced, dict) else {}
    return read_stages(project.notebooks, paths)


def read_values(project: Project, workflow: str) -> dict[str, Any]:
    """The parameters of a workflow, checked."""
    given = load_workflow(project, workflow)
    return check_params(given, read_notebooks(project, given), project.settings)[0]


def make_plan(
    project: Project,
    workflow: str,
    *,
    job: str,
    assignments: list[str],
    force: bool = False,
    start_from: str = "",
    model: str = "",
    tells: bool = True,
) -> Plan:
    """Check everything that can be checked before a kernel starts.

    With a `model`, whose version may be shortened, the stages that would write one are left out. `tells` is as in
    `check_params`.
    Raises ParameterError, ProjectError, and ChampionError for a model that is not there.
    """
    params = override(load_workflow(project, workflow), assignments)
    every = read_notebooks(project, params)
    values, settings = check_params(params, every, project.settings, tells=tells)
    stages = order_stages(every, job)
    if any("source" in stage.reads for stage in stages) and not values.get("source"):
        expected = "a path, an address, a SQL URL, pin:NAME …"
        raise ParameterError(f"1 problem in {params.where}: source is missing: {expected}")
    origins = dict.fromkeys(values, "default") | dict.fromkeys(params.values, "params file")
    origins |= {assignment.partition("=")[0]: "--set" for assignment in assignments}
    version = find_model(list_models(project.board, workflow), model)["version"] if model else ""
    stages = leave_out_training(stages, job) if model else stages
    forced = find_forced(stages, force=force, start_from=start_from)
    return Plan(workflow, job, tuple(stages), values, origins, settings, forced, version)


def leave_out_training(stages: list[Stage], job: str) -> list[Stage]:
    """The stages that write no model. Raises ProjectError when none of them reads one."""
    kept = [stage for stage in stages if "model" not in stage.writes]
    if not any("model" in stage.reads for stage in kept):
        raise ProjectError(f"no stage of job {job!r} reads a model, so it cannot be given one: leave out --model.")
    return kept


def find_forced(stages: list[Stage], *, force: bool, start_from: str) -> frozenset[str]:
    """Names of the stages that run though nothing changed. Raises ProjectError for a stage that is none."""
    names = [stage.name for stage in stages]
    if not start_from:
        return frozenset(names if force else ())
    for position, stage in enumerate(stages):
        if start_from in (stage.name, stage.stem):
            return frozenset(names[position:])
    hint = did_you_mean(start_from, names)
    raise ProjectError(f"no stage {start_from!r}: the stages are {', '.join(names)}.{hint}")
