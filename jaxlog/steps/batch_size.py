"""The size of a batch: its weight in means over an epoch."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import numpy as np

__all__ = ["batch_size", "other_size"]


def shapes_in(batch: Any) -> Iterator[tuple[int, ...]]:
    """The shape of every array in a batch, in the order of the batch.

    Mappings keep their own order; JAX would sort the keys.
    """
    if isinstance(batch, (jax.Array, np.ndarray)):
        yield batch.shape
    elif isinstance(batch, Mapping):
        for value in batch.values():
            yield from shapes_in(value)
    elif isinstance(batch, (list, tuple)):
        for value in batch:
            yield from shapes_in(value)
    elif dataclasses.is_dataclass(batch) and not isinstance(batch, type):
        for field in dataclasses.fields(batch):
            yield from shapes_in(getattr(batch, field.name))
    elif hasattr(batch, "__array__") and (shape := getattr(batch, "shape", None)) is not None:
        yield tuple(shape)


def batch_size(batch: Any, *, axes: int = 1) -> float | None:
    """The leading dimension of the first array in a batch; None if it has no array.

    An array of shape () counts as 1.

    Args:
        batch: what to look through.
        axes: how many leading axes hold examples: 2 where the first is one of devices.
    """
    shape = _first_shape(batch)
    return None if shape is None else float(math.prod(shape[:axes]))


def _first_shape(batch: Any) -> tuple[int, ...] | None:
    """The first of `shapes_in`, without a generator for each level: this runs at every step."""
    if isinstance(batch, (jax.Array, np.ndarray)):
        return batch.shape
    if isinstance(batch, (dict, list, tuple)):
        for value in batch.values() if isinstance(batch, dict) else batch:
            if (shape := _first_shape(value)) is not None:
                return shape
        return None
    return next(shapes_in(batch), None)


def other_size(batch: Any) -> int | None:
    """A leading dimension in a batch that is not its size; None if all agree.

    Arrays of shape () after the first are not asked.
    """
    size = batch_size(batch)
    return next((shape[0] for shape in shapes_in(batch) if shape and shape[0] != size), None)
