"""`MetricLaws`: what holds of every metric, as tests to inherit."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.sharding import AxisType, PartitionSpec

from jaxlog.metrics import Metric

__all__ = ["MetricLaws"]


class MetricLaws:
    """Tests that a metric is a monoid, the same in every transform, on one device and on many.

    Subclass it in a test module, under a name that pytest collects, and give `states`. Scan, vmap,
    meshes and a `Loop` each merge states in an order of their own; a metric that passes gives one
    answer in all of them.

    Attributes:
        rtol: relative tolerance of floats.
        atol: absolute tolerance of floats.

    Example:
        >>> import jax.numpy as jnp
        >>> import jaxlog
        >>> class TestMean(MetricLaws):
        ...     def states(self):
        ...         return [jaxlog.Mean.of(jnp.arange(n, n + 3.0)) for n in range(4)]
        >>> TestMean().test_merge_is_associative()
    """

    rtol: float = 1e-5
    atol: float = 1e-6

    def states(self) -> Sequence[Metric]:
        """The states of three batches or more, of one configuration: `[MyMetric.of(...), ...]`."""
        raise NotImplementedError(f"{type(self).__name__} must define states(self)")

    # ---- the laws -------------------------------------------------------------------------------

    def test_empty_is_the_identity(self) -> None:
        """Merging the empty metric, from either side, changes no bit."""
        for state in self.states():
            empty = state.where(np.zeros((), bool))
            for merged in (state.merge(empty), empty.merge(state)):
                self._equal(merged, state, exactly=True)
            self._equal(state.where(np.ones((), bool)), state, exactly=True)

    def test_merge_is_associative(self) -> None:
        """`(a + b) + c` is `a + (b + c)`."""
        a, b, c = self.states()[:3]
        self._equal(a.merge(b).merge(c), a.merge(b.merge(c)))

    def test_any_split_gives_one_answer(self) -> None:
        """However the batches are cut into windows."""
        states = self.states()
        whole = _merged(states)
        for cut in range(1, len(states)):
            self._equal(_merged(states[:cut]).merge(_merged(states[cut:])), whole)

    def test_dtypes_and_shapes_stay(self) -> None:
        """A state is carried through a scan: no operation may widen or grow it."""
        a, b = self.states()[:2]
        wanted = _types(a)
        for changed in (b, a.merge(b), a.where(np.zeros((), bool))):
            assert _types(changed) == wanted, f"{_types(changed)} is not {wanted}"
            assert jax.tree.structure(changed) == jax.tree.structure(a)

    def test_compute_gives_one_number(self) -> None:
        """A scalar, the same from the device and, in 64 bits, from the host."""
        state = _merged(self.states())
        value = np.asarray(state.compute())
        assert value.shape == (), f"compute() has shape {value.shape}"
        self._close(value, state.host_compute())

    def test_the_host_merges_the_same(self) -> None:
        """In 64 bits, after the fetch."""
        states = self.states()
        merged = functools.reduce(lambda a, b: a.host_merge(b), states)
        self._close(merged.host_compute(), _merged(states).compute())

    # ---- the transforms -------------------------------------------------------------------------

    def test_jit_agrees(self) -> None:
        """A compiled merge and compute."""
        a, b = self.states()[:2]
        self._equal(jax.jit(lambda a, b: a.merge(b))(a, b), a.merge(b))
        self._close(jax.jit(lambda a: a.compute())(a), a.compute())

    def test_scan_agrees(self) -> None:
        """Merged as the carry of a scan."""
        states = self.states()
        merged, _ = lax.scan(lambda c, s: (c.merge(s), None), states[0], _stacked(states[1:]))
        self._equal(merged, _merged(states))

    def test_vmap_agrees(self) -> None:
        """The states of a mapped axis, folded."""
        states = self.states()
        self._equal(_stacked(states).reduce_axes(1), _merged(states))
        doubled = jax.vmap(lambda s: s.merge(s))(_stacked(states)).reduce_axes(1)
        self._equal(doubled, _merged([s.merge(s) for s in states]))

    def test_shard_map_agrees(self) -> None:
        """The states of several devices, as many as there are."""
        count = min(len(self.states()), jax.device_count())
        states = self.states()[:count]
        mesh = jax.make_mesh(
            (count,), ("d",), axis_types=(AxisType.Auto,), devices=jax.devices()[:count]
        )

        def shard(stacked: Any) -> Any:
            return jax.tree.map(lambda x: x[0], stacked).reduce("d")

        reduced = jax.jit(
            jax.shard_map(shard, mesh=mesh, in_specs=PartitionSpec("d"), out_specs=PartitionSpec())
        )(_stacked(states))
        self._equal(reduced, _merged(states))

    # ---- comparing ------------------------------------------------------------------------------

    def _equal(self, a: Any, b: Any, *, exactly: bool = False) -> None:
        assert jax.tree.structure(a) == jax.tree.structure(b), "another structure"
        for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
            if exactly:
                np.testing.assert_array_equal(x, y)
            else:
                self._close(x, y)

    def _close(self, a: Any, b: Any) -> None:
        np.testing.assert_allclose(a, b, rtol=self.rtol, atol=self.atol)


def _merged(states: Sequence[Metric]) -> Metric:
    return functools.reduce(lambda a, b: a.merge(b), states)


def _stacked(states: Sequence[Metric]) -> Any:
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *states)


def _types(state: Any) -> list[tuple[Any, Any]]:
    return [(leaf.shape, leaf.dtype) for leaf in jax.tree.leaves(state)]
