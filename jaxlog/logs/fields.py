"""The fields of an accumulator state: what is kept of a logged name, and how it combines.

==========  =====  ============================================================================
field        rule   meaning
==========  =====  ============================================================================
`raw`       add    a mean logged by exactly one call in a step: the value, in its own dtype
`total`     add    a mean logged by several calls: the sum over the calls
`units`     add    how many calls (0: the step logged nothing)
`wtotal`    add    the sum of value times explicit weight
`weight`    add    the sum of the explicit weights
`sum`       add    the sum, in the value's own dtype
`min`       min    the least value
`max`       max    the greatest value
`metric`    merge  a `Metric` state; no column of a row, where `value` is what it computes
==========  =====  ============================================================================

Weights by batch size have no field. The host knows the size of every batch that it handed out and
multiplies with it in float64, so no compiled program depends on batch sizes.
"""

from __future__ import annotations

import dataclasses

from jaxlog.logs.reduce import REDUCTIONS, Reduction

__all__ = ["Field", "scalar_fields", "wider"]


@dataclasses.dataclass(frozen=True)
class Field:
    """One field: its name in the table above, and the name of its dtype."""

    name: str
    dtype: str

    @property
    def reduction(self) -> Reduction:
        """How two values of this field combine: the parts of a mean are sums."""
        return REDUCTIONS[self.name if self.name in REDUCTIONS else "sum"]

    @property
    def words(self) -> int:
        """Width in 32-bit words."""
        return 2 if self.dtype.endswith("64") else 1


def scalar_fields(
    reduce_fx: str, dtype: str, *, weighting: str, repeated: bool, optional: bool
) -> tuple[Field, ...]:
    """The fields that a logged number needs.

    Args:
        reduce_fx: `"mean"`, `"sum"`, `"min"` or `"max"`.
        dtype: the value's dtype name, of 32 or 64 bits.
        weighting: `"batch"` (by batch size, on the host) or `"explicit"` (by `batch_size=`).
        repeated: whether more than one value may be logged in a step.
        optional: whether a step may log nothing.
    """
    units = (Field("units", "int32"),)
    if not REDUCTIONS[reduce_fx].weighted:
        return (Field(reduce_fx, dtype), *(units if optional else ()))
    total = "float64" if dtype.endswith("64") else "float32"
    weight = (Field("weight", total),)
    if weighting == "explicit":
        return (Field("wtotal", total) if repeated else Field("raw", dtype), *weight)
    if repeated:
        return (Field("total", total), *units)
    return (Field("raw", dtype), *(units if optional else ()))


def wider(dtypes: set[str]) -> str:
    """The floating dtype for a sum of values of several dtypes."""
    return "float64" if any(dtype.endswith("64") for dtype in dtypes) else "float32"
