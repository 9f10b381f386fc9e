"""What the loop needs to know of batches and of what yields them."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import jax
import numpy as np

from jaxlog.errors import LoopError

__all__ = ["Loader", "batch_size", "iterable", "loaders_of", "other_size"]


def shapes_in(batch: Any) -> Iterator[tuple[int, ...]]:
    """The shape of every array in a batch, in the order they stand there.

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
    """The leading dimension of the first array in a batch; None where it has no array.

    An array of shape () counts as 1.

    Args:
        batch: what to look through.
        axes: how many leading axes hold examples: 2 where the first is one of devices.
    """
    shape = _first_shape(batch)
    return None if shape is None else float(math.prod(shape[:axes]))


def _first_shape(batch: Any) -> tuple[int, ...] | None:
    """The first of `shapes_in`, without a generator a level: this runs at every step."""
    if isinstance(batch, (jax.Array, np.ndarray)):
        return batch.shape
    if isinstance(batch, (dict, list, tuple)):
        for value in batch.values() if isinstance(batch, dict) else batch:
            if (shape := _first_shape(value)) is not None:
                return shape
        return None
    return next(shapes_in(batch), None)


def other_size(batch: Any) -> int | None:
    """A leading dimension in a batch that is not its size; None where all agree.

    Arrays of shape () after the first have no say.
    """
    size = batch_size(batch)
    return next((shape[0] for shape in shapes_in(batch) if shape and shape[0] != size), None)


@dataclasses.dataclass(frozen=True)
class Loader:
    """One source of batches.

    Attributes:
        batches: what yields them.
        label: its name, where loaders come as a dict.
    """

    batches: Iterable[Any]
    label: str | None = None

    @property
    def total(self) -> int | None:
        """How many batches there are; None if the loader does not say.

        A streaming loader may define `__len__` and raise in it (TypeError, NotImplementedError, an
        error of its own); Python's `for` never asks, so no such error may stop the training.
        """
        try:
            return len(self.batches)  # type: ignore[arg-type]
        except Exception:  # noqa: BLE001 - whatever its __len__ raises, the length is unknown
            return None


def loaders_of(batches: Any) -> list[Loader]:
    """The loaders in what `validate` or `test` was given.

    One iterable of batches is one loader. A dict, or a list whose every element is itself a list
    or an iterator or a loader object (not an array, tuple or dict, which are batches), is several.

    Raises:
        LoopError: it cannot be iterated.
    """
    if isinstance(batches, Mapping):
        return [Loader(iterable(value), str(name)) for name, value in batches.items()]
    if isinstance(batches, list) and batches and all(map(_is_loader, batches)):
        return [Loader(value) for value in batches]
    return [Loader(iterable(batches))]


def _is_loader(x: Any) -> bool:
    if isinstance(x, (str, bytes, tuple, Mapping)) or hasattr(x, "__array__"):
        return False
    return isinstance(x, Iterable)


def iterable(batches: Any) -> Iterable[Any]:
    """`batches`, if it can be iterated.

    Raises:
        LoopError: it cannot.
    """
    if not isinstance(batches, Iterable):
        raise LoopError(
            f"a loop phase got {batches!r}, which is no iterable of batches; write "
            f"loop.train(batches) with a list, a generator or a data loader"
        )
    return batches
