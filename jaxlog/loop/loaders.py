"""What yields batches: one loader, or several with names."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any, Generic, TypeVar

from jaxlog.errors import LoopError

__all__ = ["Loader", "iterable", "loaders_of"]


T = TypeVar("T")


@dataclasses.dataclass(frozen=True)
class Loader(Generic[T]):
    """One source of batches.

    Attributes:
        batches: what yields them.
        label: its name, if loaders come as a dict.
    """

    batches: Iterable[T]
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


def loaders_of(batches: Any) -> list[Loader[Any]]:
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
            f"a loop phase got {batches!r}, which is not an iterable of batches; write "
            f"loop.train(batches) with a list, a generator or a data loader"
        )
    return batches
