"""The JAX-version-dependent code of jaxlog, all of it. Works from jax 0.8.0 to 0.12."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import jax


@contextlib.contextmanager
def host_float64() -> Iterator[None]:
    """JAX operations inside run with 64-bit types on the CPU of this process.

    `jax.experimental.enable_x64` warns from 0.8.0 on and is gone later; `jax.enable_x64` exists
    from 0.8.0. Where the CPU backend is switched off (`JAX_PLATFORMS=cuda`), the default device
    stays.

    Example:
        >>> with host_float64():
        ...     jax.numpy.ones(()).dtype
        dtype('float64')
    """
    with contextlib.ExitStack() as stack:
        stack.enter_context(jax.enable_x64(True))
        try:
            cpu = jax.local_devices(backend="cpu")[0]
        except RuntimeError:
            cpu = None
        if cpu is not None:
            stack.enter_context(jax.default_device(cpu))
        yield
