"""`pinmill token` and `pinmill audit`: the real command in a project that nothing was run in."""

import getpass
import re
from datetime import UTC, datetime, timedelta

from pinmill.project import Project
from pinmill.tokens import read_tokens

CREATE = ("token", "create", "shop", "--role", "scorer")


def test_a_token_stands_alone_on_stdout_and_opens_the_service_until_it_is_revoked(small) -> None:
    done, now = small.pinmill(*CREATE, "--expires", "90d"), datetime.now(UTC)
    assert re.fullmatch(r"pinmill_shop_[0-9a-f]{48}\n", done.stdout)
    said = "The token of shop (scorer), shown this once. Send it as: Authorization: Bearer TOKEN\n"
    assert done.stderr == said
    store, header = Project(small.root, {}).store, f"Bearer {done.stdout.strip()}"
    found = [read_tokens(store).find(header, now + timedelta(days=days)) for days in (0, 89, 91)]
    assert [token and (token.name, token.role) for token in found] == [("shop", "scorer"), ("shop", "scorer"), None]
    assert small.pinmill("token", "revoke", "shop").stdout == "the token shop is revoked\n"
    assert read_tokens(store).find(header, now) is None
    store.close()


def test_all_that_is_wrong_is_one_error_of_wrong_use_and_makes_no_token(small) -> None:
    done = small.pinmill("token", "create", "The Shop", "--role", "boss", "--expires", "soon", code=2)
    assert done.stderr.startswith("ParameterError: 3 problems in the token 'The Shop': the name must be")
    assert done.stdout == ""
    assert small.json("token", "list") == []
    assert small.pinmill("token", "revoke", "shop", code=2).stderr.startswith(
        "ParameterError: there is no token 'shop'"
    )
    assert "Missing option '--role'" in small.pinmill("token", "create", "shop", code=2).stderr


def test_tokens_are_listed_with_their_state_and_without_their_secret(small) -> None:
    secret = small.pinmill(*CREATE, "--expires", "12h").stdout.strip().rpartition("_")[2]
    small.pinmill("token", "create", "gone", "--role", "admin")
    small.pinmill("token", "revoke", "gone")
    shop, gone = small.json("token", "list")
    life = datetime.fromisoformat(shop["expires"]) - datetime.fromisoformat(shop["created"])
    assert (shop["name"], shop["role"], shop["by"], shop["state"]) == ("shop", "scorer", getpass.getuser(), "active")
    assert (life, shop["revoked"]) == (timedelta(hours=12), None)
    assert (gone["name"], gone["state"], gone["expires"]) == ("gone", "revoked", None)
    assert gone["revoked"] > gone["created"]
    assert {*shop} == {"name", "role", "created", "by", "expires", "revoked", "state"}
    head, *lines = small.pinmill("token", "list").stdout.splitlines()
    assert head.split() == ["name", "role", "state", "created", "(UTC)", "by", "expires", "(UTC)"]
    shown = [["shop", "scorer", "active", shop["created"][:19], getpass.getuser(), shop["expires"][:19]],
             ["gone", "admin", "revoked", gone["created"][:19], getpass.getuser()]]  # fmt: skip
    assert [line.split() for line in lines] == shown
    printed = [small.pinmill(*words).stdout for words in (["token", "list"], ["audit"], ["audit", "--json"])]
    assert secret not in "".join(printed)


def test_a_list_of_nothing_makes_no_store(small) -> None:
    assert (small.json("token", "list"), small.json("audit")) == ([], [])
    assert not (small.root / "outputs").exists()


def test_the_audit_list_tells_who_did_what_newest_first(small_trained) -> None:
    small_trained.pinmill(*CREATE)
    created, promoted = small_trained.json("audit")
    (move,) = small_trained.json("champion", "small", "--history")
    assert {**created, "when": ""} == {
        "when": "", "who": getpass.getuser(), "what": "token created", "workflow": "",
        "detail": "shop, role scorer, does not expire",
    }  # fmt: skip
    assert promoted == {
        "when": move["when"], "who": move["by"], "what": "promoted", "workflow": "small",
        "detail": f"{move['version']} instead of none: {move['why']}",
    }  # fmt: skip
    assert small_trained.json("audit", "small") == [promoted]
    head, first, second = small_trained.pinmill("audit").stdout.splitlines()
    assert head.split() == ["when", "(UTC)", "who", "what", "workflow", "detail"]
    assert (first.split()[0], second.split()[0]) == (created["when"][:19], move["when"][:19])


def test_an_audit_of_nothing_known_is_wrong_use(small) -> None:
    done = small.pinmill("audit", "smal", code=2)
    assert done.stderr == "ParameterError: no workflow 'smal' and nothing about it. Did you mean 'small'?\n"
    assert "is not a pin name" in small.pinmill("audit", "../x", code=2).stderr
    assert small.json("audit", "small") == []
