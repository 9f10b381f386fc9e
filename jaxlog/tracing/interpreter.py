"""Adds a traced program to the program being traced, with what it logged as an extra result.

Equations without logs are added as they are. A log equation becomes state. An equation that
contains logs at any depth is rebuilt by the rule of its primitive (`rules.py`).
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.extend.core import Literal

from jaxlog.compat import (
    broadcast_to_shards,
    equation_context,
    equation_repeater,
    evaluate,
    opened,
    to_varying,
    varying_axes,
)
from jaxlog.logs import (
    AccumulatorState,
    KeySpec,
    LogCall,
    Schema,
    StepState,
    contribution,
    fold_axes,
    merge_steps,
    neutral,
)
from jaxlog.tracing.lazy import lazy_p
from jaxlog.tracing.primitive import log_p
from jaxlog.tracing.programs import LogIndex
from jaxlog.tracing.rule import Results, rule_of
from jaxlog.tracing.shards import Shards

__all__ = ["Interpreter"]


class Interpreter:
    """Runs one traced program under one schema; make a new instance for every trace.

    Attributes:
        specs: name -> how what is logged under it is folded.
        should_write: whether the step is written, bool, shape (), of the program being traced.
    """

    def __init__(self, schema: Schema, index: LogIndex, should_write: Any = None) -> None:
        """An interpreter of a program that logs no other names than `schema` holds.

        Args:
            schema: the key specs.
            index: which equations of the program log.
            should_write: whether the step is written, bool, shape (); None for always.
        """
        self.should_write = jnp.ones((), bool) if should_write is None else should_write
        self.specs: dict[str, KeySpec] = {spec.name: spec for spec in schema}
        self._index = index
        self._jitted: dict[int, Any] = {}
        self._shards: list[Shards] = []

    def run(self, program: Any, args: Sequence[Any]) -> Results:
        """`(results, state)` of a program; the state has each name it may log, and no other."""
        logging = self._index.equations(program)
        jaxpr, consts = opened(program)
        values: dict[Any, Any] = dict(zip(jaxpr.constvars, consts, strict=True))
        values.update(zip(jaxpr.invars, args, strict=True))
        state: StepState = {}
        repeat = equation_repeater()
        for position, eqn in enumerate(jaxpr.eqns):
            operands = [x.val if isinstance(x, Literal) else values[x] for x in eqn.invars]
            if position not in logging:
                results = repeat(eqn, operands)
            else:
                with equation_context(eqn):
                    results, logged = self._logging(eqn, operands, logging[position])
                    state = self.merge(state, logged)
            values.update(zip(eqn.outvars, results, strict=True))
        outs = [x.val if isinstance(x, Literal) else values[x] for x in jaxpr.outvars]
        return outs, state

    def _logging(self, eqn: Any, operands: Sequence[Any], names: Sequence[str]) -> Results:
        if eqn.primitive is log_p:
            return [], self._log(eqn.params["call"], operands)
        if eqn.primitive is lazy_p:
            return [], self._log_lazily(eqn.params["call"], eqn.params["jaxpr"], operands)
        return rule_of(eqn, names).rebuild(self, eqn, operands)

    def _log(self, call: LogCall, operands: Sequence[Any]) -> StepState:
        spec = self.specs[call.name]
        leading = operands[0].ndim - call.ranks[0]
        if call.metric is not None:
            state = contribution(spec, jax.tree.unflatten(call.metric, operands))
        else:
            rest = iter(operands[1:])
            weight = next(rest) if call.weighted else None
            mask = next(rest) if call.masked else None
            state = contribution(spec, operands[0], weight, mask)
        self.note_varying([call.name], *operands)
        if call.constant and call.options.syncs:
            # JAX types a local count such as x.size as equal on all shards, but each shard means
            # its own.
            for shards in self._shards[-1:]:
                shards.varying[call.name] = frozenset(shards.sizes)
        return {call.name: self._typed(fold_axes(spec, state, leading))}

    def _log_lazily(self, call: LogCall, jaxpr: Any, operands: Sequence[Any]) -> StepState:
        def compute(*operands: Any) -> StepState:
            return self._log(call, evaluate(jaxpr, operands))

        def skip(*operands: Any) -> StepState:
            del operands
            return {call.name: self._typed(neutral(self.specs[call.name]))}

        return lax.cond(self.should_write, compute, skip, *operands)

    # ---- what rules use -------------------------------------------------------------------------

    def merge(self, a: StepState, b: StepState) -> StepState:
        """The state of a step that logged `a`, then `b`."""
        return merge_steps(self.specs, a, b, in_shard=bool(self._shards))

    def names(self, *programs: Any) -> tuple[str, ...]:
        """The names that some of the programs may log."""
        return self._index.names(*programs)

    def neutral(self, names: Sequence[str]) -> StepState:
        """State in which none of these names is logged: `merge(neutral, state) == state`."""
        return {name: self._neutral(self.specs[name]) for name in names}

    def _neutral(self, spec: KeySpec) -> AccumulatorState:
        state = neutral(spec)
        if self._shards or spec.shard_axes is None or not spec.on_mesh:
            return self._typed(state)
        return broadcast_to_shards(state, spec.shard_axes.mesh, spec.shard_axes.axes)

    def once_per_program(self, program: Any, build: Callable[[], Any]) -> Any:
        """What `build` returned the first time it was asked for this program.

        `jax.jit` caches by function: a function called twice must be one function to be lowered
        once.
        """
        if id(program) not in self._jitted:
            self._jitted[id(program)] = build()
        return self._jitted[id(program)]

    @contextlib.contextmanager
    def with_should_write(self, should_write: Any) -> Iterator[None]:
        """Inside, `should_write` is this value.

        A program with a trace of its own must get it as an argument: a tracer of the program
        around must not be used there (jit, and shard_map of jax 0.8).
        """
        before, self.should_write = self.should_write, should_write
        try:
            yield
        finally:
            self.should_write = before

    # ---- inside shard_map -----------------------------------------------------------------------

    @contextlib.contextmanager
    def sharded(self, shards: Shards) -> Iterator[None]:
        """What is run inside is run once by each of these shards."""
        self._shards.append(shards)
        try:
            yield
        finally:
            self._shards.pop()

    def keeps_shards(self, name: str) -> bool:
        """Whether the shards of the shard_map that just ended stay apart under this name."""
        return self.specs[name].on_mesh and not self._shards

    def note_varying(self, names: Sequence[str], *values: Any) -> None:
        """Notes over which mesh axes what is logged under these names differs."""
        for shards in self._shards[-1:]:
            axes = frozenset().union(*map(varying_axes, values))
            for name in names:
                shards.varying[name] = shards.varying.get(name, frozenset()) | axes

    def _typed(self, state: AccumulatorState) -> AccumulatorState:
        """State typed as varying over all manual axes, as a loop's carry must keep one type."""
        if not self._shards or not self._shards[-1].checked:
            return state
        axes = sorted(self._shards[-1].sizes)
        return jax.tree.map(lambda x: to_varying(x, axes), state)
