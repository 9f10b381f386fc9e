"""The array library that a metric's arithmetic runs on: numpy after the fetch, jax.numpy before.

The host merges and computes fetched windows in float64 and int64. That must neither dispatch to a
device nor compile, so the code of metrics asks for its namespace here and does not name `jnp`.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

__all__ = ["array_namespace", "as_float", "to_host_array"]


def is_host(array: Any) -> bool:
    """True for numpy arrays and Python or numpy scalars, False for jax arrays and tracers."""
    return isinstance(array, (np.ndarray, np.generic, bool, int, float))


def array_namespace(*arrays: Any) -> Any:
    """`numpy` if every array is a numpy array or a Python scalar, else `jax.numpy`.

    Example:
        >>> array_namespace(np.float64(1.0), 2).__name__
        'numpy'
        >>> array_namespace(np.float64(1.0), jnp.float32(2.0)).__name__
        'jax.numpy'
    """
    return np if all(is_host(array) for array in arrays) else jnp


def as_float(array: Any) -> Any:
    """The same values as float64 on the host and as float32 (or wider, if they were) on a device.

    Args:
        array: real numbers, any shape.

    Example:
        >>> as_float(np.int64(2**40 + 1)).dtype, as_float(jnp.int32(3)).dtype
        (dtype('float64'), dtype('float32'))
    """
    if is_host(array):
        return np.asarray(array, np.float64)[()]
    wide = array.dtype if array.dtype == np.float64 else np.dtype(np.float32)
    return jax.lax.convert_element_type(array, wide)


def host_dtype(dtype: np.dtype) -> np.dtype:
    """The 64-bit dtype of the same kind: int64, uint64 or float64."""
    if jnp.issubdtype(dtype, np.unsignedinteger):
        return np.dtype(np.uint64)
    if jnp.issubdtype(dtype, np.integer):
        return np.dtype(np.int64)
    return np.dtype(np.float64)


def fits(value: Any, dtype: np.dtype) -> bool:
    """Whether concrete integers keep their value in `dtype`; floats lose digits, never wrap."""
    try:
        array = np.asarray(value)
        if array.dtype.kind == "O":  # Python ints beyond 64 bits
            return False
        return array.dtype.kind not in "iu" or bool(np.all(array.astype(dtype) == array))
    except OverflowError:
        return False


def to_host_array(array: Any) -> np.ndarray:
    """The same values as a numpy array of int64, uint64 or float64, whichever keeps the kind.

    Args:
        array: integers or floats of any width (bfloat16 too), any shape; best fetched already,
            since a jax array is fetched here and blocks.

    Example:
        >>> to_host_array(jnp.int32(3)).dtype, to_host_array(jnp.bfloat16(3)).dtype
        (dtype('int64'), dtype('float64'))
    """
    fetched = np.asarray(array)
    return fetched.astype(host_dtype(fetched.dtype))
