"""How the values of a logged name are reduced: the table of reductions, and the weighted mean.

`REDUCTIONS` maps each `reduce_fx` to its row: identity, how two values combine, how axes and mesh
axes fold, on the device and on the host. The table is written once, in `jaxlog.metrics`, because
the states of metrics reduce by the same rules. These read it::

    fields.py             how the field of an accumulator state combines
    accumulator_state.py  the calls of one step, on the device
    totals.py             the steps, on the device
    columns.py            the shards of a step, on the host
    the host loop         the steps of a row, the steps of an epoch

A mean is kept as two sums, and it has two kinds of weight, which one step may mix:

- a call with `batch_size=` (or with a mask) has an explicit weight, and its product with the value
  is summed on the device (`wtotal` and `weight`);
- a call without it weighs by the size of the batch. The device knows no batch sizes, it only sums
  and counts (`total` and `units`); all such calls of a step together have the weight of one batch.

A key that is logged once a step is stored as it is (`raw`), without rounding. `mean_terms` says
what these fields mean; the totals on the device and the decoding on the host both ask it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

from jaxlog.metrics import REDUCTIONS, Reduction

__all__ = ["REDUCTIONS", "MeanTerm", "Reduction", "mean_terms"]


@dataclasses.dataclass(frozen=True)
class MeanTerm:
    """The part of a mean that has one kind of weight.

    It adds `value * factor / count` to the weighted sum and `weight` to the sum of weights. Where
    `weight` is 0 it contributes nothing, whatever `value` is.

    Attributes:
        value: `raw`, `total` or `wtotal` as stored.
        factor: what the value is still to be multiplied by; None for 1.
        count: how many values `value` sums, of a term that weighs by batch size; None for an
            explicit weight.
        weight: the weight of the term, of the dtype of the sizes or of the explicit weights.
    """

    value: Any
    factor: Any | None
    count: Any | None
    weight: Any


def mean_terms(state: Mapping[str, Any], sizes: Any, xp: Any) -> Iterator[MeanTerm]:
    """The terms of a mean: its value is the sum of their numerators by that of their weights.

    Args:
        state: field name to array, of any one shape; `units` and `weight` of a floating dtype.
        sizes: the batch size of each step, of a shape that broadcasts with the fields.
        xp: `numpy` or `jax.numpy`.

    Example:
        >>> import numpy as np
        >>> state = {"total": np.float64(6), "units": np.float64(3)}
        >>> (term,) = mean_terms(state, np.float64(32), np)
        >>> float(term.value / term.count * term.factor), float(term.weight)
        (64.0, 32.0)
    """
    if "weight" in state:
        weight = state["weight"]
        if "wtotal" in state:
            yield MeanTerm(state["wtotal"], None, None, weight)
        else:
            yield MeanTerm(state["raw"], weight, None, weight)
    # A `raw` beside a `weight` belongs to the explicit part: the two parts mix only where a key is
    # logged more than once, and then both are stored as sums.
    if "total" in state or "weight" not in state:
        value = state["total"] if "total" in state else state["raw"]
        units = state["units"] if "units" in state else xp.ones(value.shape, sizes.dtype)
        size = xp.where(units > 0, sizes, xp.zeros_like(sizes))
        yield MeanTerm(value, size, xp.maximum(units, xp.ones_like(units)), size)
