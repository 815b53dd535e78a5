"""The run that a notebook takes part in: its parameters, its exact inputs, and the pins it writes."""

import getpass
import json
import os
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pinmill.board import Board, Pin
from pinmill.cell import find_stage, read_committed_defaults
from pinmill.champion import Champion, read_champion
from pinmill.errors import BoardError, IntegrityError, PinmillError, PinNotFoundError, ProjectError
from pinmill.lineage import read_lineage
from pinmill.lock import check_held
from pinmill.notebook import Stage, read_stage
from pinmill.params import check_params, convert, fill_variables
from pinmill.plan import load_workflow, read_notebooks
from pinmill.project import Project, open_project
from pinmill.runs import is_scheduled, make_run_id
from pinmill.secret import find_secrets, hidden_values, reveal, scrub
from pinmill.version import now_utc

if TYPE_CHECKING:
    import pandas as pd

    from pinmill.gate import Decision
    from pinmill.markdown import Markdown
    from pinmill.source import Raw

OUTSIDE = "source"  # in a stage's `reads`: what lies outside the board
INPUT = "input"  # in a stage's `reads`: a table to be scored; such a stage always runs
CHAMPION = "champion"  # in a stage's `reads`: the champion at the time, if there is one
CALLS = "calls"  # in a stage's `reads`: what the store holds of a service's calls; such a stage always runs
NO_PINS = (OUTSIDE, INPUT, CHAMPION, CALLS)


