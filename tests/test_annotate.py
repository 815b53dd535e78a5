"""People label in a real browser, in JupyterLab and in the app, and the next run trains on exactly what they said."""

from __future__ import annotations

import json
import re
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import nbformat
import pandas
import pytest
from axe_playwright_python.sync_playwright import Axe
from browsers import Place, open_app, open_lab, run_all
from nbclient import NotebookClient
from pinmill.annotations import current_labels
from pinmill.board import Board
from pinmill.project import open_project

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from conftest import Workplace
    from playwright.sync_api import Browser, Page

pytestmark = pytest.mark.browser
ROOT = ".pinmill-annotate >> nth=0"  # the screen to label on; below it may be the one to settle on
TEXTS = [f"{words} {n}" for n in range(12) for words in ("win a prize call me", "see you at lunch", "cheap thanks")]
SLOW = 60_000  # ms: this machine may be busy with other tests


class Screen:
    """The labelling screen on a page, as a person uses it."""

    def __init__(self, page: Page) -> None:
        self.page, self.root = page, page.locator(ROOT)

    def wait(self) -> str:
        """Wait for a text; it."""
        self.page.wait_for_selector(".pinmill-annotate[data-state=working]", timeout=SLOW)
        return self.text()

    def focus(self) -> str:
        """Wait for a text, and click beside it, as JupyterLab may still take the focus for a cell; the text."""
        shown = self.wait()
        self.root.locator(".pinmill-workflow").click()
        return shown

    def text(self) -> str:
        return self.root.locator(".pinmill-text").input_value()

    def says(self) -> str:
        return self.root.locator(".pinmill-status").inner_text()

    def _until_next(self, before: str) -> str:
        self.page.wait_for_function(
            "id => document.querySelector('.pinmill-annotate').dataset.id !== id", arg=before, timeout=SLOW
        )
        return self.says()

    def press(self, key: str) -> str:
        """Press a key, wherever the focus is, and wait for another text; what the screen says then."""
        before = self.root.get_attribute("data-id")
        self.page.keyboard.press(key)
        return self._until_next(before)

    def click(self, label: str) -> str:
        """Click on the button of a label, and wait for another text; what the screen says then."""
        before = self.root.get_attribute("data-id")
        self.root.locator(f"button[data-label='{json.dumps(label)}']").click()
        return self._until_next(before)

    def edit(self, text: str) -> None:
        self.root.locator(".pinmill-text").fill(text)
        self.page.keyboard.press("Escape")


def read_labels(workplace: Workplace) -> dict[str, Any]:
    """Text and label of all that counts in the store."""
    said = current_labels(open_project(workplace.root, {}).store.read_annotations("tiny"))
    return {record["text"]: label for record, label in zip(said["record"], said["label"], strict=True)}


def add_examples(workplace: Workplace) -> Workplace:
    """A project, once it has the examples, and a notebook set to its workflow."""
    pandas.DataFrame({"text": TEXTS}).to_csv(workplace.root / "new.csv", index=False)
    workplace.pinmill("examples", "add", "tiny", "new.csv")
    workplace.edit("annotate", 'workflow: str = "docstrings"', 'workflow: str = "tiny"')
    return workplace


@pytest.fixture
def place(trained: Workplace) -> Workplace:
    """A project with a champion, 36 examples to label, and the annotation notebook set to its workflow."""
    return add_examples(trained)


