"""Fetched rows kind by kind: all keys that are stored and reduced alike are one array.

A window of a thousand keys costs the host what a few keys do.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Hashable

import numpy as np

from jaxlog.logs.packing import offsets
from jaxlog.logs.schema import Entry, Schema
from jaxlog.logs.tape import Column

__all__ = ["Kind", "kinds_of"]


@dataclasses.dataclass(frozen=True)
class Kind:
    """Entries that are stored and reduced alike, and where they stand.

    Attributes:
        entries: k of them, in the order of the schema.
        places: the index of each in the schema: int, shape `(k,)`.
        at: the same as an index into columns: a slice where they are neighbours.
        words: role name to the words of each in a row: int, shape `(k, words of the role)`.
    """

    entries: tuple[Entry, ...]
    places: np.ndarray
    at: np.ndarray | slice
    words: dict[str, np.ndarray]

    @property
    def first(self) -> Entry:
        """One of the entries; in all but name and metric the others are like it."""
        return self.entries[0]

    def read(self, rows: np.ndarray) -> Column:
        """Their columns side by side, cells of shape `(..., n, k)`.

        Args:
            rows: of the shards, or of the step as one, as `first.on_mesh` says: int32, shape
                `(..., n, words)`.
        """
        cells = {}
        for role in self.first.columns:
            bits = np.ascontiguousarray(rows[..., self.words[role.name]])
            cells[role.name] = bits.view(role.dtype)[..., 0]
        return Column(self.first, cells)


@functools.lru_cache(maxsize=256)
def kinds_of(schema: Schema) -> tuple[Kind, ...]:
    """The kinds of a schema's entries."""
    starts = {
        entry.name: start
        for part in (schema.whole, schema.on_mesh)
        for entry, start in zip(part, _starts(part), strict=True)
    }
    groups: dict[Hashable, list[int]] = {}
    for place, entry in enumerate(schema):
        groups.setdefault(_kind(entry), []).append(place)
    return tuple(_of(schema, places, starts) for places in groups.values())


def _starts(schema: Schema) -> list[int]:
    """The first word of each entry in a row."""
    first, count = [], 0
    at = [*offsets([role for entry in schema for role in entry.columns]), schema.words]
    for entry in schema:
        first.append(at[count])
        count += len(entry.columns)
    return first


def _kind(entry: Entry) -> Hashable:
    options = entry.options
    alike = (entry.columns, options.reduce_fx, options.on_step, options.on_epoch, entry.on_mesh)
    speaks = (options.syncs, options.sync_dist_group)
    return alike, speaks, entry.metric is None, entry.name if entry.keeps_states else None


def _of(schema: Schema, places: list[int], starts: dict[str, int]) -> Kind:
    entries = tuple(schema.entries[place] for place in places)
    first = np.array([starts[entry.name] for entry in entries], np.intp)[:, None]
    roles = entries[0].columns
    words = {
        role.name: first + start + np.arange(role.words)
        for role, start in zip(roles, offsets(roles), strict=True)
    }
    ends = slice(places[0], places[-1] + 1)
    are_neighbours = ends.stop - ends.start == len(places)
    each = np.array(places, np.intp)
    return Kind(entries, each, ends if are_neighbours else each, words)
