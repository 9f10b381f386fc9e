"""Evaluates a traced program while its logged values flow out beside its results.

Equations without logs are bound as they are. A log equation becomes cells. A higher-order equation
with logs inside is rebuilt so that the cells leave it; `control_flow.py` holds a rule for each.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
from jax.extend.core import Literal

from jaxlog.compat import bind_equation, equation_context, opened
from jaxlog.logs.cells import StepCells, contribution, fold_axes, merge_steps, neutral
from jaxlog.logs.schema import Entry, Schema
from jaxlog.tracing.primitive import log_p
from jaxlog.tracing.sites import logs_inside, sites

__all__ = ["Interpreter", "Rule"]

Results = tuple[list[Any], StepCells]
Rule = Callable[["Interpreter", Any, Sequence[Any]], Results]


class Interpreter:
    """Runs jaxprs under one schema; pure, one instance a trace.

    Attributes:
        entries: what each logged name folds into.
    """

    def __init__(self, schema: Schema, rules: Mapping[str, Rule]) -> None:
        """An interpreter of programs that log what `schema` holds."""
        self.entries: dict[str, Entry] = {entry.name: entry for entry in schema}
        self._rules = rules
        self._jitted: dict[int, Any] = {}

    def run(self, jaxpr: Any, args: Sequence[Any]) -> Results:
        """`(results, cells)` of a jaxpr; cells hold every name it may log, and no other."""
        jaxpr, consts = opened(jaxpr)
        values: dict[Any, Any] = dict(zip(jaxpr.constvars, consts, strict=True))
        values.update(zip(jaxpr.invars, args, strict=True))
        cells: StepCells = {}
        for eqn in jaxpr.eqns:
            operands = [x.val if isinstance(x, Literal) else values[x] for x in eqn.invars]
            with equation_context(eqn):
                if not logs_inside(eqn):
                    results: Sequence[Any] = bind_equation(eqn, operands)
                else:
                    results, logged = self._logging(eqn, operands)
                    cells = self.merge(cells, logged)
            values.update(zip(eqn.outvars, results, strict=True))
        outs = [x.val if isinstance(x, Literal) else values[x] for x in jaxpr.outvars]
        return outs, cells

    def _logging(self, eqn: Any, operands: Sequence[Any]) -> Results:
        if eqn.primitive is log_p:
            return [], self._log(eqn, operands)
        return self._rules[eqn.primitive.name](self, eqn, operands)

    def _log(self, eqn: Any, operands: Sequence[Any]) -> StepCells:
        call = eqn.params["call"]
        entry = self.entries[call.name]
        leading = operands[0].ndim - call.ranks[0]
        if call.metric is not None:
            cells = contribution(entry, jax.tree.unflatten(call.metric, operands))
        else:
            rest = iter(operands[1:])
            weight = next(rest) if call.weighted else None
            mask = next(rest) if call.masked else None
            cells = contribution(entry, operands[0], weight, mask)
        return {call.name: fold_axes(entry, cells, leading)}

    def merge(self, a: StepCells, b: StepCells) -> StepCells:
        """What was logged in `a`, then in `b`."""
        return merge_steps(self.entries, a, b)

    def names(self, *jaxprs: Any) -> list[str]:
        """The names that some of the jaxprs may log, in program order."""
        return list(dict.fromkeys(site.call.name for jaxpr in jaxprs for site in sites(jaxpr)))

    def neutral(self, names: Sequence[str]) -> StepCells:
        """Cells of those names, none of them logged."""
        return {name: neutral(self.entries[name]) for name in names}

    def jitted(self, eqn: Any, build: Callable[[Any], Any]) -> Any:
        """One jitted function for each jaxpr, so that a function called twice is traced once."""
        jaxpr = eqn.params["jaxpr"]
        if id(jaxpr) not in self._jitted:
            self._jitted[id(jaxpr)] = build(jaxpr)
        return self._jitted[id(jaxpr)]
