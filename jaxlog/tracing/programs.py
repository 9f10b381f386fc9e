"""The programs inside an equation, and an index of which equations of a program log."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from jaxlog.compat import is_jaxpr, opened
from jaxlog.tracing.lazy import lazy_p
from jaxlog.tracing.primitive import log_p

__all__ = ["LogIndex", "inner_programs", "is_log"]


def inner_programs(eqn: Any) -> list[Any]:
    """Every jaxpr among an equation's parameters, open or closed."""
    return list(_jaxprs(eqn))


def _jaxprs(eqn: Any) -> Iterator[Any]:
    for param in eqn.params.values():
        for candidate in param if isinstance(param, (tuple, list)) else (param,):
            if is_jaxpr(candidate):
                yield candidate


def is_log(eqn: Any) -> bool:
    """Whether the equation itself is a log. The program inside a lazy log never logs."""
    return eqn.primitive is log_p or eqn.primitive is lazy_p


class LogIndex:
    """Which equations of a traced program log something, at any depth.

    Every inner program is searched once, however many equations share it: a cached `jax.jit` that
    is called n times is one jaxpr in n equations. Programs are recognised by identity, because a
    jaxpr has no cheaper key; the index keeps them alive so that no id is used twice.
    """

    def __init__(self) -> None:
        """An empty index; programs are added when they are asked for."""
        self._found: dict[int, tuple[Any, Mapping[int, tuple[str, ...]]]] = {}

    def equations(self, program: Any) -> Mapping[int, tuple[str, ...]]:
        """Position of each equation that logs -> the names it logs, in program order."""
        jaxpr = opened(program)[0]
        if id(jaxpr) not in self._found:
            names = {i: self._names(eqn) for i, eqn in enumerate(jaxpr.eqns)}
            self._found[id(jaxpr)] = jaxpr, {i: found for i, found in names.items() if found}
        return self._found[id(jaxpr)][1]

    def names(self, *programs: Any) -> tuple[str, ...]:
        """The names that some of the programs may log, in program order, each once."""
        found = (names for program in programs for names in self.equations(program).values())
        return tuple(dict.fromkeys(name for names in found for name in names))

    def _names(self, eqn: Any) -> tuple[str, ...]:
        if is_log(eqn):
            return (eqn.params["call"].name,)
        programs = inner_programs(eqn)
        return self.names(*programs) if programs else ()
