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

from jaxlog.logs import Entry, Schema
from jaxlog.logs.kinds import Kind, kinds_of
from jaxlog.logs.recording import Part
from jaxlog.logs.tape import Column
from jaxlog.metrics import Metric

__all__ = ["gathered", "latest", "logged"]

Parts = tuple[Part, Part | None]  # of the step as one, and of the shards of a shard_map


def logged(
    schema: Schema, parts: Parts, count: int
) -> Iterator[tuple[Kind, Column, dict[str, Metric]]]:
    """For each kind of entries: what every step logged, and by name the merged states of metrics.

    Args:
        schema: what was logged.
        parts: the fetched parts of a recording.
        count: how many rows are in use.
    """
    for kind in kinds_of(schema):
        part = parts[kind.first.on_mesh]
        assert part is not None  # there are entries in it
        column = _column(kind, part.rows[..., :count, :])
        if kind.first.keeps_states:
            name, states = kind.first.name, part.states[kind.first.name]
            each = _merged(kind.first, jax.tree.map(lambda leaf: leaf[:, :count], states))
            column, state = _from_states(column, each)
            yield kind, column, {name: state}
            continue
        found = {e.name: part.metrics[e.name] for e in kind.entries if e.metric is not None}
        if part.rows.ndim == 3:
            found = {e.name: _merged(e, found[e.name]) for e in kind.entries if e.name in found}
        yield kind, column, found


def latest(
    schema: Schema, rows: tuple[np.ndarray, np.ndarray | None]
) -> Iterator[tuple[Kind, Column]]:
    """What one step logged, by its packed rows: of the step as one, and of the shards."""
    for kind in kinds_of(schema):
        row = rows[kind.first.on_mesh]
        if row is not None:
            yield kind, _column(kind, np.expand_dims(row, -2))


def _column(kind: Kind, rows: np.ndarray) -> Column:
    """The columns of a kind, shape `(n, k)`, reduced over devices where rows have such an axis."""
    column = kind.read(rows)
    return column if rows.ndim == 2 else _fold(column, _speakers(kind.first, len(rows)))


def _speakers(entry: Entry, count: int) -> Sequence[int]:
    """The devices that are reduced; in a shard_map the others have logged nothing."""
    group = entry.options.sync_dist_group
    if entry.on_mesh:
        return range(count)
    if not entry.options.syncs:
        return [0]
    if isinstance(group, tuple) and any(isinstance(part, tuple) for part in group):
        return next(part for part in group if 0 in part)
    return range(count)


def _fold(column: Column, speakers: Sequence[int]) -> Column:
    """The reduction over the devices that speak, whose axis is the first of `column`."""
    entry = column.entry
    chosen = column.take(np.asarray(speakers))
    if len(speakers) == 1:
        return Column(entry, {role: cells[0] for role, cells in chosen.cells.items()})
    if not chosen.cells:
        return chosen
    cells = {role: values.astype(np.float64) for role, values in chosen.cells.items()}
    present = chosen.present()
    units = present.sum(axis=0)
    reduction = entry.options.reduce_fx
    if entry.metric is not None:
        return Column(entry, {"units": units})
    if reduction != "mean":
        nothing = {"sum": 0.0, "min": np.inf, "max": -np.inf}[reduction]
        values = np.where(present, cells[reduction], nothing)
        return Column(entry, {reduction: getattr(np, reduction)(values, axis=0), "units": units})
    folded: dict[str, np.ndarray] = {}
    if "weight" in cells:
        weighted = cells.get("wtotal", cells.get("raw", 0.0) * cells["weight"])
        folded["wtotal"] = np.where(cells["weight"] > 0, weighted, 0.0).sum(axis=0)
        folded["weight"] = cells["weight"].sum(axis=0)
    value = cells.get("total", cells.get("raw"))
    if value is not None and ("weight" not in cells or "total" in cells):
        each = cells.get("units", present.astype(np.float64))
        folded["total"] = np.where(each > 0, value, 0.0).sum(axis=0)
        folded["units"] = each.sum(axis=0)
    return Column(entry, folded)


def _merged(entry: Entry, states: Metric) -> Metric:
    """Fetched states of all devices, one axis in front, as one: of those that speak."""
    count = len(jax.tree.leaves(states)[0])
    chosen = list(_speakers(entry, count))
    return jax.tree.map(lambda leaf: leaf[chosen], states).to_host().reduce_axes(1)


def _from_states(column: Column, states: Metric) -> tuple[Column, Metric]:
    """The values of a metric, shape `(n, 1)`, whose states were kept, and the state of all."""
    count = len(jax.tree.leaves(states)[0])
    present = column.present()[:, 0] if column.cells else np.ones(count, bool)
    values = np.full((count, 1), np.nan)
    for row in np.flatnonzero(present):
        values[row] = jax.tree.map(lambda leaf, row=row: leaf[row], states).host_compute()
    return Column(column.entry, {"value": values, **column.cells}), states.reduce_axes(1)


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
