"""The screen: what it says to whom, in Python alone, and in real JupyterLab and Voilà by keyboard and mouse."""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import socket
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
import nbformat
import psutil
import pytest
from axe_playwright_python.sync_playwright import Axe
from memory_seat import TEXTS, MemorySeat, ask, sign_in, talk
from pinmill.widget import Annotator
from waiting import wait_until

if TYPE_CHECKING:
    from playwright.sync_api import Page

SLOW = 60_000  # ms: this machine may be busy with other tests
RIGHT_AGE = {"age": 41, "job": "free lunch", "balance": -1250.5, "loan": None, "married": True}


def read_labels(folder: Path) -> list[dict]:
    file = folder / "labels.jsonl"
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


def test_who_opens_the_screen_is_shown_the_first_example_and_nobody_elses(tmp_path):
    first, shown = talk(Annotator(MemorySeat(folder=tmp_path)), ask("hello", request="r"))
    assert (first["state"], first["request"]) == ("loading", "r")
    assert {name: shown[name] for name in ("state", "labels", "workflow", "annotator", "problem")} == {
        "state": "working",
        "labels": ["ham", "spam"],
        "workflow": "spam",
        "annotator": "ann",
        "problem": "",
    }
    item = shown["item"]
    assert item["id"] == "id-0"
    assert item["text"] == TEXTS[0]
    # pushes sum to 2 × 1.2 + 0.8 - 1.0 - 0.7 = 1.5, and 1 / (1 + e^-1.5) is 0.8176
    assert item["prediction"]["label"] == "spam"
    assert item["prediction"]["shares"] == pytest.approx([0.1824, 0.8176], abs=1e-4)
    marked = {(each["start"], each["end"]): each["push"] for each in item["spans"]}
    assert marked == pytest.approx({(6, 10): 2.4, (11, 16): 0.8, (29, 36): -1.0, (55, 60): -0.7, (64, 68): 2.4})


def test_a_label_is_saved_before_the_screen_says_so_and_the_next_example_comes_with_it(tmp_path):
    widget = Annotator(MemorySeat(folder=tmp_path))
    talk(widget, ask("hello"))
    answer = talk(widget, ask("label", id="id-0", label="spam", note="sure", seconds=1.5, request="r"))[0]
    assert (answer["said"], answer["item"]["id"], answer["request"]) == ("Saved ✓ spam", "id-1", "r")
    assert read_labels(tmp_path) == [{"id": "id-0", "label": "spam", "record": None, "note": "sure"}]


def test_a_label_that_is_sent_twice_is_one(tmp_path):
    widget = Annotator(MemorySeat(folder=tmp_path))
    label = ask("label", id="id-0", label="spam", seconds=1)
    answers = talk(widget, ask("hello"), label, label)
    assert [answer["said"] for answer in answers if answer["request"] == label["request"]] == ["Saved ✓ spam"] * 2
    assert len(read_labels(tmp_path)) == 1


def test_undo_and_skip_that_are_sent_twice_are_one(tmp_path):
    widget = Annotator(MemorySeat(folder=tmp_path))
    labels = [ask("label", id=f"id-{n}", label="ham", seconds=1) for n in range(3)]
    skip, undo = ask("skip", id="id-3"), ask("undo")
    talk(widget, ask("hello"), *labels, skip, skip)
    twice = [talk(widget, undo)[0] for _ in range(2)]
    assert [(each["said"], each["item"]["id"]) for each in twice] == [("Undone ✓ Here it is again.", "id-3")] * 2
    assert [widget.seat.done[-1][0], talk(widget, ask("undo"))[0]["item"]["id"]] == [2, "id-2"]
    # a label that comes late a second time, after it was taken back, does not come back
    assert talk(widget, labels[2])[0]["item"]["id"] == "id-2"
    assert [each.get("undo") for each in read_labels(tmp_path)] == [None] * 4 + ["id-3", "id-2"]


def test_of_an_edited_example_only_the_text_is_sent_and_of_an_unedited_one_nothing(tmp_path):
    widget = Annotator(MemorySeat([{"text": "a\r\nb", "shop": "x"}], folder=tmp_path))
    shown = talk(widget, ask("hello"))[-1]
    assert shown["item"]["text"] == "a\nb"
    talk(widget, ask("label", id="id-0", label="ham", text="a b", seconds=1))
    assert read_labels(tmp_path)[0]["record"] == {"text": "a b"}  # the other columns are as they were


