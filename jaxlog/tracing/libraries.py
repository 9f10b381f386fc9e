"""What capture needs from libraries whose objects are not pytrees or that trace functions twice.

`jaxlog.interop` adds them. A library is loaded and asked only after the program has imported it.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, NamedTuple

__all__ = ["Call", "Library", "add", "as_pure_call", "present", "transform_for"]


class Call(NamedTuple):
    """A call whose arguments and result are pytrees of arrays.

    Attributes:
        fn: called with `args` and `kwargs`.
        args: positional arguments.
        kwargs: keyword arguments.
        close: result of `fn` -> result of the user's function.
        batch: the user's arguments without objects; the batch size is read from their arrays.
    """

    fn: Callable[..., Any]
    args: Sequence[Any]
    kwargs: Mapping[str, Any]
    close: Callable[[Any], Any]
    batch: tuple[Sequence[Any], Mapping[str, Any]]


class Library:
    """One library; the methods of this class do nothing, for libraries that need nothing."""

    def capturing(self) -> AbstractContextManager[Any]:
        """A context that is open while a captured function is traced."""
        return contextlib.nullcontext()

    def as_pure_call(
        self, fn: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]
    ) -> Call | None:
        """A call with mutable objects among its arguments as a pure call; None if it has none."""
        del fn, args, kwargs

    def transform_for(
        self, transform: Callable[..., Any], fn: Callable[..., Any], args: Any
    ) -> Callable[..., Any]:
        """The transform that a loop applies to a step that is called with these arguments."""
        del fn, args
        return transform


_KNOWN: dict[str, Callable[[], Library]] = {}


def add(module: str, load: Callable[[], Library]) -> None:
    """Adds a library; `load` is called only after the program has imported `module`."""
    _KNOWN[module] = load


def present() -> list[Library]:
    """The known libraries that this program has imported."""
    return [load() for module, load in _KNOWN.items() if module in sys.modules]


def as_pure_call(fn: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]) -> Call:
    """The call as one whose arguments and result are pytrees of arrays."""
    for library in present():
        call = library.as_pure_call(fn, args, kwargs)
        if call is not None:
            return call
    return Call(fn, args, kwargs, close=lambda out: out, batch=(args, kwargs))


def transform_for(
    transform: Callable[..., Any], fn: Callable[..., Any], args: Any
) -> Callable[..., Any]:
    """The transform for a step of a loop that is called with `args`."""
    for library in present():
        transform = library.transform_for(transform, fn, args)
    return transform
