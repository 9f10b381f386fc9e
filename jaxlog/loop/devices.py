"""Logs with a device axis, as a step under `jax.pmap` returns them, brought to one set a step.

Nothing is reduced on the devices: each keeps its own tape, and the host folds them once a window.
"""

from __future__ import annotations

from collections.abc import Mapping

import jax
import numpy as np

from jaxlog.logs import Schema
from jaxlog.logs.tape import Column, decode_rows
from jaxlog.metrics import Metric

__all__ = ["columns_of", "metric_of"]


def columns_of(schema: Schema, rows: np.ndarray, count: int) -> Mapping[str, Column]:
    """Fetched rows as columns, by name.

    Args:
        schema: what the rows hold.
        rows: int32, shape `(rows, words)`, or `(devices, rows, words)`.
        count: how many rows are in use.
    """
    if rows.ndim == 2:
        return decode_rows(schema, rows[:count])
    shards = [decode_rows(schema, one[:count]) for one in rows]
    return {entry.name: _fold([shard[entry.name] for shard in shards]) for entry in schema}


def _fold(shards: list[Column]) -> Column:
    """The first shard's column, or with `sync_dist` the reduction over all of them."""
    entry = shards[0].entry
    if not entry.options.syncs or not shards[0].cells:
        return shards[0]
    cells = {
        role: np.stack([shard.cells[role].astype(np.float64) for shard in shards])
        for role in shards[0].cells
    }
    present = np.stack([shard.present() for shard in shards])
    units = present.sum(axis=0)
    reduction = entry.options.reduce_fx
    if reduction != "mean":
        nothing = {"sum": 0.0, "min": np.inf, "max": -np.inf}[reduction]
        values = np.where(present, cells[reduction], nothing)
        return Column(entry, {reduction: getattr(np, reduction)(values, axis=0), "units": units})
    folded: dict[str, np.ndarray] = {}
    if "weight" in cells:
        weighted = cells.get("wtotal", cells.get("raw", 0.0) * cells["weight"])
        folded["wtotal"] = np.where(cells["weight"] > 0, weighted, 0.0).sum(axis=0)
        folded["weight"] = cells["weight"].sum(axis=0)
    value = cells.get("total", cells.get("value", cells.get("raw")))
    if value is not None and ("weight" not in cells or "total" in cells):
        each = cells.get("units", present.astype(np.float64))
        folded["total"] = np.where(each > 0, value, 0.0).sum(axis=0)
        folded["units"] = each.sum(axis=0)
    return Column(entry, folded)


def metric_of(metric: Metric, *, has_devices: bool, syncs: bool) -> Metric:
    """A fetched state, of the first device or with `sync_dist` of all."""
    if not has_devices:
        return metric
    if syncs:
        return metric.to_host().reduce_axes(1)
    return jax.tree.map(lambda leaf: leaf[0], metric)
