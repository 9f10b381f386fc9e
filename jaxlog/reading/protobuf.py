"""`parse_event`: the scalars of one `Event` message, and their offsets in its bytes.

This reads the protobuf wire format directly, because building message objects would take more time
than everything else that a reader does. Field numbers are those of TensorBoard's event.proto,
summary.proto and tensor.proto. A key is `number << 3 | wire type`; the wire types are 0 varint,
1 eight bytes, 2 length and bytes, 5 four bytes.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

__all__ = ["Event", "EventScalar", "ProtobufError", "parse_event"]

# DataType -> (struct format, numpy dtype) of a tensor's raw content.
_CONTENT = {1: "<f", 2: "<d", 3: "<i", 9: "<q", 19: "<e"}
_PACKED = {5: "<f", 6: "<d"}  # float_val, double_val
# A one-element tensor of another plugin (a histogram, a text) is not a scalar. "" has no metadata.
_SCALAR_PLUGINS = {"", "scalars"}


class ProtobufError(ValueError):
    """Bytes that are not a protobuf message."""


class EventScalar(NamedTuple):
    """One scalar of an event.

    Attributes:
        tag: the name.
        value: the value.
        offset: offset of the value's bytes in the event; -1 if it is not stored as a float.
        width: number of those bytes, 4 or 8 (2 for a half-precision tensor, at offset -1).
    """

    tag: str
    value: float
    offset: int
    width: int


@dataclass(slots=True)
class Event:
    """The parts of an event that a table needs.

    Attributes:
        wall_time: seconds since the epoch.
        step: the step; 0 if it is not stored.
        scalars: its scalars, in order.
        is_start: whether a session starts here, which discards earlier points from `step` on.
        wall_time_at: offset of the eight bytes of the time; -1 if it is not stored.
        step_at: begin and end of the step's varint; (0, 0) if it is not stored.
    """

    wall_time: float = 0.0
    step: int = 0
    scalars: list[EventScalar] = field(default_factory=list)
    is_start: bool = False
    wall_time_at: int = -1
    step_at: tuple[int, int] = (0, 0)


def parse_event(data: bytes) -> Event:
    """The scalars of a serialised `Event`; everything else in it is ignored.

    Raises:
        ProtobufError: `data` is not a protobuf message.

    Example:
        >>> from jaxlog.storage import Block, records
        >>> [record] = records.scalar_records(Block.row({"loss": 0.5}, step=3, wall_time=0.0))
        >>> event = parse_event(record[12:-4])
        >>> event.step, event.scalars
        (3, [EventScalar(tag='loss', value=0.5, offset=22, width=4)])
    """
    event = Event()
    for number, kind, start, stop in _fields(data, 0, len(data)):
        match number, kind:
            case 1, 1:
                event.wall_time, event.wall_time_at = _unpack("<d", data, start), start
            case 2, 0:
                event.step, event.step_at = _signed(data, start), (start, stop)
            case 5, 2:
                event.scalars.extend(_summary(data, start, stop))
            case 7, 2:
                event.is_start = _session_starts(data, start, stop)
    return event


def _summary(data: bytes, start: int, stop: int) -> Iterator[EventScalar]:
    for number, kind, first, last in _fields(data, start, stop):
        if (number, kind) == (1, 2) and (scalar := _value(data, first, last)) is not None:
            yield scalar


def _value(data: bytes, start: int, stop: int) -> EventScalar | None:
    """The scalar in a `Summary.Value`; None if it holds something else."""
    tag, plugin = "", ""
    found: tuple[float, int, int] | None = None
    for number, kind, first, last in _fields(data, start, stop):
        match number, kind:
            case 1, 2:
                tag = data[first:last].decode("utf-8", errors="replace")
            case 2, 5:
                found = _unpack("<f", data, first), first, 4
            case 8, 2:
                found = _tensor(data, first, last)
            case 9, 2:
                plugin = _plugin(data, first, last)
    return EventScalar(tag, *found) if found is not None and plugin in _SCALAR_PLUGINS else None


def _tensor(data: bytes, start: int, stop: int) -> tuple[float, int, int] | None:
    """Value, offset and width of a `TensorProto` with one number; None for any other."""
    dtype, shape, found = 0, False, None
    for number, kind, first, last in _fields(data, start, stop):
        if (number, kind) == (1, 0):
            dtype = _varint(data, first, last)[0]
        elif (number, kind) == (2, 2):
            shape = last > first  # the shape message of a scalar is empty
        elif (number, kind) == (4, 2) and last > first:
            code = _CONTENT.get(dtype)
            if code is not None and struct.calcsize(code) == last - first:
                is_float = code in {"<f", "<d"}
                found = _unpack(code, data, first), first if is_float else -1, last - first
        elif number in _PACKED:
            code = _PACKED[number]
            # Packed or, by an old writer, one field per number: both have the same bytes here.
            if struct.calcsize(code) == last - first:
                found = _unpack(code, data, first), first, last - first
    return None if shape else found


def _plugin(data: bytes, start: int, stop: int) -> str:
    """`SummaryMetadata.plugin_data.plugin_name`."""
    for number, kind, first, last in _fields(data, start, stop):
        if (number, kind) == (1, 2):
            for inner, inner_kind, begin, end in _fields(data, first, last):
                if (inner, inner_kind) == (1, 2):
                    return data[begin:end].decode("utf-8", errors="replace")
    return ""


def _session_starts(data: bytes, start: int, stop: int) -> bool:
    return any(
        (number, kind) == (1, 0) and _varint(data, first, last)[0] == 1
        for number, kind, first, last in _fields(data, start, stop)
    )


def _fields(data: bytes, position: int, stop: int) -> Iterator[tuple[int, int, int, int]]:
    """Number, wire type, begin and end of each field between `position` and `stop`."""
    while position < stop:
        key, position = _varint(data, position, stop)
        kind = key & 7
        if kind == 2:
            size, position = _varint(data, position, stop)
            end = position + size
        elif kind == 0:
            end = _varint(data, position, stop)[1]
        elif kind in {1, 5}:
            end = position + (8 if kind == 1 else 4)
        else:
            raise ProtobufError(f"wire type {kind} at byte {position}")
        if end > stop:
            raise ProtobufError(f"a field at byte {position} ends beyond its message")
        yield key >> 3, kind, position, end
        position = end


def _varint(data: bytes, position: int, stop: int) -> tuple[int, int]:
    """The varint at `position`, and the offset of its end."""
    value = shift = 0
    while position < stop and shift < 70:
        byte = data[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
        shift += 7
    raise ProtobufError(f"a number without end before byte {position}")


def _signed(data: bytes, position: int) -> int:
    value = _varint(data, position, len(data))[0] & 0xFFFFFFFFFFFFFFFF
    return value - (1 << 64) if value >= 1 << 63 else value


def _unpack(code: str, data: bytes, position: int) -> float:
    return float(struct.unpack_from(code, data, position)[0])
