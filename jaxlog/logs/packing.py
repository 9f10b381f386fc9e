"""Many small values in one array of 32-bit words, and back.

One packed row leaves the device in one copy, and one packed output costs a step next to nothing
where a hundred scalar outputs cost milliseconds. Words are int32, not float32: moving an integer
never changes its bits, so int32 counts beyond 2**24 and NaN payloads arrive as they were.
"""

from __future__ import annotations

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxlog.logs.roles import Role

__all__ = ["offsets", "pack", "pack_host", "stack", "unpack", "unpack_host"]

# Measured on CPU: a chain of selects over at most this many words fuses into one kernel; longer
# chains grow quadratically, a concatenation of single words makes one kernel a word.
_CHUNK = 32


def offsets(roles: Sequence[Role]) -> list[int]:
    """The first word of each role in a packed row."""
    starts, at = [], 0
    for role in roles:
        starts.append(at)
        at += role.words
    return starts


def pack(values: Sequence[jax.Array], roles: Sequence[Role]) -> jax.Array:
    """Scalars of the roles' dtypes as one int32 array of shape `(words,)`."""
    words: list[jax.Array] = []
    for value, role in zip(values, roles, strict=True):
        bits = lax.bitcast_convert_type(value, jnp.int32)
        words.extend([bits] if role.words == 1 else [bits[0], bits[1]])
    chunks = [_chunk(words[at : at + _CHUNK]) for at in range(0, len(words), _CHUNK)]
    if not chunks:
        return jnp.zeros((0,), jnp.int32)
    return chunks[0] if len(chunks) == 1 else lax.concatenate(chunks, 0)


def stack(values: Sequence[jax.Array], role: Role) -> jax.Array:
    """Scalars of one role as an array of its dtype, shape `(len(values),)`."""
    words = pack(values, [role] * len(values))
    bits = words if role.words == 1 else words.reshape(len(values), role.words)
    return lax.bitcast_convert_type(bits, jnp.dtype(role.dtype))


def _chunk(words: Sequence[jax.Array]) -> jax.Array:
    lane = lax.iota(jnp.int32, len(words))
    row = jnp.zeros((len(words),), jnp.int32)
    for j, word in enumerate(words):
        row = jnp.where(lane == j, word, row)
    return row


def unpack(row: jax.Array, roles: Sequence[Role]) -> list[jax.Array]:
    """The inverse of `pack` over the last axis: one array a role, of the leading shape."""
    values = []
    for start, role in zip(offsets(roles), roles, strict=True):
        bits = lax.slice_in_dim(row, start, start + role.words, axis=row.ndim - 1)
        if role.words == 1:
            bits = lax.squeeze(bits, (row.ndim - 1,))
        values.append(lax.bitcast_convert_type(bits, jnp.dtype(role.dtype)))
    return values


def pack_host(values: Sequence[np.ndarray], roles: Sequence[Role]) -> np.ndarray:
    """`pack` of numpy scalars, without a program."""
    bits = [
        np.asarray(value, role.dtype).reshape(1).view(np.int32)
        for value, role in zip(values, roles, strict=True)
    ]
    return np.concatenate([np.zeros((0,), np.int32), *bits])


def unpack_host(rows: np.ndarray, roles: Sequence[Role]) -> list[np.ndarray]:
    """The inverse of `pack` for fetched rows of shape `(n, words)`: views of shape `(n,)`."""
    rows = np.ascontiguousarray(rows)
    columns = []
    for start, role in zip(offsets(roles), roles, strict=True):
        bits = np.ascontiguousarray(rows[:, start : start + role.words])
        columns.append(bits.view(role.dtype)[:, 0])
    return columns
