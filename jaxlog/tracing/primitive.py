"""The log primitive: an equation that carries a logged value through every JAX transform.

A primitive, unlike a Python side list, survives cached inner jits and never leaks tracers. It has
no results; an *effect* keeps it alive. The effect derives from the one `jax.debug.callback`
carries, the only kind that JAX keeps through partial evaluation, control flow, remat and custom
derivatives at once: with it `grad(scan(checkpoint(f)))` counts every value once.
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
    """Says that a program logs."""

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
    """A value is logged once, whatever is differentiated around it."""
    del tangents
    log_p.bind(*primals, call=call)
    return [], []


def to_front(operands: Sequence[Any], axes: Sequence[Any]) -> list[Any]:
    """Operands with their mapped axis first; those that are not mapped are repeated along it."""
    size = next(x.shape[axis] for x, axis in zip(operands, axes, strict=True) if axis is not None)
    return [
        jnp.broadcast_to(x, (size, *jnp.shape(x))) if axis is None else jnp.moveaxis(x, axis, 0)
        for x, axis in zip(operands, axes, strict=True)
    ]


def _transpose(cotangents: Sequence[Any], *operands: Any, call: LogCall) -> list[Any]:
    """Reached where the value is a tangent, as in the rule of a custom_jvp."""
    del cotangents, operands
    raise CaptureError(
        f"{call.name!r} logs a tangent, which reverse mode (grad, vjp) never computes: it goes "
        f"from the result backwards; log a primal value, or log the gradient where grad returns it"
    )


def _batch(
    operands: Sequence[Any], axes: Sequence[Any], *, call: LogCall
) -> tuple[list[Any], list[Any]]:
    """Mapped axes gather at the front of every operand; capture folds them."""
    log_p.bind(*to_front(operands, axes), call=call)
    return [], []


def _lower(context: Any, *operands: Any, call: LogCall) -> list[Any]:
    """Emits nothing: a program that was traced with logs but never captured computes none."""
    del context, operands, call
    return []


ad.primitive_jvps[log_p] = _jvp
ad.primitive_transposes[log_p] = _transpose
batching.primitive_batchers[log_p] = _batch
mlir.register_lowering(log_p, _lower)
