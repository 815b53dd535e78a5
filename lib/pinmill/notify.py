"""People are told of incidents, each once, by any service that apprise knows; one that is dead holds up nothing."""

import hashlib
import json
import os
import platform
import re
import subprocess
import sys
import threading
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import NamedTuple
from urllib.parse import unquote

from filelock import FileLock, Timeout

from pinmill.incidents import UNDECIDED, Incident, Known, compare, find_due, find_incidents, note_told
from pinmill.params import RunSettings
from pinmill.project import Project
from pinmill.runs import FINISHED, Work, record_type, write_json
from pinmill.secret import SHORTEST, reveal, scrub
from pinmill.version import now_utc

SECONDS = 20  # for all services together, and as long for another process that is telling
MOST = 10  # incidents told whole in one message
SEND = (sys.executable, "-P", "-c", "from pinmill.notify import deliver; deliver()")
BETWEEN = re.compile(r"\s+|,\s*(?=[A-Za-z][\w+.-]*://)")  # addresses; a comma may also stand inside one
PASSWORD = re.compile(r"://[^:@?]*:([^@?]+)@")
TOKEN = re.compile(r"(?=.*\d)(?=.*[A-Za-z]).{16,}")  # what many services have in place of a password
HOST = re.compile(r"localhost|[\w-]+(\.[\w-]+)*\.([a-z]{2,10}|\d{1,3})")
PLACE = re.compile(r"([A-Za-z][\w+.-]*)://(?:[^?]*@)?([\w.-]*)")
UNTOLD = "could not be told, and is tried again after the next run. To see why: apprise -v -b test URL"
NONE_SUCH = "is not of a form that apprise knows, so nobody is told there. For the forms: apprise --details"
SHOWN = ("key", "title", "text")  # of an incident: what may hold anything
SEVERITY = {"failed": "failure", "missed": "failure", "rejected": "warning", "alert": "warning"}  # as apprise says


class Message(NamedTuple):
    """What one address is sent."""

    url: str
    title: str
    body: str
    type: str  # failure | warning | success


def find_urls(project: Project, settings: RunSettings) -> list[str]:
    """The addresses that are told: `run: notify` with secrets filled in, and `PINMILL_NOTIFY`, each once.

    Raises SecretError for one that is not set.
    """
    given = [reveal(each, project.settings) for each in settings.notify]
    every = [part for text in (*given, project.settings.get("PINMILL_NOTIFY", "")) for part in BETWEEN.split(text)]
    return [*dict.fromkeys(filter(None, every))]


def hide_urls(urls: Sequence[str], *, guess: bool = False) -> list[str]:
    """What of addresses must not be shown: each as a whole, and what may be a token; longest first.

    With `guess` also what stands where many have a password: for some services it is a name, an ordinary word.
    """
    parts = {match[1] for url in urls if guess and (match := PASSWORD.search(url))}
    pieces = {piece for url in urls for piece in re.split(r"[/?&=,;@:#]+", url.partition("://")[2])}
    parts |= {piece for piece in pieces if TOKEN.fullmatch(piece) and not HOST.fullmatch(piece)}
    every = {*parts, *map(unquote, parts), *(url for url in urls if url.rstrip("/") != name_place(url))}
    return sorted((text for text in every if len(text) >= SHORTEST), key=len, reverse=True)


def name_place(url: str) -> str:
    """An address without anything secret: its scheme, and its host where that is one."""
    found = PLACE.match(url)
    if found is None:
        return "an entry that is no URL"
    return f"{found[1]}://{found[2] if HOST.fullmatch(found[2]) else '…'}"


def tell_people(work: Work) -> None:
    """Tell of the incidents that a run found, and of those that are over; what is wrong with that is only said.

    A run that was given a model answers whoever asked for it: nobody else is told, and nothing is over by it.
    """
    record, project = work.record, work.project
    if work.plan.model or record.status not in (*FINISHED, "failed"):
        return
    try:
        made = record.output("monitoring") if record.status in FINISHED else None
        alerts = project.board.pin(made["name"], made["version"]).facts.get("alerts", []) if made else []
        pages = project.settings.get("PINMILL_PAGES_URL", "").rstrip("/") or project.relative(project.pages)
        found = find_incidents(record, title=work.plan.title, last=work.last, alerts=alerts, pages=pages)
        silent = [("alert", str(alert["key"])) for alert in alerts if not alert.get("period", True)]  # it has no data
        unknown = [*UNDECIDED.get(record.status, ()), *silent]
        about = {"urls": find_urls(project, work.plan.settings), "unknown": unknown}
        problems = announce(project, record.workflow, record.job, found, hidden=work.hidden, **about)
    except Exception as error:  # whatever it is, it must not change how a run ended
        problems = [f"nobody was told: {type(error).__name__}: {error}"]
    for problem in problems:
        work.progress.say(scrub(f"notification: {problem}", work.hidden))


