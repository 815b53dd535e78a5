"""Names of versions: the time of the commit, always after the version before, in the form that stock pins accepts."""

import re
from collections.abc import Iterable
from datetime import UTC, datetime

VERSION = re.compile(r"\d{4}[01]\d[0-3]\dT[0-2]\d[0-5]\d[0-6]\dZ-[0-9a-z]{5}")
STAMP = "%Y%m%dT%H%M%SZ"  # the time format of stock pins
TICKS = 10_000_000  # of 0.1 microseconds in a second: six digits of microseconds and one for ties
DIGITS = "0123456789abcdefghijklmnopqrstuvwxyz"  # in the order of their character codes: stock pins sorts as text


def now_utc() -> datetime:
    """The time now: aware, UTC, with microseconds."""
    return datetime.now(UTC)


def next_version(now: datetime, last: str | None) -> str:
    """The version for a commit at `now` (aware), always after `last` as text, also if the clock was set back.

    The five characters are tenths of a microsecond within the second, in base 36.
    """
    ticks = int(now.replace(microsecond=0).timestamp()) * TICKS + now.microsecond * 10
    if last is not None:
        second = datetime.strptime(last[:16], STAMP).replace(tzinfo=UTC)
        after = min(int(last[17:], 36) + 1, TICKS)  # stock pins puts a hash there, which may be more than a second
        ticks = max(ticks, int(second.timestamp()) * TICKS + after)
    seconds, ticks = divmod(ticks, TICKS)
    digits = "".join(DIGITS[ticks // 36**place % 36] for place in (4, 3, 2, 1, 0))
    return f"{datetime.fromtimestamp(seconds, UTC).strftime(STAMP)}-{digits}"


def match_short(given: str, names: Iterable[str]) -> list[str]:
    """Of names, the one that is `given`, otherwise those that begin or end with it; none for an empty text."""
    names = list(names)
    alike = [name for name in names if given and (name.startswith(given) or name.endswith(given))]
    return [given] if given in names else alike
