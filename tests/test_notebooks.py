"""The real notebooks: how they stand in git, and that a person's Run All gives what the scheduled run gives."""

import ast
import html
import importlib
import json
import os
import re
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

import nbformat
import pytest
import yaml
from nbclient import NotebookClient
from pinmill.board import Board
from pinmill.champion import read_champion
from pinmill.metrics import LOSSES, METRICS
from pinmill.notebook import parse_declarations, read_cells, read_front_matter, read_stage, read_stages, read_tags

ROOT = Path(__file__).resolve().parent.parent
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
STAGES = [path for path in NOTEBOOKS if read_stage(path)]
TEXT_STAGES = [stage.stem for stage in read_stages(ROOT / "notebooks") if stage.job == "train"]
LONGEST = 16  # lines of a code cell: what a screen shows with its output
LONGEST_LIST = 24  # what has one thing on each line: the parameters, and the call that writes a pin with its facts
FORBIDDEN = re.compile(r"sys\.path|!\s*pip|%\s*pip|%\s*(auto)?reload|%load_ext autoreload|filterwarnings|simplefilter")
ABSOLUTE = re.compile(r"""["'](/(home|Users|root|tmp|work|mnt|opt|etc|var|data)\b|~/|[A-Za-z]:\\)""")

OPTION = "#| "  # begins a line of YAML that Quarto and our own page read: the label, caption and text of a figure
MARKS = set("\"'`[]{}()<>\\@$*_|")  # what a Markdown reader could take for a sign, in a caption

each_notebook = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


def code_of(path: Path) -> list[str]:
    return [cell["source"] for cell in read_cells(path) if cell["cell_type"] == "code"]


def read_options(source: str) -> dict[str, str]:
    """The cell options, which stand before all code."""
    lines = source.splitlines()
    options = [line.removeprefix(OPTION) for line in lines if line.startswith(OPTION)]
    assert [line.startswith(OPTION) for line in lines[: len(options)]] == [True] * len(options), source
    return yaml.safe_load("\n".join(options)) or {}


def python_of(source: str) -> ast.Module:
    """A cell's syntax tree, its magics left out."""
    return ast.parse("\n".join(line for line in source.splitlines() if not line.lstrip().startswith(("%", "!"))))


def test_there_are_the_four_stages_of_the_train_job() -> None:
    stages = [stage.stem for stage in read_stages(ROOT / "notebooks") if stage.job == "train"]
    assert stages == ["01-prepare", "02-train", "03-evaluate", "04-model-card"]


@each_notebook
def test_outputs_are_stripped_and_only_tags_are_kept(path: Path) -> None:
    notebook = json.loads(path.read_text())
    nbformat.validate(nbformat.from_dict(notebook))
    assert set(notebook["metadata"]) <= {"kernelspec", "language_info"}
    for cell in notebook["cells"]:
        assert set(cell["metadata"]) <= {"tags"}
        if cell["cell_type"] == "code":
            assert (cell["outputs"], cell["execution_count"]) == ([], None)


@each_notebook
def test_it_opens_with_front_matter_title_parameters_and_start(path: Path) -> None:
    cells = read_cells(path)
    front = read_front_matter(cells, path.name)
    assert cells[0]["cell_type"] == "raw"
    assert {"title", "subtitle", "format"} <= set(front)
    assert cells[1]["cell_type"] == "markdown"
    tagged = [number for number, cell in enumerate(cells) if "parameters" in read_tags(cell)]
    assert tagged == [2]
    parse_declarations(cells[2]["source"])
    assert "run = pinmill.start(globals())" in cells[3]["source"].splitlines()


@each_notebook
def test_it_has_one_h1_a_promise_and_what_it_reads_writes_and_takes(path: Path) -> None:
    cells = read_cells(path)
    text = "\n\n".join(cell["source"] for cell in cells if cell["cell_type"] == "markdown")
    assert len(re.findall(r"^# ", text, flags=re.MULTILINE)) == 1
    title, promise, *rest = [block for block in cells[1]["source"].split("\n\n") if block.strip()]
    assert title.startswith("# ")
    assert re.fullmatch(r"[A-Z][^\n]+\.", promise)
    for word in ("Reads", "Writes", "Takes"):
        assert f"**{word}**" in "\n".join(rest), word


@each_notebook
def test_code_cells_are_short(path: Path) -> None:
    for source in code_of(path):
        is_list = "run.write_" in source or 'workflow: str = "docstrings"' in source
        code = [line for line in source.splitlines() if not line.startswith(OPTION)]  # options are a figure's words
        assert len(code) <= (LONGEST_LIST if is_list else LONGEST), source


