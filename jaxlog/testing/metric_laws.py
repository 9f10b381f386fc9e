"""`MetricLaws`: the laws that every metric obeys, as tests to inherit."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.sharding import AxisType, PartitionSpec

from jaxlog.metrics import Metric

__all__ = ["MetricLaws"]


class MetricLaws:
    """Tests that a metric is a monoid and gives the same value under every transform.

    Subclass it in a test module, under a name that pytest collects, and define `states`. Scan,
    vmap, meshes and a `Loop` merge states in different orders. A metric that passes gives the same
    value in all of them. States are compared with chex.

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
        """Three or more states of one configuration, each of a batch: `[MyMetric.of(x), ...]`."""
        raise NotImplementedError(f"{type(self).__name__} must define states(self)")

    # ---- the laws -------------------------------------------------------------------------------

    def test_empty_is_the_identity(self) -> None:
        """Merging the empty metric, from the left or the right, changes no bit."""
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
        """A loop may cut the batches into windows anywhere; the total is the same."""
        states = self.states()
        total = _merged(states)
        for cut in range(1, len(states)):
            self._equal(_merged(states[:cut]).merge(_merged(states[cut:])), total)

    def test_dtypes_and_shapes_stay(self) -> None:
        """The carry of a scan has a fixed type, so no operation may change a dtype or a shape."""
        a, b = self.states()[:2]
        masked = a.where(np.zeros((), bool))
        chex.assert_trees_all_equal_shapes_and_dtypes(a, b, a.merge(b), masked)

    def test_compute_gives_one_number(self) -> None:
        """`compute` gives a scalar; `host_compute` gives the same one in 64 bits."""
        state = _merged(self.states())
        value = np.asarray(state.compute())
        assert value.shape == (), f"compute() has shape {value.shape}"
        self._close(value, state.host_compute())

    def test_the_host_merges_the_same(self) -> None:
        """`host_merge`, which merges fetched states in 64 bits, agrees with `merge`."""
        states = self.states()
        merged = functools.reduce(lambda a, b: a.host_merge(b), states)
        self._close(merged.host_compute(), _merged(states).compute())

    # ---- the transforms -------------------------------------------------------------------------

    def test_jit_agrees(self) -> None:
        """One compiled merge serves every pair of states, and gives what `merge` gives."""
        states = self.states()
        # chex counts by the source of the function, over all tests of the process.
        chex.clear_trace_counter()
        merge = jax.jit(chex.assert_max_traces(lambda a, b: a.merge(b), n=1))
        merged = functools.reduce(merge, states)
        self._equal(merged, _merged(states))
        self._close(jax.jit(lambda a: a.compute())(merged), merged.compute())

    def test_scan_agrees(self) -> None:
        """States merged into the carry of a scan."""
        states = self.states()
        merged, _ = lax.scan(lambda c, s: (c.merge(s), None), states[0], _stacked(states[1:]))
        self._equal(merged, _merged(states))

    def test_vmap_agrees(self) -> None:
        """States stacked along a mapped axis, then reduced over it."""
        states = self.states()
        self._equal(_stacked(states).reduce_axes(1), _merged(states))
        doubled = jax.vmap(lambda s: s.merge(s))(_stacked(states)).reduce_axes(1)
        self._equal(doubled, _merged([s.merge(s) for s in states]))

    def test_shard_map_agrees(self) -> None:
        """One state a device, reduced over the mesh; as many states as there are devices."""
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
        if exactly:
            chex.assert_trees_all_equal(a, b, strict=True)
        else:
            self._close(a, b)

    def _close(self, a: Any, b: Any) -> None:
        chex.assert_trees_all_close(a, b, rtol=self.rtol, atol=self.atol)


def _merged(states: Sequence[Metric]) -> Metric:
    return functools.reduce(lambda a, b: a.merge(b), states)


def _stacked(states: Sequence[Metric]) -> Any:
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *states)
