"""Several runs side by side: each lane's values to its logger, under the tags they were given."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from jaxlog.errors import LoggerError, WriteError
from jaxlog.loggers import CSVLogger, Logger, MemoryLogger, PerLane, TensorBoardLogger, adapt
from jaxlog.reading import read_scalars
from jaxlog.storage import Block

LANES = ("slow", "fast")


class OneRun(Logger):
    """Keeps one run, in rows."""

    def __init__(self) -> None:
        self.rows: list[tuple[int | None, dict[str, Any]]] = []
        self.histograms: list[tuple[Any, ...]] = []
        self.ended: list[str] = []

    def log_metrics(self, metrics: Any, step: int | None = None) -> None:
        self.rows.append((step, dict(metrics)))

    def log_histogram(self, tag: str, values: Any, step: Any = None, *, edges: Any = None) -> None:
        self.histograms.append((tag, values, step, edges))

    def flush(self) -> None:
        self.ended.append("flush")

    def finalize(self, status: str) -> None:
        self.ended.append(status)


def block_of(
    columns: Sequence[tuple[str, str | None, Sequence[float]]], present: Any = None
) -> Block:
    tags, lanes, values = zip(*columns, strict=True)
    rows = np.array(values).T
    return Block(tags, np.arange(len(rows)), np.zeros(len(rows)), rows, present, lanes=lanes)


def rows_of(logger: MemoryLogger) -> dict[str, list[dict[str, float]]]:
    return {name: [row for _, row in lane.rows] for name, lane in logger.lanes.items()}


def test_each_lane_gets_its_columns_and_those_of_all() -> None:
    memory = MemoryLogger()
    logger = PerLane(memory, LANES)
    logger.write_block(
        block_of([("loss", "slow", [1, 2]), ("loss", "fast", [3, 4]), ("epoch", None, [0, 1])])
    )
    assert rows_of(memory) == {
        "slow": [{"loss": 1, "epoch": 0}, {"loss": 2, "epoch": 1}],
        "fast": [{"loss": 3, "epoch": 0}, {"loss": 4, "epoch": 1}],
    }
    assert memory.rows == []


def test_a_tag_that_ends_like_a_lane_is_not_of_that_lane() -> None:
    memory = MemoryLogger()
    logger = PerLane(memory, LANES)
    columns = [("lr/slow", None, [0.1]), ("lr/fast", None, [0.5]), ("a/slow", "fast", [7.0])]
    logger.write_block(block_of(columns))
    assert rows_of(memory) == {
        "slow": [{"lr/slow": 0.1, "lr/fast": 0.5}],
        "fast": [{"lr/slow": 0.1, "lr/fast": 0.5, "a/slow": 7.0}],
    }


def test_absent_values_stay_absent() -> None:
    memory = MemoryLogger()
    present = np.array([[True, False], [False, True]])
    columns = [("loss", "slow", [1, 2]), ("loss", "fast", [3, 4])]
    PerLane(memory, LANES).write_block(block_of(columns, present))
    assert rows_of(memory) == {"slow": [{"loss": 1}, {}], "fast": [{}, {"loss": 4}]}


def test_a_block_without_lanes_goes_to_all() -> None:
    memory = MemoryLogger()
    PerLane(memory, LANES).write_block(Block.row({"a": 1.0}, 0))
    assert rows_of(memory) == {"slow": [{"a": 1.0}], "fast": [{"a": 1.0}]}


@pytest.mark.parametrize("plain", [True, False])
def test_one_run_gets_all_lanes_in_one_row(plain) -> None:
    class Plain:
        rows: Any = ()

        def log_metrics(self, metrics: Any, step: int) -> None:
            self.rows = (*self.rows, (step, dict(metrics)))

    target: Any = Plain() if plain else OneRun()
    logger = PerLane(adapt(target), LANES)
    columns = [("loss", "slow", [1.0]), ("loss", "fast", [3.0]), ("lr/slow", None, [0.1])]
    logger.write_block(block_of(columns))
    assert list(target.rows) == [(0, {"loss/slow": 1.0, "loss/fast": 3.0, "lr/slow": 0.1})]


def test_one_run_with_two_values_for_a_name_says_which() -> None:
    logger = PerLane(OneRun(), LANES)
    columns = [("lr", "slow", [1.0]), ("lr/slow", None, [0.1])]
    with pytest.raises(LoggerError, match=r"'lr/slow' is both .* rename .* for_lane"):
        logger.write_block(block_of(columns))


def test_what_comes_by_itself_is_of_one_lane_or_of_all() -> None:
    memory, one = MemoryLogger(), OneRun()
    for logger in (PerLane(memory, LANES), PerLane(one, LANES)):
        logger.for_lane("fast").log_histogram("h", [1, 2], 3, edges=[0.0])
        logger.log_histogram("all", [5], 3)
    assert [tag for _, tag, _, _ in memory.lanes["slow"].media] == ["all"]
    assert [tag for _, tag, _, _ in memory.lanes["fast"].media] == ["h", "all"]
    assert one.histograms == [("h/fast", [1, 2], 3, [0.0]), ("all", [5], 3, None)]


def test_media_and_hyperparameters_reach_every_lane() -> None:
    memory = MemoryLogger()
    logger = PerLane(memory, LANES)
    logger.log_hyperparams({"lr": 0.1})
    for target in (logger, logger.for_lane("slow")):
        target.log_image("i", np.zeros((2, 2)), 0)
        target.log_text("t", "text", 0)
        target.log_audio("a", np.zeros(4), 0, sample_rate=8000)
    logger.log_metrics({"m": 1.0}, 0)
    assert [len(lane.media) for lane in memory.lanes.values()] == [6, 3]
    assert [lane.hyperparams for lane in memory.lanes.values()] == [{"lr": 0.1}] * 2
    assert rows_of(memory) == {"slow": [{"m": 1.0}], "fast": [{"m": 1.0}]}


def test_one_run_gets_the_media_of_a_lane_under_its_name() -> None:
    class Media(OneRun):
        tags: Any = ()

        def log_image(self, tag: str, *args: Any, **options: Any) -> None:
            self.tags = (*self.tags, tag)

        log_text = log_audio = log_image

    target = Media()
    lane = PerLane(target, LANES).for_lane("slow")
    lane.log_image("i", np.zeros((2, 2)), 0)
    lane.log_text("t", "text", 0)
    lane.log_audio("a", np.zeros(4), 0, sample_rate=8000)
    lane.log_metrics({"m": 1.0}, 0)
    assert target.tags == ("i/slow", "t/slow", "a/slow")
    assert target.rows == [(0, {"m/slow": 1.0})]


@pytest.mark.parametrize("kind", [TensorBoardLogger, CSVLogger])
def test_files_are_made_with_the_first_value(kind, place) -> None:
    with PerLane(kind(place, "", "run"), LANES) as logger:
        logger.flush()
        assert logger.pending == 0
        assert logger.log_dir == f"{place}/run"
        assert (logger.name, logger.version, logger.save_dir) == ("", "run", place)
        if kind is TensorBoardLogger:
            logger.write_block(block_of([("loss", "slow", [1.0]), ("loss", "fast", [2.0])]))
            logger.flush()
            table = read_scalars(place, backend="numpy")
            assert dict(zip(table["run"], table["value"], strict=True)) == {
                "run/slow": 1.0,
                "run/fast": 2.0,
            }


@pytest.mark.parametrize("kind", [TensorBoardLogger, CSVLogger, MemoryLogger])
def test_a_logger_that_is_given_lanes_keeps_them_in_tags(kind, place) -> None:
    logger: Any = MemoryLogger() if kind is MemoryLogger else kind(place, "", "run")
    logger.write_block(block_of([("loss", "slow", [1.0]), ("loss", "fast", [2.0])]))
    logger.close()
    if kind is MemoryLogger:
        assert logger.rows == [(0, {"loss/slow": 1.0, "loss/fast": 2.0})]
    if kind is TensorBoardLogger:
        assert sorted(read_scalars(place, backend="numpy")["tag"]) == ["loss/fast", "loss/slow"]


@pytest.mark.parametrize("status", ["success", "failed"])
def test_the_end_reaches_every_lane_though_one_fails(status) -> None:
    lanes: dict[str, OneRun] = {}

    class Lane(OneRun):
        def finalize(self, status: str) -> None:
            super().finalize(status)
            raise WriteError("no room")

        def close(self) -> None:
            self.ended.append("close")

    class Run(OneRun):
        def for_lane(self, lane: str) -> Logger:
            return lanes.setdefault(lane, Lane())

    run = Run()
    logger = PerLane(run, LANES)
    logger.finalize(status)
    assert (run.ended, lanes) == ([status], {})
    logger.log_metrics({"a": 1.0}, 0)
    logger.flush()
    with pytest.raises(WriteError, match="no room"):
        logger.finalize(status)
    logger.close()
    assert run.ended == [status, "flush", status]
    assert [lane.ended for lane in lanes.values()] == [["flush", status, "close"]] * 2


def test_values_reach_the_other_lanes_when_one_fails() -> None:
    class Broken(MemoryLogger):
        def write_block(self, block: Block) -> None:
            raise WriteError("no room")

    run = MemoryLogger()
    run.lanes["slow"] = Broken()
    with pytest.raises(WriteError, match="no room"):
        PerLane(run, LANES).write_block(block_of([("a", "slow", [1.0]), ("a", "fast", [2.0])]))
    assert run.lanes["fast"].rows == [(0, {"a": 2.0})]