@dataclass(frozen=True)
class Run:
    """What `pinmill.start` returns: the door between a notebook and its project."""

    id: str
    workflow: str
    stage: Stage
    project: Project
    parameters: Mapping[str, Any]
    origins: Mapping[str, str]
    inputs: Mapping[str, Pin]
    champion: Champion | None = None
    lock: Path | None = None
    outside: list[dict[str, Any]] = field(default_factory=list)

    @property
    def board(self) -> Board:
        return self.project.board

    @property
    def scheduled(self) -> bool:
        """Whether the runner started this, so that it may move the champion afterwards."""
        return self.lock is not None

    def pin(self, kind: str) -> Pin:
        """The exact version of an input that this run was given. Raises ProjectError for one it does not read."""
        if kind not in self.inputs:
            raise ProjectError(f"{self.stage.stem} does not read {kind!r}: add it to 'reads' in its first cell.")
        return self.inputs[kind]

    def read_table(self, kind: str, *, columns: list[str] | None = None) -> "pd.DataFrame":
        """The verified table of an input pin."""
        return self.board.read_table(self.pin(kind), columns=columns)

    def read_json(self, kind: str) -> Any:
        """The verified value of an input pin."""
        return self.board.read_json(self.pin(kind))

    def read_model(self, kind: str = "model") -> Any:
        """The verified model of an input pin, loaded through the allow-list of types."""
        from pinmill.model import load_model

        return load_model(self.board.read_file(self.pin(kind)))

    def read_champion_pin(self) -> Pin | None:
        """The pin of the champion at the time; None when there is no champion. Raises IntegrityError."""
        if self.champion is None:
            return None
        pin = self.board.pin(f"{self.workflow}-model", self.champion.version)
        if pin.sha256 != self.champion.sha256:
            raise IntegrityError(f"the champion {pin.version} is not the model that was promoted: its SHA-256 differs.")
        return pin

    def read_champion_model(self) -> Any | None:
        """The champion's model at the time; None when there is no champion."""
        from pinmill.model import load_model

        pin = self.read_champion_pin()
        return None if pin is None else load_model(self.board.read_file(pin))

    def read_champion_training(self) -> Pin | None:
        """The data pin with the rows that the champion was trained on; None when it is gone or unknown."""
        pin = self.read_champion_pin()
        given = [i for i in pin.lineage["inputs"] if i["kind"] == "data"] if pin else []
        try:
            return self.board.pin(given[0]["name"], given[0]["version"]) if given else None
        except PinNotFoundError:
            return None

    def read_former(self, kind: str) -> Pin | None:
        """The newest pin of a kind that this stage writes, as a scheduled run before this one left it; None for none.

        Recorded as an input of what is written. A damaged version is warned of and passed over: a history that is a
        version shorter can be filled again from what it was made of, and a page that does not come tells nobody.
        """
        name = self._name(kind)
        for version in reversed(self.board.versions(name)):
            if problems := self.board.verify(name, version):
                warnings.warn(f"passed over: {'; '.join(problems)}", stacklevel=2)
                continue
            pin = self.board.pin(name, version)
            author = str(pin.lineage.get("run", ""))
            if author != self.id and is_scheduled(author):
                self.outside.append({"kind": kind, "name": name, "version": version, "sha256": pin.sha256})
                return pin
        return None

    def read_source(self, source: str, *, query: str = "", sha256: str = "", address: str = "") -> "Raw":
        """The raw table from outside, with secrets filled in; recorded as an input of what is written."""
        from pinmill.source import read_source

        hidden = hidden_values(find_secrets(source), self.project.settings)
        try:
            raw = read_source(
                reveal(source, self.project.settings),
                query=reveal(query, self.project.settings),
                sha256=sha256,
                address=address,
                root=self.project.root,
                board=self.board,
            )
        except PinmillError as error:
            raise type(error)(scrub(str(error), hidden)) from None
        raw = replace(raw, description=scrub(raw.description, hidden))
        self.outside.append({"kind": OUTSIDE, "name": source, "version": None, "sha256": raw.sha256})
        return raw

    def read_annotations(self) -> "pd.DataFrame":
        """What people said of inputs of this workflow, as the store has it; recorded as an input of what is written."""
        import pandas as pd

        said = self.project.store.read_annotations(self.workflow) if self.project.has_store else pd.DataFrame()
        if len(said):
            newest = str(said["id"].max())
            self.outside.append({"kind": "annotations", "name": self.workflow, "version": newest, "sha256": None})
        return said

    def add_examples(self, rows: "pd.DataFrame") -> int:
        """Have rows (as `annotations.read_examples` gives them) wait for a person's label; how many are new."""
        kept, now = rows[["hash", "record"]].to_dict("list"), now_utc()
        about = {"hashes": kept["hash"], "origin": "the source", "when": now}
        return self.project.store.add_examples(self.workflow, kept["record"], **about)[0]

    def lineage(self) -> dict[str, Any]:
        """Where everything that this run writes comes from."""
        inputs = [
            {"kind": kind, "name": pin.name, "version": pin.version, "sha256": pin.sha256}
            for kind, pin in self.inputs.items()
        ]
        return read_lineage(
            self.project.root,
            run=self.id,
            stage=self.stage.stem,
            inputs=[*self.outside, *inputs],
            parameters=dict(self.parameters),
            seed=self.parameters.get("seed"),
        ) | {"code": self.stage.code_hash, "by": getpass.getuser()}

    def write_table(self, kind: str, frame: "pd.DataFrame", **facts: Any) -> Pin:
        """Write a table as the next version of a pin that this stage writes, with facts about it."""
        return self.board.write_table(self._name(kind), frame, **self._about(kind, facts))

    def write_json(self, kind: str, value: Any, **facts: Any) -> Pin:
        """Write a plain value as the next version of a pin that this stage writes, with facts about it."""
        return self.board.write_json(self._name(kind), value, **self._about(kind, facts))

    def write_model(self, model: Any, kind: str = "model", **facts: Any) -> Pin:
        """Write a fitted model, without pickle, as the next version of a pin that this stage writes."""
        from pinmill.model import save_model

        name = self._name(kind)
        return self.board.write_file(name, save_model(model), file_name="model.skops", **self._about(kind, facts))

    def show_decision(self, decision: "Decision", version: str) -> "Markdown":
        """The gate's decision about a model version and, outside the runner, how to act on it."""
        from pinmill.card import in_words
        from pinmill.markdown import callout

        verdict = "passes the gate" if decision.passed else "does not pass the gate"
        text = f"Candidate {version} {verdict}. {in_words(' '.join(decision.reasons))}"
        if decision.passed and not self.scheduled:
            text += f" To make it the champion: pinmill promote {self.workflow} {version} --why '…'"
        title = "Passed" if decision.passed else "Rejected"
        return callout(text, kind="tip" if decision.passed else "warning", title=title)

    def _name(self, kind: str) -> str:
        if kind not in self.stage.writes:
            raise ProjectError(f"{self.stage.stem} does not write {kind!r}: add it to 'writes' in its first cell.")
        return f"{self.workflow}-{kind}"

    def _about(self, kind: str, facts: dict[str, Any]) -> dict[str, Any]:
        title = f"{self.parameters.get('title') or self.workflow}: {kind}"
        return {"facts": facts, "lineage": self.lineage(), "title": title, "guard": self._guard}

    def _guard(self) -> None:
        if self.lock is not None:
            check_held(self.lock, self.id)

    def _repr_markdown_(self) -> str:
        """Run, parameters with where each comes from, and exact inputs, as Markdown."""
        from pinmill.card import FOLDERS
        from pinmill.markdown import escape, join, table

        names, pins = self.stage.declarations, self.inputs.items()
        shown = self.parameters | {"source": FOLDERS.sub("", self.parameters.get("source") or "")}
        rows = [{"parameter": n, "value": shown[n], "from": self.origins[n]} for n in names]
        inputs = [{"input": kind, "version": pin.version, "SHA-256": pin.sha256[:12]} for kind, pin in pins]
        said = f"Run {self.id} of workflow {self.workflow}."
        return join(escape(said), table(rows), table(inputs) if inputs else "")