def test_undo_brings_back_what_was_labelled_or_skipped_last(tmp_path):
    widget = Annotator(MemorySeat(folder=tmp_path))
    talk(widget, ask("hello"), ask("label", id="id-0", label="ham", seconds=1), ask("skip", id="id-1", note="odd"))
    undone = [talk(widget, ask("undo"))[0] for _ in range(3)]
    assert [each["item"]["id"] for each in undone] == ["id-1", "id-0", "id-0"]
    assert undone[-1]["said"] == "There is nothing to undo."
    labelled = talk(widget, ask("label", id="id-0", label="spam", seconds=1))[0]
    assert labelled["item"]["id"] == "id-1"
    skip = {"id": "id-1", "skip": True, "note": "odd"}
    ham, spam = ({"id": "id-0", "label": label, "record": None, "note": ""} for label in ("ham", "spam"))
    assert read_labels(tmp_path) == [ham, skip, {"undo": "id-1"}, {"undo": "id-0"}, spam]


def test_the_end_is_said_and_looking_again_finds_what_is_new(tmp_path):
    seat = MemorySeat([{"text": "one"}], folder=tmp_path)
    widget = Annotator(seat)
    last = talk(widget, ask("hello"), ask("skip", id="id-0"))[-1]
    assert (last["state"], last["item"]) == ("empty", None)
    seat.records.append({"text": "two"})
    assert talk(widget, ask("hello"))[-1]["item"]["text"] == "two"


def test_an_edited_text_is_scored_for_who_asked(tmp_path):
    widget = Annotator(MemorySeat(folder=tmp_path))
    (answer,) = talk(widget, ask("hello"), {"do": "score", "request": "x", "id": "id-0", "text": "a Prize"})[2:]
    assert answer["request"] == "x"
    assert answer["spans"] == [{"start": 2, "end": 7, "push": 0.8}]
    assert answer["prediction"]["shares"] == pytest.approx([0.31, 0.69], abs=1e-3)  # 1 / (1 + e^-0.8)


@pytest.mark.parametrize(
    ("message", "said"),
    [
        (None, "message"),
        ([], "message"),
        ("hello", "message"),
        ({}, "do: Field required"),
        (ask("drop"), "do: Input should be"),
        (ask("_show"), "do: Input should be"),
        ({"do": "hello"}, "request"),
        ({"do": "hello", "request": 3}, "request"),
        ({"do": "hello", "request": "r" * 61}, "request"),
        (ask("hello", extra=1), "extra"),
        (ask("label", id=1, label="ham"), "id"),
        (ask("label", id="id-0", label=["ham"]), "label"),
        (ask("label", id="id-0", label={"a": 1}), "label"),
        (ask("label", id="id-0", label="ham", seconds=float("nan")), "seconds"),
        (ask("label", id="id-0", label="ham", seconds=-1), "seconds"),
        (ask("label", id="id-0", label="ham", seconds=True), "seconds"),
        (ask("label", id="id-0", label="ham", note="n" * 2001), "note"),
        (ask("label", id="id-0", label="ham", text=5), "text"),
        (ask("label", id="id-9", label="ham"), "no longer on the screen"),
        (ask("label", label="ham"), "no longer on the screen"),
        (ask("skip", id="id-9"), "no longer on the screen"),
        (ask("score", id="id-9", text="x"), "no longer on the screen"),
    ],
)
def test_what_no_browser_of_ours_would_send_saves_nothing_and_is_an_answer(tmp_path, message, said):
    widget = Annotator(MemorySeat(folder=tmp_path))
    talk(widget, ask("hello"))
    (answer,) = talk(widget, message)
    assert said in answer["problem"]
    assert (answer["state"], answer["item"]["id"]) == ("working", "id-0")
    assert read_labels(tmp_path) == []


def test_what_cannot_be_saved_stays_on_the_screen_with_the_reason(tmp_path):
    widget = Annotator(MemorySeat(folder=tmp_path))
    talk(widget, ask("hello"))
    (tmp_path / "fail").touch()
    (answer,) = talk(widget, ask("label", id="id-0", label="spam", seconds=1))
    assert answer["problem"].startswith("The store cannot be written: its disk is full.")
    assert (answer["item"]["id"], answer["said"], read_labels(tmp_path)) == ("id-0", "", [])
    (tmp_path / "fail").unlink()
    assert talk(widget, ask("label", id="id-0", label="spam", seconds=1))[0]["said"] == "Saved ✓ spam"


