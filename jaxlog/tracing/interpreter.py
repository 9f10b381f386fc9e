"""Evaluates a traced program while its logged values flow out beside its results.

Equations without logs are bound as they are. A log equation becomes state. A higher-order equation
with logs inside is rebuilt so that the state leave it; `control_flow.py` holds a rule for each.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.extend.core import Literal

from jaxlog.compat import (
    bind_equation,
    broadcast_to_shards,
    equation_context,
    evaluate,
    opened,
    to_varying,
    varying_axes,
)
from jaxlog.logs.accumulator_state import (
    AccumulatorState,
    StepState,
    contribution,
    fold_axes,
    merge_steps,
    neutral,
)
from jaxlog.logs.normalize import LogCall
from jaxlog.logs.schema import KeySpec, Schema
from jaxlog.tracing.lazy import lazy_p
from jaxlog.tracing.primitive import log_p
from jaxlog.tracing.sites import logs_inside, sites

__all__ = ["Interpreter", "Rule", "Shards"]

Results = tuple[list[Any], StepState]
Rule = Callable[["Interpreter", Any, Sequence[Any]], Results]


@dataclasses.dataclass
class Shards:
    """The shards of one shard_map while its body is traced.

    Attributes:
        sizes: how many shards there are along each manual mesh axis, in the order of the mesh.
        checked: whether JAX tracks over which axes a value differs.
        varying: by name, the axes over which what was logged is known to differ.
    """

    sizes: dict[str, int]
    checked: bool
    varying: dict[str, frozenset[str]] = dataclasses.field(default_factory=dict)


class Interpreter:
    """Runs jaxprs under one schema; pure, one instance a trace.

    Attributes:
        specs: what each logged name folds into.
    """

    def __init__(self, schema: Schema, rules: Mapping[str, Rule], should_write: Any = None) -> None:
        """An interpreter of programs that log what `schema` holds.

        Args:
            schema: what there is room for.
            rules: one for each higher-order primitive.
            should_write: whether the step is written, bool, shape (); None for always.
        """
        self.should_write = jnp.ones((), bool) if should_write is None else should_write
        self.specs: dict[str, KeySpec] = {spec.name: spec for spec in schema}
        self._rules = rules
        self._jitted: dict[int, Any] = {}
        self._shards: list[Shards] = []

    def run(self, jaxpr: Any, args: Sequence[Any]) -> Results:
        """`(results, state)` of a jaxpr; state hold every name it may log, and no other."""
        jaxpr, consts = opened(jaxpr)
        values: dict[Any, Any] = dict(zip(jaxpr.constvars, consts, strict=True))
        values.update(zip(jaxpr.invars, args, strict=True))
        state: StepState = {}
        for eqn in jaxpr.eqns:
            operands = [x.val if isinstance(x, Literal) else values[x] for x in eqn.invars]
            with equation_context(eqn):
                if not logs_inside(eqn):
                    results: Sequence[Any] = bind_equation(eqn, operands)
                else:
                    results, logged = self._logging(eqn, operands)
                    state = self.merge(state, logged)
            values.update(zip(eqn.outvars, results, strict=True))
        outs = [x.val if isinstance(x, Literal) else values[x] for x in jaxpr.outvars]
        return outs, state

    def _logging(self, eqn: Any, operands: Sequence[Any]) -> Results:
        if eqn.primitive is log_p:
            return [], self._log(eqn.params["call"], operands)
        if eqn.primitive is lazy_p:
            return [], self._log_lazily(eqn.params["call"], eqn.params["jaxpr"], operands)
        return self._rules[eqn.primitive.name](self, eqn, operands)

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

    # ---- inside shard_map -----------------------------------------------------------------------

    @contextlib.contextmanager
    def sharded(self, shards: Shards) -> Iterator[None]:
        """What runs inside runs once a shard."""
        self._shards.append(shards)
        try:
            yield
        finally:
            self._shards.pop()

    @contextlib.contextmanager
    def knowing(self, should_write: Any) -> Iterator[None]:
        """What runs inside knows by this value, of its own trace, whether the step is written."""
        before, self.should_write = self.should_write, should_write
        try:
            yield
        finally:
            self.should_write = before

    def keeps(self, name: str) -> bool:
        """Whether the shards of the shard_map that just ended stay apart under this name."""
        return self.specs[name].on_mesh and not self._shards

    def note_varying(self, names: Sequence[str], *values: Any) -> None:
        """Notes over which mesh axes what is logged under these names differs."""
        for shards in self._shards[-1:]:
            axes = frozenset().union(*map(varying_axes, values))
            for name in names:
                shards.varying[name] = shards.varying.get(name, frozenset()) | axes

    def _typed(self, state: AccumulatorState) -> AccumulatorState:
        """AccumulatorState of one type, wherever in a shard_map they come from: loops carry them."""
        if not self._shards or not self._shards[-1].checked:
            return state
        axes = sorted(self._shards[-1].sizes)
        return jax.tree.map(lambda x: to_varying(x, axes), state)

    def merge(self, a: StepState, b: StepState) -> StepState:
        """What was logged in `a`, then in `b`."""
        return merge_steps(self.specs, a, b, in_shard=bool(self._shards))

    def names(self, *jaxprs: Any) -> list[str]:
        """The names that some of the jaxprs may log, in program order."""
        return list(dict.fromkeys(site.call.name for jaxpr in jaxprs for site in sites(jaxpr)))

    def neutral(self, names: Sequence[str]) -> StepState:
        """AccumulatorState of those names, none of them logged."""
        return {name: self._neutral(self.specs[name]) for name in names}

    def _neutral(self, spec: KeySpec) -> AccumulatorState:
        state = neutral(spec)
        if self._shards or spec.shard_axes is None or not spec.on_mesh:
            return self._typed(state)
        return broadcast_to_shards(state, spec.shard_axes.mesh, spec.shard_axes.axes)

    def jitted(self, eqn: Any, build: Callable[[Any], Any]) -> Any:
        """One jitted function for each jaxpr, so that a function called twice is traced once."""
        jaxpr = eqn.params["jaxpr"]
        if id(jaxpr) not in self._jitted:
            self._jitted[id(jaxpr)] = build(jaxpr)
        return self._jitted[id(jaxpr)]