def warm_up() -> None:
    """Import ahead what a stage will import, in a kernel that was started early; failures show up in the stage."""
    for line in os.environ.get("PINMILL_WARM", "").splitlines():
        try:
            exec(line, {})
        except Exception:  # the stage's own import will tell
            continue


def find_inputs(board: Board, stage: Stage, workflow: str) -> dict[str, Pin]:
    """The last committed version of each pin that a stage reads. Raises PinNotFoundError."""
    kinds = [kind for kind in stage.reads if kind not in NO_PINS]
    return {kind: board.pin(f"{workflow}-{kind}") for kind in kinds}


def take_parameters(project: Project, stage: Stage, names: Mapping[str, Any], injected: set[str]) -> tuple[dict, dict]:
    """Values for a stage outside the runner, and where each comes from: default < params file < injected or edited."""
    committed = read_committed_defaults(stage, project.root)
    given = {name: names[name] for name in stage.declarations if name in names}
    chosen = {name: value for name, value in given.items() if name in injected or value != committed.get(name)}
    workflow = given["workflow"]
    params = load_workflow(project, workflow)
    lines = {name: f"{stage.stem}, parameter {name}" for name in chosen}
    chosen = {n: fill_variables(v, project.settings) if isinstance(v, str) else v for n, v in chosen.items()}
    merged = replace(params, values=params.values | chosen, lines=params.lines | lines)
    values, _ = check_params(merged, [*read_notebooks(project, params), stage], project.settings)
    origins = dict.fromkeys(stage.declarations, "default") | dict.fromkeys(params.values, "params file")
    origins |= {name: "injected" if name in injected else "edited" for name in chosen}
    return {name: values[name] for name in stage.declarations}, origins


def start_scheduled(project: Project, names: Mapping[str, Any], environ: Mapping[str, str]) -> Run:
    """The run as the runner handed it over: run id and exact input versions by environment, values injected."""
    stage = read_stage(project.root / environ["PINMILL_STAGE"])
    if stage is None:
        raise ProjectError(f"{environ['PINMILL_STAGE']} is not a stage.")
    values = {name: convert(names[name], declared) for name, declared in stage.declarations.items()}
    workflow = values["workflow"]
    versions = json.loads(environ["PINMILL_INPUTS"])
    champion = read_champion(project.board, workflow) if CHAMPION in stage.reads else None
    return Run(
        id=environ["PINMILL_RUN"],
        workflow=workflow,
        stage=stage,
        project=project,
        parameters=values,
        origins=json.loads(environ["PINMILL_ORIGINS"]),
        inputs={kind: project.board.pin(f"{workflow}-{kind}", version) for kind, version in versions.items()},
        champion=champion,
        lock=Path(environ["PINMILL_LOCK"]),
    )


def start_adhoc(project: Project, names: Mapping[str, Any], environ: Mapping[str, str]) -> Run:
    """A run by hand: in JupyterLab, by plain papermill or by Quarto. Inputs are the last committed versions."""
    stage, injected = find_stage(project.root, names.get("In") or [], environ)
    values, origins = take_parameters(project, stage, names, injected)
    workflow = values["workflow"]
    try:
        inputs = find_inputs(project.board, stage, workflow)
    except BoardError as error:
        raise type(error)(
            f"{error} {stage.stem} reads it: run the notebooks before it, or: pinmill run {workflow}"
        ) from None
    return Run(
        id=f"adhoc-{make_run_id(now_utc())}",
        workflow=workflow,
        stage=stage,
        project=project,
        parameters=values,
        origins=origins,
        inputs=inputs,
        champion=read_champion(project.board, workflow) if CHAMPION in stage.reads else None,
    )


def start(names: dict[str, Any]) -> Run:
    """Begin a stage: `run = pinmill.start(globals())`, in the cell after the parameters.

    Finds the project, fills the parameters into `names` (notebook defaults < params file < injected or edited),
    resolves the exact inputs once, and makes the project's root the working directory.
    Raises ParameterError with all violations at once, ProjectError, or PinNotFoundError.
    """
    project = open_project(environ=os.environ)
    scheduled = bool(os.environ.get("PINMILL_RUN"))
    run = (start_scheduled if scheduled else start_adhoc)(project, names, os.environ)
    names.update(run.parameters)
    os.chdir(project.root)
    draw_figures_as_svg()
    return run


def draw_figures_as_svg() -> None:
    """Ask Jupyter for SVG figures: sharp on every screen, and small."""
    import sys

    if "IPython" in sys.modules and (shell := sys.modules["IPython"].get_ipython()):
        shell.config.InlineBackend.figure_formats = {"svg"}