@pytest.mark.parametrize("broken", ["take", "progress", "label", "skip", "undo", "score", "labels"])
def test_a_seat_that_breaks_is_told_in_words_and_without_its_values(tmp_path, broken, caplog):
    widget = Annotator(MemorySeat(folder=tmp_path))
    if broken not in ("take", "labels"):
        talk(widget, ask("hello"))

    class Broken(MemorySeat):
        @property
        def labels(self):
            raise RuntimeError("hunter2")

        @labels.setter
        def labels(self, _):
            pass

    def fail(*_, **__):
        raise RuntimeError("hunter2")

    if broken == "labels":
        widget.seat.__class__ = Broken
    else:
        setattr(widget.seat, broken, fail)
    dos = {"take": ask("hello"), "progress": ask("hello"), "labels": ask("hello"), "undo": ask("undo")}
    message = dos.get(broken) or ask(broken, id="id-0", label=None if broken != "label" else "ham", text="x")
    message |= {"request": "r"}
    answers = talk(widget, message)
    assert "hunter2" not in json.dumps(answers)
    if broken == "score":  # a model that fails stops nobody
        assert answers == [{"do": "score", "request": "r", "prediction": None, "spans": []}]
    elif broken != "progress":  # nor does a count
        assert "RuntimeError" in answers[-1]["problem"]
    assert "hunter2" in caplog.text


def test_an_example_that_comes_back_by_itself_can_be_labelled_again(tmp_path):
    widget = Annotator(MemorySeat([{"text": "one"}], folder=tmp_path))
    talk(widget, ask("hello"), ask("label", id="id-0", label="ham", seconds=1))
    widget.seat.undo()  # at another screen
    talk(widget, ask("hello"), ask("label", id="id-0", label="spam", seconds=1))
    assert [each.get("label") for each in read_labels(tmp_path)] == ["ham", None, "spam"]


def test_without_labels_the_screen_says_where_to_write_them(tmp_path):
    seat = MemorySeat(folder=tmp_path)
    seat.labels = []
    shown = talk(Annotator(seat), ask("hello"))[-1]
    assert (shown["state"], shown["item"]) == ("error", None)
    assert "in its params, as labels: [yes, no]" in shown["problem"]


def test_before_somebody_has_signed_in_nothing_is_taken_or_done(tmp_path):
    taken = []

    class Watched(MemorySeat):
        def take(self, n):
            taken.append(n)
            return super().take(n)

    widget = Annotator(lambda given: sign_in(given) and Watched(folder=tmp_path), ask="token")
    before = talk(widget, ask("hello"), *(ask(do, id="id-0", text="x") for do in ("label", "skip", "undo", "score")))
    assert {(each["state"], each["item"]) for each in before} == {("asking", None)}
    (wrong,) = talk(widget, ask("sign_in", given="wrong"))
    assert wrong["problem"] == "This token is not known: ask whoever runs this for one."
    assert (taken, widget.seat) == ([], None)
    assert talk(widget, ask("sign_in", given="right"))[-1]["item"]["id"] == "id-0"


def test_nothing_that_is_saved_with_a_notebook_holds_an_example_a_label_or_a_token(tmp_path):
    records = [{"text": "Geheimnis"}] * 3
    widget = Annotator(lambda _: MemorySeat(records, labels=["etikett"], folder=tmp_path), ask="token")
    talk(widget, ask("sign_in", given="hunter2"), ask("label", id="id-0", label="etikett", seconds=1))
    saved = json.dumps(widget.get_state(), default=str) + repr(widget)
    assert [word for word in ("Geheimnis", "etikett", "hunter2") if word in saved] == []
    assert "render" in saved


