"""The log primitive: an equation that carries a logged value through every JAX transform.

A Python list of logged values would miss what a cached inner jit logs, and would hold tracers after
their trace has ended. An equation has neither problem. It has no results; an *effect* keeps JAX
from dropping it. The effect derives from that of `jax.debug.callback`, the only kind that JAX keeps
through partial evaluation, control flow, remat and custom derivatives at once: with it,
`grad(scan(checkpoint(f)))` counts every value once. An effect type that is only registered in JAX's
allow-lists is lost inside `grad(scan(f))`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir

from jaxlog.compat import debug_effect_type
from jaxlog.errors import CaptureError
from jaxlog.logs import LogCall

__all__ = ["EFFECT", "log_p", "to_front"]

_DebugEffect: Any = debug_effect_type()


class LogEffect(_DebugEffect):
    """The effect of a program that logs."""

    def __str__(self) -> str:
        return "Log"


EFFECT = LogEffect()

log_p = Primitive("log")
log_p.multiple_results = True


@log_p.def_impl
def _run(*operands: Any, call: LogCall) -> list[Any]:
    del operands, call
    return []


@log_p.def_effectful_abstract_eval
def _abstract(*operands: Any, call: LogCall) -> tuple[list[Any], set[Any]]:
    del operands, call
    return [], {EFFECT}


def _jvp(
    primals: Sequence[Any], tangents: Sequence[Any], *, call: LogCall
) -> tuple[list[Any], list[Any]]:
    """Logs the primal; a log has no tangent."""
    del tangents
    log_p.bind(*primals, call=call)
    return [], []


def to_front(operands: Sequence[Any], axes: Sequence[Any]) -> list[Any]:
    """Operands with their mapped axis first; an operand without one is broadcast along it."""
    size = next(x.shape[axis] for x, axis in zip(operands, axes, strict=True) if axis is not None)
    return [
        jnp.broadcast_to(x, (size, *jnp.shape(x))) if axis is None else jnp.moveaxis(x, axis, 0)
        for x, axis in zip(operands, axes, strict=True)
    ]


def _transpose(cotangents: Sequence[Any], *operands: Any, call: LogCall) -> list[Any]:
    """Refuses: only a log of a tangent, as in the rule of a custom_jvp, is ever transposed."""
    del cotangents, operands
    raise CaptureError(
        f"{call.name!r} logs a tangent, which reverse mode (grad, vjp) never computes: it goes "
        f"from the result backwards; log a primal value, or log the gradient where grad returns it"
    )


def _batch(
    operands: Sequence[Any], axes: Sequence[Any], *, call: LogCall
) -> tuple[list[Any], list[Any]]:
    """Moves the mapped axis to the front of every operand; capture folds leading axes."""
    log_p.bind(*to_front(operands, axes), call=call)
    return [], []


def _lower(context: Any, *operands: Any, call: LogCall) -> list[Any]:
    """Emits nothing, for programs that are traced under `capture` but compiled without it."""
    del context, operands, call
    return []


ad.primitive_jvps[log_p] = _jvp
ad.primitive_transposes[log_p] = _transpose
batching.primitive_batchers[log_p] = _batch
mlir.register_lowering(log_p, _lower)
