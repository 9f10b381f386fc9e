"""Many small values in one array of 32-bit words, and back.

A packed row leaves the device in one copy, and one packed output costs a step next to nothing,
whereas a hundred scalar outputs cost milliseconds. Words are int32, not float32: moving an integer
never changes its bits, so int32 counts beyond 2**24 and NaN payloads arrive unchanged.
"""

from __future__ import annotations

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxlog.logs.fields import Field

__all__ = ["offsets", "pack", "pack_host", "stack", "unpack", "unpack_host"]

# Measured on CPU: a chain of selects over at most this many words fuses into one kernel. The cost
# of longer chains grows quadratically; a concatenation of single words makes one kernel per word.
_CHUNK = 32


def offsets(fields: Sequence[Field]) -> list[int]:
    """The first word of each field in a packed row."""
    starts, at = [], 0
    for field in fields:
        starts.append(at)
        at += field.words
    return starts


def pack(values: Sequence[jax.Array], fields: Sequence[Field]) -> jax.Array:
    """Scalars of the fields' dtypes as one int32 array of shape `(words,)`."""
    words: list[jax.Array] = []
    for value, field in zip(values, fields, strict=True):
        bits = lax.bitcast_convert_type(value, jnp.int32)
        words.extend([bits] if field.words == 1 else [bits[0], bits[1]])
    chunks = [_chunk(words[at : at + _CHUNK]) for at in range(0, len(words), _CHUNK)]
    if not chunks:
        return jnp.zeros((0,), jnp.int32)
    return chunks[0] if len(chunks) == 1 else lax.concatenate(chunks, 0)


def stack(values: Sequence[jax.Array], field: Field) -> jax.Array:
    """Scalars of one field as an array of its dtype, shape `(len(values),)`."""
    words = pack(values, [field] * len(values))
    bits = words if field.words == 1 else words.reshape(len(values), field.words)
    return lax.bitcast_convert_type(bits, jnp.dtype(field.dtype))


def _chunk(words: Sequence[jax.Array]) -> jax.Array:
    lane = lax.iota(jnp.int32, len(words))
    row = jnp.zeros((len(words),), jnp.int32)
    for j, word in enumerate(words):
        row = jnp.where(lane == j, word, row)
    return row


def unpack(row: jax.Array, fields: Sequence[Field]) -> list[jax.Array]:
    """The inverse of `pack` over the last axis: one array a field, of the leading shape."""
    values = []
    for start, field in zip(offsets(fields), fields, strict=True):
        bits = lax.slice_in_dim(row, start, start + field.words, axis=row.ndim - 1)
        if field.words == 1:
            bits = lax.squeeze(bits, (row.ndim - 1,))
        values.append(lax.bitcast_convert_type(bits, jnp.dtype(field.dtype)))
    return values


def pack_host(values: Sequence[np.ndarray], fields: Sequence[Field]) -> np.ndarray:
    """`pack` of numpy scalars, in numpy: it compiles and runs no program."""
    bits = [
        np.asarray(value, field.dtype).reshape(1).view(np.int32)
        for value, field in zip(values, fields, strict=True)
    ]
    return np.concatenate([np.zeros((0,), np.int32), *bits])


def unpack_host(rows: np.ndarray, fields: Sequence[Field]) -> list[np.ndarray]:
    """The inverse of `pack` for fetched rows of shape `(n, words)`: views of shape `(n,)`."""
    rows = np.ascontiguousarray(rows)
    columns = []
    for start, field in zip(offsets(fields), fields, strict=True):
        bits = np.ascontiguousarray(rows[:, start : start + field.words])
        columns.append(bits.view(field.dtype)[:, 0])
    return columns
