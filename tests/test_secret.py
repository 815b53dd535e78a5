"""Secrets: named in params, resolved where used, never shown."""

import pytest
from pinmill.errors import SecretError
from pinmill.secret import find_secrets, hidden_values, reveal, scrub


@pytest.mark.parametrize(
    ("value", "names"),
    [
        ("secret:A", {"A"}),
        ("no secret:A", set()),
        ("", set()),
        (3, set()),
        (None, set()),
        (["secret:A", ["secret:B"], 5], {"A", "B"}),
        ({"a": "secret:A", "b": {"c": ("secret:B", "x")}}, {"A", "B"}),
    ],
)
def test_secrets_are_found_in_lists_and_mappings(value, names: set) -> None:
    assert find_secrets(value) == names


def test_a_secret_is_revealed_from_the_settings() -> None:
    assert reveal("secret:DB", {"DB": "sqlite:///x"}) == "sqlite:///x"
    assert reveal("plain.csv", {}) == "plain.csv"


@pytest.mark.parametrize("settings", [{}, {"DB": ""}, {"db": "x"}])
def test_a_secret_that_is_not_set_says_what_to_do_and_no_value(settings: dict) -> None:
    with pytest.raises(SecretError) as caught:
        reveal("secret:DB", settings)
    expected = "the secret 'DB' is not set. Set DB in the environment, or in .env (never in git)."
    assert (str(caught.value), caught.value.exit_code) == (expected, 2)


def test_the_password_in_an_address_is_hidden_too_plain_and_quoted_longest_first() -> None:
    settings = {"URL": "postgresql://ada:p%40ssword@host/db", "TOKEN": "token-of-21-characters", "SHORT": "abc"}
    assert hidden_values(["URL", "TOKEN", "SHORT", "MISSING"], settings) == [
        "postgresql://ada:p%40ssword@host/db", "token-of-21-characters", "p%40ssword", "p@ssword",
    ]  # fmt: skip


def test_every_nesting_is_scrubbed_keys_too_and_the_rest_left_alone() -> None:
    value = {"a hunter22": ["x hunter22 y", ("hunter22hunter22", 5)], "n": None, "b": b"hunter22"}
    assert scrub(value, ["hunter22"]) == {
        "a [secret]": ["x [secret] y", ["[secret][secret]", 5]], "n": None, "b": b"hunter22",
    }  # fmt: skip


def test_the_longer_secret_goes_first_so_that_no_end_of_it_stays() -> None:
    hidden = hidden_values(["A", "B"], {"A": "pass", "B": "password1"})
    assert scrub("password1 pass", hidden) == "[secret] [secret]"


def test_token_and_query_values_of_a_secret_address_are_hidden_too() -> None:
    settings = {"URL": "https://TOKEN1@host.example/x?sig=KEYKEYKEY&page=2"}
    assert hidden_values(["URL"], settings) == [settings["URL"], "KEYKEYKEY", "TOKEN1"]
