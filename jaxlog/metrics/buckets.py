"""Buckets of logarithmic width, which `Quantiles` and `Histogram` count into."""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp

__all__ = ["count_in", "log_index"]


def log_index(magnitudes: jax.Array, least: float, growth: float, count: int) -> jax.Array:
    """Bucket i holds `(least * growth**(i - 1), least * growth**i]`; int32 from 0 to `count - 1`.

    Args:
        magnitudes: positive floats, any shape; smaller than `least` is bucket 0.
        least: what the first bucket ends at.
        growth: how much wider each bucket is than the last.
        count: how many buckets; the last takes whatever is larger.
    """
    scale = jnp.asarray(1 / math.log(growth), magnitudes.dtype)
    position = jnp.ceil(jnp.log(magnitudes / jnp.asarray(least, magnitudes.dtype)) * scale)
    return jnp.clip(position, 0, count - 1).astype(jnp.int32)


def count_in(index: jax.Array, kept: Any, count: int) -> jax.Array:
    """How many of the kept fall into each bucket: int32, shape `(count,)`."""
    chosen = jnp.where(kept, index, jnp.full_like(index, count))
    return jnp.bincount(chosen.reshape(-1), length=count + 1)[:-1].astype(jnp.int32)
