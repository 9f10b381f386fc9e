"""Values that are reduced over devices already, where JAX does not say so.

In a checked shard_map JAX types a `psum` as equal on all shards, and it counts once. Without the
check, and under `pmap`, every shard counts: a sum would come out once for each.
"""

from __future__ import annotations

from typing import Any

from jax.extend.core import Literal

from jaxlog.compat import opened, where_logged
from jaxlog.errors import SchemaError
from jaxlog.tracing.primitive import log_p
from jaxlog.tracing.subjaxprs import subjaxprs

__all__ = ["refuse_reduced_twice"]

_COLLECTIVES = frozenset({"psum", "pmin", "pmax"})
# What leaves a value a function of that one value.
_ALONG = frozenset(
    {"convert_element_type", "reshape", "squeeze", "broadcast_in_dim", "copy", "neg", "mul", "div"}
)


def refuse_reduced_twice(jaxpr: Any, *, unchecked: bool = False) -> None:
    """Looks at every log of a sum in a program, and at how its value was made.

    Args:
        jaxpr: the program.
        unchecked: whether each of several devices runs it without JAX's check.

    Raises:
        SchemaError: a value is reduced over devices, and `sync_dist=True` would do so again.
    """
    equations = opened(jaxpr)[0].eqns
    made = {var: eqn for eqn in equations for var in eqn.outvars}
    for eqn in equations:
        if unchecked and eqn.primitive is log_p:
            _check(eqn, made)
        is_unchecked_map = eqn.primitive.name == "shard_map" and not eqn.params["check_vma"]
        for inner in subjaxprs(eqn):
            refuse_reduced_twice(inner, unchecked=unchecked or is_unchecked_map)


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
        if eqn.primitive.name not in _ALONG or len(operands) != 1:
            return None
        var = operands[0]
    return None
