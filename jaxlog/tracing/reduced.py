"""Refuses sums over devices of values that are summed over devices already.

In a checked shard_map JAX types the result of a `psum` as equal on all shards, and it counts once.
Without the check (`check_vma=False`, `pmap`) every shard counts, and the sum would be that many
times too large.
"""

from __future__ import annotations

from typing import Any

from jax.extend.core import Literal

from jaxlog.compat import opened, where_logged
from jaxlog.errors import SchemaError
from jaxlog.tracing.primitive import log_p
from jaxlog.tracing.programs import LogIndex, is_log
from jaxlog.tracing.rule import rule_of

__all__ = ["refuse_reduced_twice"]

_COLLECTIVES = frozenset({"psum", "pmin", "pmax"})
# Primitives whose result is a multiple or another layout of the one operand that is not a constant.
_LINEAR = frozenset(
    {"convert_element_type", "reshape", "squeeze", "broadcast_in_dim", "copy", "neg", "mul", "div"}
)


def refuse_reduced_twice(program: Any, index: LogIndex, *, unchecked: bool = False) -> None:
    """Looks at every log of a sum in a program, and at how its value was computed.

    Args:
        program: the traced program, a jaxpr.
        index: which of its equations log.
        unchecked: whether each of several devices runs it without JAX's check.

    Raises:
        SchemaError: a value is summed over devices, and `sync_dist=True` would do so again.
    """
    visited: set[tuple[int, bool]] = set()

    def visit(program: Any, *, unchecked: bool) -> None:
        logging, jaxpr = index.equations(program), opened(program)[0]
        if not logging or (id(jaxpr), unchecked) in visited:
            return
        visited.add((id(jaxpr), unchecked))
        made = {var: eqn for eqn in jaxpr.eqns for var in eqn.outvars} if unchecked else {}
        for position, names in logging.items():
            eqn = jaxpr.eqns[position]
            if not is_log(eqn):
                rule = rule_of(eqn, names)
                for inner in rule.programs(eqn):
                    visit(inner, unchecked=unchecked or rule.unchecked(eqn))
            elif unchecked and eqn.primitive is log_p:
                _check(eqn, made)

    visit(program, unchecked=unchecked)


def _check(eqn: Any, made: dict[Any, Any]) -> None:
    call = eqn.params["call"]
    if not call.options.syncs or call.metric is not None or call.options.reduce_fx != "sum":
        return
    collective = _made_by(eqn.invars[0], made)
    if collective is not None:
        raise SchemaError(
            f"log({call.name!r}, ..., reduce_fx='sum', sync_dist=True) of a value that a "
            f"{collective} has reduced over devices already ({where_logged(eqn)}): each device "
            f"would add the whole again; leave one of the two out"
        )


def _made_by(var: Any, made: dict[Any, Any]) -> str | None:
    """The collective that a value comes from by arithmetic with constants, if there is one."""
    while not isinstance(var, Literal) and var in made:
        eqn = made[var]
        if eqn.primitive.name in _COLLECTIVES:
            return eqn.primitive.name
        operands = [x for x in eqn.invars if not isinstance(x, Literal)]
        if eqn.primitive.name not in _LINEAR or len(operands) != 1:
            return None
        var = operands[0]
    return None
