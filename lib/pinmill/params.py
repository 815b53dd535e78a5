"""The params file of a workflow: read with its line numbers, checked as a whole before any kernel starts."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, PositiveFloat, PositiveInt, TypeAdapter, ValidationError

from pinmill.errors import ParameterError, describe_problems, did_you_mean
from pinmill.notebook import Declaration, Stage
from pinmill.secret import find_secrets

LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
VARIABLE = re.compile(r"\$\{([A-Za-z_]\w*)(?::-([^}]*))?\}")
TYPES = {"str": str, "int": int, "float": float, "bool": bool, "list": list, "dict": dict, "None": None, "Any": Any}


class RunSettings(BaseModel):
    """The reserved mapping `run:` of a params file: what the runner, not a notebook, takes."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)
    timeout: PositiveFloat | dict[str, PositiveFloat] = Field(
        3600.0, description="longest time for a stage, as a number or by stage [s]"
    )
    retries: int = Field(
        2, ge=0, le=10, description="how often a stage that failed from outside is tried again, 0..10 times"
    )
    notify: tuple[str, ...] = Field(
        (), strict=False, description="a list of apprise URLs that are told: [secret:MAIL_URL, 'json://host/path']"
    )
    retention: dict[Literal["runs", "logs", "calls"], PositiveInt] = Field(
        {}, description="days that runs, logs and calls are kept: {runs: 180, logs: 30, calls: 365}"
    )
    notebooks: dict[str, str] = Field({}, description="another notebook for a stage: {train: notebooks/mine.ipynb}")

    def seconds(self, stage: str) -> float:
        """The longest time a stage may take."""
        return self.timeout.get(stage, 3600.0) if isinstance(self.timeout, dict) else self.timeout


@dataclass(frozen=True)
class Params:
    """A params file as read: values by name, the line of each, and what is wrong already."""

    workflow: str
    where: str
    values: dict[str, Any]
    lines: dict[str, str]
    problems: tuple[str, ...] = ()

    def place(self, name: str) -> str:
        return self.lines.get(name, self.where)


@cache
def type_adapter(text: str):
    """pydantic's check for a type as a parameters cell spells it, such as `int | None` or `list[str]`."""
    kind = eval(text, {"__builtins__": {}}, TYPES)
    return TypeAdapter(kind, config=ConfigDict(strict=True, allow_inf_nan=False))


def fill_variables(text: str, settings: Mapping[str, str]) -> str:
    """`text` with `${NAME}` and `${NAME:-default}` replaced. Raises KeyError with the name that is not set."""

    def fill(match: re.Match) -> str:
        """The value of one variable, or its default."""
        value = settings.get(match[1]) or match[2]
        if value is None:
            raise KeyError(match[1])
        return value

    return VARIABLE.sub(fill, text)


def fill_node(node: yaml.Node, settings: Mapping[str, str], problems: list[str], where: str) -> None:
    """Replace variables in every scalar below a YAML node; a plain (unquoted) one gets its type afterwards."""
    if isinstance(node, yaml.ScalarNode) and "${" in node.value:
        try:
            node.value = fill_variables(node.value, settings)
        except KeyError as error:
            name = error.args[0]
            line = node.start_mark.line + 1
            problems.append(f"${{{name}}} is not set ({where}, line {line}): set {name} or write ${{{name}:-default}}")
        if not node.style:  # a plain scalar: None, or with the parser in C an empty text
            node.tag = yaml.SafeLoader("").resolve(yaml.ScalarNode, node.value, (True, False))
    for child in node.value if isinstance(node.value, list) else []:
        for part in child if isinstance(child, tuple) else (child,):
            fill_node(part, settings, problems, where)


