"""Models that come over HTTP: taken in, and checked by `pinmill upload` in a process of its own."""

import asyncio
import os
import tempfile
from pathlib import Path

from pinmill.problem import BROKEN, Problem
from pinmill.project import COMMAND
from pinmill.visit import ANONYMOUS, Visit

MOST_UPLOAD = 256_000_000  # bytes of a model
UPLOAD_SECONDS = 300  # to check one


async def receive(visit: Visit, root: Path, workflow: str) -> str:
    """Take the model in a request's body, and have it checked in a process that it cannot harm us with; the answer.

    Raises Problem: 422 for one that does not fit, 503 where it cannot be kept, and what the body itself can be.
    """
    words = ["--by", visit.caller.name or ANONYMOUS, "--note", *visit.options.get("note", [""])[-1:]]
    with tempfile.TemporaryDirectory(prefix="pinmill-upload-") as folder:
        file = Path(folder) / "model.skops"
        with file.open("wb") as target:
            async for part in visit.read_parts(MOST_UPLOAD):
                target.write(part)
        code, said, problem = await run_command(root, "upload", workflow, str(file), *words, "--evaluate", "--json")
    if code:
        kind, _, why = problem.strip().rpartition("\n")[2].partition(": ")
        if kind in ("StoreError", "BoardError", "OSError"):
            raise Problem(503, BROKEN, why=why)
        raise Problem(422, why if why and "Traceback" not in problem else "the model could not be checked")
    return said


async def run_command(root: Path, *words: str) -> tuple[int, str, str]:
    """Run `pinmill WORDS` beside us: its exit code and what it said on both outputs."""
    pipes = {"stdin": asyncio.subprocess.DEVNULL, "stdout": asyncio.subprocess.PIPE, "stderr": asyncio.subprocess.PIPE}
    environ = os.environ | {"PINMILL_HOME": str(root)}
    process = await asyncio.create_subprocess_exec(*COMMAND, *words, **pipes, env=environ)
    try:
        async with asyncio.timeout(UPLOAD_SECONDS):
            said, problem = await process.communicate()
    except TimeoutError:
        process.kill()
        await process.wait()
        return -1, "", f"Problem: checking took more than {UPLOAD_SECONDS} s"
    return process.returncode or 0, said.decode(), problem.decode()
