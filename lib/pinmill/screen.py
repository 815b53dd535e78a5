"""What annotate.ipynb shows: the screen to label on, how well people agree, and what they disagree on."""

import os
from collections.abc import Callable, Mapping
from typing import Any

from ipywidgets import Output

from pinmill.adviser import Adviser
from pinmill.errors import NotAllowedError, PinmillError
from pinmill.markdown import Markdown, escape, value_list
from pinmill.quality import Settling, tell_quality
from pinmill.seat import Seat, choose_question, sign_in
from pinmill.session import Run
from pinmill.tokens import allows
from pinmill.version import now_utc
from pinmill.visit import IN_APP
from pinmill.widget import Annotator

OVERSEER = "modeller"  # the role that may see what others said
CENTRED = {"max_width": "46rem", "margin": "1rem auto"}  # below the screen, as wide
SETTLED = "There is nothing on which people disagree, or somebody has settled it."
REFUSED = "What others said is shown to the roles modeller and admin."


class Screen:
    """The parts of the annotation notebook; where somebody has to sign in first, they appear when that is done."""

    def __init__(self, run: Run, environ: Mapping[str, str]) -> None:
        self._run, self._environ, self._adviser = run, environ, None if run.parameters["url"] else Adviser(run)
        self._question, self._seat = choose_question(run, environ), None
        self._waiting: list[tuple[Output, str, Callable[[Seat], Any]]] = []
        if self._adviser:
            self._adviser.read()  # it takes seconds, which nobody waits for yet
        if not self._question:
            try:
                self.enter(run.project.settings.get("PINMILL_TOKEN", ""))
            except NotAllowedError:  # of a service whose token is not known here
                self._question = "token"

    def enter(self, given: str) -> Seat:
        """The seat of who signs in with a token or name; what waited for that is shown. Raises PinmillError."""
        self._seat = seat = sign_in(self._run, given, self._environ, self._adviser)
        self._fill(seat)
        return seat

    def label(self) -> Annotator:
        """The screen on which one labels."""
        return Annotator(self._seat or self.enter, ask=self._question)

    def compare(self) -> Markdown | Output:
        """Who labelled how much and how fast, and how well people agree."""
        return self._show("How well people agree", lambda seat: tell_quality(seat.annotations(), now=now_utc()))

    def settle(self) -> Annotator | Markdown | Output:
        """The screen to label on, over the examples on which people disagree."""
        return self._show("Settle what people disagree on", open_settling)

    def _show(self, title: str, make: Callable[[Seat], Any]) -> Any:
        """What is made of the seat, for those who may see it; before somebody has signed in, a place for it."""
        if self._seat:
            return make(self._seat) if allows(self._seat.role, OVERSEER) else escape(REFUSED)
        self._waiting.append((Output(layout=CENTRED), title, make))
        return self._waiting[-1][0]

    def _fill(self, seat: Seat) -> None:
        """Show what waited for a seat; the app has no titles of its own, and shows annotators nothing of this."""
        waiting, self._waiting = self._waiting, []
        for place, title, make in waiting if allows(seat.role, OVERSEER) else []:
            if self._environ.get(IN_APP):
                place.append_display_data(Markdown(f"## {title}"))
            try:
                place.append_display_data(make(seat))
            except PinmillError as error:  # that keeps nobody from labelling
                place.append_display_data(escape(error))

    def _repr_markdown_(self) -> str:
        """Who labels, and how many examples there are."""
        if self._seat is None:
            return escape(f"Whoever labels is asked for a {self._question} first.")
        told, champion = self._seat.progress(), self._adviser and self._adviser.read()
        shown = {
            "Annotator": f"{self._seat.annotator} ({self._seat.role})",
            "Labels": "any amount" if self._seat.labels is None else self._seat.labels,
            "Examples to label": told["open"],
            "Labelled": f"{told['done']}, of these by you {told['own']}",
        }
        own = {"Champion": champion.version if champion else "none"} if self._adviser else {}
        return value_list(shown | own)


def open_settling(seat: Seat) -> Annotator | Markdown:
    """The screen over what people disagree on; without that, the words that say so."""
    settling = Settling(seat)
    return Annotator(settling) if settling.progress()["open"] else escape(SETTLED)


def open_screen(run: Run) -> Screen:
    """The screen of a run's workflow, here or at the service at `url`."""
    return Screen(run, os.environ)
