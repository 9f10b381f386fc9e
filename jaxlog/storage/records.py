"""TensorBoard event records as bytes: the protobuf messages that scalars need.

The data of a record is an `Event` message. Its fields are written by hand: building protobuf
objects takes 0.8 to 2.8 us a scalar, more than all the rest. The layout of the bytes is the same
for every step with the same tags, so one template is filled in for many steps at once.
"""

from __future__ import annotations

import functools
import itertools
import struct
from collections.abc import Iterator
from dataclasses import dataclass

import google_crc32c
import numpy as np

from jaxlog.errors import LoggerError
from jaxlog.storage.block import Block
from jaxlog.storage.framing import FOOTER_BYTES, HEADER_BYTES, frame, mask_crc32c

__all__ = [
    "file_version_record",
    "scalar_records",
    "session_start_record",
    "summary_record",
]

# Field keys: number << 3 | wire type.
_WALL_TIME, _STEP, _FILE_VERSION, _SUMMARY, _SESSION_LOG = (
    b"\x09",
    b"\x10",
    b"\x1a",
    b"\x2a",
    b"\x3a",
)
_VALUE, _TAG, _SIMPLE_VALUE = b"\x0a", b"\x0a", b"\x15"
_SESSION_START = b"\x08\x01"

# Size of the chunks that a block is encoded in. Encoding holds the GIL, and between two chunks
# EventSink lets other threads run.
_CHUNK_BYTES = 1 << 16
_TEMPLATES = 256  # cached; one is a set of tags and a length of steps
_VARINT_LIMITS = np.array([1 << 7 * n for n in range(1, 9)], np.int64)


def file_version_record(wall_time: float) -> bytes:
    """The record at the beginning of every event file.

    Example:
        >>> b"brain.Event:2" in file_version_record(0.0)
        True
    """
    return frame(_wall_time(wall_time) + _FILE_VERSION + _sized(b"brain.Event:2"))


def session_start_record(step: int, wall_time: float) -> bytes:
    """The START record: readers drop what earlier sessions logged at `step` and after it.

    Raises:
        LoggerError: `step` is negative.

    Example:
        >>> len(session_start_record(7, 0.0))
        31
    """
    start = _SESSION_LOG + _sized(_SESSION_START)
    return frame(_wall_time(wall_time) + _STEP + _varint(step) + start)


def summary_record(summary: bytes, step: int, wall_time: float) -> bytes:
    """A record with a serialised `Summary`, for everything that is not a plain scalar.

    Raises:
        LoggerError: `step` is negative.

    Example:
        >>> len(summary_record(b"", step=0, wall_time=0.0))
        29
    """
    return frame(_wall_time(wall_time) + _STEP + _varint(step) + _SUMMARY + _sized(summary))


def scalar_records(block: Block) -> Iterator[bytes]:
    """The records of a block in order, in chunks of bytes: one `Event` a step with all its tags.

    Values are stored as float32, because TensorBoard's Rust loader drops double tensors; beyond the
    range of float32 they become infinities. A row without any value is left out.

    Example:
        >>> sum(map(len, scalar_records(Block.row({"loss": 0.5}, step=1, wall_time=0.0))))
        42
    """
    with np.errstate(over="ignore"):
        values = block.values.astype("<f4")
    # A template has a fixed layout, so it fits consecutive rows with the same tags present and with
    # steps whose varints have the same length.
    widths = np.searchsorted(_VARINT_LIMITS, block.steps, side="right") + 1
    changes = widths[1:] != widths[:-1]
    if block.present is not None:
        changes |= (block.present[1:] != block.present[:-1]).any(axis=1)
    bounds = [0, *(np.flatnonzero(changes) + 1).tolist(), len(widths)]
    for start, stop in itertools.pairwise(bounds):
        tags, columns = block.tags, values[start:stop]
        if start < stop and block.present is not None:
            here = block.present[start]
            tags = tuple(tag for tag, there in zip(tags, here.tolist(), strict=True) if there)
            columns = columns[:, here]
        if start < stop and tags:
            times = block.wall_times[start:stop].astype("<f8")
            template = _template(tags, int(widths[start]))
            yield from template.fill(block.steps[start:stop], times, np.ascontiguousarray(columns))


@dataclass(frozen=True)
class _Template:
    """The bytes of one record, with zeros in place of the step, time, values and checksum."""

    record: np.ndarray  # uint8 [length]
    step_bytes: int
    value_bytes: np.ndarray  # intp [4 * tags], offsets of the float32 bytes of each tag

    def fill(self, steps: np.ndarray, times: np.ndarray, values: np.ndarray) -> Iterator[bytes]:
        rows = max(1, _CHUNK_BYTES // len(self.record))
        for start in range(0, len(steps), rows):
            part = slice(start, start + rows)
            yield self._fill(steps[part], times[part], values[part])

    def _fill(self, steps: np.ndarray, times: np.ndarray, values: np.ndarray) -> bytes:
        count, length = len(steps), len(self.record)
        out = np.empty((count, length), np.uint8)
        out[:] = self.record
        at = HEADER_BYTES + 1
        out[:, at : at + 8] = times.view(np.uint8).reshape(count, 8)
        at += 9
        out[:, at : at + self.step_bytes] = _varints(steps, self.step_bytes)
        out[:, self.value_bytes] = values.view(np.uint8).reshape(count, -1)
        body = out[:, HEADER_BYTES:-FOOTER_BYTES].tobytes()
        size = length - HEADER_BYTES - FOOTER_BYTES
        crc = google_crc32c.value
        crcs = np.fromiter(
            (crc(body[i : i + size]) for i in range(0, len(body), size)), np.uint32, count
        )
        masked = mask_crc32c(crcs).astype("<u4")
        out[:, -FOOTER_BYTES:] = masked.view(np.uint8).reshape(count, FOOTER_BYTES)
        return out.tobytes()


@functools.lru_cache(maxsize=_TEMPLATES)
def _template(tags: tuple[str, ...], step_bytes: int) -> _Template:
    values, offsets = bytearray(), []
    for tag in tags:
        # A lone surrogate cannot be encoded as UTF-8. Write its escape, so that a bad name does not
        # lose the values.
        name = tag.encode("utf-8", errors="backslashreplace")
        value = _TAG + _sized(name) + _SIMPLE_VALUE + bytes(4)
        values += _VALUE + _sized(value)
        offsets.append(len(values) - 4)
    start = _wall_time(0.0) + _STEP + bytes(step_bytes) + _SUMMARY
    data = start + _sized(bytes(values))
    first = HEADER_BYTES + len(data) - len(values)
    at = np.add.outer(np.array(offsets, np.intp) + first, np.arange(4)).ravel()
    return _Template(np.frombuffer(frame(data), np.uint8), step_bytes, at)


def _varints(steps: np.ndarray, width: int) -> np.ndarray:
    """uint8 [n, width]: protobuf varints, 7 bits a byte, lowest first, high bit = more follow."""
    digits = (steps[:, None] >> (7 * np.arange(width))) & 0x7F
    digits[:, :-1] |= 0x80
    return digits.astype(np.uint8)


def _varint(number: int) -> bytes:
    if number < 0:
        raise LoggerError(f"a step is at least 0, but got {number}")
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


def _sized(data: bytes) -> bytes:
    return _varint(len(data)) + data


def _wall_time(seconds: float) -> bytes:
    return _WALL_TIME + struct.pack("<d", seconds)
