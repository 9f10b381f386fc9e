"""Layout groups: all keys that are stored and reduced by one rule, read as one array.

The host decodes a window group by group, so a window of a thousand keys costs it about as many
numpy calls as a window of a few keys.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Hashable

import numpy as np

from jaxlog.logs.columns import Column
from jaxlog.logs.packing import offsets
from jaxlog.logs.schema import KeySpec, Schema

__all__ = ["LayoutGroup", "layout_groups"]


@dataclasses.dataclass(frozen=True)
class LayoutGroup:
    """Keys that have the same fields and reduce by the same rule, and where a row holds them.

    Attributes:
        specs: the k key specs, in the order of the schema.
        places: the index of each in the schema: int, shape `(k,)`.
        at: `places` as an index into columns: a slice if they are neighbours, which numpy reads
            without a copy.
        words: field name to the words of each key in a row: int, shape `(k, words of the field)`.
    """

    specs: tuple[KeySpec, ...]
    places: np.ndarray
    at: np.ndarray | slice
    words: dict[str, np.ndarray]

    @property
    def first(self) -> KeySpec:
        """One of the specs; the others differ from it only in name and in options of no effect."""
        return self.specs[0]

    def read(self, rows: np.ndarray) -> Column:
        """The columns of the keys side by side, fields of shape `(..., n, k)`.

        Args:
            rows: the rows of the shards if `first.on_mesh`, else those of the step: int32, shape
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
