"""What the champion advises who labels: its prediction of an example and why, and which examples to label first."""

from collections.abc import Callable, Mapping, Sequence
from time import monotonic
from typing import Any

from pinmill.annotations import ACTIVE
from pinmill.champion import read_champion
from pinmill.errors import DataError, IntegrityError, ModelError, PinmillError
from pinmill.queue import order_pool
from pinmill.service import Loaded, Service, explain_row
from pinmill.session import Run

Pool = Sequence[tuple[str, Mapping[str, Any]]]  # hashes and records of open examples
FRESH = 2.0  # s for which the champion that was looked up last is taken for the champion
RANKED = 300.0  # s for which open examples keep their order: to score 2,000 of them may take a second
RIVALS = 3  # versions that are tried, newest first, until one can be loaded


class Adviser:
    """The champion as it is now: what it makes of a record, and which open examples it is least sure of."""

    def __init__(self, run: Run) -> None:
        self._service, self._looked = Service(run), -FRESH
        self._refused = ""  # the version that was found damaged or not allowed, which it stays
        self._order: tuple[str, list[str]] = ("", [])
        self._ranked = -RANKED

    def read(self) -> Loaded | None:
        """The champion; None while none can be loaded, without which people label all the same."""
        if monotonic() - self._looked > FRESH:
            self._looked, service = monotonic(), self._service  # another thread goes on with what there is
            try:
                record = read_champion(service.board, service.workflow)
                known = (self._refused, service.champion and service.champion.version)
                if record and record.version not in known:
                    self._refused = record.version
                    service.load(record.version)
                    service.choose(record.version)
                    self._refused, self._ranked = "", -RANKED
            except PinmillError as error:
                if not isinstance(error, IntegrityError | ModelError):  # it may be well the next time
                    self._refused = ""
                service.problem = str(error)
        return self._service.champion

    def predict(self, record: Mapping[str, Any]) -> dict[str, Any] | None:
        """What the champion predicts for a record and why; None without one, or if the record does not fit it."""
        loaded = self.read()
        row = _fit(loaded, record) if loaded else None
        (item,) = loaded.score([row]) if row else ({"error": "there is nothing to score"},)
        return None if "error" in item else item | explain_row(loaded, row)

    def rank(self, strategy: str, pool: Callable[[], Pool]) -> tuple[str, list[str]]:
        """Which strategy a model can follow, and the hashes of open examples in its order; ("", []) if it is none."""
        loaded = self.read()
        if strategy not in ACTIVE or loaded is None:
            return "", []
        if monotonic() - self._ranked > RANKED and (found := pool()):  # else the first to be added would come unordered
            self._order, self._ranked = self._rank(strategy, loaded, found), monotonic()
        return self._order

    def _rank(self, strategy: str, loaded: Loaded, pool: Pool) -> tuple[str, list[str]]:
        first = _share(loaded, pool)
        if not any(first):
            return "", []
        rival = self._read_rival(loaded.version) if strategy == "disagreement" else None
        chosen = "disagreement" if rival else "uncertainty"
        return chosen, order_pool(chosen, [key for key, _ in pool], first, _share(rival, pool) if rival else None)

    def _read_rival(self, champion: str) -> Loaded | None:
        """The newest other version that can be loaded."""
        service = self._service
        others = [v for v in service.board.versions(f"{service.workflow}-model") if v != champion]
        for version in others[: -RIVALS - 1 : -1]:
            try:
                return service.read(version)
            except PinmillError:
                continue
        return None


def _fit(loaded: Loaded, record: Mapping[str, Any]) -> dict[str, Any] | None:
    """The inputs of a model in a record; None if they do not fit it."""
    row = {name: record[name] for name in loaded.prototype if name in record}
    try:
        loaded.check(row)
    except DataError:
        return None
    return row


def _share(loaded: Loaded, pool: Pool) -> list[dict[str, float] | None]:
    """The probability of each label for each example of a pool; None for one that a model gives none for."""
    rows = [_fit(loaded, record) for _, record in pool]
    items = iter(loaded.score([row for row in rows if row]))
    return [next(items).get("probability") if row else None for row in rows]
