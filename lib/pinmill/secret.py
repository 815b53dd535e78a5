"""Values that may be used but never shown: `secret:NAME` in a params file."""

import html
import json
import re
from collections.abc import Iterable, Mapping
from functools import cache
from typing import Any
from urllib.parse import parse_qsl, quote, unquote, urlsplit

from pinmill.errors import SecretError

PREFIX = "secret:"
HIDDEN = "[secret]"
SHORTEST = 4  # a shorter value would also be found in ordinary words and numbers


def find_secrets(value: Any) -> set[str]:
    """Names of all secrets that a parameter's value refers to, in lists and mappings too."""
    if isinstance(value, str):
        return {value.removeprefix(PREFIX)} if value.startswith(PREFIX) else set()
    if isinstance(value, Mapping):
        value = value.values()
    elif not isinstance(value, list | tuple):
        return set()
    return set().union(*(find_secrets(item) for item in value))


def reveal(value: str, settings: Mapping[str, str]) -> str:
    """The value itself, for `secret:NAME` the setting of that name. Raises SecretError when it is not set."""
    if not value.startswith(PREFIX):
        return value
    name = value.removeprefix(PREFIX)
    if not settings.get(name):
        raise SecretError(f"the secret {name!r} is not set. Set {name} in the environment, or in .env (never in git).")
    return settings[name]


def hidden_values(names: Iterable[str], settings: Mapping[str, str]) -> list[str]:
    """What must not be shown: each secret's value and, of a URL, password, token and query values; longest first."""
    values = {settings[name] for name in names if settings.get(name)}
    parts = set()
    for url in (urlsplit(value) for value in values if "://" in value):
        parts |= {url.password or url.username or "", *(value for _, value in parse_qsl(url.query) if len(value) >= 8)}
    every = values | parts | {unquote(part) for part in parts}
    return sorted((value for value in every if len(value) >= SHORTEST), key=len, reverse=True)


@cache
def spelling_of(text: str) -> re.Pattern[str]:
    """What finds `text` as it is, and as Python, JSON, HTML, our Markdown and URLs write it."""
    from pinmill.markdown import escape

    written = {text, repr(text)[1:-1], html.escape(text), html.escape(text, quote=False), str(escape(text))}
    written |= {json.dumps(text)[1:-1], json.dumps(text, ensure_ascii=False)[1:-1], quote(text), quote(text, safe="")}
    return re.compile("|".join(map(re.escape, sorted(written, key=len, reverse=True))))


def scrub(value: Any, hidden: list[str]) -> Any:
    """`value` (text, or any nesting of lists and mappings) with every hidden text replaced by `[secret]`."""
    if not hidden:
        return value
    if isinstance(value, str):
        for text in hidden:
            value = spelling_of(text).sub(HIDDEN, value)
        return value
    if isinstance(value, Mapping):
        return {scrub(key, hidden): scrub(item, hidden) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [scrub(item, hidden) for item in value]
    return value