def test_a_record_is_shown_by_column_with_what_each_pushes(tmp_path):
    widget = Annotator(MemorySeat([RIGHT_AGE], labels=[True, False], text="", folder=tmp_path))
    item = talk(widget, ask("hello"))[-1]["item"]
    assert item["text"] is None
    # 1.2 - 0.7 = 0.5 speaks for the last label, False
    assert [[name, value, round(push, 6)] for name, value, push in item["columns"]] == [
        [name, value, 0.5 if name == "job" else 0.0] for name, value in RIGHT_AGE.items()
    ]
    assert item["prediction"]["label"] == "false"
    (refused,) = talk(widget, ask("label", id="id-0", label=True, text="x"))
    assert refused["problem"] == "A record cannot be edited. Reload the page."


def test_labels_are_saved_while_the_next_examples_are_fetched(tmp_path):
    import threading

    release = threading.Event()

    class Slow(MemorySeat):
        slow = False

        def take(self, n):
            taken = super().take(n)
            assert not self.slow or release.wait(20)
            return taken

    seat = Slow(folder=tmp_path)
    widget = Annotator(seat)
    sent: list[dict] = []
    widget.send = lambda content, buffers=None: sent.append(content)

    async def run() -> None:
        widget._handle_custom_msg(ask("hello"), [])
        await rest()
        seat.slow = True
        for number in range(4):
            widget._handle_custom_msg(ask("label", id=f"id-{number}", label="ham", seconds=1), [])
            await asyncio.sleep(0)
        assert len(read_labels(tmp_path)) == 4
        assert (sent[-1]["said"], sent[-1]["state"]) == ("Saved ✓ ham", "loading")
        release.set()
        await rest()

    async def rest() -> None:
        while others := asyncio.all_tasks() - {asyncio.current_task()}:
            await asyncio.wait(others)

    asyncio.run(run())
    # what a fetch found that began before a label is not shown again
    assert [each["item"]["id"] for each in sent[-2:] if each["item"]][-1] == "id-4"


@dataclass(frozen=True)
class Host:
    """A server that shows notebooks of a folder in a browser."""

    name: str
    folder: Path
    url: str
    process: subprocess.Popen

    def write(self, cell: str) -> str:
        """Write a notebook with one cell of code, which shows a screen; its name."""
        name = f"nb{len(list(self.folder.glob('*.ipynb')))}"
        code = f"from memory_seat import *\nfrom pinmill.widget import Annotator\n{cell}"
        cells = [nbformat.v4.new_markdown_cell("# Annotation"), nbformat.v4.new_code_cell(code)]
        kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
        nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata=kernel), self.folder / f"{name}.ipynb")
        return name

    def open(self, page: Page, cell: str = "Annotator(MemorySeat())", *, state: str = "working") -> Page:
        """The page once it shows the screen that a cell makes."""
        for left in ("labels.jsonl", "fail"):
            (self.folder / left).unlink(missing_ok=True)
        name = self.write(cell)
        if self.name == "voila":
            page.goto(f"{self.url}/voila/render/{name}.ipynb")
        else:
            page.goto(f"{self.url}/lab/tree/{name}.ipynb?token=t&reset")
            page.get_by_text("| Idle").wait_for()  # before, Run asks which kernel to take
            page.get_by_role("menuitem", name="Run", exact=True).click()
            page.locator(".lm-Menu-item[data-command='runmenu:run-all']").click()
        page.locator(f".pinmill-annotate[data-state={state}]").wait_for()
        return page

    def kernels(self) -> list[psutil.Process]:
        """The kernels that run in it."""
        below = psutil.Process(self.process.pid).children(recursive=True)
        return [each for each in below if "ipykernel_launcher" in " ".join(each.cmdline())]


