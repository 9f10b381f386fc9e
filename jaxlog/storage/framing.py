"""The framing of an event file: a sequence of records, each guarded by two checksums.

A record is `length u64, masked crc32c of the length, data, masked crc32c of the data`, all little
endian (TensorFlow's record_writer). `jaxlog.reading` finds records by the same functions.
"""

from __future__ import annotations

import struct
from typing import TypeVar

import google_crc32c
import numpy as np

__all__ = ["FOOTER_BYTES", "HEADER_BYTES", "frame", "mask_crc32c", "masked_crc32c"]

HEADER_BYTES = 12  # length and its checksum
FOOTER_BYTES = 4  # checksum of the data

_Crc = TypeVar("_Crc", int, np.ndarray)


def mask_crc32c(crc: _Crc) -> _Crc:
    """The masked form of a crc32c, as it is stored: rotated by 15 bits, plus a constant.

    TensorFlow masks checksums because the crc of data that itself contains crcs is weak.

    Args:
        crc: an int, or an array of uint32.

    Example:
        >>> hex(mask_crc32c(1)), mask_crc32c(np.array([1], np.uint32)).tolist() == [mask_crc32c(1)]
        ('0xa284ead8', True)
    """
    # The shift and the sum overflow 32 bits. An array of uint32 wraps; the mask cuts an int.
    return (((crc >> 15) | (crc << 17)) + 0xA282EAD8) & 0xFFFFFFFF


def masked_crc32c(data: bytes) -> int:
    """The masked crc32c of `data`, from 0 to 2**32 - 1.

    Example:
        >>> hex(masked_crc32c(b"abc"))
        '0x21f1576e'
    """
    return mask_crc32c(google_crc32c.value(data))


def frame(data: bytes) -> bytes:
    """`data` as one record.

    Example:
        >>> len(frame(b"abc"))
        19
    """
    length = struct.pack("<Q", len(data))
    return b"".join((length, _packed_crc(length), data, _packed_crc(data)))


def _packed_crc(data: bytes) -> bytes:
    return struct.pack("<I", masked_crc32c(data))