def parse_params(text: str, *, workflow: str, where: str, settings: Mapping[str, str]) -> Params:
    """A params file's text as values with their lines. Raises ParameterError when it is not a flat YAML mapping."""
    values, lines, problems, loader = {}, {}, [], LOADER(text)
    try:
        root = loader.get_single_node()
        pairs = root.value if isinstance(root, yaml.MappingNode) else []
        for _, node in pairs:
            fill_node(node, settings, problems, where)
        found = [loader.construct_object(node, deep=True) for _, node in pairs]
    except (yaml.YAMLError, ValueError) as error:  # ValueError: a date such as 2020-13-45
        raise ParameterError(f"{where} is not YAML: {' '.join(str(error).split())}.") from None
    finally:
        loader.dispose()
    if not pairs or not all(isinstance(name, yaml.ScalarNode) for name, _ in pairs):
        expected = f"lines such as 'workflow: {workflow}' and 'source: …' were expected"
        raise ParameterError(f"{where} is not a mapping of names: {expected}.")
    for (name, _), value in zip(pairs, found, strict=True):
        place = f"{where}, line {name.start_mark.line + 1}"
        if name.value in values:
            problems.append(f"{name.value!r} stands twice ({lines[name.value]} and {place})")
        values[name.value], lines[name.value] = value, place
    if "workflow" not in values:  # plain papermill hands over what stands in the file, and nothing else
        problems.append(f"workflow is missing: add the line 'workflow: {workflow}' ({where})")
    elif values["workflow"] != workflow:
        problems.append(f"workflow is {values['workflow']!r}, the file's name says {workflow!r} ({lines['workflow']})")
    return Params(workflow, where, values, lines, tuple(problems))


def override(params: Params, assignments: Iterable[str]) -> Params:
    """`params` with `name=value` pairs from a command line laid over them; a value is read as YAML."""
    values, lines, problems = dict(params.values), dict(params.lines), list(params.problems)
    for assignment in assignments:
        name, equals, text = assignment.partition("=")
        if not equals:
            problems.append(f"--set {assignment} has no '=': --set name=value was expected")
            continue
        try:
            values[name] = yaml.load(text, LOADER)
        except (yaml.YAMLError, ValueError):  # ValueError: a date such as 2020-13-45
            values[name] = text
        lines[name] = f"--set {name}"
    if values.get("workflow", params.workflow) != params.workflow:
        problems.append("workflow cannot be changed by --set: name the other workflow instead")
    return Params(params.workflow, params.where, values, lines, tuple(problems))


def find_declarations(stages: Iterable[Stage]) -> dict[str, Declaration]:
    """Every parameter that any of the stages declares, by name."""
    return {name: declared for stage in stages for name, declared in stage.declarations.items()}


def convert(value: Any, declared: Declaration) -> Any:
    """`value` as its declaration wants it: one value stands for a list of one, a whole number for a float."""
    if declared.type.startswith("list") and isinstance(value, str | int | float) and not isinstance(value, bool):
        return [value] if value != "" else []
    if declared.type == "float" and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    return value


def check_value(value: Any, declared: Declaration) -> str | None:
    """What is wrong with a value, in words; None when it is fine."""
    if declared.type != "str" and find_secrets(value) and not declared.type.startswith("list[str]"):
        return f"{value!r} is a secret, and secrets are for strings only, not {declared.type}"
    try:
        type_adapter(declared.type).validate_python(value)
    except ValidationError:
        hint = " (quote it: YAML reads yes, no, on and off as booleans)" if isinstance(value, bool) else ""
        return f"{value!r} is {type(value).__name__}, {declared.type} was expected{hint}"
    open_ends = tuple(choice.split("<")[0] for choice in declared.choices if "<" in choice)  # as time:<column>
    for choice in map(str, value if isinstance(value, list | dict) else [value]) if declared.choices else []:
        if choice not in declared.choices and (choice.endswith(":") or not choice.startswith(open_ends)):
            close = did_you_mean(choice, declared.choices)
            return f"{choice!r} is none of {', '.join(declared.choices)}.{close}".rstrip(".")
    return check_range(value, declared)


def check_range(value: Any, declared: Declaration) -> str | None:
    """What is wrong with a number, or one of a list of numbers, that has a range."""
    low, high = declared.low, declared.high
    for number in value if isinstance(value, list) else [value]:
        is_number = isinstance(number, int | float)
        if is_number and ((low is not None and number < low) or (high is not None and number > high)):
            shown = "..".join("" if bound is None else f"{bound:.15g}" for bound in (low, high))
            return f"{number!r} is outside {shown} {declared.unit}".rstrip()
    return None