@pytest.fixture(scope="module")
def shared(trained_once: Workplace, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """An app over such a project, for tests that take whatever example comes."""
    folder = tmp_path_factory.mktemp("shared")
    with App.opened(add_examples(trained_once.copy(folder / "project")), folder) as running:
        yield running


class Lab:
    """How a person comes to the screen in JupyterLab: by Run All."""

    opened = staticmethod(open_lab)

    def __init__(self, running: Place) -> None:
        self.running = running

    def open(self, page: Page) -> str:
        page.goto(self.running.url, timeout=SLOW)
        page.get_by_text("Python 3 (ipykernel) | Idle").wait_for(timeout=SLOW)
        run_all(page)
        return Screen(page).focus()

    def reload(self, page: Page) -> str:
        """The page is loaded again while the kernel lives: what was saved with the notebook shows the screen."""
        with page.expect_response(lambda answer: answer.request.method == "PUT" and "annotate.ipynb" in answer.url):
            page.locator("[data-jp-item-name=save] >> nth=0").click()
        page.reload(timeout=SLOW)
        return Screen(page).focus()


class App:
    """How a person comes to the screen in the app: by a name."""

    def __init__(self, running: Place) -> None:
        self.running = running

    @staticmethod
    @contextmanager
    def opened(workplace: Workplace, folder: Path) -> Iterator[Place]:
        with open_app(workplace, "tiny", folder / "app.log") as running:
            yield running

    def open(self, page: Page, given: str = "ada") -> str:
        page.goto(self.running.url, wait_until="commit", timeout=SLOW)
        return self.sign_in(page, given)

    def sign_in(self, page: Page, given: str) -> str:
        page.locator(".pinmill-login input").fill(given, timeout=SLOW)
        page.keyboard.press("Enter")
        return Screen(page).wait()

    def reload(self, page: Page) -> str:
        page.reload(wait_until="commit", timeout=SLOW)
        return self.sign_in(page, "ada")


@pytest.mark.parametrize("door", [Lab, App])
def test_ten_texts_are_labelled_and_the_next_run_trains_on_exactly_those(door, place, tmp_path, browser: Browser):
    said: dict[str, str] = {}
    with door.opened(place, tmp_path) as running:
        page = browser.new_page()
        screen, way = Screen(page), door(running)
        way.open(page)
        for key, label in ("1", "ham"), ("2", "spam"), ("1", "ham"), ("2", "spam"), ("2", "spam"):
            said[screen.text()] = label
            assert screen.press(key) == f"Saved ✓ {label}"
        for label in ("spam", "ham", "spam", "ham"):
            said[screen.text()] = label
            assert screen.click(label) == f"Saved ✓ {label}"
        shown = screen.text()
        screen.edit(f"{shown}, said briefly")
        said[f"{shown}, said briefly"] = "ham"
        screen.press("1")
        wrong = screen.text()
        screen.press("1")
        assert (read_labels(place), screen.press("u"), screen.text()) == (
            said | {wrong: "ham"},
            "Undone ✓ Here it is again.",
            wrong,
        )
        skipped = screen.text()
        assert screen.press("s") == "Skipped ✓"
        assert read_labels(place) == said
        before = screen.text()
        assert way.reload(page) == before
        said[before] = "spam"
        screen.press("2")
        following = screen.text()
        running.kill_kernel()
        assert read_labels(place) == said  # it was saved before the screen said so
        page.close()
        page = browser.new_page()
        assert way.open(page) == following
        page.close()
    assert skipped not in said
    saved = (place.root / "notebooks/annotate.ipynb").read_text()
    assert [text for text in TEXTS if text in saved] == []  # not even where the notebook was saved with its outputs
    place.pinmill("run", "tiny")
    data = Board(place.root / "outputs/pins")
    table = data.read_table(data.pin("tiny-data"))
    new = table[table["text"].isin([*TEXTS, *said])]
    assert dict(zip(new["text"], new["label"], strict=True)) == said


def test_two_people_at_once_get_different_texts_and_do_not_see_each_others_labels(shared, browser: Browser):
    texts: dict[str, list[str]] = {}
    pages = {name: browser.new_page() for name in ("ada", "bob")}
    for name, page in pages.items():
        App(shared).open(page, name)
    for turn in range(5):
        for name, page in pages.items():
            screen = Screen(page)
            texts.setdefault(name, []).append(screen.text())
            screen.press("12"[turn % 2])
    assert len({*texts["ada"], *texts["bob"]}) == 10
    shown = pages["bob"].locator(ROOT).inner_text()
    assert "ada" not in shown
    for page in pages.values():
        page.close()


def test_keys_never_reach_the_command_mode_of_jupyterlab_nor_those_of_the_notebook_the_screen(place, tmp_path, browser):
    with open_lab(place, tmp_path) as running:
        page = browser.new_page()
        Lab(running).open(page)
        count = page.evaluate("document.querySelectorAll('.jp-Notebook-cell').length")
        screen = Screen(page)
        shown = screen.text()
        for key in ("a", "b", "d", "d", "m", "x", "v", "z", "0", "0", "Enter", "ArrowDown", "Shift+Enter", "Control+1"):
            page.keyboard.press(key)
        screen.press("1")  # the screen has the focus still
        assert [*read_labels(place)] == [shown]
        assert page.evaluate("document.querySelectorAll('.jp-Notebook-cell').length") == count
        shown = screen.text()
        page.keyboard.press("n")
        page.keyboard.type("1 2 s u ?")
        assert (screen.text(), screen.root.locator(".pinmill-note").input_value()) == (shown, "1 2 s u ?")
        page.locator(".jp-Notebook-cell .jp-InputPrompt").first.click()  # command mode, and away from the screen
        page.keyboard.press("2")
        page.keyboard.press("b")
        page.wait_for_function("n => document.querySelectorAll('.jp-Notebook-cell').length === n + 1", arg=count)
        assert (screen.text(), len(read_labels(place))) == (shown, 1)
        page.close()


def test_in_the_app_a_token_says_who_labels_and_what_one_may_see(place, tmp_path, browser: Browser):
    made = {}
    for role in ("scorer", "annotator", "modeller"):
        done = place.pinmill("token", "create", f"the-{role}", "--role", role)
        made[role] = re.search(r"pinmill_\S+", done.stdout)[0]
    with App.opened(place, tmp_path) as running:
        page, way = browser.new_page(), App(running)
        page.goto(running.url, wait_until="commit", timeout=SLOW)
        for wrong, told in ("pinmill_x", "opens nothing"), (made["scorer"], "has the role scorer"):
            page.locator(".pinmill-login input").fill(wrong, timeout=SLOW)
            page.keyboard.press("Enter")
            page.locator(".pinmill-status", has_text=told).wait_for(timeout=SLOW)
        assert page.locator(".pinmill-text:visible").count() == 0
        way.sign_in(page, made["annotator"])
        Screen(page).press("1")
        assert "What each person has done" not in page.locator("body").inner_text()
        assert made["annotator"] not in page.content()
        page.close()
        page = browser.new_page()
        way.open(page, made["modeller"])
        page.get_by_text("What each person has done").wait_for(timeout=SLOW)
        rows = page.locator("table", has_text="Person").locator("tbody tr").all_inner_texts()
        assert [row.split("\t")[:4] for row in rows] == [["the-annotator", "1", "1 ham", "0"]]
        page.close()
    assert not any(token in running.log.read_text() for token in made.values())


def test_the_app_asks_nobody_else_and_has_no_serious_barrier(shared, browser: Browser):
    for scheme, width in ("light", 1280), ("dark", 1280), ("light", 390):
        asked: list[str] = []
        page = browser.new_page(color_scheme=scheme, viewport={"width": width, "height": 900})
        page.on("response", lambda response, asked=asked: asked.append(response.url))
        App(shared).open(page)
        found = Axe().run(page, context=".pinmill-annotate").response["violations"]
        assert [(each["id"], each["help"]) for each in found if each["impact"] in ("serious", "critical")] == []
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        assert [url for url in asked if not url.startswith((shared.url, "data:", "blob:"))] == []
        page.close()


def execute(workplace: Workplace, workflow: str) -> nbformat.NotebookNode:
    """Run All without a screen."""
    notebook = nbformat.read(workplace.root / "notebooks/annotate.ipynb", as_version=4)
    cell = next(cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", []))
    cell.source = re.sub(r'workflow: str = "\w+"', f'workflow: str = "{workflow}"', cell.source)
    folder = workplace.root / "notebooks"
    client = NotebookClient(notebook, timeout=120, resources={"metadata": {"path": str(folder)}})
    return client.execute(env=workplace.environ(JPY_SESSION_NAME=str(folder / "annotate.ipynb")))


def test_run_all_shows_the_notebook_with_no_champion_and_no_examples_and_takes_no_example(workplace: Workplace) -> None:
    shown = json.dumps(execute(workplace, "tiny").cells)
    assert "Nobody has labelled anything yet" in shown
    assert "Examples to label | 0" in shown
    assert not (workplace.root / "outputs/pinmill.sqlite").exists()


def test_run_all_of_a_table_s_workflow_shows_its_labels(workplace: Workplace, tmp_path: Path, browser: Browser) -> None:
    rows = [{"age": n % 60, "city": ["Oslo", "Rome"][n % 2], "answer": ["no", "yes"][n % 3 == 0]} for n in range(150)]
    table = pandas.DataFrame(rows)
    table.to_csv(workplace.root / "people.csv", index=False)
    notebooks = "run: {notebooks: {train: notebooks/02-train-tabular.ipynb}}"
    text = f"workflow: people\nsource: people.csv\nlabel: answer\ncv: 0\ndraws: 20\ngate_min_n: 10\n{notebooks}\n"
    workplace.params(text, "people")
    workplace.pinmill("run", "people", code=None)
    fresh = pandas.DataFrame({"age": [91, 92], "city": ["Oslo", "Rome"]})
    fresh.to_csv(workplace.root / "new.csv", index=False)
    workplace.pinmill("examples", "add", "people", "new.csv")
    assert "no, yes" in json.dumps(execute(workplace, "people").cells)
    with open_app(workplace, "people", tmp_path / "app.log") as running:
        page = browser.new_page()
        page.goto(running.url, wait_until="commit", timeout=SLOW)
        page.locator(".pinmill-login input").fill("ada", timeout=SLOW)
        page.keyboard.press("Enter")
        page.wait_for_selector(".pinmill-record:visible", timeout=SLOW)
        cells = page.locator(".pinmill-record tr").all_inner_texts()
        assert [cell.split("\t") for cell in cells] in (
            [["age", n], ["city", c]] for n, c in (("91", "Oslo"), ("92", "Rome"))
        )
        Screen(page).press("2")
        said = open_project(workplace.root, {}).store.read_annotations("people")
        assert said[["annotator", "label"]].to_numpy().tolist() == [["ada", "yes"]]
        page.close()
