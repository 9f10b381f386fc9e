"""What capture has to know of libraries whose objects or traces are not plain JAX.

`jaxlog.interop` adds them. One is asked only in a program that has imported it.
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
        close: makes of what `fn` returned what the user's function returned.
        batch: where the arrays of the batch may be: the user's arguments without objects.
    """

    fn: Callable[..., Any]
    args: Sequence[Any]
    kwargs: Mapping[str, Any]
    close: Callable[[Any], Any]
    batch: tuple[Sequence[Any], Mapping[str, Any]]


class Library:
    """One library. As it stands here, it needs nothing."""

    def capturing(self) -> AbstractContextManager[Any]:
        """What is open while a captured function is traced."""
        return contextlib.nullcontext()

    def as_pure_call(
        self, fn: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]
    ) -> Call | None:
        """A call with mutable objects among its arguments as a pure one; None without any."""
        del fn, args, kwargs

    def transform_for(
        self, transform: Callable[..., Any], fn: Callable[..., Any], args: Any
    ) -> Callable[..., Any]:
        """The transform that a loop gives a step of such arguments; `transform` by default."""
        del fn, args
        return transform


_KNOWN: dict[str, Callable[[], Library]] = {}


def add(module: str, load: Callable[[], Library]) -> None:
    """Makes a library known; `load` is called once `module` has been imported."""
    _KNOWN[module] = load


def present() -> list[Library]:
    """The known libraries that this program has imported."""
    return [load() for module, load in _KNOWN.items() if module in sys.modules]


def as_pure_call(fn: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]) -> Call:
    """The call as one of pytrees of arrays, whatever objects stand among the arguments."""
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
