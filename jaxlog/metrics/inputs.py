"""The checks that metrics share on what `of` is given; each failure names the line to write."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxlog.errors import LogArgumentError
from jaxlog.metrics.array_namespace import fits


def real_array(where: str, name: str, value: Any) -> jax.Array:
    """`value` as a jax array of bools, integers or floats.

    Raises:
        LogArgumentError: it is not an array of real numbers.
    """
    try:
        array = jnp.asarray(value)
    except (OverflowError, TypeError, ValueError) as error:
        raise LogArgumentError(
            f"{where}: {name} got {type(value).__name__}, which is not an array ({error}); "
            f"pass numbers or an array of them"
        ) from error
    if not isinstance(value, jax.Array) and not fits(value, np.dtype(array.dtype)):
        raise LogArgumentError(
            f"{where}: {name} holds integers beyond {array.dtype}, which JAX would wrap around; "
            f"pass {name} as floats, or switch on jax_enable_x64"
        )
    kinds = (np.bool_, np.integer, np.floating)
    if not any(jnp.issubdtype(array.dtype, kind) for kind in kinds):
        raise LogArgumentError(
            f"{where}: {name} has dtype {array.dtype}, but a metric takes real numbers; log its "
            f"parts, for instance {name}=jnp.abs({name})"
        )
    return array


def leading_mask(where: str, mask: Any, shape: tuple[int, ...], name: str) -> jax.Array:
    """`mask` spread over `shape`: bool, the same shape.

    Args:
        mask: bool, its shape equal to `shape` or to the first axes of it (an example's mask holds
            for all of the example).
        name: the array that the mask goes with, for the message.

    Raises:
        LogArgumentError: the mask is not bool, or its shape fits no leading axes.
    """
    mask = jnp.asarray(mask)
    if mask.dtype != jnp.bool_:
        raise LogArgumentError(
            f"{where}: mask has dtype {mask.dtype}, but a mask is bool (True counts); a weight per "
            f"value is another thing; write mask=mask > 0"
        )
    return broadcast_leading(where, "mask", mask, shape, name)


def broadcast_leading(
    where: str, what: str, array: jax.Array, shape: tuple[int, ...], name: str
) -> jax.Array:
    """`array`, whose axes are the first axes of `shape`, broadcast to `shape`.

    Raises:
        LogArgumentError: its shape fits no leading axes of `shape`.
    """
    if array.shape != shape[: array.ndim]:
        raise LogArgumentError(
            f"{where}: {what} has shape {array.shape}, but {name} has shape {shape}; {what} takes "
            f"the leading axes of {name}, one of "
            f"{', '.join(str(shape[:n]) for n in range(len(shape) + 1))}; "
            f"write {what}=jnp.broadcast_to({what}, {name}.shape) if numpy's rule is meant"
        )
    rank = (1,) * (len(shape) - array.ndim)
    return jnp.broadcast_to(array.reshape(array.shape + rank), shape)
