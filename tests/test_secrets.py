"""The value of a `secret:` parameter stands nowhere that Pinmill writes, whatever a cell does with it."""

from __future__ import annotations

import html
import json
import signal
import sqlite3
import subprocess
from typing import TYPE_CHECKING
from urllib.parse import quote

import pytest
from pinmill.markdown import escape
from waiting import wait_until

if TYPE_CHECKING:
    from conftest import Workplace

TOKEN = "tok_9f8&e7<d6>\"c5'b4\\a3 z%2B"
LEAKS = """
import json, logging, os, subprocess, sys, warnings
from IPython.display import display, Markdown, HTML
from pinmill.markdown import escape

token = os.environ["TOKEN"]
print(token)
print("in a", json.dumps({"json": token}), repr(token), repr([token]))
print(token[:7], end="")
sys.stdout.flush()
print(token[7:], file=sys.stdout)
print(token, file=sys.stderr)
subprocess.run(["printenv", "TOKEN"])
os.write(1, token.encode())
os.write(2, token.encode())
logging.error("the token is %s", token)
warnings.warn(token)
display({"token": token}, Markdown(token), HTML(token))
display(Markdown(str(escape(token))))
display(f"https://example.org/?token={token}")
"""


def spellings(secret: str) -> dict[str, bytes]:
    """The secret as it may stand in a file: itself, and as JSON, HTML, Markdown and URLs write it."""
    written = {
        "itself": secret,
        "JSON": json.dumps(secret)[1:-1],
        "JSON in JSON": json.dumps(json.dumps(secret)[1:-1])[1:-1],
        "repr": repr(secret)[1:-1],
        "repr in JSON": json.dumps(repr(secret)[1:-1])[1:-1],
        "HTML": html.escape(secret),
        "Markdown": str(escape(secret)),
        "URL": quote(secret, safe=""),
    }
    return {name: text.encode() for name, text in written.items()}


def find_leaks(place: Workplace, secret: str, *done: subprocess.CompletedProcess) -> list[str]:
    """Every file below outputs/ and reports/, and every stream, in which the secret stands, and how it is written."""
    found = [(path.relative_to(place.root), path.read_bytes()) for top in ("outputs", "reports")
             for path in (place.root / top).rglob("*") if path.is_file()]  # fmt: skip
    assert found
    streams = [(each, name) for each in done for name in ("stdout", "stderr")]
    found += [(f"{name} of {each.args}", getattr(each, name).encode()) for each, name in streams]
    return [f"{where}: as {name}" for where, data in found for name, text in spellings(secret).items() if text in data]


def declare_token(place: Workplace) -> None:
    """Let every stage of the light project take a parameter `token`."""
    for stem in ("01-prepare", "04-model-card"):
        place.edit(stem, "# name of the workflow", "# name of the workflow\ntoken: str = ''  # what opens the door")
    place.params("workflow: small\nsource: numbers.txt\ntoken: secret:TOKEN\n", "small")


@pytest.mark.parametrize("ending", ["success", "an error", "a dead kernel", "a timeout"])
def test_secret_that_a_cell_shows_is_nowhere(small: Workplace, ending: str) -> None:
    declare_token(small)
    ends = {
        "success": "",
        "an error": "raise ValueError(f'token {token} was refused')",
        "a dead kernel": "os.kill(os.getpid(), 9)",
        "a timeout": "while True: pass",
    }
    if ending == "a timeout":
        small.params((small.root / "params/small.yaml").read_text() + "run: {timeout: {prepare: 5}}\n", "small")
    small.edit("01-prepare", "numbers = [", f"{LEAKS}\n{ends[ending]}\nnumbers = [")
    done = small.pinmill("run", "small", code=0 if ending == "success" else 4, TOKEN=TOKEN)
    told = [small.pinmill("runs", "small", "--json"), small.pinmill("params", "small", "--json", TOKEN=TOKEN)]
    executed = next((small.root / "outputs/runs/small").glob("2*/01-prepare.ipynb")).read_text()
    assert "[secret]" in executed
    assert "secret:TOKEN" in executed
    assert find_leaks(small, TOKEN, done, *told) == []


def test_secret_in_the_page_is_nowhere(small: Workplace) -> None:
    declare_token(small)
    small.edit("04-model-card", "print(run", f"{LEAKS}\nprint(run")
    done = small.pinmill("run", "small", TOKEN=TOKEN)
    (page,) = (small.root / "reports/_pages/small").glob("*/model-card.html")
    assert "[secret]" in page.read_text()
    assert find_leaks(small, TOKEN, done) == []


