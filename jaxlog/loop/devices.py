"""What several devices logged each for itself, brought to one value a step.

Under `jax.pmap` the whole step runs once a device; inside a shard_map each shard logs for itself.
Nothing is reduced in the step, which would take a collective: the host folds once a window, in
float64.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from jaxlog.logs import KeySpec, Schema
from jaxlog.logs.layout import LayoutGroup, layout_groups
from jaxlog.logs.recording import Part
from jaxlog.logs.decode import Column
from jaxlog.metrics import Metric

__all__ = ["gathered", "latest", "logged"]

Parts = tuple[Part, Part | None]  # of the step as one, and of the shards of a shard_map


def logged(
    schema: Schema, parts: Parts, count: int
) -> Iterator[tuple[LayoutGroup, Column, dict[str, Metric]]]:
    """For each group of specs: what every step logged, and by name the merged states of metrics.

    Args:
        schema: what was logged.
        parts: the fetched parts of a recording.
        count: how many rows are in use.
    """
    for group in layout_groups(schema):
        part = parts[group.first.on_mesh]
        assert part is not None  # there are specs in it
        column = _column(group, part.rows[..., :count, :])
        if group.first.keeps_states:
            name, states = group.first.name, part.states[group.first.name]
            each = _merged(group.first, jax.tree.map(lambda leaf: leaf[:, :count], states))
            column, state = _from_states(column, each)
            yield group, column, {name: state}
            continue
        found = {e.name: part.metrics[e.name] for e in group.specs if e.metric is not None}
        if part.rows.ndim == 3:
            found = {e.name: _merged(e, found[e.name]) for e in group.specs if e.name in found}
        yield group, column, found


def latest(
    schema: Schema, rows: tuple[np.ndarray, np.ndarray | None]
) -> Iterator[tuple[LayoutGroup, Column]]:
    """What one step logged, by its packed rows: of the step as one, and of the shards."""
    for group in layout_groups(schema):
        row = rows[group.first.on_mesh]
        if row is not None:
            yield group, _column(group, np.expand_dims(row, -2))


def _column(group: LayoutGroup, rows: np.ndarray) -> Column:
    """The columns of a group, shape `(n, k)`, reduced over devices where rows have such an axis."""
    column = group.read(rows)
    return column if rows.ndim == 2 else _fold(column, _contributors(group.first, len(rows)))


def _contributors(spec: KeySpec, count: int) -> Sequence[int]:
    """The devices that are reduced; in a shard_map the others have logged nothing."""
    group = spec.options.sync_dist_group
    if spec.on_mesh:
        return range(count)
    if not spec.options.syncs:
        return [0]
    if isinstance(group, tuple) and any(isinstance(part, tuple) for part in group):
        return next(part for part in group if 0 in part)
    return range(count)


def _fold(column: Column, contributors: Sequence[int]) -> Column:
    """The reduction over the devices that speak, whose axis is the first of `column`."""
    spec = column.spec
    chosen = column.take(np.asarray(contributors))
    if len(contributors) == 1:
        return Column(spec, {field: values[0] for field, values in chosen.state.items()})
    if not chosen.state:
        return chosen
    state = {field: values.astype(np.float64) for field, values in chosen.state.items()}
    present = chosen.present()
    units = present.sum(axis=0)
    reduction = spec.options.reduce_fx
    if spec.metric is not None:
        return Column(spec, {"units": units})
    if reduction != "mean":
        nothing = {"sum": 0.0, "min": np.inf, "max": -np.inf}[reduction]
        values = np.where(present, state[reduction], nothing)
        return Column(spec, {reduction: getattr(np, reduction)(values, axis=0), "units": units})
    folded: dict[str, np.ndarray] = {}
    if "weight" in state:
        weighted = state.get("wtotal", state.get("raw", 0.0) * state["weight"])
        folded["wtotal"] = np.where(state["weight"] > 0, weighted, 0.0).sum(axis=0)
        folded["weight"] = state["weight"].sum(axis=0)
    value = state.get("total", state.get("raw"))
    if value is not None and ("weight" not in state or "total" in state):
        each = state.get("units", present.astype(np.float64))
        folded["total"] = np.where(each > 0, value, 0.0).sum(axis=0)
        folded["units"] = each.sum(axis=0)
    return Column(spec, folded)


def _merged(spec: KeySpec, states: Metric) -> Metric:
    """Fetched states of all devices, one axis in front, as one: of those that speak."""
    count = len(jax.tree.leaves(states)[0])
    chosen = list(_contributors(spec, count))
    return jax.tree.map(lambda leaf: leaf[chosen], states).to_host().reduce_axes(1)


def _from_states(column: Column, states: Metric) -> tuple[Column, Metric]:
    """The values of a metric, shape `(n, 1)`, whose states were kept, and the state of all."""
    count = len(jax.tree.leaves(states)[0])
    present = column.present()[:, 0] if column.state else np.ones(count, bool)
    values = np.full((count, 1), np.nan)
    for row in np.flatnonzero(present):
        values[row] = jax.tree.map(lambda leaf, row=row: leaf[row], states).host_compute()
    return Column(column.spec, {"value": values, **column.state}), states.reduce_axes(1)


def gathered(part: Part | None, devices: Sequence[Any] | None = None) -> Part | None:
    """A part with an axis of devices, whole on each of them: one collective a dtype.

    With one process nothing is done. With several, every process calls it at the same step.

    Args:
        part: shards, or what this process holds of what `jax.pmap` returned.
        devices: those of that pmap.
    """
    leaves = jax.tree.leaves(part)
    if part is None or jax.process_count() == 1 or all(x.is_fully_replicated for x in leaves):
        return part
    if devices is not None:
        from jax.experimental import multihost_utils  # noqa: PLC0415 - for several processes only

        mesh = Mesh(np.array(devices), ("devices",))
        spec = PartitionSpec("devices")
        part = multihost_utils.host_local_array_to_global_array(part, mesh, spec)
    else:
        mesh = leaves[0].sharding.mesh
    return _replicate(NamedSharding(mesh, PartitionSpec()))(part)


@functools.cache
def _replicate(whole: NamedSharding) -> Any:
    def run(part: Part) -> Part:
        leaves, treedef = jax.tree.flatten(part)
        out = list(leaves)
        for dtype in {leaf.dtype for leaf in leaves}:
            alike = [i for i, leaf in enumerate(leaves) if leaf.dtype == dtype]
            flat = [leaves[i].reshape(leaves[i].shape[0], -1) for i in alike]
            together = jax.lax.with_sharding_constraint(jnp.concatenate(flat, axis=1), whole)
            ends = np.cumsum([one.shape[1] for one in flat])[:-1]
            for i, one in zip(alike, jnp.split(together, ends, axis=1), strict=True):
                out[i] = one.reshape(leaves[i].shape)
        return jax.tree.unflatten(treedef, out)

    return jax.jit(run, out_shardings=whole)
