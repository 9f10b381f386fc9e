"""What is logged, known before anything runs: the static half of `Logs`.

A `Schema` is an ordered set of `Entry`s, one a name. An entry says how the calls of one step fold
into its *cells* (device values, one per role of `roles.py`) and so which columns its rows have.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Iterator
from typing import Any

from jaxlog.errors import SchemaError
from jaxlog.logs.roles import Role, scalar_roles, wider

__all__ = ["Entry", "LeafSpec", "Options", "Schema", "Spread", "check_same_options"]


@dataclasses.dataclass(frozen=True)
class Options:
    """The options of a log call that hold for its key, defaults filled in.

    Two calls with one name must agree on every one of them.
    """

    hook: str
    on_step: bool
    on_epoch: bool
    prog_bar: bool = False
    logger: bool = True
    reduce_fx: str = "mean"
    enable_graph: bool = False
    sync_dist: bool = False
    sync_dist_group: Any = None
    add_dataloader_idx: bool = True
    rank_zero_only: bool = False
    nan_policy: str | None = None

    @property
    def syncs(self) -> bool:
        """Whether values that differ between shards are reduced."""
        return self.sync_dist and not self.rank_zero_only

    @property
    def forks(self) -> bool:
        """Whether the name forks into `name_step` and `name_epoch`."""
        return self.on_step and self.on_epoch

    def differences(self, other: Options) -> list[str]:
        """The names of the options in which two calls differ."""
        fields = (field.name for field in dataclasses.fields(self))
        return [name for name in fields if getattr(self, name) != getattr(other, name)]


@dataclasses.dataclass(frozen=True)
class LeafSpec:
    """Shape and dtype of one leaf of a metric state."""

    shape: tuple[int, ...]
    dtype: str


@dataclasses.dataclass(frozen=True)
class Spread:
    """The shards that keep what they logged under a name apart, until the host reduces it.

    A reduction inside the step would be a collective in every step.

    Attributes:
        mesh: the mesh of the shard_map; None under `pmap`, where the whole step runs once a device.
        axes: the mesh axes that tell the shards apart, in the order of the mesh.
    """

    mesh: Any = None
    axes: tuple[str, ...] = ()

    @property
    def size(self) -> int:
        """How many shards there are; 1 where the step is one of them."""
        return math.prod(self.mesh.shape[axis] for axis in self.axes)


@dataclasses.dataclass(frozen=True)
class Entry:
    """All that is known of one logged name.

    Attributes:
        name: the key as given to `log`.
        options: what the calls said.
        roles: the cells of a scalar, in the order of the table above; `("units",)` or nothing
            for a metric.
        metric: tree structure of the metric state, or None for a scalar.
        leaves: shapes and dtypes of the state's leaves.
        spread: over which shards it is kept apart; None where the step itself reduces it.
        lazy: whether some call of it is evaluated only at steps that are written.
    """

    name: str
    options: Options
    roles: tuple[Role, ...]
    metric: Any = None
    leaves: tuple[LeafSpec, ...] = ()
    spread: Spread | None = None
    lazy: bool = False

    @property
    def columns(self) -> tuple[Role, ...]:
        """What one row of the tape holds for this entry."""
        if self.metric is None:
            return self.roles
        has_value = self.options.on_step and not self.keeps_states
        value = (Role("value", "float32"),) if has_value else ()
        return value + self.roles

    @property
    def keeps_states(self) -> bool:
        """Whether it is a metric whose state of every step is kept.

        The value of a step is that of the states of all its shards, merged.
        """
        return self.metric is not None and self.options.on_step and self.spread is not None

    @property
    def on_mesh(self) -> bool:
        """Whether its cells have one axis in front, of the shards of a shard_map."""
        return self.spread is not None and self.spread.mesh is not None

    @property
    def weighs_by_batch(self) -> bool:
        """Whether a mean of this entry needs the size of its batch."""
        return self.metric is None and self.options.reduce_fx == "mean" and _split(self)[0]

    def role(self, name: str) -> Role | None:
        """The role of that name, if this entry has it."""
        return next((role for role in self.roles if role.name == name), None)

    def join(self, other: Entry) -> Entry:
        """The least entry that can hold what either holds.

        Raises:
            SchemaError: the two disagree about an option or about what is logged.
        """
        if self == other:
            return self
        check_same_options(self.name, self.options, other.options)
        # A tree structure compares with nothing but its like.
        mixed = (self.metric is None) != (other.metric is None)
        if mixed or (self.metric, self.leaves) != (other.metric, other.leaves):
            raise SchemaError(
                f"{self.name!r} is logged as two different things: once as {_kind(self)}, once as "
                f"{_kind(other)}; give one of them another name"
            )
        alike = self.spread == other.spread
        kept = {"spread": self.spread if alike else None, "lazy": self.lazy or other.lazy}
        if self.metric is not None:
            return dataclasses.replace(self if self.roles else other, **kept)
        roles = _join_roles(self, other, repeated=not alike)
        return dataclasses.replace(self, roles=roles, **kept)

    def optional(self) -> Entry:
        """This entry, able to say that a step did not log it."""
        if self.role("units") or self.role("weight"):
            return self
        return dataclasses.replace(self, roles=(*self.roles, Role("units", "int32")))


def _kind(entry: Entry) -> str:
    return "a number" if entry.metric is None else f"the metric {entry.metric}"


def check_same_options(name: str, a: Options, b: Options) -> None:
    """Holds two calls that log one name to one hook and one set of options.

    Raises:
        SchemaError: they differ; the message says in what.
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


