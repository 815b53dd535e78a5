"""Tokens: who may call the service and what they may do there, and the audit list of who changed what."""

import hashlib
import hmac
import re
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import sqlalchemy as sql

from pinmill.champion import Champion, read_history
from pinmill.errors import ParameterError, PinmillError, describe_problems, did_you_mean
from pinmill.pin import check_name
from pinmill.project import Project
from pinmill.store import AUDIT, TOKENS, Store, stamp
from pinmill.visit import ROLES

NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,39}")
LIFE = re.compile(r"([0-9]{1,5})([dh])")
UNITS = {"d": "days", "h": "hours"}
NO_LIFE, FOREVER = timedelta(), datetime.max.replace(tzinfo=UTC)
SHOWN = ("who", "what", "workflow", "detail")
LONGEST = 200  # characters of an Authorization header that can hold a token of ours


@dataclass(frozen=True)
class Token:
    """What the store knows of a token: all but the token."""

    name: str
    role: str  # one of ROLES
    created: str  # times are ISO 8601, UTC, microseconds
    by: str  # who made it
    expires: str | None
    revoked: str | None
    digest: bytes = field(repr=False)  # SHA-256 of the token

    def state(self, now: datetime) -> str:
        """active, expired or revoked."""
        over = self.expires is not None and self.expires <= stamp(now)
        return "revoked" if self.revoked else "expired" if over else "active"


class Tokens:
    """The tokens at one moment; `empty` when none was ever made: a revoked or expired one counts."""

    def __init__(self, tokens: Sequence[Token]) -> None:
        self.empty, good = not tokens, [token for token in tokens if not token.revoked]
        ends = [datetime.fromisoformat(token.expires) if token.expires else FOREVER for token in good]
        self._good = {token.digest: (token, end) for token, end in zip(good, ends, strict=True)}

    def find(self, header_value: str, now: datetime) -> Token | None:
        """The active token that the value of an Authorization header ("Bearer pinmill_…") holds."""
        scheme, _, given = header_value[: LONGEST + 1].partition(" ")
        if scheme.lower() != "bearer" or len(header_value) > LONGEST:
            return None
        digest = hashlib.sha256(given.strip(" ").encode(errors="replace")).digest()
        token, end = self._good.get(digest, (None, now))
        return token if now < end and hmac.compare_digest(token.digest, digest) else None


def allows(role: str, needed: str) -> bool:
    """Whether `role` may do what `needed` (one of ROLES, or "any") may."""
    return needed == "any" or role in ROLES[ROLES.index(needed) :]


def create_token(
    store: Store, name: str, role: str, *, expires: timedelta | str | None, by: str, when: datetime
) -> str:
    """Make a token and return it: nothing keeps it but its SHA-256. It expires after that time, or as "90d", "12h" say.

    Raises ParameterError with all that is wrong; a name is given once, so that in the audit list it means one token.
    """
    life = parse_life(expires) if isinstance(expires, str) else expires and max(expires, NO_LIFE)
    with store.writing() as connection:
        known = connection.execute(sql.select(TOKENS).where(TOKENS.c.name == name)).mappings().first()
        problems = [
            *([] if NAME.fullmatch(name) else ["the name must be 1 to 40 of a-z, 0-9 and '-', the first not '-'"]),
            *([f"its name was given before ({_tell_fate(known)}): take another"] if known else []),
            *([] if role in ROLES else [f"the role is {role!r}: one of {', '.join(ROLES)} was expected"]),
            *([f"it expires after {expires!r}: days or hours were expected, as 90d or 12h"] if life == NO_LIFE else []),
        ]
        if problems:
            raise ParameterError(describe_problems(f"the token {name!r}", problems))
        token, ends = f"pinmill_{name}_{secrets.token_hex(24)}", stamp(when + life) if life else None
        row = {"name": name, "role": role, "hash": hashlib.sha256(token.encode()).hexdigest(), "by": by}
        connection.execute(sql.insert(TOKENS).values({**row, "created": stamp(when), "expires": ends}))
        detail = f"{name}, role {role}, {f'expires {ends}' if ends else 'does not expire'}"
        write_audit(connection, who=by, what="token created", detail=detail, when=when)
    return token


