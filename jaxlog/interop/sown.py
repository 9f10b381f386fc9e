"""Logs the values that modules have sown, each under the path of its module."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax.numpy as jnp

from jaxlog.errors import LogArgumentError
from jaxlog.metrics import Metric
from jaxlog.tracing.log import log

__all__ = ["log_values"]


def log_values(
    tree: Any, *, prefix: str, reduce: Callable[[Any], Any] | None, options: Mapping[str, Any]
) -> None:
    """Logs every value of nested mappings under its path; a tuple or list is several values.

    Raises:
        LogArgumentError: a value has axes, and `reduce` is None.
    """
    for path, value in _values(tree, ()):
        name = prefix + "/".join(path)
        if not isinstance(value, Metric) and jnp.ndim(value) > 0:
            if reduce is None:
                raise LogArgumentError(
                    f"log_sown(...): {name!r} is an array of shape {jnp.shape(value)}, and what is "
                    f"logged is one number; write log_sown(..., reduce=jnp.mean), or sow a number"
                )
            value = reduce(value)  # noqa: PLW2901 - from here on it is what gets logged
        log(name, value, **options)


def _values(tree: Any, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Any]]:
    if isinstance(tree, Mapping):
        for key, inner in tree.items():
            yield from _values(inner, (*path, str(key)))
    elif isinstance(tree, (tuple, list)):
        for inner in tree:
            yield from _values(inner, path)
    else:
        yield path, tree
