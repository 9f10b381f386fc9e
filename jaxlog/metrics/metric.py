"""`Metric`: an immutable pytree of arrays that merge, the base of every metric.

The invariants that the rest of jaxlog relies on: `merge` is associative, `empty` is its neutral
element, and no operation changes the dtype or shape of a leaf. So scan, vmap, meshes and the host
may each merge in their own order and get one answer, and a state can be the carry of a scan.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any, ClassVar, Self, dataclass_transform

import jax
import jax.numpy as jnp
import numpy as np

from jaxlog.compat import host_float64, on_host_float64
from jaxlog.errors import LogArgumentError
from jaxlog.metrics.array_namespace import array_namespace, is_host, to_host_array
from jaxlog.metrics.construction import (
    check_config,
    check_config_names,
    register_metric,
    settle_leaf,
    show_value,
)
from jaxlog.metrics.declaration import OMITTED, StateDeclaration, StateSpec, state
from jaxlog.metrics.leaves import (
    MEAN_WEIGHT,
    cast_leaves,
    fold_leading,
    fold_mesh,
    fold_rows,
    gather_mesh,
    merge_leaves,
)

__all__ = ["Metric"]


@dataclass_transform(
    eq_default=False,
    frozen_default=True,
    kw_only_default=True,
    field_specifiers=(state, dataclasses.field),
)
class Metric:
    """The state of a quantity over one batch, or over many merged batches; immutable, a pytree.

    A subclass declares its arrays with `state` and says what one batch contributes (`of`) and what
    the number is (`compute`). Other annotated fields are static configuration: hashable, equal in
    metrics that merge, and handed to `of` by `update`. Subclasses become frozen keyword-only
    dataclasses by themselves. A state left out of a constructor call is its neutral element.

    `compute` runs on jax arrays and, after the fetch, on numpy arrays of 64 bits; write it with
    operators, `array_namespace`, or plain jax.numpy (`host_compute` looks after the last).

    Overriding `merge` replaces the declared reductions, which then only fix the neutral elements;
    it must stay associative.

    Example:
        >>> from jaxlog.metrics import Metric, state
        >>> class Hits(Metric):
        ...     threshold: float = 0.5
        ...     hits: jax.Array = state(0, reduce="sum")
        ...     seen: jax.Array = state(0, reduce="sum")
        ...
        ...     @classmethod
        ...     def of(cls, scores, *, threshold=0.5):
        ...         hits = (scores > threshold).sum()
        ...         return cls(threshold=threshold, hits=hits, seen=scores.size)
        ...
        ...     def compute(self):
        ...         return self.hits / self.seen
        >>> metric = Hits.empty(threshold=0.8).update(jnp.array([0.1, 0.9]))
        >>> metric
        Hits(threshold=0.8, hits=1, seen=2)
        >>> print(metric.update(jnp.array([1.0, 1.0])).compute())
        0.75
    """

    _declarations: ClassVar[Mapping[str, StateDeclaration]] = {}
    _config_names: ClassVar[tuple[str, ...]] = ()

    def __init_subclass__(cls, *, adapts: bool = False, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if adapts:  # the subclass wraps an object and registers itself as a pytree
            return
        cls._declarations, cls._config_names = register_metric(cls, Metric)

    def __post_init__(self) -> None:
        check_config(type(self), self.config)
        specs = self._specs()
        given = {n: getattr(self, n) for n in specs if getattr(self, n) is not OMITTED}
        # All 64-bit numpy means the host is merging fetched windows: keep its exactness.
        on_host = bool(given) and all(is_host(v) and hasattr(v, "dtype") for v in given.values())
        for name, spec in specs.items():
            # A constructed metric holds one batch, so its weight is 1; `empty` passes weight 0.
            default = 1.0 if name == MEAN_WEIGHT else spec.neutral
            value = given.get(name, OMITTED)
            leaf = settle_leaf(type(self), name, spec, value, default, on_host=on_host)
            object.__setattr__(self, name, leaf)

    # ---- what a subclass writes -------------------------------------------------------------

    @classmethod
    def of(cls, *args: Any, **kwargs: Any) -> Self:
        """The state of one batch. Subclasses override it; keyword arguments carry configuration.

        Raises:
            NotImplementedError: the subclass defines no `of`.
        """
        raise NotImplementedError(
            f"{cls.__name__} defines no of(); add a classmethod of(cls, ...) that returns "
            f"{cls.__name__}({', '.join(f'{n}=...' for n in cls._public_states())})"
        )

    def compute(self) -> Any:
        """The value of the metric: a scalar array, shape (). Subclasses override it.

        Raises:
            NotImplementedError: the subclass defines no `compute`.
        """
        raise NotImplementedError(
            f"{type(self).__name__} defines no compute(); add compute(self) that returns a scalar"
        )

    # ---- building and merging ---------------------------------------------------------------

    @classmethod
    def empty(cls, **config: Any) -> Self:
        """The neutral element: merging it changes nothing. Every leaf has a buffer of its own.

        Sums and means are 0 (means of weight 0), minima +inf or the largest integer, maxima -inf
        or the smallest.

        Args:
            **config: static configuration fields.

        Raises:
            LogArgumentError: a name in `config` is not a configuration field, or one without a
                default is missing.
        """
        check_config_names(cls, config, cls._config_names)
        weight = {MEAN_WEIGHT: 0.0} if MEAN_WEIGHT in cls._declarations else {}
        return cls(**config, **weight)

    def update(self, *args: Any, **kwargs: Any) -> Self:
        """`self` merged with `of(*args, **kwargs)` under the same configuration."""
        return self.merge(type(self).of(*args, **{**self.config, **kwargs}))

    def merge(self, other: Any) -> Self:
        """The combination of both by the declared reductions; dtypes and shapes stay.

        On numpy leaves it is plain numpy, in whatever width they have (see `to_host`).

        Raises:
            LogArgumentError: `other` is of another class or configuration.
        """
        self._check_mergeable(other)
        merged = merge_leaves(self._specs(), self._leaves(), other._leaves())
        return self._with_leaves(merged)

    def where(self, present: Any) -> Self:
        """`self` where `present`, else the neutral element.

        Args:
            present: bool, shape (); under leading mapped axes, a prefix of the leaves' shape.
        """
        leaves, specs = self._leaves(), self._specs()
        xp = array_namespace(present, *leaves.values())
        leaves = cast_leaves(specs, leaves) if xp is jnp else leaves
        chosen = {}
        for name, leaf in leaves.items():
            neutral = xp.full(np.shape(leaf), specs[name].neutral, leaf.dtype)
            keep = xp.reshape(present, np.shape(present) + (1,) * (leaf.ndim - np.ndim(present)))
            chosen[name] = xp.where(keep, leaf, neutral)
        return self._with_leaves(chosen)

    # ---- folding mapped axes ----------------------------------------------------------------

    def reduce_axes(self, num_leading: int) -> Self:
        """The merge of all metrics along the first `num_leading` axes of the leaves (from vmap).

        A class with its own `merge` folds with it, in row-major order.

        Raises:
            LogArgumentError: the leaves have fewer mapped axes than that.
        """
        specs, leaves = self._specs(), self._leaves()
        mapped = min((np.ndim(leaves[n]) - len(s.shape) for n, s in specs.items()), default=0)
        if not 0 <= num_leading <= mapped:
            raise LogArgumentError(
                f"reduce_axes: num_leading={num_leading}, but the leaves of {self!r} have {mapped} "
                f"mapped axes in front; write reduce_axes({mapped})"
            )
        if num_leading == 0:
            return self
        if not self._merges_its_own_way():
            return self._with_leaves(fold_leading(specs, leaves, num_leading))
        lead = np.shape(next(iter(leaves.values())))[:num_leading]
        if 0 in lead:
            return type(self).empty(**self.config)
        rows = jax.tree.map(lambda x: x.reshape((-1, *x.shape[num_leading:])), self)
        fold = functools.partial(fold_rows, lambda a, b: a.merge(b))
        if array_namespace(*leaves.values()) is jnp:
            for _ in range(mapped - num_leading):  # a user's merge expects unmapped leaves
                fold = jax.vmap(fold, in_axes=1)
        return fold(rows)

    def reduce(self, axis_name: Any) -> Self:
        """The merge over the shards along mesh axes, the same on each; for shard_map and pmap.

        A class with its own `merge` folds with it, in the order of the mesh axis.

        Args:
            axis_name: a mesh axis name or a tuple of them.
        """
        if not self._merges_its_own_way():
            specs, leaves = self._specs(), self._leaves()
            return self._with_leaves(fold_mesh(specs, leaves, axis_name))
        rows = jax.tree.map(lambda x: gather_mesh(x, axis_name), self)
        return fold_rows(lambda a, b: a.merge(b), rows)

    # ---- the host, after the fetch ----------------------------------------------------------

    def to_host(self) -> Self:
        """The same state on numpy leaves of int64, uint64 and float64, where merging is exact.

        Counts stay exact up to 2**63, sums carry 53 bits. Fetch the leaves first
        (`jax.device_get`); on jax arrays this blocks. The neutral element of an int32 minimum stays
        2**31 - 1: neutral among values that come from the same int32 state, as all windows do.
        """
        return jax.tree.map(to_host_array, self)

    def host_merge(self, other: Any) -> Self:
        """`merge` on the host, in 64 bits: both sides promoted, the result numpy again.

        Raises:
            LogArgumentError: `other` is of another class or configuration.
        """
        self._check_mergeable(other)
        mine, theirs = self.to_host(), other.to_host()
        if not self._merges_its_own_way():
            return mine.merge(theirs)
        # The user's merge may call jax.numpy, which without x64 would narrow the leaves to 32 bits.
        with host_float64():
            return mine.merge(theirs).to_host()

    def host_compute(self) -> float:
        """`compute` on the host as a Python float; jax.numpy inside it runs in 64 bits on the CPU.

        Raises:
            LogArgumentError: `compute` gave something other than one number.
        """
        with host_float64():
            number = np.asarray(self.to_host().compute())
        if number.shape != ():
            raise LogArgumentError(
                f"{type(self).__name__}.compute: returned shape {number.shape}, but a logged "
                f"metric is one number; reduce it, for instance with .mean(), or log "
                f"one metric an entry"
            )
        return float(number)

    # ---- structure --------------------------------------------------------------------------

    @property
    def config(self) -> dict[str, Any]:
        """The static configuration by field name; `type(m).empty(**m.config)` is m's neutral."""
        return {name: getattr(self, name) for name in self._config_names}

    @classmethod
    def _public_states(cls) -> tuple[str, ...]:
        return tuple(name for name in cls._declarations if name != MEAN_WEIGHT)

    def _specs(self) -> dict[str, StateSpec]:
        config = self.config
        specs = {name: d.resolve(name, config) for name, d in self._declarations.items()}
        if on_host_float64():  # a user's merge or compute in jax.numpy must not narrow the leaves
            return {name: spec.on_host() for name, spec in specs.items()}
        return specs

    def _leaves(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in self._declarations}

    def _with_leaves(self, leaves: Mapping[str, Any]) -> Self:
        children = [leaves[name] for name in self._declarations]
        return jax.tree.unflatten(jax.tree.structure(self), children)

    @classmethod
    def _merges_its_own_way(cls) -> bool:
        return cls.merge is not Metric.merge

    def _check_mergeable(self, other: Any) -> None:
        if type(other) is not type(self):
            raise LogArgumentError(
                f"merge: {type(self).__name__} got a {type(other).__name__}; metrics merge with "
                f"metrics of their own class, so build it with {type(self).__name__}.of(...)"
            )
        if other.config != self.config:
            raise LogArgumentError(
                f"merge: {type(self).__name__} with {self.config} got one with {other.config}; "
                f"give both the same configuration, or log them under two names"
            )

    def __repr__(self) -> str:
        shown = {**self.config, **self._leaves()}
        return (
            f"{type(self).__name__}({', '.join(f'{n}={show_value(v)}' for n, v in shown.items())})"
        )
