"""read_scalars: any writer's files, any tree of runs, and files that are damaged."""

from __future__ import annotations

import importlib
import struct
from typing import Any

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pandas as pd
import polars as pl
import pytest
import tensorboardX

from jaxlog.errors import MissingDependencyError, ReadError
from jaxlog.loggers import TensorBoardLogger
from jaxlog.reading import read_scalars, split_records
from jaxlog.storage import (
    Block,
    file_version_record,
    frame,
    open_filesystem,
    scalar_records,
    session_start_record,
    write_whole,
)

# Made at import by protobuf, so their classes are unknown to a type checker.
event_pb2: Any = importlib.import_module("tensorboard.compat.proto.event_pb2")
summary_pb2: Any = importlib.import_module("tensorboard.compat.proto.summary_pb2")

FILE = "events.out.tfevents.0000000001.host.1.aaaa.000000"


def records(steps, *, tags=("a",), value: float = 0.0) -> bytes:
    count = len(steps)
    values = np.full((count, len(tags)), value)
    return b"".join(scalar_records(Block(tuple(tags), np.array(steps), np.zeros(count), values)))


def put(url: str, content: bytes, file: str = FILE) -> str:
    write_whole(*open_filesystem(f"{url}/{file}"), content)
    return url


def rows(url: str, **options) -> list[tuple]:
    table = read_scalars(url, backend="numpy", **options)
    names = ("run", "tag", "step", "value")
    return list(zip(*(table[name].tolist() for name in names), strict=True))


@pytest.fixture
def tree(place) -> str:
    for run in ("b/version_1", "b/version_0", "a"):
        with TensorBoardLogger(place, run, "") as logger:
            for step in range(3):
                logger.log_metrics({"loss": step, "acc": -step}, step)
    return place


def test_a_tree_of_runs_is_one_sorted_table(tree) -> None:
    assert rows(tree) == [
        (run, tag, step, sign * step)
        for run in ("a", "b/version_0", "b/version_1")
        for tag, sign in (("acc", -1), ("loss", 1))
        for step in range(3)
    ]


def test_the_root_itself_is_a_dot(tree) -> None:
    assert {run for run, *_ in rows(f"{tree}/a")} == {"."}
    assert {run for run, *_ in rows(f"{tree}/a/")} == {"."}


def test_one_file_is_a_run_too(tree) -> None:
    filesystem, path = open_filesystem(f"{tree}/a")
    [file] = filesystem.find(path)
    assert rows(filesystem.unstrip_protocol(file)) == rows(f"{tree}/a")


@pytest.mark.parametrize(
    ("options", "count"),
    [
        ({"runs": "a"}, 6), ({"runs": ["a", "b/version_0"]}, 12), ({"runs": "b/*"}, 12),
        ({"tags": "loss"}, 9), ({"tags": ["loss", "acc"]}, 18), ({"tags": "l*"}, 9),
        ({"tags": "none"}, 0), ({"runs": "a", "tags": "acc"}, 3),
    ],
)  # fmt: skip
def test_runs_and_tags_may_be_chosen(tree, options, count) -> None:
    assert len(rows(tree, **options)) == count


def test_a_run_that_is_not_there_is_an_error(tree) -> None:
    with pytest.raises(ReadError, match=r"named 'c'; there are a, b/version_0, b/version_1"):
        read_scalars(tree, runs="c")


@pytest.mark.parametrize("made", [False, True])
def test_no_event_file_is_an_error(place, made) -> None:
    if made:
        write_whole(*open_filesystem(f"{place}/metrics.csv"), b"step\n")
    with pytest.raises(ReadError, match=f"no event file at or below .*: {int(made)} files there"):
        read_scalars(place)


def test_the_backends_hold_the_same(tree) -> None:
    pandas, polars = read_scalars(tree), read_scalars(tree, backend="polars")
    arrays = read_scalars(tree, backend="numpy")
    columns = ["run", "tag", "step", "wall_time", "value"]
    assert isinstance(pandas, pd.DataFrame)
    assert isinstance(polars, pl.DataFrame)
    assert list(pandas.columns) == polars.columns == list(arrays) == columns
    for name in columns:
        assert pandas[name].tolist() == polars[name].to_list() == arrays[name].tolist()
    assert (pandas["step"].dtype, pandas["value"].dtype) == (np.int64, np.float64)
    assert polars["run"].dtype == pl.String


def test_an_empty_table_has_its_columns(tree) -> None:
    for backend in ("pandas", "polars"):
        assert read_scalars(tree, tags="none", backend=backend).shape == (0, 5)


