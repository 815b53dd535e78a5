"""Models and runs over HTTP: uploads and their evaluation, and runs that are started and followed."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from conftest import Server, Workplace

BY_HAND = "a stranger's model"


def follow(server: Server, run: str) -> dict:
    """What is told of a run once it has ended."""
    told: dict = {}

    def has_ended() -> bool:
        told.update(server.ask("GET", f"/runs/{run}").json())
        return told["status"] not in ("starting", "running")

    server.wait_until(has_ended, seconds=180)
    return told


def test_a_model_that_is_uploaded_is_evaluated_and_what_is_none_is_refused(
    serve: Callable[..., Server], trained: Workplace
) -> None:
    server = serve()
    known = {model["version"] for model in server.ask("GET", "/models").json()["models"]}
    for rubbish in (b"rubbish", pickle.dumps({"a": 1})):
        refused = server.client.post("/models", content=rubbish)
        assert (refused.status_code, "Not a model file" in refused.json()["detail"]) == (422, True)
    answer = server.client.post("/models", params={"note": BY_HAND}, content=trained.make_second(), timeout=120)
    assert answer.status_code == 201, answer.text
    version = answer.json()["version"]
    assert follow(server, answer.json()["run"])["candidate"] == version
    (model,) = [each for each in server.ask("GET", "/models").json()["models"] if each["version"] not in known]
    assert (model["version"], model["gate"] is None, model["changed"]) == (version, False, ["uploaded"])
    (row,) = [row for row in trained.json("audit", "tiny") if row["what"] == "uploaded"]
    assert (row["who"], row["detail"]) == ("anonymous", f"{version}: {BY_HAND}")
    assert server.ask("POST", "/prediction", "win a prize").status_code == 200


def test_a_run_is_started_and_followed_and_a_second_one_has_to_wait(serve: Callable[..., Server]) -> None:
    server = serve()
    started = server.ask("POST", "/runs", {"set": {"draws": 60}})
    assert started.status_code == 202, started.text
    run = started.json()["run"]
    server.wait_until(lambda: server.ask("GET", f"/runs/{run}").json()["status"] == "running")
    refused = server.ask("POST", "/runs", {})
    assert (refused.status_code, run in refused.json()["detail"]) == (409, True)
    told = follow(server, run)
    assert (told["status"], told["job"], [stage["stage"] for stage in told["stages"]]) == (
        "succeeded",
        "train",
        ["prepare", "train", "evaluate", "model-card"],
    )
