"""What `capture` has to know about a JAX primitive whose equations contain programs.

There is one `Rule` for each such primitive, in the registry `RULES`, which `rules.py` fills.
The walk that finds the schema (`sites.py`), the check for values that are reduced twice
(`reduced.py`) and the interpreter read the same rule, so a primitive is added by one call of
`register`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

from jaxlog.compat import where_logged
from jaxlog.errors import CaptureError
from jaxlog.logs import ShardAxes, StepState
from jaxlog.tracing.programs import inner_programs

__all__ = ["RULES", "Rebuild", "Results", "Rule", "register", "rule_of"]

# The results of an equation or program, and the state of everything it logged.
Results = tuple[list[Any], StepState]
# (interpreter, equation, operands) -> results and state. Rules are called by the interpreter, which
# reads this module; the type of the first argument is therefore only known in `rules.py`.
Rebuild = Callable[[Any, Any, Sequence[Any]], Results]


def _never(eqn: Any) -> bool:
    del eqn
    return False


def _no_shards(eqn: Any) -> None:
    del eqn


@dataclasses.dataclass(frozen=True)
class Rule:
    """How often one primitive runs its inner programs, and how their logs leave its equations.

    Every field but `rebuild` and `outside` is a function of the equation and must not depend on
    anything else: the walk and the interpreter call it at different times.

    Attributes:
        rebuild: adds an equation to the program being traced that computes the same results and
            in addition the state of what is logged inside. Called only for equations with logs.
        programs: the inner programs whose logs `rebuild` returns. A log in any other inner program
            of the equation is a `CaptureError`.
        repeats: whether one run of the equation may run these programs more than once.
        may_skip: whether one run of the equation may leave one of these programs out.
        shard_axes: the mesh axes over whose shards the programs run, one run a shard; None if they
            run where the equation does.
        unchecked: whether JAX does not track over which of these shards a value differs.
        outside: what the other inner programs are called in the error, and the advice.
    """

    rebuild: Rebuild
    programs: Callable[[Any], Sequence[Any]] = inner_programs
    repeats: Callable[[Any], bool] = _never
    may_skip: Callable[[Any], bool] = _never
    shard_axes: Callable[[Any], ShardAxes | None] = _no_shards
    unchecked: Callable[[Any], bool] = _never
    outside: tuple[str, str] = (
        "a program of the equation whose results capture does not return",
        "return the value and log it outside",
    )


RULES: dict[str, Rule] = {}


def register(rule: Rule, *primitives: str) -> None:
    """Adds a rule to `RULES`.

    Args:
        rule: the rule.
        *primitives: the names of the primitive, which differ between versions of JAX.
    """
    for name in primitives:
        RULES[name] = rule


def rule_of(eqn: Any, names: Sequence[str]) -> Rule:
    """The rule of an equation's primitive.

    Args:
        eqn: an equation with logs inside.
        names: the names that are logged inside.

    Raises:
        CaptureError: no rule is registered for it.
    """
    primitive = eqn.primitive.name
    if primitive not in RULES:
        raise CaptureError(
            f"{names[0]!r} is logged inside {primitive!r} ({where_logged(eqn)}), which "
            f"capture cannot see through; return the value from it and log it outside"
        )
    return RULES[primitive]