def test_an_unknown_backend_is_an_error() -> None:
    with pytest.raises(ReadError, match="one of pandas, polars, numpy, but got 'arrow'"):
        read_scalars("memory://x", backend="arrow")  # pyright: ignore[reportCallIssue, reportArgumentType]


@pytest.mark.parametrize("package", ["pandas", "polars"])
def test_a_missing_backend_says_what_to_install(monkeypatch, package) -> None:
    monkeypatch.setitem(__import__("sys").modules, package, None)
    with pytest.raises(MissingDependencyError, match=rf'pip install "jaxlog\[{package}\]"'):
        read_scalars("memory://x", backend=package)


def test_files_of_tensorboardx(tmp_path) -> None:
    with tensorboardX.SummaryWriter(str(tmp_path)) as writer:
        for step in range(300):
            writer.add_scalar("loss", step / 4, step, walltime=step)
            writer.add_scalar("other/long_name", -step, step)
            writer.add_scalar("double", 0.1 * step, step, display_name="shown")
        writer.add_histogram("weights", np.arange(10.0), 0)
        writer.add_text("text", "hello", 0)
        writer.add_hparams({"lr": 0.1}, {"score": 1.0}, name="hp")
    found = read_scalars(tmp_path, tags=["loss", "other*"], backend="numpy")
    loss = found["tag"] == "loss"
    assert found["step"][loss].tolist() == list(range(300))
    assert found["value"][loss].tolist() == [step / 4 for step in range(300)]
    assert found["wall_time"][loss].tolist() == list(range(300))
    assert found["value"][~loss].tolist() == [-step for step in range(300)]
    assert set(read_scalars(tmp_path, backend="numpy")["tag"]) == {  # no histogram, no text
        "loss", "other/long_name", "double", "score",
    }  # fmt: skip


def event(step: int, **value) -> bytes:
    message = event_pb2.Event(wall_time=1.0, step=step)
    message.summary.value.add(tag="t", **value)
    return frame(message.SerializeToString())


def tensor(**fields) -> dict:
    tensor_pb2: Any = importlib.import_module("tensorboard.compat.proto.tensor_pb2")
    return {"tensor": tensor_pb2.TensorProto(**fields)}


def shaped(*sizes: int):
    module: Any = importlib.import_module("tensorboard.compat.proto.tensor_shape_pb2")
    shape = module.TensorShapeProto
    return shape(dim=[shape.Dim(size=size) for size in sizes])


def plugin(name: str):
    data = summary_pb2.SummaryMetadata.PluginData(plugin_name=name)
    return {"metadata": summary_pb2.SummaryMetadata(plugin_data=data)}


@pytest.mark.parametrize(
    ("value", "number"),
    [
        ({"simple_value": 0.5}, 0.5),
        (tensor(dtype=1, float_val=[0.5]), 0.5),
        (tensor(dtype=2, double_val=[0.1]), 0.1),
        (tensor(dtype=1, tensor_content=struct.pack("<f", 0.5)), 0.5),
        (tensor(dtype=2, tensor_content=struct.pack("<d", 0.1), tensor_shape=shaped()), 0.1),
        (tensor(dtype=3, tensor_content=struct.pack("<i", -7)), -7),
        (tensor(dtype=19, tensor_content=struct.pack("<e", 0.5)), 0.5),
        (tensor(dtype=1, float_val=[0.5]) | plugin("scalars"), 0.5),
        (tensor(dtype=1, float_val=[0.5, 1.0]), None),
        (tensor(dtype=1, float_val=[0.5], tensor_shape=shaped(1)), None),
        (tensor(dtype=1, float_val=[0.5]) | plugin("histograms"), None),
        (tensor(dtype=7, string_val=[b"text"]), None),
        ({"histo": summary_pb2.HistogramProto(min=1.0)}, None),
    ],
)
@pytest.mark.parametrize("count", [1, 20])  # one by one, and all that are alike at once
def test_scalars_of_every_kind(memory_url, value, number, count) -> None:
    steps = range(200, 200 + count)
    put(memory_url, b"".join(event(step, **value) for step in steps))
    expected = [] if number is None else [(".", "t", step, number) for step in steps]
    assert rows(memory_url) == expected


STEPS = st.integers(-(2**63), 2**63 - 1) | st.integers(0, 300)


