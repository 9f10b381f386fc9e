"""The dtype in which a running value is kept: int32 for integers, float32 for floats.

Sums and extrema keep integers as integers, because float32 is exact only up to 2**24; so their
dtype depends on the values. It is static configuration: the dtype of a state never changes.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxlog.errors import LogArgumentError
from jaxlog.metrics.inputs import real_array

_WIDE = (np.dtype(np.uint32), np.dtype(np.int64), np.dtype(np.uint64))


def scalar_of_dtype(config: Any) -> np.ndarray:
    """The template of a scalar state whose class has a `dtype` configuration field.

    Raises:
        LogArgumentError: `config.dtype` names no number type that this process can hold.
    """
    try:
        dtype = np.dtype(config.dtype)
    except TypeError:
        dtype = np.dtype(object)
    if dtype.kind not in "iuf" or jax.dtypes.canonicalize_dtype(dtype) != dtype:
        raise LogArgumentError(
            f"dtype={config.dtype!r} is not an integer or float dtype that JAX holds at present; "
            f"write dtype='float32' or dtype='int32', or switch on jax_enable_x64 for 64 bits"
        )
    return np.zeros((), dtype)


def accumulated(where: str, name: str, value: Any, dtype: Any) -> tuple[jax.Array, str]:
    """`value` in the dtype to accumulate it in, and the name of that dtype.

    Args:
        dtype: what the caller asks for, or None for int32 (integers and bools; uint32 and, in x64
            mode, 64-bit integers stay what they are, since int32 cannot hold them) or float32.

    Raises:
        LogArgumentError: `value` is not a real number, or a float for an integer `dtype`.
    """
    array = real_array(where, name, value)
    is_float = jnp.issubdtype(array.dtype, np.floating)
    if dtype is None:
        whole = array.dtype if array.dtype in _WIDE else np.dtype(np.int32)
        target = np.dtype(np.float32) if is_float else np.dtype(whole)
    else:
        target = np.dtype(dtype)
    if is_float and target.kind in "iu":
        raise LogArgumentError(
            f"{where}: {name} has dtype {array.dtype}, but this metric keeps {target}, which would "
            f"cut off the fraction; start it with dtype='float32' or pass integers"
        )
    return array.astype(target), target.name
