"""The trace-time context: which hook the code being traced stands in, and whether it is captured.

It is a `jax.make_user_context`, which is part of every trace and compile cache key. So a jitted
function called under two hooks is traced for each, and one called outside of `capture` is traced
without a single log equation: the same jaxpr, program and dispatch path as if `log` was never
called.
"""

from __future__ import annotations

import contextlib
import contextvars
import dataclasses
from collections.abc import Iterator

import jax

from jaxlog.logs.hooks import HOOKS, Hook, find_hook
from jaxlog.tracing.libraries import present

__all__ = ["capturing", "current_hook", "hook", "is_captured", "note_traced", "silent"]


@dataclasses.dataclass(frozen=True)
class _Place:
    hook: str
    captured: bool


_OUTSIDE = _Place("training_step", captured=False)
_place = jax.make_user_context(None)
_traced: contextvars.ContextVar[set[str]] = contextvars.ContextVar("jaxlog_traced")


def _current() -> _Place:
    return _place.value or _OUTSIDE


def current_hook() -> Hook:
    """The hook whose defaults a log call takes here."""
    return HOOKS[_current().hook]


def is_captured() -> bool:
    """Whether a log call here reaches anyone."""
    return _current().captured


@contextlib.contextmanager
def hook(name: str) -> Iterator[None]:
    """Log calls inside take the defaults of the hook `name`.

    Args:
        name: a hook of Lightning's, such as `"on_before_optimizer_step"`.

    Raises:
        HookError: no such hook.

    Example:
        >>> import jax, jaxlog
        >>> def step(grads):
        ...     with jaxlog.hook("on_before_optimizer_step"):
        ...         jaxlog.log("grad_norm", jax.numpy.linalg.norm(grads))
        >>> logs = jaxlog.capture(step).init(jax.numpy.ones(3))
        >>> logs.schema.find("grad_norm").options.hook
        'on_before_optimizer_step'
    """
    find_hook(name)
    with _place(dataclasses.replace(_current(), hook=name)):
        yield


@contextlib.contextmanager
def silent() -> Iterator[None]:
    """Log calls traced inside leave none."""
    with _place(dataclasses.replace(_current(), captured=False)):
        yield


@contextlib.contextmanager
def capturing(hook_name: str) -> Iterator[set[str]]:
    """Log calls traced inside leave an equation; gives the names of those that were."""
    # Beside the user context, not in it: what is traced must not depend on what was traced before.
    token = _traced.set(set())
    try:
        with contextlib.ExitStack() as stack:
            for library in present():
                stack.enter_context(library.capturing())
            stack.enter_context(_place(_Place(hook_name, captured=True)))
            yield _traced.get()
    finally:
        _traced.reset(token)


def note_traced(name: str) -> None:
    """Tells the capture around that a log call was traced."""
    _traced.get().add(name)
