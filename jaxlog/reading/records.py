"""The records of an event file: where each begins, checked by its crc."""

from __future__ import annotations

import struct
from dataclasses import dataclass

import google_crc32c
import numpy as np

__all__ = ["Records", "split_records"]

_MASK_DELTA = 0xA282EAD8


@dataclass(frozen=True, slots=True)
class Records:
    """The whole records at the beginning of a file.

    Attributes:
        starts: int64 [n], offset of each record's data.
        sizes: int64 [n], bytes of data.
        damage: offset of the first record whose crc is wrong; None when there is none. What
            follows it cannot be found, for the lengths before it lead there.
    """

    starts: np.ndarray
    sizes: np.ndarray
    damage: int | None


def split_records(content: bytes) -> Records:
    """The records of `content` up to its end, a record cut short, or a damaged one.

    Example:
        >>> from jaxlog.storage.records import frame
        >>> split_records(frame(b"abc") + frame(b"de")[:-1]).sizes.tolist()
        [3]
    """
    starts: list[int] = []
    sizes: list[int] = []
    known: dict[bytes, int] = {}  # a file has few lengths: each header is checked once
    crc, unpack = google_crc32c.value, struct.Struct("<I").unpack_from
    position, end, damage = 0, len(content), None
    while position + 12 <= end:
        header = content[position : position + 12]
        size = known.get(header)
        if size is None:
            size = _checked_size(header)
            if size is None:
                damage = position
                break
            known[header] = size
        start = position + 12
        stop = start + size
        if stop + 4 > end:
            break  # still being written, or its writer was killed
        found = crc(content[start:stop])
        if ((found >> 15 | found << 17) + _MASK_DELTA) & 0xFFFFFFFF != unpack(content, stop)[0]:
            damage = position
            break
        starts.append(start)
        sizes.append(size)
        position = stop + 4
    return Records(np.array(starts, np.int64), np.array(sizes, np.int64), damage)


def _checked_size(header: bytes) -> int | None:
    crc = google_crc32c.value(header[:8])
    size, stored = struct.unpack("<QI", header)
    return size if ((crc >> 15 | crc << 17) + _MASK_DELTA) & 0xFFFFFFFF == stored else None