def test_secret_of_an_interrupted_run_is_nowhere(small: Workplace) -> None:
    declare_token(small)
    small.edit("01-prepare", "numbers = [", f"{LEAKS}\nPath('shown').touch()\ntime.sleep(600)\nnumbers = [")
    process = small.start("run", "small", TOKEN=TOKEN)
    try:
        wait_until((small.root / "shown").exists, process=process)
        process.send_signal(signal.SIGTERM)
        out, said = process.communicate(timeout=60)
    finally:
        process.kill()
    done = subprocess.CompletedProcess("run", process.returncode, out, said)
    assert process.returncode == 130
    assert find_leaks(small, TOKEN, done, small.pinmill("runs", "small", "--json")) == []


PASSWORD = "hunter-2_S3cr3t"


def make_database(place: Workplace) -> str:
    """A database of the project's rows; its URL, all of which is the secret."""
    folder = place.root / "vault"
    folder.mkdir()
    rows = [line.rsplit(",", 1) for line in (place.root / "tiny.csv").read_text().splitlines()[1:]]
    with sqlite3.connect(folder / "crm.db") as connection:
        connection.execute("create table texts (text, label)")
        connection.executemany("insert into texts values (?, ?)", rows)
    connection.close()
    return "sqlite:///vault/crm.db"


def test_secret_database_address_is_nowhere_after_a_success(workplace: Workplace) -> None:
    url = make_database(workplace)
    text = (workplace.root / "params/tiny.yaml").read_text()
    workplace.params(text.replace("source: tiny.csv", "source: secret:DB_URL\nquery: select text, label from texts"))
    done = workplace.pinmill("run", "tiny", DB_URL=url)
    told = [workplace.pinmill(*words, "--json") for words in (["runs"], ["models", "tiny"], ["pins"])]
    assert find_leaks(workplace, url, done, *told) == []
    (metadata,) = (workplace.root / "outputs/pins/tiny-data").glob("*/data.txt")
    assert "secret:DB_URL" in metadata.read_text()


def test_secret_database_address_is_nowhere_after_a_failure(workplace: Workplace) -> None:
    url = make_database(workplace)
    params = "workflow: tiny\nsource: secret:DB_URL\nquery: select text from nowhere\n"
    workplace.params(params)
    refused = workplace.pinmill("run", "tiny", code=4, DB_URL=url)
    assert "no such table: nowhere" in refused.stderr
    gone = "sqlite:///vault/gone.db"
    absent = workplace.pinmill("run", "tiny", code=4, DB_URL=gone)
    assert "is not there" in absent.stderr
    host = f"postgresql+psycopg://crm:{PASSWORD}@127.0.0.1:1/crm"
    workplace.params(f"{params}run: {{retries: 1}}\n")
    unreachable = workplace.pinmill("run", "tiny", code=4, DB_URL=host)
    assert "SourceBusyError" in unreachable.stderr
    assert "it is tried again in 5 s (1 of 1)" in unreachable.stderr
    done = [refused, absent, unreachable, workplace.pinmill("runs", "--json")]
    assert {value: find_leaks(workplace, value, *done) for value in (url, gone, host, PASSWORD)} == {
        value: [] for value in (url, gone, host, PASSWORD)
    }


def test_secret_path_of_a_file_is_nowhere(workplace: Workplace) -> None:
    path = f"{PASSWORD}.csv"
    (workplace.root / "tiny.csv").rename(workplace.root / path)
    text = (workplace.root / "params/tiny.yaml").read_text()
    workplace.params(text.replace("source: tiny.csv", "source: secret:TABLE"))
    done = workplace.pinmill("run", "tiny", "--job", "train", TABLE=path)
    assert find_leaks(workplace, path, done) == []


def test_secret_that_is_not_set_is_told_before_anything_runs(small: Workplace) -> None:
    declare_token(small)
    done = small.pinmill("run", "small", code=2)
    assert "token: the secret 'TOKEN' is not set (params/small.yaml, line 3); set it or .env" in done.stderr
    assert not (small.root / "outputs").exists()


def test_secret_comes_from_dotenv_and_is_fingerprinted_by_its_name(small: Workplace) -> None:
    declare_token(small)
    small.edit("01-prepare", "numbers = [", "print(os.environ['TOKEN'])\nnumbers = [")
    (small.root / ".env").write_text("TOKEN='first-value'\n")
    small.pinmill("run", "small")
    (small.root / ".env").write_text("TOKEN='second-value'\n")
    small.pinmill("run", "small")
    assert [stage["status"] for stage in small.json("runs", "small")[0]["stages"]] == ["reused"] * 4
    assert find_leaks(small, "first-value") == []
