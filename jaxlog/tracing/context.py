"""The trace-time context: the hook around the code being traced, and whether it is captured.

The context is a `jax.make_user_context`, which is part of every trace and compile cache key. So a
jitted function called under two hooks is traced once for each, and one called outside of `capture`
is traced without a log equation: it has the jaxpr, program and dispatch path that it would have
without the calls of `log`.
"""

from __future__ import annotations

import contextlib
import contextvars
import dataclasses
from collections.abc import Iterator

import jax

from jaxlog.logs import HOOKS, Hook, find_hook
from jaxlog.tracing.libraries import present

__all__ = ["capturing", "current_hook", "hook", "is_captured", "mark_traced", "silent"]


@dataclasses.dataclass(frozen=True)
class _Context:
    hook: str
    captured: bool


_DEFAULT = _Context("training_step", captured=False)
_context = jax.make_user_context(None)
_traced: contextvars.ContextVar[set[str]] = contextvars.ContextVar("jaxlog_traced")


def _current() -> _Context:
    return _context.value or _DEFAULT


def current_hook() -> Hook:
    """The hook whose defaults a log call takes here."""
    return HOOKS[_current().hook]


def is_captured() -> bool:
    """Whether a log call here records its value."""
    return _current().captured


@contextlib.contextmanager
def hook(name: str) -> Iterator[None]:
    """Log calls inside take the defaults of the hook `name`.

    Args:
        name: one of Lightning's hooks, such as `"on_before_optimizer_step"`.

    Raises:
        HookError: there is no such hook.

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
    with _context(dataclasses.replace(_current(), hook=name)):
        yield


@contextlib.contextmanager
def silent() -> Iterator[None]:
    """Log calls traced inside add no equation."""
    with _context(dataclasses.replace(_current(), captured=False)):
        yield


@contextlib.contextmanager
def capturing(hook_name: str) -> Iterator[set[str]]:
    """Log calls traced inside add an equation; yields the set of their names, which grows."""
    # The set is not part of the user context: a trace must not depend on what was traced before,
    # and the context is hashed at every call of a jitted function.
    token = _traced.set(set())
    try:
        with contextlib.ExitStack() as stack:
            for library in present():
                stack.enter_context(library.capturing())
            stack.enter_context(_context(_Context(hook_name, captured=True)))
            yield _traced.get()
    finally:
        _traced.reset(token)


def mark_traced(name: str) -> None:
    """Tells the innermost `capturing` that a log call of this name was traced."""
    _traced.get().add(name)
