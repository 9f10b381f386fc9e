"""What TensorBoard finds after a TensorBoardLogger."""

from __future__ import annotations

import contextlib
import importlib
import math
import threading
from typing import Any

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest
from fsspec.implementations.memory import MemoryFileSystem
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.backend.event_processing.event_file_loader import RawEventFileLoader

from jaxlog.errors import LoggerError, WriteError
from jaxlog.loggers import TensorBoardLogger
from jaxlog.reading import read_scalars
from jaxlog.storage import Block, open_filesystem, read_whole

# Made at import by protobuf, so their classes are unknown to a type checker.
event_pb2: Any = importlib.import_module("tensorboard.compat.proto.event_pb2")
plugin_data_pb2: Any = importlib.import_module("tensorboard.plugins.hparams.plugin_data_pb2")


def shown(directory: str) -> dict[str, list[tuple[int, float]]]:
    found = EventAccumulator(directory, size_guidance={"scalars": 0}).Reload()
    return {
        tag: [(event.step, event.value) for event in found.Scalars(tag)]
        for tag in found.Tags()["scalars"]
    }


def rows(url: str) -> list[tuple[str, int, float]]:
    table = read_scalars(url, backend="numpy")
    return list(
        zip(table["tag"].tolist(), table["step"].tolist(), table["value"].tolist(), strict=True)
    )


def test_tensorboard_shows_what_was_logged(tmp_path) -> None:
    with TensorBoardLogger(tmp_path, "mnist") as logger:
        for step in range(25):
            logger.log_metrics({"loss": step / 2, "größe": -step}, step)
    assert logger.log_dir == str(tmp_path / "mnist" / "version_0")
    assert shown(logger.log_dir) == {
        "loss": [(step, step / 2) for step in range(25)],
        "größe": [(step, -step) for step in range(25)],
    }


cells = st.floats(width=32) | st.integers(-1000, 1000) | st.booleans()
metrics = st.dictionaries(st.text(min_size=1, max_size=10), cells, max_size=4)


@hypothesis.given(st.lists(st.tuples(st.integers(0, 2**63 - 1), metrics), max_size=12))
def test_everything_reads_back(tmp_path_factory, logged) -> None:
    directory = str(tmp_path_factory.mktemp("run"))
    with TensorBoardLogger(directory, "", "") as logger:
        for step, row in logged:
            logger.log_metrics(row, step)
    expected = [(tag, step, np.float32(v)) for step, row in logged for tag, v in row.items()]
    if not expected:
        return
    found = rows(directory)
    expected.sort(key=lambda cell: cell[0])  # stable: in the order of writing within a tag
    assert [cell[:2] for cell in found] == [cell[:2] for cell in expected]
    np.testing.assert_array_equal([c[2] for c in found], [c[2] for c in expected])
    by_tag: dict[str, list] = {}
    for tag, step, value in expected:
        by_tag.setdefault(tag, []).append((step, value))
    for tag, points in shown(directory).items():
        np.testing.assert_array_equal([v for _, v in points], [v for _, v in by_tag[tag]])


def test_the_options_of_lightning(place) -> None:
    logger = TensorBoardLogger(place, "", "best", sub_dir="sub", prefix="run")
    with logger:
        logger.log_metrics({"loss": 1.0}, 0)
        logger.write_block(Block.row({"loss": 2.0}, 1))
        logger.write_block(Block.row({"loss": 3.0}, 2))
    assert logger.log_dir == f"{place}/best/sub"
    assert (logger.name, logger.version, logger.save_dir) == ("", "best", place)
    assert logger.root_dir == place
    assert rows(logger.log_dir) == [
        ("run-loss", 0, 1.0),
        ("run-loss", 1, 2.0),
        ("run-loss", 2, 3.0),
    ]


def test_versions_count_up(place) -> None:
    for number in range(3):
        with TensorBoardLogger(place, "name") as logger:
            logger.log_metrics({"a": 1.0}, 0)
        assert logger.version == number


def test_an_unused_logger_leaves_nothing(place) -> None:
    with TensorBoardLogger(place, "name") as logger:
        logger.flush()
    filesystem, path = open_filesystem(place)
    assert filesystem.find(path, withdirs=True) in ([], [path])


def test_without_a_step_they_count_up(place) -> None:
    with TensorBoardLogger(place) as logger:
        for value in (1.0, 2.0):
            logger.log_metrics({"a": value})
        logger.log_metrics({"a": 3.0}, 10)
        logger.write_block(Block(("a",), np.array([20, 21]), np.zeros(2), np.ones((2, 1))))
        logger.log_metrics({"a": 4.0})
    assert [step for _, step, _ in rows(place)] == [0, 1, 10, 20, 21, 22]


def test_flush_puts_all_on_storage(place) -> None:
    logger = TensorBoardLogger(place, max_queue=1000)
    logger.log_metrics({"a": math.inf}, 0)
    logger.flush()
    assert rows(place) == [("a", 0, math.inf)]
    logger.close()


def test_values_are_those_of_the_call(place) -> None:
    row, array = {"a": 1.0}, np.array(2.0)
    with TensorBoardLogger(place, max_queue=1000) as logger:
        logger.log_metrics(row, 0)
        logger.log_metrics({"a": array}, 1)
        row["a"] = -1.0
        array[...] = -1.0
    assert rows(place) == [("a", 0, 1.0), ("a", 1, 2.0)]


def test_an_empty_block_is_nothing(place) -> None:
    with TensorBoardLogger(place, "name", 0) as logger:
        logger.write_block(Block(("a",), np.array([], np.int64), np.zeros(0), np.zeros((0, 1))))
    filesystem, path = open_filesystem(place)
    assert filesystem.find(path) == []


