"""What a run is asked to do, checked as a whole before its first stage."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pinmill.errors import ParameterError, ProjectError, did_you_mean
from pinmill.notebook import Stage, order_stages, read_stages
from pinmill.params import WORKFLOW, Params, RunSettings, check_params, load_params, override
from pinmill.project import Project


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

    @property
    def title(self) -> str:
        """What people call the workflow."""
        return str(self.values.get("title") or self.workflow)


def load_workflow(project: Project, workflow: str) -> Params:
    """The params file of a workflow of this project. Raises ParameterError."""
    if not WORKFLOW.fullmatch(workflow):
        raise ParameterError(f"{workflow!r} is no workflow: the name of a file in params/ was expected, without .yaml.")
    file = project.params_file(workflow)
    return load_params(file, where=project.relative(file), settings=project.settings, workflows=project.workflows())


def read_notebooks(project: Project, params: Params) -> list[Stage]:
    """All stages, with those notebooks that the params file puts in place of others."""
    run = params.values.get("run")
    replaced = run.get("notebooks") if isinstance(run, dict) else None
    paths = {name: project.root / path for name, path in replaced.items()} if isinstance(replaced, dict) else {}
    return read_stages(project.notebooks, paths)


def make_plan(
    project: Project, workflow: str, *, job: str, assignments: list[str], force: bool = False, start_from: str = ""
) -> Plan:
    """Check everything that can be checked before a kernel starts. Raises ParameterError and ProjectError."""
    params = override(load_workflow(project, workflow), assignments)
    every = read_notebooks(project, params)
    values, settings = check_params(params, every, project.settings)
    stages = order_stages(every, job)
    if any("source" in stage.reads for stage in stages) and not values.get("source"):
        raise ParameterError(
            f"1 problem in {params.where}: source is missing: a path, an address, a SQL URL, pin:NAME …"
        )
    origins = dict.fromkeys(values, "default") | dict.fromkeys(params.values, "params file")
    origins |= {assignment.partition("=")[0]: "--set" for assignment in assignments}
    forced = find_forced(stages, force=force, start_from=start_from)
    return Plan(workflow, job, tuple(stages), values, origins, settings, forced)


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
