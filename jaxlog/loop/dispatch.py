"""`Dispatcher`: the hooks of a loop, and the callbacks that listen to them."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from jaxlog.callbacks import HOST_HOOKS, Callback, LoopView

__all__ = ["Dispatcher"]


class Dispatcher:
    """Calls the methods of callbacks, in the order of the callbacks.

    A callback may be any object; one that does not derive from `Callback` has the hooks it defines.

    Attributes:
        current: the hook that is running, or that `inside` names; None outside of both.
    """

    def __init__(self, loop: LoopView, listeners: Iterable[Any]) -> None:
        """Calls `listeners` with `loop`."""
        self.current: str | None = None
        self._loop = loop
        self._methods: dict[str, list[Callable[..., object]]] = {name: [] for name in HOST_HOOKS}
        for listener in listeners:
            for name, methods in self._methods.items():
                method = getattr(listener, name, None)
                # Callback's own methods do nothing; calling them would cost every batch.
                inherited = getattr(type(listener), name, None) is getattr(Callback, name)
                if callable(method) and not inherited:
                    methods.append(method)

    def has_listeners(self, hook: str) -> bool:
        """Whether any callback has that hook."""
        return bool(self._methods[hook])

    def dispatch(self, hook: str, *args: Any) -> None:
        """Calls a hook in every callback that has it; an error of one ends it."""
        methods = self._methods[hook]
        if not methods:
            return
        # Nothing may be logged while an error leaves the loop, as at its end.
        # Not `inside`: a context manager costs a microsecond, and batches have hooks.
        before, self.current = self.current, "teardown" if hook == "on_exception" else hook
        try:
            for method in methods:
                method(self._loop, *args)
        finally:
            self.current = before

    @contextlib.contextmanager
    def inside(self, hook: str) -> Iterator[None]:
        """What is logged on the host inside takes the defaults of that hook."""
        before, self.current = self.current, hook
        try:
            yield
        finally:
            self.current = before