@each_notebook
def test_each_figure_has_a_label_of_its_own_a_caption_and_words_for_who_cannot_see_it(path: Path) -> None:
    figures = [read_options(source) for source in code_of(path) if "plt.show()" in source]
    assert [set(options) for options in figures] == [{"label", "fig-cap", "fig-alt"}] * len(figures)
    labels = [options["label"] for options in figures]
    assert [label for label in labels if labels.count(label) > 1 or not re.fullmatch(r"fig-[a-z0-9-]+", label)] == []
    told = [options[name] for options in figures for name in ("fig-cap", "fig-alt")]
    assert [text for text in told if MARKS & set(text) or not re.fullmatch(r"[A-Z].+\.", text)] == []
    prose = "\n".join(cell["source"] for cell in read_cells(path) if cell["cell_type"] == "markdown")
    assert set(re.findall(r"@(fig-[a-z0-9-]+)", prose)) <= set(labels)


@pytest.mark.parametrize(
    ("stem", "page"),
    [
        ("01-prepare", "data"),
        ("02-train", "training"),
        ("02-train-tabular", "training"),
        ("03-evaluate", "evaluation"),
        ("04-model-card", "model-card"),
        ("05-monitor", "monitoring"),
        ("06-score", "scores"),
    ],
)
def test_a_page_has_a_name_one_summary_and_at_its_end_where_it_comes_from(stem: str, page: str) -> None:
    path = ROOT / "notebooks" / f"{stem}.ipynb"
    cells = read_cells(path)
    assert read_stage(path).page == page
    assert sum("summary" in read_tags(cell) for cell in cells) == 1
    assert [number for number, cell in enumerate(cells) if "appendix" in read_tags(cell)] == [3]
    assert cells[3]["source"].splitlines()[-1] == "run"


@each_notebook
def test_nothing_stands_there_that_belongs_elsewhere(path: Path) -> None:
    for source in code_of(path):
        assert not FORBIDDEN.search(source), source
        assert not ABSOLUTE.search(source), source
        for node in ast.walk(python_of(source)):
            assert not isinstance(node, ast.ClassDef), source
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                assert node.end_lineno - node.lineno < 5, source


@each_notebook
def test_every_import_can_be_had(path: Path) -> None:
    for source in code_of(path):
        for node in ast.walk(python_of(source)):
            if isinstance(node, ast.Import):
                for name in node.names:
                    importlib.import_module(name.name)
            elif isinstance(node, ast.ImportFrom):
                module = importlib.import_module(node.module)
                for name in node.names:
                    if not hasattr(module, name.name):
                        importlib.import_module(f"{node.module}.{name.name}")


def test_a_name_in_two_notebooks_has_the_same_type_default_and_text() -> None:
    contracts = defaultdict(lambda: defaultdict(list))
    for path in STAGES:
        for name, declared in read_stage(path).declarations.items():
            contracts[name][repr(declared)].append(path.stem)
    assert {name: dict(found) for name, found in contracts.items() if len(found) > 1} == {}