@pytest.fixture(scope="module", params=["voila", "lab"])
def host(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory):
    """Voilà or JupyterLab on a free port, with nobody's settings."""
    folder = tmp_path_factory.mktemp(request.param)
    homes = {f"JUPYTER_{kind}_DIR": str(folder / kind.lower()) for kind in ("CONFIG", "DATA", "RUNTIME")}
    disabled = {"disabledExtensions": {"@jupyterlab/apputils-extension:announcements": True}}  # it asks the network
    (folder / "config/labconfig").mkdir(parents=True)
    (folder / "config/labconfig/page_config.json").write_text(json.dumps(disabled))
    notebooks = folder / "notebooks"
    notebooks.mkdir()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    program = [
        sys.executable,
        "-m",
        "voila" if request.param == "voila" else "jupyterlab",
        "--no-browser",
        f"--port={port}",
    ]
    own = (
        ["--Voila.ip=127.0.0.1"]
        if request.param == "voila"
        else ["--allow-root", "--IdentityProvider.token=t", "--ip=127.0.0.1"]
    )
    environ = {**os.environ, **homes, "PYTHONPATH": str(Path(__file__).parent)}
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen([*program, *own, str(notebooks)], cwd=notebooks, env=environ, stdout=log, stderr=log)
    url = f"http://127.0.0.1:{port}"

    def answers() -> bool:
        try:
            return httpx.get(url, timeout=5).status_code < 500
        except httpx.TransportError:
            return False

    try:
        wait_until(answers, f"{request.param} ({folder / 'log'})", process=process)
        yield Host(request.param, notebooks, url, process)
    finally:
        below = psutil.Process(process.pid).children(recursive=True)
        process.terminate()
        process.wait(90)
        for each in below:
            if each.is_running():
                each.kill()


@pytest.fixture
def page(browser):
    """A page that fails the test when a script of it does."""
    context = browser.new_context(viewport={"width": 1100, "height": 900})
    context.set_default_timeout(SLOW)
    page, errors = context.new_page(), []
    page.on("pageerror", lambda error: errors.append(str(error)))
    yield page
    context.close()
    assert errors == []


def shown(page: Page) -> str:
    return page.locator(".pinmill-annotate").get_attribute("data-id")


def wait_for(page: Page, number: int, said: str = "") -> None:
    """Wait until the example `number` is on the screen, and the status says `said`."""
    page.locator(f".pinmill-annotate[data-id='id-{number}']:not([aria-busy])").wait_for()
    if said:
        page.locator(".pinmill-status", has_text=said).wait_for()


@pytest.mark.browser
def test_texts_are_labelled_by_keyboard_and_by_mouse(host, page):
    host.open(page)
    for number in range(10):
        wait_for(page, number)
        label = ["ham", "spam"][number % 2]
        if number < 5:
            page.keyboard.press(str(number % 2 + 1))
        else:
            page.locator(f"button[data-label='\"{label}\"']").click()
        wait_for(page, number + 1, f"Saved ✓ {label}")
    expected = [(f"id-{number}", ["ham", "spam"][number % 2]) for number in range(10)]
    assert [(each["id"], each["label"]) for each in read_labels(host.folder)] == expected
    marks = page.evaluate("performance.getEntriesByName('pinmill-next').map(each => each.duration)")
    assert len(marks) == 10


@pytest.mark.browser
def test_skip_undo_note_and_help_have_keys_and_buttons(host, page):
    host.open(page)
    page.keyboard.press("s")
    wait_for(page, 1, "Skipped ✓")
    page.keyboard.press("u")
    wait_for(page, 0, "Undone ✓")
    page.keyboard.press("n")
    page.keyboard.type("12 us?")  # none of these is a key here
    page.keyboard.press("Escape")
    page.keyboard.press("?")
    assert page.locator(".pinmill-help").is_visible()
    page.keyboard.press("?")
    page.keyboard.press("2")
    wait_for(page, 1, "Saved ✓ spam")
    page.locator("button[data-do=undo]").click()
    wait_for(page, 0)
    assert page.locator("input.pinmill-note").is_hidden()
    page.locator("button[data-do=skip]").click()
    wait_for(page, 1)
    spam = {"id": "id-0", "label": "spam", "record": None, "note": "12 us?"}
    skip = {"id": "id-0", "skip": True, "note": ""}
    assert read_labels(host.folder) == [skip, {"undo": "id-0"}, spam, {"undo": "id-0"}, skip]


@pytest.mark.browser
def test_an_edit_is_scored_while_it_is_typed_and_saved_with_the_label(host, page):
    host.open(page)
    page.locator("textarea.pinmill-text").click()
    page.keyboard.press("Control+A")
    page.keyboard.type("Lunch 1 2 s u\nfree")
    page.locator(".pinmill-score [data-label='\"spam\"'] output", has_text="62 %").wait_for()  # 1.2 - 0.7 = 0.5
    assert page.locator(".pinmill-marks mark").all_inner_texts() == ["Lunch", "free"]
    assert [mark.get_attribute("class") for mark in page.locator(".pinmill-marks mark").all()] == ["against", "toward"]
    assert read_labels(host.folder) == []
    page.keyboard.press("Escape")
    page.keyboard.press("1")
    wait_for(page, 1, "Saved ✓ ham")
    record = {"text": "Lunch 1 2 s u\nfree"}
    assert read_labels(host.folder) == [{"id": "id-0", "label": "ham", "record": record, "note": ""}]
    assert page.locator("textarea.pinmill-text").input_value() == TEXTS[1]


