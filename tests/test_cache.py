"""The cache in memory and in a real store, also one that is broken or that two processes fill."""

import asyncio
import threading
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from itertools import product
from pathlib import Path

import pytest
from pinmill.cache import Cache, Lookups, make_key
from pinmill.calls import Writer
from pinmill.store import PREDICTIONS, Store


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "outputs" / "pinmill.sqlite"


@pytest.fixture
def writer(path: Path) -> Iterator[Writer]:
    writer = Writer(Store(path))
    yield writer
    writer.close()


def open_cache(path: Path, writer: Writer, workflow: str = "w", **more: int) -> Cache:
    return Cache(Store(path), workflow, writer, **more)


def test_what_was_put_is_had_from_memory_at_once(path: Path, writer: Writer) -> None:
    cache = open_cache(path, writer)
    assert cache.get("k") is None
    cache.put("k", "v", '{"value": 1}')
    assert cache.get("k") == '{"value": 1}'


def test_the_one_used_longest_ago_leaves_memory_first(path: Path, writer: Writer) -> None:
    cache = open_cache(path, writer, size=2)
    cache.put("a", "v", "1")
    cache.put("b", "v", "2")
    cache.get("a")
    cache.put("c", "v", "3")
    assert [cache.get(key) for key in "abc"] == ["1", None, "3"]
    cache.put("a", "v", "1")
    cache.put("d", "v", "4")
    assert [cache.get(key) for key in "acd"] == ["1", None, "4"]


def test_the_store_gives_back_the_very_text_also_to_another_process_later(path: Path, writer: Writer) -> None:
    printed = '{"label":  "sp\\u00e4m", "value": 1.0}'
    open_cache(path, writer).put("k", "v", printed)
    writer.close()
    cache = open_cache(path, writer)
    assert cache.get("k") is None
    assert cache.fetch(["k", "unknown"]) == {"k": printed}
    assert cache.get("k") == printed
    assert open_cache(path, writer, "other").fetch(["k"]) == {}
    (row,) = Store(path).read(PREDICTIONS.select())
    assert (row.key, row.workflow, row.version, row.output) == ("k", "w", "v", {"label": "späm", "value": 1.0})
    assert abs(datetime.now(UTC) - datetime.fromisoformat(row.created)).total_seconds() < 60


def test_a_key_that_two_services_put_fails_neither_flush(path: Path, writer: Writer) -> None:
    other = Writer(Store(path))
    for each, keys in ((writer, "abc"), (other, "bcd")):
        cache = open_cache(path, each)
        for key in (*keys, *keys):
            cache.put(key, "v", f'"{key}"')
        each.close()
    assert [(each.lost, each.failing) for each in (writer, other)] == [(0, "")] * 2
    assert open_cache(path, writer).fetch([*"abcd"]) == {key: f'"{key}"' for key in "abcd"}


def test_more_keys_than_a_database_takes_values_in_one_query(path: Path, writer: Writer) -> None:
    keys = [str(number) for number in range(40_000)]  # SQLite takes 32,766
    cache = open_cache(path, writer)
    for key in keys:
        cache.put(key, "v", key)
    writer.close()
    assert open_cache(path, writer).fetch(keys) == {key: key for key in keys}


@pytest.mark.parametrize("content", [None, b"this is no database, but long enough to be taken for one\n" * 20])
def test_a_store_that_is_missing_or_broken_only_misses(path: Path, writer: Writer, content: bytes | None) -> None:
    if content:
        path.parent.mkdir()
        path.write_bytes(content)
    cache = open_cache(path, writer)
    assert cache.fetch(["k"]) == {}
    cache.put("k", "v", "1")
    assert (cache.get("k"), cache.fetch(["k"])) == ("1", {})


def test_what_is_asked_while_the_store_answers_is_asked_together(path: Path, writer: Writer) -> None:
    release, begun, asked = threading.Event(), threading.Event(), []

    class Slow(Cache):
        """A cache whose store takes its time for the first question."""

        def fetch(self, keys: Sequence[str]) -> dict[str, str]:
            asked.append(sorted(keys))
            begun.set()
            release.wait(30)
            if "bad" in keys:
                raise RuntimeError("whatever a store can do")
            return {key: f"<{key}>" for key in keys if key != "unknown"}

    async def ask() -> list[dict[str, str]]:
        lookups = Lookups(Slow(Store(path), "w", writer))
        first = asyncio.create_task(lookups.fetch(["a"]))
        assert await asyncio.to_thread(begun.wait, 20)
        others = [asyncio.create_task(lookups.fetch(keys)) for keys in (["b"], ["c", "unknown"])]
        await asyncio.sleep(0)
        release.set()
        found = await asyncio.gather(first, *others)
        return [*found, await lookups.fetch(["bad"]), await lookups.fetch(["d"])]

    together = {"b": "<b>", "c": "<c>"}
    assert asyncio.run(ask()) == [{"a": "<a>"}, together, together, {}, {"d": "<d>"}]
    assert asked == [["a"], ["b", "c", "unknown"], ["bad"], ["d"]]


def test_nobody_waits_for_a_store_that_hangs_and_it_is_asked_again_later(path: Path, writer: Writer) -> None:
    release = threading.Event()

    class Hung(Cache):
        """A cache whose store does not answer until it is let."""

        def fetch(self, keys: Sequence[str]) -> dict[str, str]:
            release.wait(30)
            return dict.fromkeys(keys, "known")

    async def ask() -> list[dict[str, str]]:
        lookups = Lookups(Hung(Store(path), "w", writer))
        early = [await lookups.fetch(["a"]), await lookups.fetch(["b"])]
        release.set()
        return [*early, await lookups.fetch(["c"])]

    assert asyncio.run(ask()) == [{}, {}, {"b": "known", "c": "known"}]


def test_keys_are_alike_only_where_all_parts_are() -> None:
    versions, cells = ["20260101T000000Z-00000", "20260101T000000Z-00001"], ["0" * 64, "1" * 64]
    args = [
        {},
        {"a": ["1"]},
        {"a": ["1", "2"]},
        {"a": ["1, 2"]},
        {"a": ["1', '2"]},
        {"b": ["1"]},
        {"a": [], "b": ["\n"]},
    ]
    rows = ['{"text":"a"}', '{"text":"a "}', "", "[]\n[]\n", '{"text":"\\ud83d"}', '{"text":"ä"}']
    every = [make_key(*parts) for parts in product(versions, cells, args, rows)]
    assert len({*every}) == len(every) == 2 * 2 * 7 * 6
    assert {len(key) for key in every} == {64}
    assert make_key("v", "c", {"a": ["1"], "b": ["2"]}, "r") == make_key("v", "c", {"b": ["2"], "a": ["1"]}, "r")
