"""`pinmill annotate`: what it refuses to start with, to whom it shows its page, and how it ends.

What people see on the page is tested in test_annotate.py.
"""

import json
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import psutil
import pytest
from conftest import PINMILL, ROOT, Workplace
from pinmill.app import copy_notebook
from waiting import wait_until

ANYBODY = "there are no tokens: whoever is at this machine says a name"
IDENTIFIED = "it asks for a token of the role annotator"


@contextmanager
def opened(workplace: Workplace) -> Iterator[tuple[subprocess.Popen, str, str]]:
    """The app as a process of its own: the process, its address, and what it said of who may come in."""
    command = [PINMILL, "annotate", "tiny", "--port", "0"]
    output = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    with subprocess.Popen(command, cwd=workplace.root, env=workplace.environ(), **output) as process:
        try:
            line = process.stdout.readline().removeprefix("tiny: ")
            url, _, whom = line.strip().partition(" ")
            yield process, url, whom.strip("()")
        finally:
            process.kill()


def find_kernels(process: subprocess.Popen) -> list[psutil.Process]:
    """The kernels of an app."""
    return [each for each in psutil.Process(process.pid).children() if "ipykernel_launcher" in each.cmdline()]


def test_the_app_shows_this_machine_its_page_alone_and_ends_with_its_kernels(workplace: Workplace) -> None:
    with opened(workplace) as (process, url, whom):
        assert whom == ANYBODY
        kernels = wait_until(lambda: find_kernels(process), "a kernel", process=process)
        page = httpx.get(url, timeout=90)
        assert page.status_code == 200
        assert "pinmill.start" not in page.text  # no code
        assert "default-src 'self' data:" in page.headers["Content-Security-Policy"]  # nothing from elsewhere
        rebound = httpx.get(url, headers={"Host": "evil.example"})  # a name that somebody pointed at this machine
        assert rebound.status_code == 403
        assert httpx.get(f"{url}/voila/files/annotate.ipynb").status_code == 403
        process.terminate()
        assert process.wait(90) == 0
        assert not [kernel for kernel in kernels if kernel.is_running()]


def test_with_tokens_it_says_that_it_asks_for_one(workplace: Workplace) -> None:
    workplace.pinmill("token", "create", "ann", "--role", "annotator")
    with opened(workplace) as (_, _, whom):
        assert whom == IDENTIFIED


def test_without_tokens_it_listens_to_this_machine_only(workplace: Workplace) -> None:
    done = workplace.pinmill("annotate", "tiny", "--host", "0.0.0.0", "--port", "0", code=2)
    advice = "Make one first: pinmill token create NAME --role annotator"
    said = f"ParameterError: --host 0.0.0.0: without tokens only this machine is served. {advice}\n"
    assert (done.stdout, done.stderr) == ("", said)


def test_a_port_in_use_and_an_unknown_workflow_are_one_clear_error_each(workplace: Workplace) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = str(other.getsockname()[1])
        said = workplace.pinmill("annotate", "tiny", "--port", port, code=2).stderr
    assert said == (
        f"ParameterError: cannot listen on 127.0.0.1, port {port}: address already in use. "
        "Take another --port or --host.\n"
    )
    said = workplace.pinmill("annotate", "tinny", code=2).stderr
    assert said.startswith(
        "ParameterError: no workflow 'tinny': params/tinny.yaml does not exist. Did you mean 'tiny'?"
    )


@pytest.mark.parametrize("workflow", ["tiny", "it-s"])
def test_the_copy_takes_its_workflow_right_after_the_parameters(tmp_path: Path, workflow: str) -> None:
    source = ROOT / "notebooks" / "annotate.ipynb"
    cells = json.loads(copy_notebook(source, tmp_path, workflow).read_text())["cells"]
    place = next(n for n, cell in enumerate(cells) if "parameters" in cell["metadata"].get("tags", []))
    assert cells[place + 1]["source"] == f"# Parameters\nworkflow = {workflow!r}"
    shown = [c for c in json.loads(source.read_text())["cells"] if "no-app" not in c["metadata"].get("tags", [])]
    assert cells[: place + 1] + cells[place + 2 :] == shown
