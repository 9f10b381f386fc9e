"""The schema: what is logged, known before anything runs. It is the static half of `Logs`.

A `Schema` is an ordered set of `KeySpec`s with distinct names. A key spec says into which fields
(`fields.py`) the log calls of one step accumulate, and so which columns a packed row has. Schemas
are found by tracing, so they are equal and hash equal if two traces log the same.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterator
from typing import Any

from jaxlog.errors import SchemaError
from jaxlog.logs.fields import Field, scalar_fields, wider
from jaxlog.logs.options import Options
from jaxlog.logs.shard_axes import ShardAxes

__all__ = ["KeySpec", "LeafSpec", "Schema", "check_same_options"]


@dataclasses.dataclass(frozen=True)
class LeafSpec:
    """Shape and dtype of one leaf of a metric state."""

    shape: tuple[int, ...]
    dtype: str


@dataclasses.dataclass(frozen=True)
class KeySpec:
    """All that is known of one logged name.

    Attributes:
        name: the key as given to `log`.
        options: its options; all its calls agree on them.
        fields: the fields of its accumulator state, in the order of the table in `fields.py`. A
            metric has only `units`, or none.
        metric: tree structure of the metric state, or None for a number.
        leaves: shapes and dtypes of the leaves of the metric state.
        shard_axes: the shards whose values are kept apart; None if the step itself reduces them.
        lazy: whether one of its calls is evaluated only at steps that are written.
    """

    name: str
    options: Options
    fields: tuple[Field, ...]
    metric: Any = None
    leaves: tuple[LeafSpec, ...] = ()
    shard_axes: ShardAxes | None = None
    lazy: bool = False

    @property
    def columns(self) -> tuple[Field, ...]:
        """What one row of the ring buffer holds for this key."""
        if self.metric is None:
            return self.fields
        has_value = self.options.on_step and not self.keeps_states
        value = (Field("value", "float32"),) if has_value else ()
        return value + self.fields

    @property
    def keeps_states(self) -> bool:
        """Whether it is a metric of which the state of every step is kept.

        The value of such a step is computed from the merged states of its shards, on the host.
        """
        return self.metric is not None and self.options.on_step and self.shard_axes is not None

    @property
    def on_mesh(self) -> bool:
        """Whether its state has a leading axis, of the shards of a shard_map."""
        return self.shard_axes is not None and self.shard_axes.mesh is not None

    @property
    def weighs_by_batch(self) -> bool:
        """Whether it is a mean that needs the batch size as a weight."""
        return self.metric is None and self.options.reduction.weighted and _split(self)[0]

    def field(self, name: str) -> Field | None:
        """The field of that name, if this spec has it."""
        return next((field for field in self.fields if field.name == name), None)

    def join(self, other: KeySpec) -> KeySpec:
        """The smallest spec that can hold what either of the two holds.

        Raises:
            SchemaError: the two disagree about an option or about what is logged.
        """
        if self == other:
            return self
        check_same_options(self.name, self.options, other.options)
        # PyTreeDef.__eq__ raises TypeError for any other type, so test for None first.
        mixed = (self.metric is None) != (other.metric is None)
        if mixed or (self.metric, self.leaves) != (other.metric, other.leaves):
            raise SchemaError(
                f"{self.name!r} is logged as two different things: once as {_kind(self)}, once as "
                f"{_kind(other)}; give one of them another name"
            )
        same_axes = self.shard_axes == other.shard_axes
        kept = {
            "shard_axes": self.shard_axes if same_axes else None,
            "lazy": self.lazy or other.lazy,
        }
        if self.metric is not None:
            return dataclasses.replace(self if self.fields else other, **kept)
        fields = _join_fields(self, other, repeated=not same_axes)
        return dataclasses.replace(self, fields=fields, **kept)

    def optional(self) -> KeySpec:
        """This spec with a field that tells whether a step logged the key."""
        if self.field("units") or self.field("weight"):
            return self
        return dataclasses.replace(self, fields=(*self.fields, Field("units", "int32")))


def _kind(spec: KeySpec) -> str:
    return "a number" if spec.metric is None else f"the metric {spec.metric}"


def check_same_options(name: str, a: Options, b: Options) -> None:
    """Checks that two calls which log one name have the same hook and the same options.

    Raises:
        SchemaError: they differ; the message names the options.
    """
    differing = a.differences(b)
    if "hook" in differing:
        raise SchemaError(
            f"{name!r} is logged from two hooks, {a.hook!r} and {b.hook!r}; a key belongs to one "
            f"hook: give one of the calls another name"
        )
    if differing:
        said = "; ".join(
            f"{option}={getattr(a, option)!r} and {option}={getattr(b, option)!r}"
            for option in differing
        )
        raise SchemaError(
            f"{name!r} is logged twice in {a.hook!r} with different options ({said}); use the same "
            f"options in each call, or another name"
        )


def _join_fields(a: KeySpec, b: KeySpec, *, repeated: bool) -> tuple[Field, ...]:
    counts = ("units", "weight")
    dtypes = {field.dtype for spec in (a, b) for field in spec.fields if field.name not in counts}
    dtype = dtypes.pop() if len(dtypes) == 1 else wider(dtypes)
    names = {field.name for spec in (a, b) for field in spec.fields}
    if not a.options.reduction.weighted:
        return scalar_fields(
            a.options.reduce_fx, dtype, weighting="batch", repeated=True, optional="units" in names
        )
    both = [_split(spec) for spec in (a, b)]
    by_batch = any(batch for batch, _ in both)
    explicit = any(weighted for _, weighted in both)
    repeated = repeated or bool({"total", "wtotal"} & names) or (by_batch and explicit)
    fields: tuple[Field, ...] = ()
    if by_batch:
        optional = explicit or "units" in names
        fields += scalar_fields(
            "mean", dtype, weighting="batch", repeated=repeated, optional=optional
        )
    if explicit:
        fields += scalar_fields(
            "mean", dtype, weighting="explicit", repeated=repeated, optional=True
        )
    return fields


def _split(spec: KeySpec) -> tuple[bool, bool]:
    """Whether a spec has a part that weighs by batch size, and one with explicit weights."""
    weighted = spec.field("weight") is not None
    return (spec.field("total") is not None or not weighted), weighted


@dataclasses.dataclass(frozen=True)
class Schema:
    """An ordered set of specs with distinct names; hashable, so it can key a compile cache."""

    specs: tuple[KeySpec, ...] = ()

    def __hash__(self) -> int:
        return self._hash

    @functools.cached_property
    def _hash(self) -> int:
        """Cached: `jax.jit` hashes the schema at every call, and it may hold a thousand specs."""
        return hash(self.specs)

    def __reduce__(self) -> Any:
        # Do not pickle cached properties: the hash of a string differs between processes.
        return type(self), (self.specs,)

    def __iter__(self) -> Iterator[KeySpec]:
        return iter(self.specs)

    def __len__(self) -> int:
        return len(self.specs)

    def find(self, name: str) -> KeySpec | None:
        """The spec of that name, if there is one."""
        return next((spec for spec in self.specs if spec.name == name), None)

    @functools.cached_property
    def words(self) -> int:
        """Width of a row of the ring buffer in 32-bit words."""
        return sum(field.words for spec in self.specs for field in spec.columns)

    @functools.cached_property
    def lazy(self) -> bool:
        """Whether the step takes `should_write`, because some value is computed only then."""
        return any(spec.lazy for spec in self.specs)

    @functools.cached_property
    def has_bar(self) -> bool:
        """Whether a progress bar shows a per-step value."""
        return any(e.options.prog_bar and e.options.on_step for e in self.specs)

    @functools.cached_property
    def on_mesh(self) -> Schema:
        """The specs whose states have a leading axis of shards."""
        return Schema(tuple(spec for spec in self.specs if spec.on_mesh))

    @functools.cached_property
    def whole(self) -> Schema:
        """The specs whose states have no axis of shards."""
        return Schema(tuple(spec for spec in self.specs if not spec.on_mesh))

    def part(self, *, on_mesh: bool) -> Schema:
        """The specs with a leading axis of shards, or those without."""
        return self.on_mesh if on_mesh else self.whole

    def with_spec(self, spec: KeySpec) -> Schema:
        """This schema with one more spec, joined with the spec of the same name if there is one."""
        found = self.find(spec.name)
        if found is None:
            return Schema((*self.specs, spec))
        joined = found.join(spec)
        return Schema(tuple(joined if e.name == spec.name else e for e in self.specs))

    def join(self, other: Schema) -> Schema:
        """The smallest schema that holds what either logs; a key of only one becomes optional."""
        names = {spec.name for spec in other}
        joined = Schema(tuple(e if e.name in names else e.optional() for e in self.specs))
        for spec in other:
            known = self.find(spec.name) is not None
            joined = joined.with_spec(spec if known else spec.optional())
        return joined
