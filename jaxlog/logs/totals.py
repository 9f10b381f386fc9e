"""Totals: the running reductions over steps on the device, which `Logs.compute` reads.

A sum is kept as a pair of float32 whose exact sum is the value (Knuth's two-sum, TAOCP 4.2.2). The
pair carries about 48 bits where one float32 has 24, so a mean over a million bfloat16 steps, or a
count beyond 2**24, does not drift. The totals of a layout group are one array, so that the program
of a thousand keys is no larger than that of ten. A `Loop` does not use totals: it reduces on the
host, in float64.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.core import Tracer

from jaxlog.logs.accumulator_state import AccumulatorState, neutral, strong
from jaxlog.logs.fields import Field
from jaxlog.logs.layout import LayoutGroup, layout_groups
from jaxlog.logs.packing import stack
from jaxlog.logs.reduce import REDUCTIONS, mean_terms
from jaxlog.logs.schema import KeySpec, Schema

__all__ = [
    "empty_totals",
    "fold_step",
    "merge_totals",
    "reduce_totals",
    "total_values",
    "widen_totals",
]

Pair = tuple[jax.Array, jax.Array]
Totals = dict[str, Any]  # of one group: field -> Pair (sums) or array (extrema), shape (k,)


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
    """Values of any stored dtype as pairs, exact up to 48 bits."""
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


def _sums(spec: KeySpec) -> tuple[str, ...]:
    """The names of the compensated sums that a spec needs; none for an extremum."""
    reduction = spec.options.reduction
    return ("num", "den") if reduction.weighted else ("num",) if reduction.adds else ()


def _groups(schema: Schema) -> list[LayoutGroup]:
    return [group for group in layout_groups(schema) if group.first.metric is None]


def _layout(group: LayoutGroup) -> list[Field]:
    """The arrays that a group has in the packed words, one value for each of its keys."""
    fields = [
        Field(f"{name}_{part}", "float32")
        for name in _sums(group.first)
        for part in ("high", "low")
    ]
    return fields or [group.first.fields[0]]


def _to_words(totals: Sequence[Totals]) -> jax.Array:
    arrays: list[jax.Array] = []
    for group in totals:
        for total in group.values():
            arrays += total if isinstance(total, tuple) else [total]
    if not arrays:
        return jnp.zeros((0,), jnp.int32)
    words = [lax.bitcast_convert_type(array, jnp.int32) for array in arrays]
    return lax.concatenate([array.reshape(array.size) for array in words], 0)


def _from_words(schema: Schema, words: Any) -> list[Totals]:
    totals, at = [], 0
    for group in _groups(schema):
        arrays = []
        for field in _layout(group):
            size = len(group.specs) * field.words
            bits = lax.slice_in_dim(words, at, at + size)
            bits = bits if field.words == 1 else bits.reshape(len(group.specs), field.words)
            arrays.append(lax.bitcast_convert_type(bits, jnp.dtype(field.dtype)))
            at += size
        values = iter(arrays)
        if sums := _sums(group.first):
            totals.append({field: (next(values), next(values)) for field in sums})
        else:
            totals.append({group.first.options.reduce_fx: next(values)})
    return totals


def empty_totals(schema: Schema) -> np.ndarray:
    """Packed totals before the first step: int32, shape `(words,)`; numpy, compiles nothing."""
    words = [np.zeros((0,), np.int32)]
    for group in _groups(schema):
        nothing = neutral(group.first).get(group.first.options.reduce_fx, np.float32(0))
        for field in _layout(group):
            start = np.zeros((), field.dtype) if _sums(group.first) else nothing
            words.append(np.full(len(group.specs), start, field.dtype).view(np.int32))
    return np.concatenate(words)


def widen_totals(old: Schema, new: Schema, words: Any) -> jax.Array:
    """Totals of the schema `old` as those of `new`, which has all its specs and more."""
    before, after = _places(old), _places(new)
    fresh = empty_totals(new)
    source = np.arange(len(fresh)) + words.shape[0]
    for name, places in before.items():
        source[after[name]] = places
    return lax.concatenate([words, fresh], 0)[source]


def _places(schema: Schema) -> dict[str, np.ndarray]:
    """Name to the words that belong to it."""
    found: dict[str, list[np.ndarray]] = {}
    at = 0
    for group in _groups(schema):
        for field in _layout(group):
            for spec in group.specs:
                found.setdefault(spec.name, []).append(np.arange(at, at + field.words))
                at += field.words
    return {name: np.concatenate(parts) for name, parts in found.items()}


def merge_totals(schema: Schema, a: Any, b: Any) -> jax.Array:
    """The totals of the steps of both."""
    return _to_words(_merge(_from_words(schema, a), _from_words(schema, b)))


def _merge(a: Sequence[Totals], b: Sequence[Totals]) -> list[Totals]:
    return [
        {
            field: _add(total, right[field])
            if isinstance(total, tuple)
            else REDUCTIONS[field].combine(total, right[field])
            for field, total in left.items()
        }
        for left, right in zip(a, b, strict=True)
    ]


def fold_step(
    schema: Schema, words: Any, state: dict[str, AccumulatorState], batch_size: float
) -> jax.Array:
    """The totals after one more step.

    Args:
        schema: what is logged.
        words: packed totals so far.
        state: what the step logged; every key of the schema that is a number.
        batch_size: the weight in means of values without an explicit weight.
    """
    step = [_step(group, _side_by_side(group, state), batch_size) for group in _groups(schema)]
    return _to_words(_merge(_from_words(schema, words), step))


def _side_by_side(group: LayoutGroup, state: dict[str, AccumulatorState]) -> AccumulatorState:
    """The states of the keys of a group as one, with an array of shape `(k,)` for each field.

    The arithmetic on it is as large a program for a thousand keys as for one.
    """
    return {
        field.name: stack([state[spec.name][field.name] for spec in group.specs], field)
        for field in group.first.fields
    }


def _step(group: LayoutGroup, state: AccumulatorState, batch_size: float) -> Totals:
    spec = group.first
    reduction = spec.options.reduction
    if not reduction.weighted:
        value = state[reduction.name]
        return {"num": _pair(value)} if reduction.adds else {reduction.name: value}
    zero = jnp.zeros((len(group.specs),), jnp.float32)
    num, den = (zero, zero), (zero, zero)
    # A value of weight 0 needs no mask here: where nothing was logged, its field is 0.
    counts = {name: strong(state[name], "float32") for name in ("units", "weight") if name in state}
    for term in mean_terms(state | counts, jnp.full(zero.shape, batch_size, jnp.float32), jnp):
        part = _pair(term.value)
        if term.factor is not None:
            part = _scale(part, term.factor if term.count is None else term.factor / term.count)
        num, den = _add(num, part), _add(den, (term.weight, zero))
    return {"num": num, "den": den}


def total_values(schema: Schema, words: Any) -> dict[str, jax.Array]:
    """Name to reduced value, shape (): a mean of nothing is NaN."""
    return {
        spec.name: value
        for group, values in zip(_groups(schema), _reduced(schema, words), strict=True)
        for spec, value in zip(group.specs, _each(values), strict=True)
    }


def _each(values: jax.Array) -> Iterator[jax.Array]:
    """The elements of an array of shape `(k,)`, each of shape ()."""
    if isinstance(values, Tracer):
        yield from values
        return
    # One compiled program takes the index as an argument. A program for each index, or one with
    # a thousand results, would take seconds to compile.
    for i in range(len(values)):
        yield _element(values, np.int32(i))


@jax.jit
def _element(values: jax.Array, at: jax.Array) -> jax.Array:
    return lax.dynamic_index_in_dim(values, at, keepdims=False)


@functools.partial(jax.jit, static_argnums=0)
def _reduced(schema: Schema, words: Any) -> list[jax.Array]:
    """The values of each group, shape `(k,)`."""
    found = []
    for totals in _from_words(schema, words):
        if "den" in totals:
            found.append(_collapse(totals["num"]) / _collapse(totals["den"]))
        elif "num" in totals:
            found.append(_collapse(totals["num"]))
        else:
            found += totals.values()
    return found


def _collapse(pair: Pair) -> jax.Array:
    return pair[0] + pair[1]


def reduce_totals(schema: Schema, words: Any, axis_name: Any) -> jax.Array:
    """The totals over all shards along the mesh axes `axis_name`, the same on each shard."""

    def combine(field: str, total: Any) -> Any:
        if not isinstance(total, tuple):
            return REDUCTIONS[field].collective(total, axis_name)
        high, low = (lax.psum(part, axis_name) for part in total)
        zero = jnp.zeros_like(high)
        return _add((high, zero), (low, zero))

    totals = _from_words(schema, words)
    return _to_words([{field: combine(field, x) for field, x in each.items()} for each in totals])
