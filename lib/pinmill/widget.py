"""The screen of an annotator: one example at a time, and a label is saved before the screen says so.

The browser's side is `desk_view/`. It keeps nothing and is not trusted; it sends messages, and is sent what to show. No
example, token or label stands in a synchronised trait, as these are saved with the notebook.
"""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, Protocol

import traitlets
from anywidget import AnyWidget

from pinmill.display import Item, Message, describe_error, describe_item, describe_label, describe_score, read_message
from pinmill.errors import DataError

HELD = 4  # examples in hand, the one on the screen among them: the next is there at once
LOW = 2  # with as many left, the others are fetched while people read
NO_LABELS = "No labels are known yet. Write those of this workflow in its params, as labels: [yes, no]."
VIEW = Path(__file__).with_name("desk_view")


class Seat(Protocol):
    """Where examples come from and labels go; `take` and `progress` are called in a thread beside all else."""

    annotator: str
    workflow: str
    labels: list[Any] | None  # None: amounts
    text: str  # the column that can be edited; empty: a record of columns is shown
    guideline: str

    def take(self, n: int) -> list[dict[str, Any]]: ...
    def label(self, item: Item, label: Any, *, record: Item | None, seconds: float | None, note: str) -> Item: ...
    def skip(self, item: Item, *, note: str, seconds: float | None) -> Any: ...
    def undo(self) -> dict[str, Any] | None: ...
    def score(self, record: Item) -> Item | None: ...
    def progress(self) -> Item: ...


