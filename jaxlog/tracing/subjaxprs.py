"""The programs inside an equation."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from jaxlog.compat import is_jaxpr

__all__ = ["subjaxprs"]


def subjaxprs(eqn: Any) -> Iterator[Any]:
    """Every jaxpr among an equation's parameters."""
    for param in eqn.params.values():
        for candidate in param if isinstance(param, (tuple, list)) else (param,):
            if is_jaxpr(candidate):
                yield candidate
