"""Running reductions over steps on the device: what `Logs.compute` reads.

Sums are kept as pairs of float32 whose exact sum is the value (Knuth's two-sum, TAOCP 4.2.2), good
for about 48 bits where one float32 has 24: a mean over a million bfloat16 steps, or a count beyond
2**24, does not drift. A `Loop` does without these: it reduces on the host, in float64.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxlog.logs.cells import Cells, neutral, strong
from jaxlog.logs.packing import pack, pack_host, unpack
from jaxlog.logs.roles import Role
from jaxlog.logs.schema import Entry, Schema

__all__ = ["empty_totals", "fold_step", "merge_totals", "reduce_totals", "total_values"]

Pair = tuple[jax.Array, jax.Array]
Totals = dict[str, dict[str, Any]]  # name -> role -> Pair (sums) or array (extrema)


def _float(value: float) -> jax.Array:
    return jnp.full((), value, jnp.float32)


def _two_sum(a: jax.Array, b: jax.Array) -> Pair:
    total = a + b
    virtual = total - a
    return total, (a - (total - virtual)) + (b - virtual)


def _add(a: Pair, b: Pair) -> Pair:
    high, error = _two_sum(a[0], b[0])
    total, low = _two_sum(high, error + (a[1] + b[1]))
    # An infinite total has no error term: inf - inf would make it nan.
    finite = jnp.isfinite(high)
    return jnp.where(finite, total, high), jnp.where(finite, low, _float(0))


def _pair(value: jax.Array) -> Pair:
    """A scalar of any stored dtype as a pair, exact up to 48 bits."""
    if value.dtype.itemsize == 8:
        value = strong(value, "float64")
    if jnp.issubdtype(value.dtype, jnp.floating):
        high = strong(value, "float32")
        rest = strong(value - strong(high, str(value.dtype)), "float32")
        return high, jnp.where(jnp.isfinite(high), rest, _float(0))
    upper, lower = value >> 16, value & jnp.asarray(0xFFFF, value.dtype)
    return _two_sum(strong(upper, "float32") * _float(65536), strong(lower, "float32"))


def _scale(pair: Pair, factor: jax.Array) -> Pair:
    return pair[0] * factor, pair[1] * factor


def _sums(entry: Entry) -> tuple[str, ...]:
    """The totals of an entry that are sums."""
    return {"mean": ("num", "den"), "sum": ("num",)}.get(entry.options.reduce_fx, ())


def _scalars(schema: Schema) -> list[Entry]:
    return [entry for entry in schema if entry.metric is None]


def _layout(schema: Schema) -> list[Role]:
    roles: list[Role] = []
    for entry in _scalars(schema):
        sums = _sums(entry)
        roles += [Role(f"{name}_{part}", "float32") for name in sums for part in ("high", "low")]
        roles += [] if sums else [entry.roles[0]]
    return roles


def _to_words(schema: Schema, totals: Totals) -> jax.Array:
    values: list[jax.Array] = []
    for entry in _scalars(schema):
        for total in totals[entry.name].values():
            values += total if isinstance(total, tuple) else [total]
    return pack(values, _layout(schema))


def _from_words(schema: Schema, words: Any) -> Totals:
    values = iter(unpack(words, _layout(schema)))
    totals: Totals = {}
    for entry in _scalars(schema):
        if sums := _sums(entry):
            totals[entry.name] = {role: (next(values), next(values)) for role in sums}
        else:
            totals[entry.name] = {entry.options.reduce_fx: next(values)}
    return totals


def empty_totals(schema: Schema) -> np.ndarray:
    """Packed totals of no step at all; int32, shape `(words,)`; numpy, compiles nothing."""
    values: list[np.ndarray] = []
    for entry in _scalars(schema):
        fx = entry.options.reduce_fx
        zeros = [np.zeros((), np.float32)] * (2 * len(_sums(entry)))
        values += zeros or [neutral(entry)[fx]]
    return pack_host(values, _layout(schema))


def _map(schema: Schema, a: Totals, combine: Callable[[str, Any], Any]) -> Totals:
    return {
        entry.name: {role: combine(role, total) for role, total in a[entry.name].items()}
        for entry in _scalars(schema)
    }


_EXTREMA = {"min": lax.min, "max": lax.max}


def merge_totals(schema: Schema, a: Any, b: Any) -> jax.Array:
    """The totals of both."""
    return _to_words(schema, _merge(schema, _from_words(schema, a), _from_words(schema, b)))


def _merge(schema: Schema, a: Totals, b: Totals) -> Totals:
    merged: Totals = {}
    for entry in _scalars(schema):
        left, right = a[entry.name], b[entry.name]
        merged[entry.name] = {
            role: _EXTREMA[role](total, right[role])
            if role in _EXTREMA
            else _add(total, right[role])
            for role, total in left.items()
        }
    return merged


def fold_step(schema: Schema, words: Any, cells: dict[str, Cells], batch_size: float) -> jax.Array:
    """The totals after one more step.

    Args:
        schema: what is logged.
        words: packed totals so far.
        cells: what the step logged, every scalar of the schema.
        batch_size: the weight in means of a value that has none of its own.
    """
    step = {entry.name: _step(entry, cells[entry.name], batch_size) for entry in _scalars(schema)}
    return _to_words(schema, _merge(schema, _from_words(schema, words), step))


def _step(entry: Entry, cells: Cells, batch_size: float) -> dict[str, Any]:
    fx = entry.options.reduce_fx
    if fx != "mean":
        return {"num": _pair(cells["sum"])} if fx == "sum" else {fx: cells[fx]}
    num, den = (_float(0), _float(0)), (_float(0), _float(0))
    if entry.role("weight") is not None:
        weight = strong(cells["weight"], "float32")
        weighted = "wtotal" in cells
        part = _pair(cells["wtotal"]) if weighted else _scale(_pair(cells["raw"]), weight)
        num, den = _add(num, part), _add(den, (weight, _float(0)))
    if entry.role("total") is not None or entry.role("weight") is None:
        units = strong(cells.get("units", jnp.ones((), jnp.int32)), "float32")
        size = jnp.where(units > 0, _float(batch_size), _float(0))
        mean_scale = size / jnp.maximum(units, _float(1))
        value = cells["total"] if "total" in cells else cells["raw"]
        num = _add(num, _scale(_pair(value), mean_scale))
        den = _add(den, (size, _float(0)))
    return {"num": num, "den": den}


def total_values(schema: Schema, words: Any) -> dict[str, jax.Array]:
    """Name to reduced value, shape (): a mean of nothing is NaN."""
    values: dict[str, jax.Array] = {}
    for name, totals in _from_words(schema, words).items():
        if "den" in totals:
            values[name] = _collapse(totals["num"]) / _collapse(totals["den"])
        elif "num" in totals:
            values[name] = _collapse(totals["num"])
        else:
            (values[name],) = totals.values()
    return values


def _collapse(pair: Pair) -> jax.Array:
    return pair[0] + pair[1]


def reduce_totals(schema: Schema, words: Any, axis_name: Any) -> jax.Array:
    """The totals over every shard along the mesh axes `axis_name`, the same on each."""

    def combine(role: str, total: Any) -> Any:
        if role in _EXTREMA:
            return (lax.pmin if role == "min" else lax.pmax)(total, axis_name)
        high, low = (lax.psum(part, axis_name) for part in total)
        return _add((high, _float(0)), (low, _float(0)))

    return _to_words(schema, _map(schema, _from_words(schema, words), combine))
