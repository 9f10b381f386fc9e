"""follow: rows as they are written, by whoever, until asked to stop."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator

import numpy as np
import pandas as pd
import polars as pl
import pytest
import tensorboardX

from jaxlog.errors import ReadError
from jaxlog.loggers import TensorBoardLogger
from jaxlog.reading import follow, read_scalars
from jaxlog.storage import (
    Block,
    file_version_record,
    open_filesystem,
    read_whole,
    scalar_records,
    write_whole,
)

FILE = "events.out.tfevents.0000000001.host.1.aaaa.000000"


def records(steps, tag: str = "a") -> bytes:
    count = len(steps)
    block = Block((tag,), np.array(steps), np.zeros(count), np.ones((count, 1)))
    return b"".join(scalar_records(block))


def put(url: str, content: bytes, file: str = FILE) -> None:
    write_whole(*open_filesystem(f"{url}/{file}"), content)


def script(*effects: Callable[[], None]) -> Callable[[float], None]:
    """What happens at each wait; after the last, the test is over time."""
    left: Iterator[Callable[[], None]] = iter(effects)

    def wait(seconds: float) -> None:
        effect = next(left, None)
        assert effect is not None, "nobody ended it"
        effect()

    return wait


def steps(rows) -> list[tuple[str, str, int]]:
    return [(row.run, row.tag, row.step) for row in rows]


def test_rows_come_as_they_are_written(place) -> None:
    logger = TensorBoardLogger(place, "", "run")

    def log(*numbers: int) -> Callable[[], None]:
        def effect() -> None:
            for step in numbers:
                logger.log_metrics({"a": step, "b": -step}, step)
            logger.flush()

        return effect

    nothing = lambda: None  # noqa: E731
    wait = script(log(0, 1), nothing, log(2), logger.close, nothing)
    rows = list(follow(place, poll_secs=1, idle_secs=2, wait=wait))
    assert steps(rows) == [("run", tag, step) for step in range(3) for tag in "ab"]
    assert [row.value for row in rows] == [0, 0, 1, -1, 2, -2]
    assert rows[0].wall_time > 1e9


def test_new_files_and_runs_are_found(place) -> None:
    later = FILE.replace("0001", "0002")
    wait = script(
        lambda: put(f"{place}/x", records([0])),
        lambda: put(f"{place}/x", records([1]), later),
        lambda: put(f"{place}/y", records([2])),
        lambda: None,
    )
    rows = follow(place, idle_secs=1.0, wait=wait, poll_secs=0.5)
    found = [next(rows) for _ in range(3)]
    assert steps(found) == [("x", "a", 0), ("x", "a", 1), ("y", "a", 2)]


def test_a_record_is_read_when_it_is_whole(place) -> None:
    content = file_version_record(0.0) + records(range(3))
    cuts = [*range(0, len(content), 7), len(content), len(content)]
    wait = script(*[lambda cut=cut: put(place, content[:cut]) for cut in cuts])
    rows = list(itertools.islice(follow(place, wait=wait), 3))
    assert steps(rows) == [(".", "a", step) for step in range(3)]


def test_runs_and_tags_may_be_chosen(place) -> None:
    put(f"{place}/x", records([0]) + records([1], "b"))
    put(f"{place}/y", records([2]))
    assert steps(follow(place, idle_secs=0, runs="x", tags="b")) == [("x", "b", 1)]


def test_only_what_is_new_is_fetched(memory_url, monkeypatch) -> None:
    put(memory_url, records(range(100)))
    filesystem, _ = open_filesystem(memory_url)
    fetched = []
    real = type(filesystem).cat_file

    def cat_file(self, path, start=None, end=None, **options):
        content = real(self, path, start, end, **options)
        fetched.append(len(content))
        return content

    monkeypatch.setattr(type(filesystem), "cat_file", cat_file)
    wait = script(lambda: put(memory_url, records(range(101))), lambda: None, lambda: None)
    assert len(list(follow(memory_url, idle_secs=2, wait=wait))) == 101
    assert fetched == [len(records(range(100))), len(records([100]))]


def test_damage_is_said_once_and_the_rest_goes_on(place) -> None:
    broken = records(range(3)) + b"x" * 40
    put(place, broken)
    wait = script(
        lambda: put(place, broken + b"more"),
        lambda: put(place, records([9]), FILE.replace("0001", "0002")),
        lambda: None,
        lambda: None,
    )
    with pytest.warns(UserWarning, match=f"damaged at byte {len(records(range(3)))};") as caught:
        rows = list(follow(place, idle_secs=1.5, poll_secs=0.75, wait=wait))
    assert [row.step for row in rows] == [0, 1, 2, 9]
    assert len(caught) == 1


def test_a_file_of_tensorboardx_is_followed(tmp_path) -> None:
    writer = tensorboardX.SummaryWriter(str(tmp_path))

    def log() -> None:
        writer.add_scalar("a", 0.5, 3)
        writer.close()

    rows = list(itertools.islice(follow(tmp_path, wait=script(log, lambda: None)), 1))
    assert steps(rows) == [(".", "a", 3)]


def test_a_file_that_is_removed_meanwhile_is_passed_over(memory_url, monkeypatch) -> None:
    put(memory_url, records([0]))
    filesystem, _ = open_filesystem(memory_url)

    def gone(self, path):
        raise FileNotFoundError(path)

    monkeypatch.setattr(type(filesystem), "size", gone)
    assert list(follow(memory_url, idle_secs=0)) == []


# Pivoted tables.


@pytest.fixture
def sparse(place) -> str:
    first = [Block.row({"a": 1.0, "b": 2.0}, 0), Block.row({"a": 3.0}, 5), Block.row({"a": 4.0}, 5)]
    second = [Block.row({"b": np.nan}, 2)]
    for run, blocks in (("x", first), ("y", second)):
        put(f"{place}/{run}", b"".join(chunk for b in blocks for chunk in scalar_records(b)))
    return place


def test_a_pivoted_table_has_a_column_a_tag(sparse) -> None:
    pandas = read_scalars(sparse, pivot=True)
    polars = read_scalars(sparse, pivot=True, backend="polars")
    arrays = read_scalars(sparse, pivot=True, backend="numpy")
    assert isinstance(pandas, pd.DataFrame)
    assert isinstance(polars, pl.DataFrame)
    assert list(pandas.columns) == polars.columns == list(arrays) == ["run", "step", "a", "b"]
    assert pandas["run"].tolist() == polars["run"].to_list() == ["x", "x", "y"]
    assert pandas["step"].tolist() == arrays["step"].tolist() == [0, 5, 2]
    np.testing.assert_array_equal(pandas["a"], [1.0, 4.0, np.nan])
    np.testing.assert_array_equal(arrays["b"], [2.0, np.nan, np.nan])
    assert polars["a"].to_list() == [1.0, 4.0, None]
    assert polars["b"].to_list()[1] is None
    assert np.isnan(polars["b"].to_list()[2])  # logged as NaN, which is not absent


def test_a_pivoted_table_may_be_empty(sparse) -> None:
    for backend in ("pandas", "polars"):
        table = read_scalars(sparse, tags="none", pivot=True, backend=backend)
        assert table.shape == (0, 2)


def test_a_tag_named_like_a_column_cannot_be_pivoted(place) -> None:
    put(place, records([0], "step"))
    with pytest.raises(ReadError, match="no column for the tag 'step'"):
        read_scalars(place, pivot=True)


def test_a_pivot_of_any_run_agrees_with_its_rows(tmp_path) -> None:
    draw = np.random.default_rng(0)
    with TensorBoardLogger(tmp_path, "", 0) as logger:
        for step in draw.integers(0, 50, 200).tolist():
            logger.log_metrics({f"t{draw.integers(5)}": draw.random()}, step)
    tall = read_scalars(tmp_path)
    wide = read_scalars(tmp_path, pivot=True)
    last = tall.groupby(["step", "tag"], as_index=False)["value"].last()
    for step, tag, value in last.itertuples(index=False):
        assert wide.loc[wide["step"] == step, tag].item() == value
    assert wide.drop(columns=["run", "step"]).notna().sum().sum() == len(last)
    assert wide["step"].is_monotonic_increasing


def test_content_of_a_whole_file_is_untouched_by_following(place) -> None:
    put(place, records([0]))
    before = read_whole(*open_filesystem(f"{place}/{FILE}"))
    list(follow(place, idle_secs=0))
    assert read_whole(*open_filesystem(f"{place}/{FILE}")) == before