def _join_roles(a: Entry, b: Entry, *, repeated: bool) -> tuple[Role, ...]:
    reduce_fx = a.options.reduce_fx
    counts = ("units", "weight")
    dtypes = {role.dtype for entry in (a, b) for role in entry.roles if role.name not in counts}
    dtype = dtypes.pop() if len(dtypes) == 1 else wider(dtypes)
    names = {role.name for entry in (a, b) for role in entry.roles}
    if reduce_fx != "mean":
        return scalar_roles(
            reduce_fx, dtype, weighting="batch", repeated=True, optional="units" in names
        )
    both = [_split(entry) for entry in (a, b)]
    by_batch = any(batch for batch, _ in both)
    explicit = any(weighted for _, weighted in both)
    repeated = repeated or bool({"total", "wtotal"} & names) or (by_batch and explicit)
    roles: tuple[Role, ...] = ()
    if by_batch:
        optional = explicit or "units" in names
        roles += scalar_roles(
            "mean", dtype, weighting="batch", repeated=repeated, optional=optional
        )
    if explicit:
        roles += scalar_roles("mean", dtype, weighting="explicit", repeated=repeated, optional=True)
    return roles


def _split(entry: Entry) -> tuple[bool, bool]:
    """Whether an entry has a part weighed by batch size, and one with explicit weights."""
    weighted = entry.role("weight") is not None
    return (entry.role("total") is not None or not weighted), weighted


@dataclasses.dataclass(frozen=True)
class Schema:
    """An ordered set of entries with distinct names; hashable, so it can key a compile cache."""

    entries: tuple[Entry, ...] = ()

    def __hash__(self) -> int:
        return self._hash

    @functools.cached_property
    def _hash(self) -> int:
        """Taken once: `jax.jit` asks for it at every call, and there may be a thousand entries."""
        return hash(self.entries)

    def __reduce__(self) -> Any:
        # What is cached stays here: the hash of a string is another in the next process.
        return type(self), (self.entries,)

    def __iter__(self) -> Iterator[Entry]:
        return iter(self.entries)

    def __len__(self) -> int:
        return len(self.entries)

    def find(self, name: str) -> Entry | None:
        """The entry of that name, if there is one."""
        return next((entry for entry in self.entries if entry.name == name), None)

    @functools.cached_property
    def words(self) -> int:
        """Width of a row of the tape in 32-bit words."""
        return sum(role.words for entry in self.entries for role in entry.columns)

    @functools.cached_property
    def lazy(self) -> bool:
        """Whether a step has to be told if it is one that is written."""
        return any(entry.lazy for entry in self.entries)

    @functools.cached_property
    def has_bar(self) -> bool:
        """Whether a progress bar shows some value of each step."""
        return any(e.options.prog_bar and e.options.on_step for e in self.entries)

    @functools.cached_property
    def on_mesh(self) -> Schema:
        """The entries whose cells have an axis of shards in front."""
        return Schema(tuple(entry for entry in self.entries if entry.on_mesh))

    @functools.cached_property
    def whole(self) -> Schema:
        """The entries whose cells have no axis of shards."""
        return Schema(tuple(entry for entry in self.entries if not entry.on_mesh))

    def part(self, *, on_mesh: bool) -> Schema:
        """`on_mesh` or `whole`."""
        return self.on_mesh if on_mesh else self.whole

    def with_entry(self, entry: Entry) -> Schema:
        """This schema with one more entry, joined to the one of its name if there is one."""
        found = self.find(entry.name)
        if found is None:
            return Schema((*self.entries, entry))
        joined = found.join(entry)
        return Schema(tuple(joined if e.name == entry.name else e for e in self.entries))

    def join(self, other: Schema) -> Schema:
        """The least schema that holds what either logs; what only one logs becomes optional."""
        names = {entry.name for entry in other}
        joined = Schema(tuple(e if e.name in names else e.optional() for e in self.entries))
        for entry in other:
            known = self.find(entry.name) is not None
            joined = joined.with_entry(entry if known else entry.optional())
        return joined
