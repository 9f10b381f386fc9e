"""From the fetched arrays of a step function to a table with one row a call.

All keys that are stored and reduced in one way (a layout group) are read as one array, so a window
of a thousand keys costs what one of a few does. What several devices logged each for itself is
reduced here: under `jax.pmap` the whole step runs once a device, and inside a shard_map each shard
logs for itself. Reducing them in the step would take a collective at every step; the host reduces
them once a window, in float64.
"""

from __future__ import annotations

import functools
import operator
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxlog.logs import (
    Column,
    KeySpec,
    LayoutGroup,
    Part,
    Schema,
    contributing_devices,
    layout_groups,
)
from jaxlog.metrics import Metric
from jaxlog.windows.key import key_of
from jaxlog.windows.table import Columns, Table
from jaxlog.windows.window import Segment, Window

__all__ = ["Decoded", "GroupCalls", "decode", "latest_row"]

Parts = tuple[Part, Part | None]  # of the step as a whole, and of the shards of a shard_map


class GroupCalls(NamedTuple):
    """What the calls of a step function logged under the keys of one layout group.

    Attributes:
        group: the keys.
        column: their values, shape `(n, k)`, reduced over devices.
        states: by name, the state of a metric, merged over the calls.
    """

    group: LayoutGroup
    column: Column
    states: dict[str, Metric]


class Decoded(NamedTuple):
    """What the calls of a step function logged in one lane.

    Attributes:
        table: the value of each call and key, one row a call; NaN for keys without such values.
        groups: the same by layout group, with what epoch reductions need.
        sizes: the batch size of each call: float64, shape `(n,)`.
        batches: the index of each call's batch in the window: int, shape `(n,)`.
    """

    table: Table
    groups: Sequence[GroupCalls]
    sizes: np.ndarray
    batches: np.ndarray


def decode(
    segment: Segment,
    parts: Any,
    window: Window,
    lanes: Sequence[str],
    *,
    weighted: bool,
) -> Iterator[Decoded]:
    """What a segment's calls logged, lane by lane.

    Args:
        segment: which calls.
        parts: the fetched arrays of the segment.
        window: the window it is in.
        lanes: the names of the lanes.
        weighted: whether the calls of one row are reduced, for which they need weights.
    """
    batches = np.asarray(segment.batches)
    sizes = window.sizes_of(batches)
    for lane, part in _by_lane(segment, parts, lanes):
        columns = _columns_of(segment.schema, window.suffix, lane)
        groups = list(_groups(segment.schema, part, len(batches)))
        # Groups fill their own columns, so the columns keep the order in which keys were logged.
        table = Table.blank(columns, len(batches), weighted=weighted)
        for group, column, _ in groups:
            table.present[:, group.at] = column.present() if column.state else True
            if column.has_steps:
                table.values[:, group.at] = column.step_values(sizes)
            if table.weights is not None and column.has_steps:
                table.weights[:, group.at] = column.weights(sizes)
        yield Decoded(table, groups, sizes, batches)


def _by_lane(
    segment: Segment, parts: Any, lanes: Sequence[str]
) -> Iterator[tuple[str | None, Any]]:
    if not segment.has_lanes:
        yield None, parts
        return
    for i, lane in enumerate(lanes):
        yield lane, jax.tree.map(operator.itemgetter(i), parts)


@functools.lru_cache(maxsize=256)
def _columns_of(schema: Schema, loader: str, lane: str | None) -> Columns:
    """The keys of a schema in a loader and lane; cached, for a schema may have a thousand."""
    return Columns.of_steps([key_of(spec, loader, lane) for spec in schema])


def _groups(schema: Schema, parts: Parts, count: int) -> Iterator[GroupCalls]:
    """What `count` calls logged, for each layout group."""
    for group in layout_groups(schema):
        spec = group.first
        # False is the index of what the step logs as a whole, True that of the shards.
        part = parts[spec.on_mesh]
        assert part is not None  # there are specs in it
        column = _column(group, part.rows[..., :count, :])
        if spec.keeps_states:
            of_calls = jax.tree.map(lambda leaf: leaf[:, :count], part.states[spec.name])
            column, state = _from_states(column, _merged(spec, of_calls))
            yield GroupCalls(group, column, {spec.name: state})
            continue
        states = {one.name: part.metrics[one.name] for one in group.specs if one.metric is not None}
        if part.rows.ndim == 3:  # an axis of devices in front
            specs = {one.name: one for one in group.specs}
            states = {name: _merged(specs[name], state) for name, state in states.items()}
        yield GroupCalls(group, column, states)


def latest_row(
    schema: Schema, rows: tuple[np.ndarray, np.ndarray | None]
) -> Iterator[tuple[LayoutGroup, Column]]:
    """What one call logged, from its packed rows: of the step as a whole, and of the shards."""
    for group in layout_groups(schema):
        row = rows[group.first.on_mesh]
        if row is not None:
            yield group, _column(group, np.expand_dims(row, -2))


def _column(group: LayoutGroup, rows: np.ndarray) -> Column:
    """The columns of a group, shape `(n, k)`, reduced over devices if rows have such an axis."""
    column = group.read(rows)
    return column if rows.ndim == 2 else column.reduce_shards(_contributing(group.first, len(rows)))


def _contributing(spec: KeySpec, count: int) -> np.ndarray:
    """Which shards count: bool, shape `(count,)`; in a shard_map the others have logged nothing."""
    if spec.on_mesh:
        return np.ones(count, bool)
    return contributing_devices(spec.name, spec.options, count)


def _merged(spec: KeySpec, states: Metric) -> Metric:
    """Fetched states of all devices, one axis in front, as one: of those that contribute."""
    chosen = _contributing(spec, len(jax.tree.leaves(states)[0]))
    return jax.tree.map(lambda leaf: leaf[chosen], states).to_host().reduce_axes(1)


def _from_states(column: Column, states: Metric) -> tuple[Column, Metric]:
    """The values of a metric, shape `(n, 1)`, whose states were kept, and the state of all."""
    count = len(jax.tree.leaves(states)[0])
    present = column.present()[:, 0] if column.state else np.ones(count, bool)
    values = np.full((count, 1), np.nan)
    for row in np.flatnonzero(present):
        values[row] = jax.tree.map(lambda leaf, row=row: leaf[row], states).host_compute()
    return Column(column.spec, {"value": values, **column.state}), states.reduce_axes(1)
