"""Metrics of other libraries, such as CLU and metrax: any pytree with `merge` and `compute`."""

from __future__ import annotations

from typing import Any, Self

import jax
import jax.numpy as jnp
import numpy as np

from jaxlog.compat import host_float64
from jaxlog.errors import LogArgumentError
from jaxlog.metrics.array_namespace import array_namespace, to_host_array
from jaxlog.metrics.leaves import fold_rows, gather_mesh
from jaxlog.metrics.metric import Metric

__all__ = ["Foreign", "as_metric"]

_PLAIN = (jax.Array, np.ndarray, np.generic, int, float, str, dict)


def as_metric(value: Any) -> Any:
    """`value`, wrapped in a `Metric` if it is a metric of another library.

    Such a metric is a pytree of arrays with `merge(other)`, `compute()` and a class method
    `empty()`, as those of CLU and metrax are.

    Raises:
        LogArgumentError: it has `merge` and `compute`, but no class method `empty`.

    Example:
        >>> as_metric(3.0)
        3.0
    """
    if isinstance(value, (*_PLAIN, Metric, type)):
        return value
    if not (hasattr(value, "merge") and hasattr(value, "compute")):
        return value
    if not callable(getattr(type(value), "empty", None)):
        raise LogArgumentError(
            f"{type(value).__name__} has merge() and compute(), but no class method empty() for "
            f"steps that do not log it; add one, or log value.compute()"
        )
    return Foreign(value)


@jax.tree_util.register_pytree_node_class
class Foreign(Metric, adapts=True):
    """A metric of another library, which merges by its own rule.

    Example:
        >>> Metric in Foreign.__mro__
        True
    """

    inner: Any

    def __init__(self, inner: Any) -> None:
        object.__setattr__(self, "inner", inner)

    def tree_flatten(self) -> tuple[tuple[Any], None]:
        """The wrapped metric as the only child."""
        return (self.inner,), None

    @classmethod
    def tree_unflatten(cls, aux: None, children: Any) -> Self:
        """The inverse of `tree_flatten`."""
        del aux
        return cls(*children)

    def compute(self) -> Any:
        """The value that the wrapped metric computes."""
        return self.inner.compute()

    def merge(self, other: Any) -> Self:
        """The metric merged with another of its kind; dtypes and shapes stay.

        Raises:
            LogArgumentError: the other is of another kind, or the merge is of another shape.
        """
        theirs = getattr(other, "inner", other)
        if type(theirs) is not type(self.inner):
            raise LogArgumentError(
                f"merge: {type(self.inner).__name__} got a {type(theirs).__name__}; log them under "
                f"two names"
            )
        return self._like(self.inner.merge(theirs))

    def _like(self, merged: Any) -> Self:
        def keep(mine: Any, theirs: Any) -> Any:
            if jnp.shape(mine) != jnp.shape(theirs):
                raise LogArgumentError(
                    f"merge: {type(self.inner).__name__} grows from shape {jnp.shape(mine)} to "
                    f"{jnp.shape(theirs)}; a metric that collects cannot be logged, reduce it first"
                )
            return jnp.asarray(theirs).astype(mine.dtype)

        return type(self)(jax.tree.map(keep, self.inner, merged))

    def where(self, present: Any) -> Self:
        """The metric where `present`, else its empty one."""
        with jax.ensure_compile_time_eval():
            blank = [np.asarray(leaf) for leaf in jax.tree.leaves(type(self.inner).empty())]
        leaves, treedef = jax.tree.flatten(self.inner)
        xp = array_namespace(present, *leaves)
        chosen = []
        for leaf, nothing in zip(leaves, blank, strict=True):
            rank = np.ndim(leaf) - np.ndim(present)
            keep = xp.reshape(present, np.shape(present) + (1,) * rank)
            chosen.append(xp.where(keep, leaf, nothing.astype(leaf.dtype)))
        return type(self)(jax.tree.unflatten(treedef, chosen))

    def reduce_axes(self, num_leading: int) -> Self:
        """The merge of all metrics along the first axes, in row-major order."""
        if num_leading == 0:
            return self
        rows = jax.tree.map(lambda x: x.reshape((-1, *x.shape[num_leading:])), self)
        return fold_rows(_merge, rows)

    def reduce(self, axis_name: Any) -> Self:
        """The merge over the shards along mesh axes, the same on each."""
        rows = jax.tree.map(lambda x: gather_mesh(x, axis_name), self)
        return fold_rows(_merge, rows)

    def to_host(self) -> Self:
        """The same state on numpy leaves of 64 bits."""
        return jax.tree.map(to_host_array, self)

    def host_merge(self, other: Any) -> Self:
        """`merge` in 64 bits."""
        with host_float64():
            return self.to_host().merge(other.to_host()).to_host()

    def __repr__(self) -> str:
        return f"Foreign({self.inner!r})"


def _merge(a: Foreign, b: Foreign) -> Foreign:
    return a.merge(b)
