"""Counts what speed depends on: compilations."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import jax

__all__ = ["counted_compiles"]

_OPEN: list[list[str]] = []


def _on_event(event: str, duration_secs: float, **kwargs: Any) -> None:
    del duration_secs, kwargs
    if event == "/jax/core/compile/backend_compile_duration":
        for compiles in _OPEN:
            compiles.append(event)


# For good: jax 0.8.0 cannot unregister.
jax.monitoring.register_event_duration_secs_listener(_on_event)


@contextlib.contextmanager
def counted_compiles() -> Iterator[list[str]]:
    """Whatever the backend compiles inside, whoever asked for it."""
    compiles: list[str] = []
    _OPEN.append(compiles)
    try:
        yield compiles
    finally:
        _OPEN.remove(compiles)
