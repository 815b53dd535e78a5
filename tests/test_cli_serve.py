"""`pinmill serve`: where it listens, what it refuses to start with, how it ends, and a workflow without a champion."""

import signal
import socket
from collections.abc import Iterator
from typing import TYPE_CHECKING

import psutil
import pytest
from pinmill.cli_serve import open_socket, show_host
from pinmill.errors import ParameterError

if TYPE_CHECKING:
    from conftest import Server, Workplace


@pytest.fixture
def taken() -> Iterator[int]:
    """A port that somebody else listens on."""
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        yield other.getsockname()[1]


# Where it listens


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "::1"])
def test_a_socket_listens_where_it_is_told(host: str) -> None:
    with open_socket(host, 0) as listening:
        port = listening.getsockname()[1]
        with socket.create_connection((host, port), timeout=5):
            pass
    assert show_host(host) == ("[::1]" if ":" in host else host)


def test_a_port_in_use_is_one_clear_error(taken: int) -> None:
    with pytest.raises(ParameterError) as raised:
        open_socket("127.0.0.1", taken)
    advice = "Take another --port or --host."
    assert str(raised.value) == f"cannot listen on 127.0.0.1, port {taken}: address already in use. {advice}"


@pytest.mark.parametrize("host", ["203.0.113.1", "no-such-host.invalid"])
def test_an_address_that_is_not_this_machine_s_is_one_clear_error(host: str) -> None:
    with pytest.raises(ParameterError, match=f"^cannot listen on {host}, port 0: .*Take another --port or --host."):
        open_socket(host, 0)


# What it does not start with


def refuse(workplace: "Workplace", *words: str, code: int) -> str:
    """The only line that `pinmill serve tiny` says when it does not start."""
    done = workplace.pinmill("serve", "tiny", "--port", "0", *words, code=code)
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    return line


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.0.0.1"])
def test_without_tokens_it_does_not_listen_beyond_this_machine(workplace: "Workplace", host: str) -> None:
    assert refuse(workplace, "--host", host, code=2) == (
        f"ParameterError: --host {host}: without tokens only this machine is served. "
        "Make one first: pinmill token create NAME --role scorer"
    )


def test_with_a_token_it_listens_wherever_it_is_told(workplace: "Workplace", serve) -> None:
    workplace.pinmill("token", "create", "shop", "--role", "scorer")
    server = serve("--host", "0.0.0.0", workplace=workplace, ready=False)
    assert server.url.startswith("http://0.0.0.0:")
    assert "(with tokens)" in server.log.read_text()
    assert server.ask("GET", "/ping").status_code == 200
    assert server.ask("GET", "/metadata").status_code == 401
    assert server.stop() == 0


def test_a_port_in_use_ends_it_with_2(workplace: "Workplace", taken: int) -> None:
    line = refuse(workplace, "--port", str(taken), code=2)
    assert line.startswith(f"ParameterError: cannot listen on 127.0.0.1, port {taken}: address already in use.")


@pytest.mark.parametrize(
    ("source", "tags", "said"),
    [
        ("# GET /\nprint(1)", [], "ProjectError: 1 problem in serve.ipynb: GET / stands 2 times."),
        (
            "# GET /x\nprint(1)",
            ["role-root"],
            "ProjectError: 1 problem in serve.ipynb: GET /x: there is no tag 'role-root'",
        ),
        (
            "# GET /ready\nprint(1)",
            [],
            "ProjectError: 1 problem in the serving notebook: GET /ready is answered by the gateway.",
        ),
    ],
)
def test_endpoints_that_cannot_be_meant_end_it_with_2(
    workplace: "Workplace", source: str, tags: list, said: str
) -> None:
    workplace.add_cell(source, *tags)
    assert refuse(workplace, code=2).startswith(said)


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("1 / 0", "serve.ipynb, the cell '1 / 0' raised ZeroDivisionError: division by zero. Run it in JupyterLab"),
        (
            "# GET /x\nreturn 1",
            "the cell GET /x cannot answer requests: 'return' outside function (line 2 of the cell)",
        ),
        ("import os\nos._exit(1)", "the kernel of serve.ipynb ended"),
        ("del service", "serve.ipynb: ProjectError: the notebook has no `service`: it needs the cell"),
    ],
)
def test_a_notebook_that_does_not_run_ends_it_with_4_and_says_which_cell(
    workplace: "Workplace", source: str, said: str
) -> None:
    workplace.add_cell(source)
    done = workplace.pinmill("serve", "tiny", "--port", "0", code=4)
    assert done.stderr.splitlines()[-1].startswith(f"RunError: {said}")
    assert "Traceback" not in done.stderr


def test_a_secret_in_what_a_cell_raises_is_not_said(workplace: "Workplace") -> None:
    workplace.add_cell("import os\nraise ValueError('the password is ' + os.environ['SHOP_PASSWORD'])")
    text = (workplace.root / "params/tiny.yaml").read_text()
    workplace.params(text.replace("source: tiny.csv", "source: secret:SHOP_PASSWORD"))
    done = workplace.pinmill("serve", "tiny", "--port", "0", code=4, SHOP_PASSWORD="correct-horse-battery")
    assert "the password is" in done.stderr
    assert "correct-horse" not in done.stdout + done.stderr


# Without a champion


def test_without_a_champion_it_starts_and_says_how_to_get_one(workplace: "Workplace", serve) -> None:
    server = serve("--host", "localhost", workplace=workplace, ready=False)
    server.wait_until(lambda: server.ask("GET", "/").status_code == 200, seconds=60)
    advice = "tiny has no champion yet. Train and promote one with: pinmill run tiny"
    for method, path, value in (("GET", "/ready", None), ("POST", "/prediction", "x"), ("GET", "/metadata", None)):
        answer = server.ask(method, path, value)
        assert (answer.status_code, answer.json()["detail"]) == (503, advice)
        assert answer.headers["X-Model-Version"] == "none"
    welcome = server.ask("GET", "/").json()
    assert (welcome["champion"], welcome["problem"]) == (None, advice)
    assert server.ask("GET", "/ping").status_code == 200
    assert server.ask("GET", "/openapi.json").json()["info"]["version"] == "none"
    assert server.stop() == 0


# From its first request to its end


def test_a_service_from_its_start_to_its_end_and_its_next_start(serve, trained: "Workplace") -> None:
    """A token made beside it closes it; Ctrl-C ends it and its kernel; started again, it knows what it computed."""
    server: Server = serve()
    assert server.ask("GET", "/metadata").status_code == 200
    first = server.ask("POST", "/predictions", ["a text", "another"]).json()
    assert [item["from_cache"] for item in first] == [False, False]
    shown = trained.pinmill("token", "create", "shop", "--role", "scorer").stdout
    (token,) = [word for word in shown.split() if word.startswith("pinmill_shop_")]
    server.wait_until(lambda: server.ask("GET", "/metadata").status_code == 401, seconds=4)
    kernels = server.kernels()
    assert len(kernels) == 1
    server.process.send_signal(signal.SIGINT)
    assert server.process.wait(30) == 0
    server.client.close()
    assert "Traceback" not in server.log.read_text()
    assert not any(psutil.pid_exists(pid) for pid in kernels)
    again: Server = serve()
    headers = {"Authorization": f"Bearer {token}"}
    known = again.ask("POST", "/predictions", ["another", "new", "a text"], headers=headers).json()
    assert [item["from_cache"] for item in known] == [True, False, True]
    assert [known[2]["probability"], known[0]["probability"]] == [item["probability"] for item in first]