@pytest.mark.browser
def test_one_press_is_one_label(host, page):
    host.open(page)
    page.locator("button[data-label='\"ham\"']").dblclick()
    wait_for(page, 1)
    for keys in ("Control+1", "Alt+1", "Meta+1", "0", "9", "x"):
        page.keyboard.press(keys)
    page.keyboard.down("2")
    for _ in range(5):
        page.keyboard.down("2")  # as when it is held: Playwright marks these as repeated
    page.keyboard.up("2")
    wait_for(page, 2)
    page.keyboard.press("u")
    wait_for(page, 1)
    assert [each.get("label") for each in read_labels(host.folder)] == ["ham", "spam", None]


@pytest.mark.browser
def test_what_cannot_be_saved_stays_and_can_be_tried_again(host, page):
    host.open(page)
    page.locator("textarea.pinmill-text").fill("free as I typed it")
    (host.folder / "fail").touch()
    page.keyboard.press("Escape")
    page.keyboard.press("2")
    page.locator(".pinmill-annotate[data-state=error]").wait_for()
    assert page.locator(".pinmill-status").inner_text().startswith("The store cannot be written: its disk is full.")
    assert page.locator("textarea.pinmill-text").input_value() == "free as I typed it"
    (host.folder / "fail").unlink()
    page.locator("button[data-do=again]").click()
    wait_for(page, 1, "Saved ✓ spam")
    assert [each["record"] for each in read_labels(host.folder)] == [{"text": "free as I typed it"}]
    assert page.locator("button[data-do=again]").is_hidden()


@pytest.mark.browser
def test_a_kernel_that_is_gone_is_said_and_the_text_stays(host, page):
    before = {each.pid for each in host.kernels()}
    host.open(page)
    (kernel,) = (each for each in host.kernels() if each.pid not in before)
    kernel.suspend()
    page.keyboard.press("1")
    page.locator(".pinmill-annotate[data-state=error]").wait_for()
    assert page.locator(".pinmill-status").inner_text().startswith("The kernel does not answer. Nothing is lost")
    assert page.locator("textarea.pinmill-text").input_value() == TEXTS[0]
    kernel.resume()
    wait_for(page, 1, "Saved ✓ ham")
    assert page.locator("button[data-do=again]").is_hidden()
    kernel.kill()
    page.keyboard.press("2")
    page.locator(".pinmill-annotate[data-state=error]").wait_for()
    assert len(read_labels(host.folder)) == 1


@pytest.mark.browser
def test_nobody_labels_before_the_right_token_is_given(host, page):
    host.open(page, "Annotator(sign_in, ask='token')", state="asking")
    box = page.locator("form.pinmill-login input")
    assert box.evaluate("node => [node.type, node === document.activeElement]") == ["password", True]
    assert page.locator("button[data-label], textarea").all_inner_texts() in ([], [""])
    box.fill("wrong")
    box.press("Enter")
    page.locator(".pinmill-status", has_text="This token is not known").wait_for()
    box.fill("right")
    page.locator("form.pinmill-login button").click()
    wait_for(page, 0)
    page.keyboard.press("1")
    wait_for(page, 1, "Saved ✓ ham")


