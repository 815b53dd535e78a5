"""The screen of an annotator: one example at a time, and a label is saved before the screen says so.

The browser's side is `desk_view/`. It keeps nothing and is not trusted; it sends messages, and is sent what to show. No
example, token or label stands in a synchronised trait, as these are saved with the notebook. The store's work that
somebody waits for is done in the kernel's own thread; fetching, counting and scoring are done beside it.
"""

import asyncio
from collections.abc import Callable, Collection, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Literal, Protocol

import traitlets
from anywidget import AnyWidget

from pinmill.display import Item, Message, describe_error, describe_item, describe_label, describe_score, read_message
from pinmill.errors import DataError
from pinmill.version import now_utc

HELD = 4  # examples in hand, the one on the screen among them: the next is there at once
LOW = 2  # with as many left, the others are fetched while people read
NEAR = timedelta(minutes=5)  # before an example is somebody else's, it is taken again
HEARD = 50  # answers that are remembered, for messages that are sent again
GONE = "That example was in hand for too long and is somebody else's by now; nothing was saved. Here is another."
NO_LABELS = "No labels are known yet. Write those of this workflow in its params, as labels: [yes, no]."
ABOUT = ("annotator", "workflow", "labels", "guideline")
VIEW = Path(__file__).with_name("desk_view")


