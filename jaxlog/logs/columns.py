"""Fetched rows as numpy columns: the value, weight and presence of each step, on the host.

A `Column` holds the fields of one key spec (or of k specs that are stored and reduced by one rule)
over n steps, and computes in float64 from them. It never touches JAX.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from jaxlog.logs.packing import unpack_host
from jaxlog.logs.reduce import mean_terms
from jaxlog.logs.schema import KeySpec, Schema

__all__ = ["Column", "decode_rows"]


@dataclasses.dataclass(frozen=True)
class Column:
    """What n steps logged under one key, or under the k keys of a layout group.

    The arrays of one key have shape `(n,)` and those of a group `(n, k)`; so do the results. Before
    `reduce_shards`, the fields may have one more axis in front, of shards.

    Attributes:
        spec: the key spec; of a group, that of any of its keys.
        state: field name to values, in the dtype of the field.
    """

    spec: KeySpec
    state: dict[str, np.ndarray]

    @property
    def has_steps(self) -> bool:
        """Whether there are per-step values; a metric with `on_step=False` has none."""
        return any(field != "units" for field in self.state)

    def take(self, rows: np.ndarray) -> Column:
        """The chosen steps only: bool or int, shape `(m,)`."""
        return Column(self.spec, {field: values[rows] for field, values in self.state.items()})

    def present(self) -> np.ndarray:
        """Which steps logged the name: bool, shape `(n,)`."""
        counts = [self.state[name] > 0 for name in ("units", "weight") if name in self.state]
        if counts:
            return np.logical_or.reduce(counts)
        return np.ones(np.shape(next(iter(self.state.values()), ())), bool)

    def step_values(self, batch_sizes: np.ndarray | None = None) -> np.ndarray:
        """The value of each step: float64; NaN where it was not logged.

        Args:
            batch_sizes: the batch size of each step, shape `(n,)`. It matters only if one step
                logged the key both with and without `batch_size=`.
        """
        if "raw" in self.state or "value" in self.state:
            raw = self.state.get("raw", self.state.get("value"))
            values = np.asarray(raw, np.float64)
        elif self.spec.options.reduction.weighted:
            numerators, denominators = self.means(batch_sizes)
            with np.errstate(divide="ignore", invalid="ignore"):
                values = numerators / denominators
        else:
            values = self.state[self.spec.options.reduce_fx].astype(np.float64)
        return np.where(self.present(), values, np.nan)

    def weights(self, batch_sizes: np.ndarray) -> np.ndarray:
        """The weight of each step in a mean: float64, shape `(n,)`.

        Args:
            batch_sizes: the batch size of each step, shape `(n,)`.
        """
        if self.spec.metric is None and self.spec.options.reduction.weighted:
            return self.means(batch_sizes)[1]
        sizes, present = np.asarray(batch_sizes, np.float64), self.present()
        return sizes if present.ndim == 1 else np.broadcast_to(sizes[:, None], present.shape)

    def means(self, batch_sizes: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
        """The weighted sum and the weight of each step: float64, shape `(n,)`; 0 if not logged.

        Args:
            batch_sizes: the batch size of each step, shape `(n,)`; 1 if left out.
        """
        present = self.present()
        sizes = np.ones(len(present)) if batch_sizes is None else np.asarray(batch_sizes, float)
        sizes = sizes[:, None] if present.ndim > 1 else sizes
        numerators, denominators = np.zeros(present.shape), np.zeros(present.shape)
        for term in mean_terms(self._wide(), sizes, np):
            value = term.value if term.count is None else term.value / term.count
            with np.errstate(invalid="ignore"):  # an infinite value of weight 0
                product = value if term.factor is None else value * term.factor
            numerators += np.where(term.weight > 0, product, 0.0)
            denominators += term.weight
        return numerators, denominators

    def reduce_shards(self, chosen: np.ndarray) -> Column:
        """What the chosen shards logged, as if one step had made all their calls.

        For a column whose fields have an axis of shards in front, shape `(shards, n)` or
        `(shards, n, k)`; the result has none. A metric keeps only `units`: the value of a merged
        metric is not a function of the values of its shards.

        Args:
            chosen: which shards count, bool, shape `(shards,)`.
        """
        spec, found = self.spec, self.take(chosen)
        if np.count_nonzero(chosen) == 1:
            return Column(spec, {field: values[0] for field, values in found.state.items()})
        if not found.state:
            return found
        present, state = found.present(), found._wide()
        reduction = spec.options.reduction
        if spec.metric is not None:
            return Column(spec, {"units": present.sum(axis=0)})
        if not reduction.weighted:
            values = np.where(present, state[reduction.name], reduction.limit)
            folded = reduction.fold(values, axis=0)
            return Column(spec, {reduction.name: folded, "units": present.sum(axis=0)})
        sums: dict[str, np.ndarray] = {}
        for term in mean_terms(state, state.get("units", np.ones(present.shape)), np):
            if term.count is None:
                with np.errstate(invalid="ignore"):  # an infinite value of weight 0
                    product = term.value if term.factor is None else term.value * term.factor
                sums["wtotal"] = np.where(term.weight > 0, product, 0.0).sum(axis=0)
                sums["weight"] = term.weight.sum(axis=0)
            else:  # with the units as sizes, the weights are the units
                sums["total"] = np.where(term.weight > 0, term.value, 0.0).sum(axis=0)
                sums["units"] = term.weight.sum(axis=0)
        return Column(spec, sums)

    def _wide(self) -> dict[str, np.ndarray]:
        """The fields in float64."""
        return {name: values.astype(np.float64) for name, values in self.state.items()}


def decode_rows(schema: Schema, rows: np.ndarray) -> dict[str, Column]:
    """Fetched rows as one column a key, by name.

    Args:
        schema: the schema that the rows were packed with.
        rows: int32, shape `(n, schema.words)`.
    """
    fields = [field for spec in schema for field in spec.columns]
    arrays = iter(unpack_host(rows, fields))
    return {
        spec.name: Column(spec, {field.name: next(arrays) for field in spec.columns})
        for spec in schema
    }
