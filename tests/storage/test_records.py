"""The bytes of records, against tensorboard's own protobuf classes and framing."""

from __future__ import annotations

import importlib
import math
import struct
from typing import Any

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest

from jaxlog.errors import LoggerError
from jaxlog.storage import Block, frame, records

# Made at import by protobuf, so their classes are unknown to a type checker.
event_pb2: Any = importlib.import_module("tensorboard.compat.proto.event_pb2")
summary_pb2: Any = importlib.import_module("tensorboardX.proto.summary_pb2")


def crc32c(data: bytes) -> int:
    """Castagnoli's polynomial, bit by bit (RFC 3720, appendix B.4)."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF


def masked(data: bytes) -> bytes:
    crc = crc32c(data)
    return struct.pack("<I", ((crc >> 15 | crc << 17 & 0xFFFFFFFF) + 0xA282EAD8) & 0xFFFFFFFF)


def unframed(content: bytes) -> list[bytes]:
    found = []
    while content:
        [size] = struct.unpack("<Q", content[:8])
        assert content[8:12] == masked(content[:8])
        data = content[12 : 12 + size]
        assert content[12 + size : 16 + size] == masked(data)
        found.append(data)
        content = content[16 + size :]
    return found


def events(content: bytes) -> list:
    return [event_pb2.Event.FromString(data) for data in unframed(content)]


def test_a_frame_is_what_tensorflow_writes() -> None:
    assert crc32c(b"123456789") == 0xE3069283  # the check value of the polynomial
    assert unframed(frame(b"abc") + frame(b"")) == [b"abc", b""]


def test_the_first_record_names_the_version() -> None:
    [event] = events(records.file_version_record(12.5))
    assert (event.wall_time, event.file_version) == (12.5, "brain.Event:2")


def test_a_session_starts_at_its_step() -> None:
    [event] = events(records.session_start_record(300, 1.0))
    assert event.session_log.status == event_pb2.SessionLog.START
    assert event.step == 300


def test_a_summary_is_wrapped_as_it_is() -> None:
    summary = summary_pb2.Summary(value=[summary_pb2.Summary.Value(tag="x", simple_value=2.0)])
    [event] = events(records.summary_record(summary.SerializeToString(), 3, 1.0))
    assert event.summary.value[0].tag == "x"


@pytest.mark.parametrize(
    "record", [records.session_start_record, lambda s, t: records.summary_record(b"", s, t)]
)
def test_a_negative_step_is_refused(record) -> None:
    with pytest.raises(LoggerError, match="got -1"):
        record(-1, 0.0)


STEPS = st.one_of(
    st.integers(0, 2**63 - 1), st.integers(0, 300), st.sampled_from([2**7 - 1, 2**7, 2**14, 2**56])
)


@st.composite
def blocks(draw) -> Block:
    tags = draw(st.lists(st.text(max_size=40), unique=True, max_size=5))
    steps = draw(st.lists(STEPS, max_size=8))
    shape = (len(steps), len(tags))
    cells = st.floats() | st.floats(width=32)
    values = [[draw(cells) for _ in tags] for _ in steps]
    times = draw(st.lists(st.floats(0, 1e10), min_size=shape[0], max_size=shape[0]))
    present = None
    if draw(st.booleans()):
        present = np.array([[draw(st.booleans()) for _ in tags] for _ in steps], bool).reshape(
            shape
        )
    return Block(
        tuple(tags),
        np.array(steps, np.int64),
        np.array(times, np.float64),
        np.array(values, np.float64).reshape(shape),
        present,
    )


@hypothesis.given(blocks())
def test_one_event_a_step_holds_all_its_tags(block: Block) -> None:
    expected = []
    for step, wall_time, row in block.rows():
        with np.errstate(over="ignore"):
            values = [(tag, np.float32(value)) for tag, value in row.items()]
        if values:
            expected.append((step, wall_time, values))
    found = events(b"".join(records.scalar_records(block)))
    assert len(found) == len(expected)
    for event, (step, wall_time, values) in zip(found, expected, strict=True):
        assert (event.step, event.wall_time) == (step, wall_time)
        assert [value.tag for value in event.summary.value] == [tag for tag, _ in values]
        np.testing.assert_array_equal(
            np.array([value.simple_value for value in event.summary.value], np.float32),
            np.array([value for _, value in values]),
        )


def test_many_rows_come_in_several_chunks() -> None:
    count = 5000
    block = Block(("a", "b"), np.arange(count), np.ones(count), np.ones((count, 2)))
    chunks = list(records.scalar_records(block))
    assert len(chunks) > 2
    assert [event.step for event in events(b"".join(chunks))] == list(range(count))


def test_beyond_float32_is_infinite() -> None:
    block = Block.row({"a": 1e300, "b": -1e300, "c": 1e-300}, 0, 0.0)
    [event] = events(b"".join(records.scalar_records(block)))
    assert [v.simple_value for v in event.summary.value] == [math.inf, -math.inf, 0.0]


def test_a_tag_that_is_no_unicode_is_escaped() -> None:
    [event] = events(b"".join(records.scalar_records(Block.row({"a\ud800": 1.0}, 0, 0.0))))
    assert event.summary.value[0].tag == "a\\ud800"


def test_values_in_any_memory_order() -> None:
    values = np.asfortranarray(np.arange(6.0).reshape(3, 2))
    block = Block(("a", "b"), np.arange(3)[::-1], np.zeros(6)[::2], values)
    found = events(b"".join(records.scalar_records(block)))
    assert [[v.simple_value for v in e.summary.value] for e in found] == values.tolist()
    assert [event.step for event in found] == [2, 1, 0]