def check_run_settings(params: Params, stages: list[Stage]) -> tuple[RunSettings, list[str]]:
    """The runner's own settings, and what is wrong with them."""
    place, names = params.place("run"), {stage.name for stage in stages}
    try:
        settings = RunSettings.model_validate(params.values.get("run") or {})
    except ValidationError as error:
        found = {str(item["loc"][0]) if item["loc"] else "": item for item in error.errors()}
        return RunSettings(), [describe_run_problem(name, item, place) for name, item in found.items()]
    of_stages = {name: getattr(settings, name) for name in ("timeout", "notebooks")}
    named = [(name, stage) for name, value in of_stages.items() if isinstance(value, dict) for stage in value]
    return settings, [
        f"run.{name}: no stage {stage!r} ({place}).{did_you_mean(stage, names)}".rstrip(".")
        for name, stage in named
        if stage not in names
    ]


def describe_run_problem(name: str, item: Mapping[str, Any], place: str) -> str:
    """One of pydantic's complaints about `run:`, or about the setting of that name, in our words."""
    known = RunSettings.model_fields
    if item["type"] == "extra_forbidden":
        return f"no setting {name!r} under run ({place}).{did_you_mean(name, known)}".rstrip(".")
    meaning = known[name].description if name else "a mapping"
    return f"{f'run.{name}'.rstrip('.')}: {item['input']!r} is not {meaning} ({place})"


def find_unset(name: str, value: Any, place: str, settings: Mapping[str, str]) -> list[str]:
    """What is wrong with the secrets that a parameter's value refers to."""
    unset = sorted(secret for secret in find_secrets(value) if not settings.get(secret))
    return [f"{name}: the secret {secret!r} is not set ({place}); set it or .env" for secret in unset]


def check_params(
    params: Params, stages: list[Stage], settings: Mapping[str, str], *, tells: bool = False
) -> tuple[dict[str, Any], RunSettings]:
    """Every declared parameter's value, and the runner's settings. Raises ParameterError with all that is wrong.

    Only where people are told of what happens (`tells`) must the secrets of `run: notify` be set.
    """
    declared = find_declarations(stages)
    run, problems = check_run_settings(params, stages)
    problems = [*params.problems, *problems]
    problems += find_unset("run.notify", run.notify, params.place("run"), settings) if tells else []
    values = {name: declaration.default for name, declaration in declared.items()}
    for name, value in params.values.items():
        if name == "run":
            continue
        if name not in declared:
            hint = did_you_mean(name, declared)
            problems.append(f"no notebook has parameter {name!r} ({params.place(name)}).{hint}".rstrip("."))
            continue
        values[name] = convert(value, declared[name])
        if problem := check_value(values[name], declared[name]):
            problems.append(f"{name}: {problem} ({params.place(name)})")
        problems += find_unset(name, value, params.place(name), settings)
    if problems:
        raise ParameterError(describe_problems(params.where, problems))
    return values, run


def read_schema(stages: list[Stage]) -> dict[str, Any]:
    """JSON Schema of a params file, for editors."""
    properties: dict[str, Any] = {}
    for name, declared in find_declarations(stages).items():
        schema = type_adapter(declared.type).json_schema()
        if schema.get("type") == "array":
            schema = {"anyOf": [schema, schema.get("items", {})]}
        closed = declared.choices and not any("<" in choice for choice in declared.choices)
        limits = {"enum": list(declared.choices) if closed else None, "minimum": declared.low, "maximum": declared.high}
        meaning = f"{declared.meaning} [{declared.unit}]" if declared.unit else declared.meaning
        described = {**schema, "description": meaning, "default": declared.default}
        properties[name] = described | {limit: value for limit, value in limits.items() if value is not None}
    properties["run"] = RunSettings.model_json_schema()
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Pinmill params",
        "type": "object",
        "properties": properties,
        "additionalProperties": False,
    }
