"""Tokens and the audit list, against hashlib and the bytes of the store's file."""

import hashlib
import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from pinmill.board import Board
from pinmill.champion import promote, rollback
from pinmill.errors import ParameterError
from pinmill.project import Project
from pinmill.store import TOKENS, Store
from pinmill.tokens import (
    ROLES,
    Tokens,
    allows,
    create_token,
    list_tokens,
    parse_life,
    read_audit,
    read_tokens,
    revoke_token,
    write_audit,
)

NOON = datetime(2026, 11, 20, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    store = Store(tmp_path / "outputs" / "pinmill.sqlite")
    yield store
    store.close()


def create(
    store: Store, name: str = "shop", role: str = "scorer", *, expires=None, by: str = "ann", when: datetime = NOON
) -> str:
    return create_token(store, name, role, expires=expires, by=by, when=when)


def find(store: Store, header: str, now: datetime = NOON) -> str | None:
    token = read_tokens(store).find(header, now)
    return token and token.name


def test_each_role_may_do_what_those_before_it_may() -> None:
    granted = {needed: [role for role in ROLES if allows(role, needed)] for needed in ("any", *ROLES)}
    assert granted == {
        "any": ["scorer", "annotator", "modeller", "admin"],
        "scorer": ["scorer", "annotator", "modeller", "admin"],
        "annotator": ["annotator", "modeller", "admin"],
        "modeller": ["modeller", "admin"],
        "admin": ["admin"],
    }
    assert not allows("", "scorer")


def test_a_token_is_kept_as_its_sha256_alone(store: Store, tmp_path: Path) -> None:
    token = create(store, "big-shop", expires=HOUR)
    assert re.fullmatch(r"pinmill_big-shop_[0-9a-f]{48}", token)
    assert [row.hash for row in store.read(TOKENS.select())] == [hashlib.sha256(token.encode()).hexdigest()]
    (known,) = list_tokens(store)
    revoke_token(store, "big-shop", by="bob", when=NOON)
    secret, said = token.rpartition("_")[2], f"{known!r} {known} {vars(known)} {read_audit(Project(tmp_path, {}))}"
    files = list((tmp_path / "outputs").iterdir())  # the log before it is merged, too
    assert files
    assert not [path for path in files if secret[:12].encode() in path.read_bytes()]
    assert secret[:12] not in said


def test_two_tokens_are_never_alike(store: Store) -> None:
    secrets = {create(store, f"shop-{n}").rpartition("_")[2] for n in range(20)}
    assert len(secrets) == 20


@pytest.mark.parametrize("header", ["Bearer {}", "bearer {}", "BEARER  {} "])
def test_the_right_token_is_found(store: Store, header: str) -> None:
    create(store, "other", "admin")
    given = header.format(create(store))
    token = read_tokens(store).find(given, NOON)
    assert (token.name, token.role, token.by) == ("shop", "scorer", "ann")


@pytest.mark.parametrize(
    "header",
    ["", "{}", "Bearer", "Bearer ", "Basic {}", "Bearer {}x", "Bearer x{}", "Bearer pinmill_shop_" + "0" * 48,
     "Bearer {} {}", "Bearer \ud83d", "Bearer \xff{}", "Bearer {}" + " " * 200 + "x", "Bearer " + "x" * 100_000, "\0"],
)  # fmt: skip
def test_anything_else_is_nobody(store: Store, header: str) -> None:
    token = create(store)
    assert find(store, header.replace("{}", token)) is None


def test_a_token_ends_when_it_expires(store: Store) -> None:
    header = f"Bearer {create(store, expires=HOUR)}"
    tick = timedelta(microseconds=1)
    assert [find(store, header, NOON + after) for after in (HOUR - tick, HOUR, HOUR + tick)] == ["shop", None, None]
    (token,) = list_tokens(store)
    assert [token.state(NOON + after) for after in (HOUR - tick, HOUR)] == ["active", "expired"]
    assert token.expires == "2026-11-20T13:00:00.000000+00:00"


def test_a_revoked_token_opens_nothing_and_the_others_still_do(store: Store) -> None:
    gone, kept = create(store, "gone"), create(store, "kept")
    before = read_tokens(store)
    revoke_token(store, "gone", by="bob", when=NOON + HOUR)
    assert (find(store, f"Bearer {gone}"), find(store, f"Bearer {kept}")) == (None, "kept")
    assert before.find(f"Bearer {gone}", NOON).name == "gone"  # what was read is not changed behind one's back
    assert [token.state(NOON) for token in list_tokens(store)] == ["revoked", "active"]


def test_empty_is_only_where_no_token_was_ever_made(store: Store) -> None:
    assert (read_tokens(store).empty, Tokens([]).find("Bearer x", NOON)) == (True, None)
    create(store, expires=HOUR)
    revoke_token(store, "shop", by="ann", when=NOON)
    assert not read_tokens(store).empty  # or the last revocation would open the service to everybody


def test_all_that_is_wrong_with_a_token_is_said_at_once_and_nothing_is_made(store: Store) -> None:
    with pytest.raises(ParameterError) as caught:
        create(store, "-Shop", "boss", expires="5m")
    assert str(caught.value) == (
        "3 problems in the token '-Shop': the name must be 1 to 40 of a-z, 0-9 and '-', the first not '-'; "
        "the role is 'boss': one of scorer, annotator, modeller, admin was expected; "
        "it expires after '5m': days or hours were expected, as 90d or 12h"
    )
    assert (list_tokens(store), read_tokens(store).empty) == ([], True)


@pytest.mark.parametrize("name", ["", "A", "a b", "a_b", "-a", "a" * 41, "a\n", "é", "a/../b"])
def test_a_name_outside_the_rule_is_refused(store: Store, name: str) -> None:
    with pytest.raises(ParameterError, match="the name must be 1 to 40"):
        create(store, name)


@pytest.mark.parametrize("name", ["a", "0", "a" * 40, "shop-2"])
def test_a_name_inside_the_rule_is_taken(store: Store, name: str) -> None:
    assert find(store, f"Bearer {create(store, name)}") == name


@pytest.mark.parametrize(
    "expires", ["", "90", "d", "0d", "-1d", "1.5d", "90 d", "90D", "٣d", "999999d", timedelta(), -HOUR]
)
def test_a_life_that_is_none_is_refused(store: Store, expires: str | timedelta) -> None:
    with pytest.raises(ParameterError, match="days or hours were expected, as 90d or 12h"):
        create(store, expires=expires)


def test_a_life_is_days_or_hours() -> None:
    assert [parse_life(text) for text in ("90d", "12h", "1h")] == [timedelta(days=90), timedelta(hours=12), HOUR]


def test_a_name_is_given_once_also_after_it_was_revoked(store: Store) -> None:
    create(store)
    created = "its name was given before (created 2026-11-20T12:00:00.000000+00:00"
    with pytest.raises(ParameterError, match=re.escape(f"{created}): take another")):
        create(store)
    revoke_token(store, "shop", by="ann", when=NOON + HOUR)
    with pytest.raises(ParameterError, match=re.escape(f"{created}, revoked 2026-11-20T13:00:00.000000+00:00): take")):
        create(store)


def test_only_a_token_that_is_there_can_be_revoked_and_only_once(store: Store) -> None:
    create(store, "shop")
    with pytest.raises(ParameterError, match=re.escape("there is no token 'shpo'. Did you mean 'shop'?")):
        revoke_token(store, "shpo", by="ann", when=NOON)
    revoke_token(store, "shop", by="ann", when=NOON)
    with pytest.raises(ParameterError, match=r"the token 'shop' cannot be revoked again \(created 2026-.*, revoked"):
        revoke_token(store, "shop", by="bob", when=NOON + HOUR)
    assert [token.revoked for token in list_tokens(store)] == ["2026-11-20T12:00:00.000000+00:00"]


def make_model(board: Board, workflow: str, value: int) -> str:
    return board.write_json(f"{workflow}-model", value, facts={}, lineage={}).version


def test_the_audit_list_merges_tokens_uploads_and_champions_newest_first(tmp_path: Path) -> None:
    project = Project(tmp_path, {})
    assert read_audit(project) == []
    a, b = (make_model(project.board, "w", value) for value in (1, 2))
    x, at = make_model(project.board, "x", 3), [NOON + HOUR * n for n in range(7)]
    create(project.store, expires=HOUR, when=at[0])
    promote(project.board, "w", a, by="run 1", why="better", expected=None, gate=True, when=at[1])
    with project.store.writing() as connection:
        write_audit(connection, who="shop", what="uploaded", workflow="w", detail=b, when=at[2])
    promote(project.board, "w", b, by="ann", why="try", expected=a, gate=None, override=True, when=at[3])
    promote(project.board, "x", x, by="eve", why="first", expected=None, gate=True, when=at[4])
    rollback(project.board, "w", by="bob", why="complaints", when=at[5])
    revoke_token(project.store, "shop", by="eve", when=at[6])
    expected = [
        ("eve", "token revoked", "", "shop"),
        ("bob", "rolled back", "w", f"{a} instead of {b}: complaints"),
        ("eve", "promoted", "x", f"{x} instead of none: first"),
        ("ann", "promoted", "w", f"{b} instead of {a}, over the gate: try"),
        ("shop", "uploaded", "w", b),
        ("run 1", "promoted", "w", f"{a} instead of none: better"),
        ("ann", "token created", "", "shop, role scorer, expires 2026-11-20T13:00:00.000000+00:00"),
    ]
    rows = [
        {"when": f"2026-11-20T{hour}:00:00.000000+00:00", "who": who, "what": what, "workflow": workflow, "detail": why}
        for hour, (who, what, workflow, why) in zip(range(18, 11, -1), expected, strict=True)
    ]
    assert read_audit(project) == rows
    assert read_audit(project, "w") == [row for row in rows if row["workflow"] == "w"]
    assert read_audit(project, "y") == []


def test_a_history_that_cannot_be_read_is_said_and_hides_nothing_else(tmp_path: Path) -> None:
    project = Project(tmp_path, {})
    project.board.write_json("w-champion", {"action": "crown"}, facts={}, lineage={})
    create(project.store)
    created, broken = read_audit(project)
    assert (created["what"], broken["what"], broken["workflow"]) == ("token created", "unreadable", "w")
    assert "is not the record of a champion" in broken["detail"]