def test_every_workflow_in_params_passes_the_check(tmp_path: Path) -> None:
    environ = {name: value for name, value in os.environ.items() if not name.startswith("PINMILL_")}
    for file in sorted((ROOT / "params").glob("*.yaml")):
        done = subprocess.run(
            [Path(sys.executable).with_name("pinmill"), "params", file.stem],
            cwd=ROOT, env=environ, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr


def run_all(workplace, notebook: nbformat.NotebookNode, stem: str, **environ: str) -> nbformat.NotebookNode:
    """Execute the cells in order as JupyterLab does: in notebooks/, in a kernel that knows its notebook's name."""
    folder = workplace.root / "notebooks"
    client = NotebookClient(notebook, kernel_name="python3", timeout=300, resources={"metadata": {"path": str(folder)}})
    return client.execute(env=workplace.environ(JPY_SESSION_NAME=str(folder / f"{stem}.ipynb"), **environ))


def edit(workplace, stem: str, *replacements: tuple[str, str]) -> nbformat.NotebookNode:
    """A notebook with words of its parameters cell replaced, as a person does on the screen."""
    notebook = nbformat.read(workplace.root / "notebooks" / f"{stem}.ipynb", as_version=4)
    cell = next(cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", []))
    for old, new in replacements:
        assert cell.source.count(old) == 1, (old, cell.source)
        cell.source = cell.source.replace(old, new)
    return notebook


TINY = ('workflow: str = "docstrings"', 'workflow: str = "tiny"')


@pytest.fixture(scope="module")
def by_hand(trained_once, tmp_path_factory):
    """Each notebook, run by Run All on a project like that of `trained_once`: (project, executed notebooks)."""
    workplace = trained_once.copy(tmp_path_factory.mktemp("by_hand") / "project")
    subprocess.run(["rm", "-r", workplace.root / "outputs", workplace.root / "reports"], check=True)
    return workplace, {stem: run_all(workplace, edit(workplace, stem, TINY), stem) for stem in TEXT_STAGES}


def board_of(workplace) -> Board:
    return Board(workplace.root / "outputs" / "pins")


@pytest.mark.parametrize("kind", ["data", "model"])
def test_run_all_gives_the_bytes_of_the_scheduled_run(by_hand, trained_once, kind: str) -> None:
    hand, scheduled = (board_of(workplace).pin(f"tiny-{kind}") for workplace in (by_hand[0], trained_once))
    assert hand.sha256 == scheduled.sha256
    assert (hand.lineage["run"][:6], scheduled.lineage["run"][:6] == "adhoc-") == ("adhoc-", False)
    same = ("stage", "parameters", "seed", "lock", "code", "packages")
    assert {name: hand.lineage[name] for name in same} == {name: scheduled.lineage[name] for name in same}


def test_run_all_gives_the_scores_and_the_decision_of_the_scheduled_run(by_hand, trained_once) -> None:
    hand, scheduled = (
        board.read_json(board.pin("tiny-metrics")) for board in map(board_of, (by_hand[0], trained_once))
    )
    assert hand == scheduled


def test_run_all_reads_what_the_notebook_before_it_wrote(by_hand) -> None:
    board = board_of(by_hand[0])
    read = {pin["kind"]: pin["version"] for pin in board.pin("tiny-metrics").lineage["inputs"]}
    assert read == {"data": board.latest("tiny-data"), "model": board.latest("tiny-model")}


def test_run_all_moves_no_champion_and_shows_the_line_that_would(by_hand) -> None:
    workplace, executed = by_hand
    board = board_of(workplace)
    assert read_champion(board, "tiny") is None
    shown = json.dumps(executed["03-evaluate"].cells)
    assert f"pinmill promote tiny {board.latest('tiny-model')}".replace("-", "") in re.sub(r"&#\d+;|[-\\]", "", shown)


def test_run_all_warns_of_nothing_and_shows_a_result_below_most_cells(by_hand) -> None:
    for stem, notebook in by_hand[1].items():
        outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
        assert [o.text for o in outputs if o.output_type == "stream" and o.name == "stderr"] == [], stem
        assert [o for o in outputs if o.output_type == "error"] == []
        assert outputs


def test_the_summaries_say_what_the_pins_hold(by_hand) -> None:
    board, executed = board_of(by_hand[0]), by_hand[1]
    told = {}
    for stem, notebook in executed.items():
        (cell,) = [cell for cell in notebook.cells if "summary" in cell.metadata.get("tags", [])]
        (output,) = cell.outputs
        told[stem] = html.unescape(output.data["text/markdown"])
    data, model = board.pin("tiny-data").facts, board.pin("tiny-model").facts
    split = f"{data['train']} train the model and {data['test']} test it"
    assert told["01-prepare"] == f"Of 240 rows from tiny.csv, {split}; none were left out."
    score, took = sum(model["cv_scores"]["roc_auc"]) / 2, rf"trained on {data['train']} rows in [\d.]+ seconds"
    folds = re.escape(f"In cross-validation within these rows, its ROC AUC was {score:.3f}, the mean of 2 folds.")
    assert re.fullmatch(rf"A linear model that weighs words and pieces of words, {took}\. {folds}", told["02-train"])
    results = board.read_json(board.pin("tiny-metrics"))
    ours, guess = ({row["metric"]: row["value"] for row in results[part]} for part in ("metrics", "baseline"))
    better = sum((ours[name] < guess[name]) == (name in LOSSES) for name in ours)
    gains = f"better than a guess on {better} and worse on {8 - better} of 8 metrics"  # recall: the guess says spam
    assert results["gains"] == gains
    assert told["03-evaluate"] == f"{gains.capitalize()}; there is no champion to compare with yet."
    assert told["04-model-card"].startswith("This model predicts `label`, one of 2 classes (")
    assert told["04-model-card"].endswith(f" It is {gains}. ROC AUC decides, and all that is asked is met.")


def test_figures_are_svg_and_tables_are_markdown(by_hand) -> None:
    kinds = {mime for notebook in by_hand[1].values() for cell in notebook.cells for output in cell.get("outputs", [])
             for mime in output.get("data", {})}  # fmt: skip
    assert {"image/svg+xml", "text/markdown"} <= kinds
    assert "text/html" not in kinds  # Quarto would ask a CDN for require.js and jQuery


def test_plain_papermill_gives_the_same_bytes(trained_once, tmp_path: Path) -> None:
    workplace = trained_once.copy(tmp_path / "project")
    command = [Path(sys.executable).with_name("papermill"), "notebooks/01-prepare.ipynb", tmp_path / "out.ipynb"]
    subprocess.run(
        [*command, "-f", "params/tiny.yaml", "-p", "title", "By hand", "--no-progress-bar"],
        cwd=workplace.root, env=workplace.environ(), check=True, capture_output=True,
    )  # fmt: skip
    hand, scheduled = board_of(workplace).pin("tiny-data"), board_of(trained_once).pin("tiny-data")
    assert hand.version != scheduled.version
    assert hand.sha256 == scheduled.sha256
    assert hand.title == "By hand: data"


SHOW = "import json; print(json.dumps([run.workflow, test_fraction, run.origins['test_fraction'], label, run.origins['label']]))"  # noqa: E501
START = "import pinmill\n\nrun = pinmill.start(globals())"


def test_an_edited_parameters_cell_wins_over_the_params_file_also_when_it_was_saved(workplace) -> None:
    """One kernel, and a person who edits and runs the first cells of 01-prepare again and again."""
    for name, fraction in (("tiny", 0.3), ("other", 0.25)):
        workplace.params(f"workflow: {name}\nsource: tiny.csv\ntext: text\ntest_fraction: {fraction}\n", name)
    identity = ["-c", "user.name=t", "-c", "user.email=t@localhost"]
    for words in (["init", "-q"], ["add", "."], [*identity, "commit", "-q", "-m", "first"]):
        subprocess.run(["git", *words], cwd=workplace.root, check=True)
    saved = edit(workplace, "01-prepare", TINY, ("test_fraction: float = 0.2", "test_fraction: float = 0.4"))
    nbformat.write(saved, workplace.root / "notebooks" / "01-prepare.ipynb")

    def cell(workflow: str, fraction: float) -> str:
        pairs = [('workflow: str = "tiny"', f'workflow: str = "{workflow}"'), ("= 0.4", f"= {fraction}")]
        edited = edit(workplace, "01-prepare", *pairs)
        return next(cell.source for cell in edited.cells if "parameters" in cell.metadata.get("tags", []))

    rounds = [cell("tiny", 0.4), cell("tiny", 0.2), cell("tiny", 0.45), cell("other", 0.2), cell("other", 7.0)]
    cells = [nbformat.v4.new_code_cell(source) for parameters in rounds for source in (parameters, START, SHOW)]
    cells[-2].metadata["tags"] = ["raises-exception"]
    notebook = nbformat.v4.new_notebook(cells=cells[:-1])
    executed = run_all(workplace, notebook, "01-prepare")
    shown = [json.loads(cell.outputs[0].text) for cell in executed.cells[2::3]]
    assert shown == [
        ["tiny", 0.4, "edited", "label", "default"],  # edited and saved
        ["tiny", 0.3, "params file", "label", "default"],  # as committed
        ["tiny", 0.45, "edited", "label", "default"],  # edited, not saved
        ["other", 0.25, "params file", "label", "default"],  # another workflow: one word
    ]
    error = executed.cells[-1].outputs[-1]
    assert (error.ename, error.evalue) == (
        "ParameterError",
        "1 problem in params/other.yaml: test_fraction: 7.0 is outside 0.01..0.9 (01-prepare, parameter test_fraction)",
    )


def test_metrics_to_choose_from_are_those_that_there_are() -> None:
    declared = read_stage(ROOT / "notebooks" / "03-evaluate.ipynb").declarations
    assert set(declared["metrics"].choices) == set(declared["thresholds"].choices) == set(METRICS)


def test_several_texts_of_which_some_are_missing_train(workplace) -> None:
    rows = [f"t{n} {'good' if n % 2 else 'bad'},{'more' if n % 3 else ''},{n % 2}" for n in range(120)]
    (workplace.root / "two.csv").write_text("\n".join(["title,body,label", *rows]) + "\n")
    workplace.params("workflow: two\nsource: two.csv\ntext: [title, body]\ncv: 0\ndraws: 20\n", "two")
    workplace.pinmill("run", "two")
    assert workplace.json("predict", "two", '{"title": "good", "body": "more"}')["label"] == 1
