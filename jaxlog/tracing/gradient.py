"""`log_gradient`: the norm of a cotangent, logged by the backward pass that computes it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Unpack

import jax
import jax.numpy as jnp
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir

from jaxlog.errors import LogArgumentError
from jaxlog.logs import LogCall, LogOptions, check_call, normalize_call, takes_options
from jaxlog.tracing.context import current_hook, is_captured
from jaxlog.tracing.primitive import log_p, to_front

__all__ = ["log_gradient"]


@takes_options
def log_gradient(
    name: str, x: Any, *, batch_size: float | None = None, **options: Unpack[LogOptions]
) -> Any:
    """`x`; a backward pass through it logs the norm of its cotangent.

    The norm is the Euclidean norm over all elements of all floating leaves, in float32. A forward
    pass alone and forward-mode differentiation log nothing. Under `vmap` each example logs one
    norm.

    Args:
        name: the key.
        x: an array, or a pytree of arrays.
        batch_size: the weight of the value in means; a number.
        **options: as in `jaxlog.log`; a norm has no `mask`.

    Raises:
        LogArgumentError: an option is not valid, or `x` has no floating leaf.
        HookError: the hook around the call does not allow logging or one of the options.

    Example:
        >>> import jax, jaxlog
        >>> def step(w):
        ...     def loss(w):
        ...         hidden = jaxlog.log_gradient("hidden_gradient", 3.0 * w)
        ...         return (4.0 * hidden[0] + 3.0 * hidden[1]) / 5.0
        ...     return jax.grad(loss)(w)
        >>> captured = jaxlog.capture(step)
        >>> w = jax.numpy.ones(2)
        >>> logs, grad = captured(captured.init(w), w)
        >>> print(logs.compute()["hidden_gradient"])
        1.0
    """
    checked = check_call(
        name, 0.0, current_hook(), options, batch_size=batch_size, function="log_gradient"
    )
    leaves, treedef = jax.tree.flatten(x)
    floating = [jnp.issubdtype(jnp.result_type(leaf), jnp.inexact) for leaf in leaves]
    if not any(floating):
        raise LogArgumentError(
            f"log_gradient({name!r}, x): x has no floating leaf, so no gradient flows through it"
        )
    if not is_captured():
        return x
    logged = normalize_call(name, jnp.float32(0), checked, batch_size=batch_size)
    weight = None if logged.weight is None else float(batch_size or 0)
    tapped = iter(
        tap_p.bind(
            *(leaf for leaf, floats in zip(leaves, floating, strict=True) if floats),
            call=logged.call,
            weight=weight,
            batch_axes=0,
        )
    )
    outs = [next(tapped) if f else leaf for f, leaf in zip(floating, leaves, strict=True)]
    return jax.tree.unflatten(treedef, outs)


# Both are the identity. The JVP rule of `tap_p` puts `linear_p` on the tangent and nothing on the
# primal; transposing `linear_p` logs. With one primitive, the primal of a program that is
# differentiated twice would be tapped again, and its norm logged twice.
tap_p = Primitive("log_gradient")
linear_p = Primitive("log_gradient_tangent")


def _jvp(primals: Sequence[Any], tangents: Sequence[Any], **params: Any) -> tuple[Any, Any]:
    present = [ad.instantiate_zeros(tangent) for tangent in tangents]
    return list(primals), linear_p.bind(*present, **params)


def _linear_jvp(primals: Sequence[Any], tangents: Sequence[Any], **params: Any) -> tuple[Any, Any]:
    present = [ad.instantiate_zeros(tangent) for tangent in tangents]
    return linear_p.bind(*primals, **params), linear_p.bind(*present, **params)


def _transpose(
    cotangents: Sequence[Any],
    *operands: Any,
    call: LogCall,
    weight: float | None,
    batch_axes: int,
) -> list[Any]:
    del operands
    present = [ad.instantiate_zeros(cotangent) for cotangent in cotangents]
    squares = [_square(cotangent, batch_axes) for cotangent in present]
    norm = jnp.sqrt(sum(squares[1:], start=squares[0]))
    extra = [] if weight is None else [jnp.full(norm.shape, weight, jnp.float32)]
    log_p.bind(norm, *extra, call=call)
    return present


def _square(cotangent: Any, batch_axes: int) -> jax.Array:
    axes = tuple(range(batch_axes, jnp.ndim(cotangent)))
    magnitude = jnp.abs(cotangent).astype("float32")
    return jnp.sum(magnitude * magnitude, axis=axes)


def _batch(primitive: Primitive, operands: Any, axes: Any, **params: Any) -> tuple[Any, Any]:
    params["batch_axes"] += 1
    return primitive.bind(*to_front(operands, axes), **params), [0] * len(operands)


def _register(primitive: Primitive) -> None:
    primitive.multiple_results = True
    primitive.def_impl(lambda *operands, **_: list(operands))
    primitive.def_abstract_eval(lambda *avals, **_: list(avals))
    mlir.register_lowering(primitive, lambda _, *operands, **__: list(operands))
    batching.primitive_batchers[primitive] = lambda operands, axes, **params: _batch(
        primitive, operands, axes, **params
    )


_register(tap_p)
_register(linear_p)
ad.primitive_jvps[tap_p] = _jvp
ad.primitive_jvps[linear_p] = _linear_jvp
ad.primitive_transposes[linear_p] = _transpose
