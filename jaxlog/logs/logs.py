"""`Logs`: what has been logged so far, as an immutable pytree."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Self, Unpack

import jax
import numpy as np
from jax import lax
from jax.typing import ArrayLike

from jaxlog.compat import is_checked, traced_for, varying_axes
from jaxlog.errors import LogArgumentError, SchemaError
from jaxlog.logs import totals as running
from jaxlog.logs.accumulator_state import StepState, contribution, merge, neutral
from jaxlog.logs.arguments import check_call
from jaxlog.logs.columns import decode_rows
from jaxlog.logs.hooks import find_hook
from jaxlog.logs.normalize import normalize_call, spec_of
from jaxlog.logs.options import LogOptions, takes_options
from jaxlog.logs.ring_buffer import (
    RingBuffer,
    blank_row,
    merge_ring_buffers,
    pack_state,
    push_row,
)
from jaxlog.logs.schema import KeySpec, Schema
from jaxlog.metrics import as_metric

__all__ = ["Logs"]

_DEFAULT_ROWS = 64
# A carry keeps its structure, so a new key cannot first appear in these traces; in jit and vmap it
# can.
_CARRIES = frozenset({"scan", "while_body", "while_cond", "fori_loop", "cond", "switch"})


@jax.tree_util.register_pytree_node_class
class Logs:
    """The state of logging: every key's running reduction and the values of the latest steps.

    Immutable; thread it through `jit`, `scan`, `vmap` and donate it. Made by
    `captured.init(*args)`, or by `Logs.empty()` for the explicit style, where a step logs by hand:
    `logs = logs.log(...)` any number of times, then `logs = logs.advance()`.

    Attributes:
        schema: what is logged; static.
        ring_buffer: the latest `rows` steps, packed, int32 of shape `(rows, words)`, and the
            number of steps pushed, int32 of shape ().
        totals: packed running reductions of scalars, int32 of shape `(words,)`.
        metrics: running states of logged metrics, by name.
        pending: what the current step has logged; only in the explicit style.

    Example:
        >>> import jax, jaxlog
        >>> logs = jaxlog.Logs.empty().log("loss", 0.0).reset()
        >>> def body(logs, x):
        ...     logs = logs.log("loss", x)
        ...     return logs.advance(), None
        >>> logs, _ = jax.lax.scan(body, logs, jax.numpy.arange(4.0))
        >>> float(logs.compute()["loss"])
        1.5
    """

    def __init__(
        self,
        schema: Schema = Schema(),  # noqa: B008 - immutable
        ring_buffer: RingBuffer | None = None,
        totals: Any = None,
        metrics: dict[str, Any] | None = None,
        pending: StepState | None = None,
        *,
        explicit: bool = True,
        reduced: tuple[str, ...] = (),
    ) -> None:
        """Use `Logs.empty` or `captured.init`; without arguments this is `Logs.empty()`."""
        self.schema = schema
        self.ring_buffer = (
            RingBuffer.empty(_DEFAULT_ROWS, schema.words) if ring_buffer is None else ring_buffer
        )
        self.totals = running.empty_totals(schema) if ring_buffer is None else totals
        self.metrics = metrics or {}
        self.pending = pending or {}
        self._explicit = explicit
        self._reduced = reduced

    # ---- construction -----------------------------------------------------------------------

    @classmethod
    def empty(
        cls,
        schema: Schema = Schema(),  # noqa: B008 - immutable
        *,
        rows: int = _DEFAULT_ROWS,
        explicit: bool = True,
    ) -> Self:
        """Logs in which nothing has been logged yet.

        Args:
            schema: what will be logged. If it is empty, the first `log` of a key adds the key.
            rows: how many of the latest steps keep their own values.
            explicit: whether steps log by `Logs.log`; False for `capture`.

        Raises:
            LogArgumentError: `rows` is not positive.
        """
        if not isinstance(rows, int) or isinstance(rows, bool) or rows < 1:
            raise LogArgumentError(f"Logs.empty(rows={rows!r}): takes a positive int")
        states = {e.name: neutral(e)["metric"] for e in schema if e.metric is not None}
        return cls(
            schema,
            RingBuffer.empty(rows, schema.words),
            running.empty_totals(schema),
            states,
            {spec.name: neutral(spec) for spec in schema} if explicit else {},
            explicit=explicit,
        )

    def _replace(self, **changes: Any) -> Self:
        fields = {
            "schema": self.schema,
            "ring_buffer": self.ring_buffer,
            "totals": self.totals,
            "metrics": self.metrics,
            "pending": self.pending,
            "explicit": self._explicit,
            "reduced": self._reduced,
        } | changes
        return type(self)(**fields)

    def tree_flatten(self) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
        """Arrays, then the static half."""
        children = (self.ring_buffer, self.totals, self.metrics, self.pending)
        return children, (self.schema, self._explicit, self._reduced)

    @classmethod
    def tree_unflatten(cls, static: tuple[Any, ...], children: Sequence[Any]) -> Self:
        """The inverse of `tree_flatten`."""
        new = object.__new__(cls)
        new.schema, new._explicit, new._reduced = static
        new.ring_buffer, new.totals, new.metrics, new.pending = children
        return new

    # ---- the explicit style -----------------------------------------------------------------

    @takes_options
    def log(
        self,
        name: str,
        value: Any,
        *,
        batch_size: ArrayLike | None = None,
        mask: ArrayLike | None = None,
        **options: Unpack[LogOptions],
    ) -> Self:
        """These logs with one more value in the current step.

        Args:
            name: the key. A new one changes the structure of the pytree, so it cannot first
                appear inside a scan, while loop or branch: declare it before, as in the example
                of the class.
            value: as in `jaxlog.log`.
            batch_size: as in `jaxlog.log`; default 1.
            mask: as in `jaxlog.log`.
            **options: as in `jaxlog.log`, with the defaults of a training step.

        Raises:
            LogArgumentError: a name, value or option that cannot be logged.
            SchemaError: a new key inside a carry, or a key logged before with other options.
        """
        if not self._explicit:
            raise SchemaError(
                f"logs.log({name!r}, ...) on logs made by captured.init: a captured step logs with "
                f"jaxlog.log({name!r}, ...); for the explicit style start from Logs.empty()"
            )
        value = as_metric(value)
        hook = find_hook("training_step")
        weighting: dict[str, Any] = {"batch_size": batch_size, "mask": mask}
        checked = check_call(name, value, hook, options, function="logs.log", **weighting)
        logged = normalize_call(name, value, checked, **weighting)
        spec = spec_of(logged.call, repeated=True, optional=True)
        grown = self._with_spec(spec)
        spec = grown.schema.find(name) or spec
        state = contribution(spec, logged.value, logged.weight, logged.mask)
        pending = grown.pending | {name: merge(spec, grown.pending[name], state)}
        return grown._replace(pending=pending)

    def _with_spec(self, spec: KeySpec) -> Self:
        schema = self.schema.with_spec(spec)
        if schema == self.schema:
            return self
        carry = traced_for(self.ring_buffer.steps)
        if carry in _CARRIES:
            new = self.schema.find(spec.name) is None
            what = "a new key" if new else "a key with another dtype or weighting"
            raise SchemaError(
                f"logs.log({spec.name!r}, ...) is {what} inside a {carry}, which cannot "
                f"change the structure of the logs; declare it on the logs that go in: "
                f"logs = logs.log({spec.name!r}, <a value like it>).reset()"
            )
        return self._widened(schema)

    def _widened(self, schema: Schema) -> Self:
        """These logs with room for new keys, which the rows pushed so far did not log."""
        wide = type(self).empty(schema, **self._made)
        for spec in self.schema:
            if schema.find(spec.name) != spec:
                raise SchemaError(
                    f"logs.log({spec.name!r}, ...) with another dtype or weighting than before; "
                    f"use one dtype, and batch_size= in each call or in none"
                )
        nothing = blank_row(schema.specs[len(self.schema) :])
        filler = np.broadcast_to(nothing, (self.ring_buffer.rows.shape[0], len(nothing)))
        rows = lax.concatenate([self.ring_buffer.rows, filler], 1)
        ring_buffer = RingBuffer(rows, self.ring_buffer.steps)
        totals = running.widen_totals(self.schema, schema, self.totals)
        return wide._replace(
            ring_buffer=ring_buffer,
            totals=totals,
            metrics=wide.metrics | self.metrics,
            pending=wide.pending | self.pending,
        )

    def advance(self) -> Self:
        """These logs with the current step finished and a new one begun.

        Raises:
            SchemaError: the logs were made by `captured.init`, whose steps end by themselves.
        """
        if not self._explicit:
            raise SchemaError("logs.advance(): a captured step advances its logs by itself")
        fresh = {spec.name: neutral(spec) for spec in self.schema}
        return self.push(self.pending)._replace(pending=fresh)

    # ---- steps ------------------------------------------------------------------------------

    def push(self, state: StepState, *, batch_size: float = 1.0) -> Self:
        """These logs after one more step.

        Args:
            state: what the step logged; names left out count as not logged.
            batch_size: the weight in means of values without an explicit weight.
        """
        state = {e.name: state[e.name] if e.name in state else neutral(e) for e in self.schema}
        totals = running.fold_step(self.schema, self.totals, state, batch_size)
        metrics = {
            name: metric.merge(state[name]["metric"]) for name, metric in self.metrics.items()
        }
        ring_buffer = push_row(self.ring_buffer, pack_state(self.schema, state))
        return self._replace(ring_buffer=ring_buffer, totals=totals, metrics=metrics)

    def reset(self) -> Self:
        """Logs of the same schema in which nothing has been logged."""
        return type(self).empty(self.schema, **self._made)

    # ---- reading ----------------------------------------------------------------------------

    def compute(self) -> dict[str, jax.Array]:
        """Name to the reduction over every finished step, shape (); works inside jit.

        A mean over no value is NaN. Sums carry about 48 bits until this last rounding to float32.
        """
        values = running.total_values(self.schema, self.totals)
        computed = {name: metric.compute() for name, metric in self.metrics.items()}
        return {spec.name: (values | computed)[spec.name] for spec in self.schema}

    def history(self) -> dict[str, np.ndarray]:
        """Name to the values of the latest steps, oldest first: float64, one a step kept.

        Fetches from the device. A step that did not log the key has NaN. Keys without per-step
        values (a metric with `on_step=False`) are left out.
        """
        columns = decode_rows(self.schema, self.ring_buffer.fetch())
        return {name: column.step_values() for name, column in columns.items() if column.has_steps}

    # ---- several logs -----------------------------------------------------------------------

    @property
    def _made(self) -> dict[str, Any]:
        """The options of `empty` that these logs were made with."""
        return {"rows": self.ring_buffer.rows.shape[0], "explicit": self._explicit}

    def merge(self, other: Logs) -> Self:
        """The logs of both: first the steps of `self`, then those of `other`.

        Raises:
            SchemaError: the two hold different keys, or were not made in the same way.
        """
        if self.schema != other.schema:
            raise SchemaError(
                f"logs.merge(other): the two hold different keys: "
                f"{[e.name for e in self.schema]} and {[e.name for e in other.schema]}"
            )
        mine, theirs = ({**x._made, "reduced over": x._reduced} for x in (self, other))
        if mine != theirs:
            raise SchemaError(
                f"logs.merge(other): the two are made in different ways, {mine} and {theirs}; give "
                f"both the same options of Logs.empty or capture, and reduce both or neither"
            )
        totals = running.merge_totals(self.schema, self.totals, other.totals)
        metrics = {name: metric.merge(other.metrics[name]) for name, metric in self.metrics.items()}
        pending = {
            e.name: merge(e, self.pending[e.name], other.pending[e.name])
            for e in self.schema
            if e.name in self.pending
        }
        ring_buffer = merge_ring_buffers(self.ring_buffer, other.ring_buffer)
        return self._replace(
            ring_buffer=ring_buffer, totals=totals, metrics=metrics, pending=pending
        )

    def reduce(self, axis_name: Any) -> Self:
        """The logs of all shards along a mesh axis as one, the same on each.

        For use inside `shard_map` or `pmap`. Totals and metric states are reduced by their own
        rules (weights summed with their numerators). The ring buffer keeps the rows of this shard,
        so its `history` stays local.

        Args:
            axis_name: a mesh axis name or a tuple of them.

        Raises:
            SchemaError: they are reduced over it already, or the same on every shard: a sum would
                come out once for each.
        """
        axes = (axis_name,) if isinstance(axis_name, str) else tuple(axis_name)
        if again := [axis for axis in axes if axis in self._reduced]:
            raise SchemaError(
                f"logs.reduce({axis_name!r}): these logs are reduced over {again} already; reduce "
                f"them once, at the end, or go on from logs.reset()"
            )
        for axis in axes:
            if is_checked(axis) and axis not in varying_axes(self.totals):
                raise SchemaError(
                    f"logs.reduce({axis_name!r}): these logs are the same on every shard along "
                    f"{axis!r}; they are reduced already, leave it out"
                )
        totals = running.reduce_totals(self.schema, self.totals, axis_name)
        metrics = {name: metric.reduce(axis_name) for name, metric in self.metrics.items()}
        reduced = (*self._reduced, *axes)
        return self._replace(totals=totals, metrics=metrics, reduced=reduced)

    def __repr__(self) -> str:
        names = ", ".join(spec.name for spec in self.schema)
        return f"Logs({names})"