@hypothesis.given(st.data())
def test_any_scalars_read_as_protobuf_reads_them(tmp_path_factory, data) -> None:
    directory = str(tmp_path_factory.mktemp("any"))
    content, expected = file_version_record(0.0), []
    tags = st.sampled_from(["a", "b", "long", "é", ""])
    for step in data.draw(st.lists(STEPS, max_size=30)):
        message = event_pb2.Event(wall_time=step % 97, step=step)
        for tag in data.draw(st.lists(tags, max_size=3)):
            kind = data.draw(st.sampled_from(["simple", "tensor", "none"]))
            number = data.draw(st.floats(width=32, allow_nan=False))
            if kind == "simple":
                message.summary.value.add(tag=tag, simple_value=number)
            elif kind == "tensor":
                message.summary.value.add(tag=tag, **tensor(dtype=2, double_val=[number]))
            else:
                message.summary.value.add(tag=tag)
            if kind != "none":
                expected.append((".", tag, step, number))
        content += frame(message.SerializeToString())
    put(directory, content)
    assert rows(directory) == sorted(expected, key=lambda row: row[1])


def test_many_layouts_of_one_size(memory_url) -> None:
    blocks = [
        Block.row({f"tag_{(7 * n) % 31:02}": n}, 10**(n % 5), n) for n in range(400)
    ]  # fmt: skip
    put(memory_url, b"".join(chunk for block in blocks for chunk in scalar_records(block)))
    expected = [(".", block.tags[0], 10 ** (n % 5), float(n)) for n, block in enumerate(blocks)]
    assert rows(memory_url) == sorted(expected, key=lambda row: row[1])


def test_a_session_takes_back_what_it_starts_before(place) -> None:
    put(place, file_version_record(0.0) + records(range(10), tags=("a", "b")))
    second = file_version_record(0.0) + session_start_record(4, 0.0) + records(range(4, 6), value=1)
    put(place, second, FILE.replace("0001", "0002"))
    assert [(tag, step) for _, tag, step, _ in rows(place)] == [
        *(("a", step) for step in range(6)),
        *(("b", step) for step in range(4)),
    ]


def test_a_session_start_within_a_file_counts(place) -> None:
    put(place, records(range(10)) + session_start_record(3, 0.0) + records([3, 4]))
    assert [step for *_, step, _ in rows(place)] == [0, 1, 2, 3, 4]


def test_other_runs_keep_their_points(place) -> None:
    put(f"{place}/a", records(range(5)))
    put(f"{place}/b", session_start_record(0, 0.0) + records([0]))
    assert len(rows(place)) == 6


def test_a_file_cut_anywhere_reads_to_there(memory_url) -> None:
    content = file_version_record(0.0) + records(range(5))
    ends = [0, *np.cumsum([len(file_version_record(0.0)), *[len(records([n])) for n in range(5)]])]
    for size in range(len(content)):
        put(memory_url, content[:size])
        whole = sum(end <= size for end in ends[1:])
        assert len(rows(memory_url)) == max(0, whole - 1)


def test_an_empty_file_has_no_rows(place) -> None:
    assert rows(put(place, b"")) == []


def test_a_flipped_byte_ends_its_file_with_a_warning(memory_url) -> None:
    head = file_version_record(0.0)
    content = head + records(range(5))
    size = len(records([0]))
    for at in range(len(content)):
        broken = bytearray(content)
        broken[at] ^= 0x10
        put(memory_url, bytes(broken))
        put(memory_url, records([100]), FILE.replace("0001", "0002"))  # the next file still reads
        with pytest.warns(UserWarning, match=r"0000000001.* is damaged at byte \d+") as caught:
            found = rows(memory_url)
        before = max(0, (at - len(head)) // size) if at >= len(head) else 0
        assert [step for *_, step, _ in found] == [*range(before), 100]
        assert len(caught) == 1


def test_a_record_that_is_no_event_is_damage(place) -> None:
    content = records(range(6)) + frame(b"\xff\xff\xff") + records(range(6, 20))
    put(place, content)
    at = len(records(range(6)))
    with pytest.warns(UserWarning, match=f"damaged at byte {at};"):
        assert [step for *_, step, _ in rows(place)] == list(range(6))


@hypothesis.given(st.binary(max_size=60))
def test_garbage_never_crashes(tmp_path_factory, garbage) -> None:
    directory = put(str(tmp_path_factory.mktemp("x")), garbage)
    try:
        with pytest.warns(UserWarning, match="damaged"):
            assert rows(directory) == []
    except pytest.fail.Exception:  # no warning: too short to be more than a record cut short
        assert split_records(garbage).damage is None


@hypothesis.given(st.binary(max_size=60))
def test_garbage_in_a_record_never_crashes(tmp_path_factory, garbage) -> None:
    directory = put(str(tmp_path_factory.mktemp("x")), records([1]) + frame(garbage) * 6)
    try:
        message = event_pb2.Event.FromString(garbage)
    except Exception:  # noqa: BLE001  protobuf's DecodeError has moved between versions
        return
    expected = [v for v in message.summary.value if v.HasField("simple_value")]
    assert len(rows(directory)) >= 1 + len(expected)