class Seat(Protocol):
    """Where examples come from and labels go; all but `label`, `skip` and `undo` is called in a thread beside these.

    `take` gives anew those in hand that still are this annotator's; one whose `expires` is empty stays.
    """

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
        self._said: dict[str, str] = {}  # what was said to the last requests that changed something
        self._left: set[str] = set()  # examples that left the screen since a fetch began
        self._about: dict[str, Any] = {}  # what the seat said of itself last
        self._progress: Item | None = None
        self._problem = ""  # why no example could be fetched
        self._task: asyncio.Task | None = None
        self._late = False  # whether something changed while a fetch was on its way
        self._again = False  # whether those in hand are to be taken again
        self._unscored: tuple[Message, Item] | None = None  # the newest edit, and of what, until its turn comes
        self._scoring: asyncio.Task | None = None
        self.on_msg(lambda _, content, __: self._answer(content))

    def _answer(self, content: Any) -> None:
        """Do what a message asks and send what to show then; whatever it holds, nothing is raised."""
        request = content.get("request") if isinstance(content, dict) else None
        try:
            message = read_message(content)
            said = self._said.get(message.request) or getattr(self, f"_do_{message.do}")(message)
            if message.do in ("label", "skip", "undo"):  # sent again, it is answered again and does nothing more
                self._said = dict([*self._said.items(), (message.request, said)][-HEARD:])
            if message.do != "score":
                self._show(request, said=said)
        except Exception as error:
            self._show(request, problem=describe_error(error))

    def _do_hello(self, _: Message) -> str:
        """Somebody opened the screen, or asks again for an example."""
        if self.seat:
            self._again = True
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
        item, text = self._claim(message), self.seat.text
        if message.text is not None and not text:
            raise DataError("A record cannot be edited. Reload the page.")
        record = None if message.text is None else {text: message.text}
        told = self.seat.label(item, message.label, record=record, seconds=message.seconds, note=message.note)
        return self._leave(item, f"Saved ✓ {describe_label(told['label'])}")

    def _do_skip(self, message: Message) -> str:
        """Save that no side is taken, then go on to the next example."""
        item = self._claim(message)
        self.seat.skip(item, note=message.note, seconds=message.seconds)
        return self._leave(item, "Skipped ✓")

    def _do_undo(self, _: Message) -> str:
        """Take back what was said last, and show its example again."""
        item = self._seated().undo()
        if item:
            kept = item | {"expires": "" if is_near(item, timedelta()) else item["expires"]}  # late, but theirs to say
            self._items = [kept, *(each for each in self._items if each["id"] != item["id"])][:HELD]
            self._left.discard(item["id"])
            self._fetch()
        return "Undone ✓ Here it is again." if item else "There is nothing to undo."

    def _do_score(self, message: Message) -> str:
        """Have an edited text scored, unless another comes before its turn."""
        self._unscored = message, self._find(message)["record"]
        if not self._scoring:
            self._scoring = asyncio.get_running_loop().create_task(self._score())
        return ""

    async def _score(self) -> None:
        """Send what the model makes of the newest text; a model that fails stops nobody from labelling."""
        while self._unscored:
            (message, record), self._unscored, prediction = self._unscored, None, None
            text = message.text or ""
            try:
                prediction = await asyncio.to_thread(self.seat.score, {**record, self.seat.text: text})
            except Exception as error:
                describe_error(error)  # which only the log needs to know
            told = describe_score(prediction, text, self._about["labels"])
            self.send({"do": "score", "request": message.request, **told})
        self._scoring = None

    def _seated(self) -> Seat:
        if self.seat is None:
            raise DataError("Nobody has signed in. Reload the page.")
        return self.seat

    def _find(self, message: Message) -> dict[str, Any]:
        """The example on the screen, if it is the one that the message means."""
        self._seated()
        if not self._items or message.id != self._items[0]["id"]:
            raise DataError("That example is no longer on the screen; nothing was saved. Here is the one that is.")
        return self._items[0]

    def _claim(self, message: Message) -> dict[str, Any]:
        """The same; taken again first, if it may be somebody else's by now."""
        item = self._find(message)
        if is_near(item, timedelta()):
            self._items = merge(self._items, self.seat.take(HELD))
            if not self._items or self._items[0]["id"] != item["id"]:
                self._fetch()
                raise DataError(GONE)
        return self._items[0]

    def _leave(self, item: Item, said: str) -> str:
        """Go on to the next example; what to say of the one that was on the screen."""
        self._items = self._items[1:]
        self._left.add(item["id"])
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
        self._late, self._left, problem = False, set(), ""
        shown, asked = self._items[:1], {each["id"] for each in self._items}
        try:
            self._about = await asyncio.to_thread(self._ask_about)
            if self._again or len(self._items) <= LOW or any(is_near(each, NEAR) for each in self._items):
                self._again = False
                taken = await asyncio.to_thread(self.seat.take, HELD)
                self._items = merge(self._items, taken, asked=asked, left=self._left)
                there = self._left | {each["id"] for each in self._items}
                problem = GONE if shown and shown[0]["id"] not in there else ""
            self._progress, self._problem = await asyncio.to_thread(self.seat.progress), ""
        except Exception as error:
            self._problem = describe_error(error)
        self._task = None
        if self._late:
            self._fetch()
        self._show(problem=problem)

    def _ask_about(self) -> dict[str, Any]:
        """What the seat says of itself."""
        return {name: getattr(self.seat, name) for name in ABOUT}

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
        item, about = self._items[0] if self._items else None, self._about
        if self.seat is None:
            return {"state": "asking", "ask": self._ask, "item": None}
        if about.get("labels") == []:
            raise DataError(NO_LABELS)
        without = "loading" if self._task else "error" if self._problem else "empty"
        told = describe_item(item, self.seat.text, about["labels"]) if item else None
        return {**about, "state": "working" if item else without, "item": told, "progress": self._progress}


def is_near(item: Item, margin: timedelta) -> bool:
    """Whether an item will in so much time no longer be kept for who has it in hand."""
    return bool(item["expires"]) and datetime.fromisoformat(item["expires"]) <= now_utc() + margin


def merge(
    held: Sequence[Item], taken: Sequence[Item], *, asked: Collection[str] | None = None, left: Collection[str] = ()
) -> list[Item]:
    """What is in hand once `taken` has come: of `held` what was taken again, in its order, then what is new.

    Those that cannot expire, and those that were not in hand when somebody `asked` (default: all were), stay too; what
    has `left` the hand since then does not come back.
    """
    given, known = {each["id"]: each for each in taken}, {each["id"] for each in held}
    stays = [each for each in held if not each["expires"] or (asked is not None and each["id"] not in asked)]
    ids = {each["id"] for each in stays}
    kept = [each if each["id"] in ids else given[each["id"]] for each in held if each["id"] in ids | given.keys()]
    return kept + [each for each in taken if each["id"] not in known and each["id"] not in left]