def test_after_close_a_log_is_an_error(place) -> None:
    for used in (True, False):
        logger = TensorBoardLogger(place)
        if used:
            logger.log_metrics({"a": 1.0}, 0)
        logger.close()
        logger.close()
        logger.flush()
        with pytest.raises(LoggerError, match="closed"):
            logger.log_metrics({"a": 1.0}, 1)


@pytest.mark.parametrize(
    ("option", "value"), [("max_queue", 0), ("flush_secs", 0), ("flush_secs", -1)]
)
def test_an_option_out_of_range_is_refused(option, value) -> None:
    with pytest.raises(LoggerError, match=f"{option} must be more than 0, but got {value}"):
        TensorBoardLogger("memory://x", **{option: value})


def test_a_wrong_value_is_refused_at_the_call(place) -> None:
    with TensorBoardLogger(place) as logger:
        with pytest.raises(LoggerError, match="'a' must be a number"):
            logger.log_metrics({"a": "text"}, 0)  # pyright: ignore[reportArgumentType]
        logger.log_metrics({"a": 1.0}, 0)
    assert rows(place) == [("a", 0, 1.0)]


def test_many_at_once_lose_nothing(tmp_path) -> None:
    logger = TensorBoardLogger(tmp_path, "", "")
    ready = threading.Barrier(4)

    def log(thread: int) -> None:
        ready.wait(30)
        for step in range(100):
            logger.log_metrics({f"t{thread}": step}, step)

    threads = [threading.Thread(target=log, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    logger.close()
    assert {tag: len(points) for tag, points in shown(str(tmp_path)).items()} == {
        f"t{n}": 100 for n in range(4)
    }


def test_resuming_drops_what_was_logged_from_there(tmp_path) -> None:
    for start, steps in ((None, range(10)), (5, range(5, 8))):
        with TensorBoardLogger(tmp_path, "", 0, start_step=start) as logger:
            for step in steps:
                logger.log_metrics({"a": step}, step)
    assert [step for _, step, _ in rows(logger.log_dir)] == list(range(8))


def page_of(directory: str) -> list:
    filesystem, path = open_filesystem(directory)
    [file] = [name for name in filesystem.find(path) if "tfevents" in name]
    events = [event_pb2.Event.FromString(raw) for raw in RawEventFileLoader(file).Load()]
    return [e for e in events if e.summary.value and e.summary.value[0].tag.startswith("_hparams_")]


@pytest.mark.parametrize(("fails", "status"), [(False, 1), (True, 2)])
def test_hyperparameters_stand_on_their_page(tmp_path, fails, status) -> None:
    logger = TensorBoardLogger(tmp_path, "", 0)
    with contextlib.suppress(KeyError), logger:
        logger.log_hyperparams({"opt": {"lr": 0.1}, "name": "adam"}, {"val_loss": 0.5})
        {"a": 1}["b" if fails else "a"]
    assert (
        read_whole(*open_filesystem(f"{logger.log_dir}/hparams.yaml"))
        == b"opt/lr: 0.1\nname: adam\n"
    )
    assert shown(logger.log_dir) == {"val_loss": [(0, 0.5)]}
    data = [
        plugin_data_pb2.HParamsPluginData.FromString(
            event.summary.value[0].metadata.plugin_data.content
        )
        for event in page_of(logger.log_dir)
    ]
    assert len(data) == 3
    assert data[1].session_start_info.hparams["opt/lr"].number_value == 0.1
    assert data[2].session_end_info.status == status


class Faulty(MemoryFileSystem):
    """A bucket whose uploads fail while `failing` is set."""

    protocol = "faulty"
    failing: BaseException | None = None

    def pipe_file(self, path, value, mode="overwrite", **kwargs):
        if Faulty.failing is not None:
            raise Faulty.failing
        super().pipe_file(path, value, **kwargs)


@pytest.fixture
def faulty(memory_url, monkeypatch):
    import fsspec

    fsspec.register_implementation("faulty", Faulty, clobber=True)
    monkeypatch.setattr(Faulty, "failing", None)
    return memory_url.replace("memory://", "faulty:///")


@pytest.mark.parametrize("at", ["log_metrics", "write_block", "log_hyperparams", "flush", "close"])
def test_a_failed_upload_is_raised_by_whatever_comes_next(faulty, monkeypatch, at) -> None:
    logger = TensorBoardLogger(faulty, "", 0)
    monkeypatch.setattr(Faulty, "failing", PermissionError("403 no access"))
    logger.log_metrics({"a": 1.0, "b": 2.0}, 0)
    writer = logger._writer()
    with writer._changed:
        writer._asked += 1
        writer._changed.notify_all()
        assert writer._changed.wait_for(lambda: writer._error is not None, 30)
    calls = {
        "log_metrics": lambda: logger.log_metrics({"a": 1.0}, 1),
        "write_block": lambda: logger.write_block(Block.row({"a": 1.0}, 1)),
        "log_hyperparams": lambda: logger.log_hyperparams({"lr": 1}),
        "flush": logger.flush,
        "close": logger.close,
    }
    with pytest.raises(
        WriteError, match=r"events.out.tfevents.*403 no access.*2 scalars were accepted"
    ):
        calls[at]()
    logger.close() if at == "close" else None
    monkeypatch.setattr(Faulty, "failing", None)
    logger.close()
    if at != "close":
        assert rows(logger.log_dir) == [("a", 0, 1.0), ("b", 0, 2.0)]


def test_a_place_that_cannot_be_written_is_named(tmp_path) -> None:
    (tmp_path / "file").write_text("no folder")
    logger = TensorBoardLogger(tmp_path / "file", "", 0)
    logger.log_metrics({"a": 1.0}, 0)
    with pytest.raises(WriteError, match=r"version_0.*NotADirectoryError|FileExistsError"):
        logger.close()