@pytest.mark.browser
def test_records_amounts_and_many_labels(host, page):
    host.open(page, f"Annotator(MemorySeat([{RIGHT_AGE}] * 2, labels=[True, 1], text=''))")
    cells = page.locator("table.pinmill-record tr").all_inner_texts()
    assert [cell.split("\t") for cell in cells] == [
        ["age", "41"], ["job", "free lunch"], ["balance", "-1250.5"], ["loan", "–"], ["married", "true"]
    ]  # fmt: skip
    page.keyboard.press("2")
    wait_for(page, 1)
    page.keyboard.press("1")
    page.locator(".pinmill-annotate[data-state=empty]").wait_for()
    assert [each["label"] for each in read_labels(host.folder)] == [1, True]
    assert page.get_by_text("there is nothing left to label").is_visible()

    host.open(page, f"Annotator(MemorySeat([{RIGHT_AGE}] * 3, labels=None, text=''))")
    page.keyboard.type("-12.5")
    page.keyboard.press("Enter")
    wait_for(page, 1, "Saved ✓ -12.5")
    page.locator("input.pinmill-amount").fill("7")
    page.locator("button[data-do=save]").click()
    wait_for(page, 2, "Saved ✓ 7")
    assert [each["label"] for each in read_labels(host.folder)] == [-12.5, 7]

    host.open(page, "Annotator(MemorySeat(labels=[f'label {n}' for n in range(12)]))")
    page.keyboard.press("1")
    page.locator("button[data-label='\"label 11\"']").click()
    wait_for(page, 1, "Saved ✓ label 11")
    assert [each["label"] for each in read_labels(host.folder)] == ["label 11"]


@pytest.mark.browser
def test_what_a_text_says_is_text_and_nothing_else(host, page):
    host.open(page, "Annotator(MemorySeat([{'text': TEXTS[2]}], labels=['<i>a', '\"b']))")
    assert page.locator(".pinmill-marks").inner_text().strip("\u200b") == TEXTS[2]
    assert page.locator("textarea.pinmill-text").input_value() == TEXTS[2]
    assert page.locator(".pinmill-labels button span").all_inner_texts() == ["<i>a", '"b']
    assert page.evaluate("typeof pwned") == "undefined"
    assert page.locator(".pinmill-annotate :is(script, i:not(.pinmill-score i), b)").count() == 0


@pytest.mark.browser
def test_typed_text_lies_exactly_over_its_marks(host, page):
    host.open(page, "Annotator(MemorySeat([{'text': 'Free lunch is a prize. ' * 90 + 'x' * 200}]))")
    sizes = page.evaluate("""() => [".pinmill-marks", ".pinmill-text"].map(name => {
        const node = document.querySelector(name), style = getComputedStyle(node), box = node.getBoundingClientRect()
        return [style.font, style.padding, style.lineHeight, box.x, box.y, box.width, box.height, node.scrollHeight]
    })""")
    assert sizes[0] == sizes[1]


@pytest.mark.browser
@pytest.mark.parametrize("cell", ["Annotator(MemorySeat())", "Annotator(sign_in, ask='token')"])
def test_the_screen_has_no_barrier(host, page, cell):
    host.open(page, cell, state="asking" if "ask" in cell else "working")
    for scheme, width in itertools.product(("light", "dark"), (390, 1280)):
        page.emulate_media(color_scheme=scheme)
        page.set_viewport_size({"width": width, "height": 900})
        found = Axe().run(page, context=".pinmill-annotate").response["violations"]
        assert [(scheme, width, each["id"], each["nodes"][0]["html"]) for each in found] == []


@pytest.mark.browser
@pytest.mark.parametrize("host", ["lab"], indirect=True)  # Voilà has no command mode
def test_jupyterlab_sees_no_key_of_the_screen_comes_back_to_it_and_saves_nothing_of_it(host, page):
    host.open(page)
    for key in ("a", "b", "d", "d", "x", "m", "y", "c", "v", "Enter", "Shift+Enter", "Control+Enter", "j", "k", "z"):
        page.keyboard.press(key)
    assert page.locator(".jp-Notebook .jp-Cell").count() == 2
    assert page.locator(".jp-mod-editMode").count() == 0
    assert shown(page) == "id-0"
    page.keyboard.press("1")
    wait_for(page, 1)
    page.locator(
        ".jp-NotebookPanel-toolbar [data-command='docmanager:save'], [data-jp-item-name=save] jp-button"
    ).first.click()
    saved = host.folder / f"{page.url.rpartition('/')[2].partition('.')[0]}.ipynb"
    wait_until(lambda: "outputs" in saved.read_text() and "widget-view" in saved.read_text(), "the saved notebook")
    assert [word for word in ("See you at lunch", "nobody asked for") if word in saved.read_text()] == []
    page.reload()
    wait_for(page, 1)
    page.locator(".pinmill-workflow").click()
    page.keyboard.press("1")
    wait_for(page, 2, "Saved ✓ ham")
