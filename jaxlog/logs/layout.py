"""Fetched rows group by group: all keys that are stored and reduced alike are one array.

A window of a thousand keys costs the host what a few keys do.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Hashable

import numpy as np

from jaxlog.logs.decode import Column
from jaxlog.logs.packing import offsets
from jaxlog.logs.schema import KeySpec, Schema

__all__ = ["LayoutGroup", "layout_groups"]


@dataclasses.dataclass(frozen=True)
class LayoutGroup:
    """Entries that are stored and reduced alike, and where they stand.

    Attributes:
        specs: k of them, in the order of the schema.
        places: the index of each in the schema: int, shape `(k,)`.
        at: the same as an index into columns: a slice where they are neighbours.
        words: field name to the words of each in a row: int, shape `(k, words of the field)`.
    """

    specs: tuple[KeySpec, ...]
    places: np.ndarray
    at: np.ndarray | slice
    words: dict[str, np.ndarray]

    @property
    def first(self) -> KeySpec:
        """One of the specs; in all but name and metric the others are like it."""
        return self.specs[0]

    def read(self, rows: np.ndarray) -> Column:
        """Their columns side by side, state of shape `(..., n, k)`.

        Args:
            rows: of the shards, or of the step as one, as `first.on_mesh` says: int32, shape
                `(..., n, words)`.
        """
        state = {}
        for field in self.first.columns:
            bits = np.ascontiguousarray(rows[..., self.words[field.name]])
            state[field.name] = bits.view(field.dtype)[..., 0]
        return Column(self.first, state)


@functools.lru_cache(maxsize=256)
def layout_groups(schema: Schema) -> tuple[LayoutGroup, ...]:
    """The groups of a schema's specs."""
    starts = {
        spec.name: start
        for part in (schema.whole, schema.on_mesh)
        for spec, start in zip(part, _starts(part), strict=True)
    }
    groups: dict[Hashable, list[int]] = {}
    for place, spec in enumerate(schema):
        groups.setdefault(_group_key(spec), []).append(place)
    return tuple(_of(schema, places, starts) for places in groups.values())


def _starts(schema: Schema) -> list[int]:
    """The first word of each spec in a row."""
    first, count = [], 0
    at = [*offsets([field for spec in schema for field in spec.columns]), schema.words]
    for spec in schema:
        first.append(at[count])
        count += len(spec.columns)
    return first


def _group_key(spec: KeySpec) -> Hashable:
    options = spec.options
    alike = (spec.columns, options.reduce_fx, options.on_step, options.on_epoch, spec.on_mesh)
    contributes = (options.syncs, options.sync_dist_group)
    return alike, contributes, spec.metric is None, spec.name if spec.keeps_states else None


def _of(schema: Schema, places: list[int], starts: dict[str, int]) -> LayoutGroup:
    specs = tuple(schema.specs[place] for place in places)
    first = np.array([starts[spec.name] for spec in specs], np.intp)[:, None]
    fields = specs[0].columns
    words = {
        field.name: first + start + np.arange(field.words)
        for field, start in zip(fields, offsets(fields), strict=True)
    }
    ends = slice(places[0], places[-1] + 1)
    are_neighbours = ends.stop - ends.start == len(places)
    each = np.array(places, np.intp)
    return LayoutGroup(specs, each, ends if are_neighbours else each, words)