class Annotator(AnyWidget):
    """The screen over a seat; with `ask` ("token" or "name"), over the function from what was given to a seat.

    `seat` can be observed; it is None until somebody has signed in, and no example is taken before.
    """

    _esm = VIEW / "annotate.js"
    _css = VIEW / "annotate.css"
    seat = traitlets.Any(None, allow_none=True)  # not synchronised

    def __init__(self, seat: Seat | Callable[[str], Seat], *, ask: Literal["", "token", "name"] = "") -> None:
        super().__init__()
        self._ask, self._sign_in = ask, seat
        self.seat = None if ask else seat
        self._items: list[dict[str, Any]] = []  # the first is on the screen
        self._last = ("", "")  # the example that left the screen last, and what was said of it
        self._left: set[str] = set()  # examples that left the screen since a fetch began
        self._progress: Item | None = None
        self._problem = ""  # why no example could be fetched
        self._task: asyncio.Task | None = None
        self._late = False  # whether something changed while a fetch was on its way
        self.on_msg(lambda _, content, __: self._answer(content))

    def _answer(self, content: Any) -> None:
        """Do what a message asks and send what to show then; whatever it holds, nothing is raised."""
        request = content.get("request") if isinstance(content, dict) else None
        try:
            message = read_message(content)
            if message.do == "score":
                self._score(message)
            else:
                said = getattr(self, f"_do_{message.do}")(message)
                self._show(request, said=said)
        except Exception as error:
            self._show(request, problem=describe_error(error))

    def _do_hello(self, _: Message) -> str:
        """Somebody opened the screen, or asks again for an example."""
        if self.seat:
            self._fetch()
        return ""

    def _do_sign_in(self, message: Message) -> str:
        """Somebody says who they are."""
        if self._ask and not self.seat:
            self.seat = self._sign_in(message.given)
            self._fetch()
        return ""

    def _do_label(self, message: Message) -> str:
        """Save a label, then go on to the next example."""
        if self._is_done(message):
            return self._last[1]
        item, text = self._find(message), self.seat.text
        if message.text is not None and not text:
            raise DataError("A record cannot be edited. Reload the page.")
        record = None if message.text is None else {**item["record"], text: message.text}
        told = self.seat.label(item, message.label, record=record, seconds=message.seconds, note=message.note)
        return self._leave(item, f"Saved ✓ {describe_label(told['label'])}")

    def _do_skip(self, message: Message) -> str:
        """Save that no side is taken, then go on to the next example."""
        if self._is_done(message):
            return self._last[1]
        item = self._find(message)
        self.seat.skip(item, note=message.note, seconds=message.seconds)
        return self._leave(item, "Skipped ✓")

    def _do_undo(self, _: Message) -> str:
        """Take back what was said last, and show its example again."""
        item = self._seated().undo()
        if item:
            self._items = [item, *(each for each in self._items if each["id"] != item["id"])]
            self._last = ("", "")
            self._left.discard(item["id"])
            self._fetch()
        return "Undone ✓ Here it is again." if item else "There is nothing to undo."

    def _score(self, message: Message) -> None:
        """Send what the model makes of an edited text; a model that fails stops nobody from labelling."""
        item, text = self._find(message), message.text or ""
        try:
            prediction = self.seat.score({**item["record"], self.seat.text: text})
        except Exception as error:
            describe_error(error)  # which only the log needs to know
            prediction = None
        told = describe_score(prediction, text, self.seat.labels)
        self.send({"do": "score", "request": message.request, **told})

    def _seated(self) -> Seat:
        if self.seat is None:
            raise DataError("Nobody has signed in. Reload the page.")
        return self.seat

    def _is_done(self, message: Message) -> bool:
        """Whether this was asked before, and the answer was not heard."""
        shown = self._items[0]["id"] if self._items else ""
        return message.id not in ("", shown) and message.id == self._last[0]

    def _find(self, message: Message) -> dict[str, Any]:
        """The example on the screen, if it is the one that the message means."""
        self._seated()
        if not self._items or message.id != self._items[0]["id"]:
            raise DataError("That example is no longer on the screen; nothing was saved. Here is the one that is.")
        return self._items[0]

    def _leave(self, item: Item, said: str) -> str:
        """Go on to the next example; what to say of the one that was on the screen."""
        self._items = self._items[1:]
        self._left.add(item["id"])
        self._last = (item["id"], said)
        self._fetch()
        return said

    def _fetch(self) -> None:
        """Start to fill up what is in hand, and to count; once more afterwards, if that is on its way."""
        if self._task:
            self._late = True
        else:
            self._task = asyncio.get_running_loop().create_task(self._fill())

    async def _fill(self) -> None:
        """Fetch beside the kernel's own thread, in which labels are saved meanwhile, and show what came."""
        self._late, self._left = False, set()
        try:
            taken = await asyncio.to_thread(self.seat.take, HELD) if len(self._items) <= LOW else []
            known = {each["id"] for each in self._items} | self._left
            self._items += [each for each in taken if each["id"] not in known]
            self._progress, self._problem = await asyncio.to_thread(self.seat.progress), ""
        except Exception as error:
            self._problem = describe_error(error)
        self._task = None
        if self._late:
            self._fetch()
        self._show()

    def _show(self, request: Any = None, *, said: str = "", problem: str = "") -> None:
        """Send all that the screen is made of; `request` names the message that this answers."""
        try:
            told = self._describe()
        except Exception as error:
            told, problem = {"state": "error", "item": None}, describe_error(error)
        if told["state"] == "error":
            problem = problem or self._problem
        self.send({"do": "show", "request": request, "said": said, "problem": problem, **told})

    def _describe(self) -> dict[str, Any]:
        """What the screen is made of now."""
        seat, item = self.seat, self._items[0] if self._items else None
        if seat is None:
            return {"state": "asking", "ask": self._ask, "item": None}
        about = {name: getattr(seat, name) for name in ("annotator", "workflow", "labels", "guideline")}
        if about["labels"] == []:
            raise DataError(NO_LABELS)
        without = "loading" if self._task else "error" if self._problem else "empty"
        told = describe_item(item, seat.text, about["labels"]) if item else None
        return {**about, "state": "working" if item else without, "item": told, "progress": self._progress}