def revoke_token(store: Store, name: str, *, by: str, when: datetime) -> None:
    """Have a token open nothing any more, within a second. ParameterError if there is none, or it was revoked."""
    with store.writing() as connection:
        known = {row.name: row._mapping for row in connection.execute(sql.select(TOKENS))}
        if name not in known:
            raise ParameterError(f"there is no token {name!r}.{did_you_mean(name, known)} See: pinmill token list")
        if known[name]["revoked"]:
            raise ParameterError(f"the token {name!r} cannot be revoked again ({_tell_fate(known[name])})")
        connection.execute(sql.update(TOKENS).where(TOKENS.c.name == name).values(revoked=stamp(when)))
        write_audit(connection, who=by, what="token revoked", detail=name, when=when)


def list_tokens(store: Store) -> list[Token]:
    """All tokens that were ever made, oldest first."""
    of = TOKENS.c
    query = sql.select(of.name, of.role, of.created, of.by, of.expires, of.revoked, of.hash).order_by(of.id)
    return [Token(*about, digest=bytes.fromhex(digest)) for *about, digest in store.read(query)]


def read_tokens(store: Store) -> Tokens:
    """The tokens now, to look callers up in."""
    return Tokens(list_tokens(store))


def parse_life(text: str) -> timedelta:
    """How long "90d" or "12h" is; NO_LIFE for what says neither."""
    found = LIFE.fullmatch(text)
    return timedelta(**{UNITS[found[2]]: int(found[1])}) if found else NO_LIFE


def _tell_fate(row: Mapping[str, Any]) -> str:
    """When a token was created, and revoked."""
    return f"created {row['created']}" + (f", revoked {row['revoked']}" if row["revoked"] else "")


def write_audit(
    connection: sql.Connection, *, who: str, what: str, workflow: str = "", detail: str, when: datetime
) -> None:
    """Append to the audit list that `who` did `what`, in the transaction that does it; no workflow: it is for all."""
    row = {"time": stamp(when), "who": who, "what": what, "workflow": workflow, "detail": detail}
    connection.execute(sql.insert(AUDIT).values(row))


def read_audit(project: Project, workflow: str | None = None) -> list[dict[str, str]]:
    """Who did what, when and why, newest first: token changes, uploads, runs by request, and all moves of champions.

    Of one workflow only what concerns it alone. A champion's history that cannot be read is a row that says so.
    """
    chosen = AUDIT.c.workflow == workflow if workflow else sql.true()
    rows = project.store.read(sql.select(AUDIT).where(chosen).order_by(AUDIT.c.id.desc())) if project.has_store else []
    found = [{"when": row.time, **{name: row._mapping[name] for name in SHOWN}} for row in rows]
    pins = [check_name(f"{workflow}-champion")] if workflow else project.board.names()
    for each in [name.removesuffix("-champion") for name in pins if name.endswith("-champion")]:
        try:
            history = read_history(project.board, each)
        except PinmillError as error:
            found.append({"when": "", "who": "", "what": "unreadable", "workflow": each, "detail": str(error)})
            continue
        found += [_tell_move(each, move) for move in reversed(history)]
    return sorted(found, key=lambda row: row["when"], reverse=True)


def _tell_move(workflow: str, move: Champion) -> dict[str, str]:
    """A row of the audit list for a champion's promotion or rollback."""
    why = f"{move.version} instead of {move.previous or 'none'}{', over the gate' * move.override}: {move.why}"
    what = "promoted" if move.action == "promote" else "rolled back"
    return {"when": move.when, "who": move.by, "what": what, "workflow": workflow, "detail": why}
