"""Values that are computed only at steps that are written: `log(name, thunk)`.

The thunk is traced where `log` is called, and its jaxpr is a parameter of an equation like that of
`log`. So transforms do not look into it: it is neither differentiated nor rematerialized, and stays
where its operands are computed. `capture` makes it a branch of a `lax.cond`.

A `lax.cond` from the start would be lost: JAX drops a branch without results where it knows the
predicate before the value, as in a scan under `grad`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import jax
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir

from jaxlog.compat import evaluate, without_consts
from jaxlog.errors import CaptureError
from jaxlog.logs import LogCall, Logged
from jaxlog.tracing.primitive import EFFECT

__all__ = ["bind_lazily", "lazy_p"]

lazy_p = Primitive("log_lazily")
lazy_p.multiple_results = True


def bind_lazily(thunk: Callable[[], Logged]) -> None:
    """Logs what `thunk` returns, at steps that are written.

    Args:
        thunk: computes the value and normalizes its log call.
    """
    calls: list[LogCall] = []

    def run() -> list[Any]:
        logged = thunk()
        calls.append(logged.call)
        return logged.operands

    jaxpr, consts = without_consts(jax.make_jaxpr(run)())
    lazy_p.bind(*consts, call=dataclasses.replace(calls[0], lazy=True), jaxpr=jaxpr)


@lazy_p.def_impl
def _run(*operands: Any, call: LogCall, jaxpr: Any) -> list[Any]:
    del operands, call, jaxpr
    return []


@lazy_p.def_effectful_abstract_eval
def _abstract(*operands: Any, call: LogCall, jaxpr: Any) -> tuple[list[Any], set[Any]]:
    del operands, call, jaxpr
    return [], {EFFECT}


def _jvp(
    primals: Sequence[Any], tangents: Sequence[Any], *, call: LogCall, jaxpr: Any
) -> tuple[list[Any], list[Any]]:
    """Logs the primal; a log has no tangent."""
    del tangents
    lazy_p.bind(*primals, call=call, jaxpr=jaxpr)
    return [], []


def _transpose(cotangents: Sequence[Any], *operands: Any, call: LogCall, jaxpr: Any) -> list[Any]:
    """Refuses: only a log of a tangent, as in the rule of a custom_jvp, is ever transposed."""
    del cotangents, operands, jaxpr
    raise CaptureError(
        f"{call.name!r} logs a tangent, which reverse mode (grad, vjp) never computes: it goes "
        f"from the result backwards; log a primal value, or log the gradient where grad returns it"
    )


def _batch(
    axis: Any, operands: Sequence[Any], axes: Sequence[Any], *, call: LogCall, jaxpr: Any
) -> tuple[list[Any], list[Any]]:
    """Moves the mapped axis to the front of every result; capture folds it."""

    def run(*operands: Any) -> list[Any]:
        return evaluate(jaxpr, operands)

    mapped = jax.vmap(
        run,
        in_axes=tuple(axes),
        axis_name=axis.name,
        axis_size=axis.size,
        spmd_axis_name=axis.spmd_name,
    )
    batched, consts = without_consts(jax.make_jaxpr(mapped)(*operands))
    lazy_p.bind(*consts, *operands, call=call, jaxpr=batched)
    return [], []


def _lower(context: Any, *operands: Any, call: LogCall, jaxpr: Any) -> list[Any]:
    """Emits nothing, for programs that are traced under `capture` but compiled without it."""
    del context, operands, call, jaxpr
    return []


ad.primitive_jvps[lazy_p] = _jvp
ad.primitive_transposes[lazy_p] = _transpose
batching.fancy_primitive_batchers[lazy_p] = _batch
mlir.register_lowering(lazy_p, _lower)