def announce(
    project: Project,
    workflow: str,
    job: str,
    found: Sequence[Incident],
    *,
    urls: Sequence[str],
    hidden: Sequence[str],
    unknown: Collection[str | tuple[str, str]] = (),
) -> list[str]:
    """Send what is new and what is over, each once to each address; what could not be sent, in words.

    `found` are all incidents of now, but for the `unknown` kinds and ids, of which nobody can tell; the workflow is
    empty for those of none. What could not be sent is sent the next time. Never raises, and takes at most twice
    `SECONDS`.
    """
    name, every = ".".join(filter(None, (workflow, job))), [*hidden, *hide_urls(urls, guess=True)]
    file = project.outputs / "incidents" / f"{name}.json"
    if not found and not file.is_file():
        return []
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(file.with_suffix(".lock"), timeout=SECONDS):
            before, problems = read_known(file)
            shown = [replace(each, **{name: scrub(getattr(each, name), every) for name in SHOWN}) for each in found]
            known = compare(before, shown, unknown=unknown, now=now_utc().isoformat(timespec="seconds"))
            marks = {mark_url(url): url for url in urls}
            due = {url: due for mark, url in marks.items() if (due := find_due(known, mark))}
            where = f"from: {project.root} on {platform.node()}"
            messages = [compose(url, workflow, each, where) for url, each in due.items()]
            failed = send(messages, {**os.environ, **project.settings}) if messages else {}
            told = [mark for mark, url in marks.items() if url in due and url not in failed]
            known = note_told(known, told, marks)
            write_json(file, [asdict(each) for each in known])
    except Timeout:
        return [f"another process has been telling of {name} for {SECONDS} s, so what is new is told the next time"]
    except Exception as error:  # as above
        return [scrub(f"not all was told or noted: {type(error).__name__}: {error}", every)]
    return scrub([*problems, *failed.values()], every)


def mark_url(url: str) -> str:
    """What stands for an address where it must not be shown."""
    return hashlib.sha256(url.encode()).hexdigest()[:16]


def read_known(file: Path) -> tuple[list[Known], list[str]]:
    """The incidents that were found before, and what is wrong with the file they stand in; damaged, it holds none."""
    try:
        return record_type(list[Known]).validate_json(file.read_bytes()), []
    except FileNotFoundError:
        return [], []
    except ValueError:
        return [], [f"{file.name} is damaged and starts anew, so what was told before may be told again"]


def compose(url: str, workflow: str, due: Sequence[Known], where: str) -> Message:
    """One message of all that an address has to be told of; `where` is told at its end."""
    more = f" and {len(due) - 1} more" if len(due) > 1 else ""
    title = f"[Pinmill] {workflow and f'{workflow}: '}{due[0].title}{more}"
    parts = [f"{each.title}\n{each.text}" for each in due[:MOST]] + [each.title for each in due[MOST:]]
    parts.append(where)
    kinds = [SEVERITY[each.incident.kind] for each in due if not each.over]
    return Message(url, title, "\n\n".join(parts), min(kinds, default="success"))  # the worst sorts first


def send(messages: Sequence[Message], environ: Mapping[str, str], *, seconds: float = SECONDS) -> dict[str, str]:
    """Send in a process of its own, which is killed when the time is over; by address what is wrong, if anything."""
    try:
        given = json.dumps(messages).encode()
        silent = {"stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL, "check": False}
        said = subprocess.run(SEND, input=given, env=environ, timeout=seconds, **silent).stdout
    except subprocess.TimeoutExpired as error:
        said = error.stdout or b""
    answers = dict(json.loads(line) for line in said.splitlines())
    return {
        each.url: f"{name_place(each.url)} {answers.get(number) or UNTOLD}"
        for number, each in enumerate(messages)
        if answers.get(number) != ""
    }


def deliver() -> None:
    """Send the messages on standard input, all at once; for each that is done say its number and what is wrong.

    This is a process of its own: a service may hang, and apprise waits for it even when its caller does not.
    """
    from apprise import Apprise, AppriseAsset, OverflowMode

    about = {"app_id": "Pinmill", "app_desc": "Pinmill", "app_url": "", "image_url_mask": "", "image_url_logo": ""}
    asset = AppriseAsset(**about, interpret_emojis=False)

    def work(number: int, message: Message) -> None:
        """Send one message, as text."""
        service, problem = Apprise.instantiate(message.url, asset=asset), NONE_SUCH
        if service is not None:
            if "overflow=" not in message.url:
                service.overflow_mode = OverflowMode.TRUNCATE  # the service would refuse a message that is too long
            sender = Apprise(service, asset=asset)
            about = {"title": message.title, "notify_type": message.type, "body_format": "text"}
            problem = "" if sender.notify(message.body, **about) else UNTOLD
        os.write(sys.stdout.fileno(), json.dumps([number, problem]).encode() + b"\n")

    Apprise.instantiate("json://localhost")  # loads all services, once
    every = [Message(*message) for message in json.load(sys.stdin)]
    threads = [threading.Thread(target=work, args=pair, daemon=True) for pair in enumerate(every)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    os._exit(0)  # not waiting for threads of apprise's
