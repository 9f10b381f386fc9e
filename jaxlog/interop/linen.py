"""Flax linen: logs under its transforms and in `init`, and values that modules have sown."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import flax.linen as nn
from flax.core import axes_scan

from jaxlog.errors import CaptureError, LogArgumentError
from jaxlog.interop.sown import log_values
from jaxlog.tracing import Library, is_captured, silent

__all__ = ["Linen", "log_sown"]


def log_sown(
    variables: Mapping[str, Any],
    collection: str = "intermediates",
    *,
    prefix: str = "",
    reduce: Callable[[Any], Any] | None = None,
    **options: Any,
) -> None:
    """Logs what modules have sown, each value under the path of its module: `encoder/entropy`.

    Args:
        variables: the second result of `apply(..., mutable=[collection])`.
        collection: the first argument of `sow`.
        prefix: put before every name; end it with `/` to get one group in TensorBoard.
        reduce: array -> number, such as `jnp.mean`; called for each value with axes. Under
            `nn.scan` and `nn.vmap` the first axis of a sown value is that of the layers.
        **options: as in `jaxlog.log`.

    A name that a module sows several times in a step is logged as often.

    Raises:
        LogArgumentError: `variables` has no such collection, or a value has axes and `reduce` is
            None.

    Example:
        >>> import flax.linen as nn, jax, jaxlog
        >>> from jaxlog.interop.linen import log_sown
        >>> class Layer(nn.Module):
        ...     @nn.compact
        ...     def __call__(self, x):
        ...         self.sow("intermediates", "mean", x.mean())
        ...         return x
        >>> model = nn.Sequential([Layer(), Layer()])
        >>> def step(x):
        ...     y, sown = model.apply({}, x, mutable=["intermediates"])
        ...     log_sown(sown, prefix="activations/")
        ...     return y
        >>> x = jax.numpy.arange(3.0)
        >>> captured = jaxlog.capture(step)
        >>> logs, y = captured(captured.init(x), x)
        >>> sorted(logs.compute())
        ['activations/layers_0/mean', 'activations/layers_1/mean']
    """
    if not isinstance(variables, Mapping) or collection not in variables:
        found = sorted(variables) if isinstance(variables, Mapping) else type(variables).__name__
        raise LogArgumentError(
            f"log_sown(variables, {collection!r}): variables is {found} and holds no such "
            f"collection; write out, variables = model.apply(..., mutable=[{collection!r}]), "
            f"without which sow keeps nothing"
        )
    log_values(variables[collection], prefix=prefix, reduce=reduce, options=options)


class Linen(Library):
    """What captured functions need that call linen modules."""

    @contextlib.contextmanager
    def capturing(self) -> Iterator[None]:
        """Inside, `init` logs nothing and `nn.scan` logs each iteration once."""
        _silence_first_trace_of_scan()
        try:
            with nn.intercept_methods(_silence_init):
                yield
        except ValueError as error:
            if "data dependency on the scan body" not in str(error):
                raise
            raise CaptureError(
                "flax's nn.scan refuses its body: a broadcast variable depends on what the loop "
                "changes; or, with flax 0.12.12, the body has an effect other than a log, such as "
                "jax.debug.print: then write nn.scan(..., check_constancy_invariants=False)"
            ) from error


def _silence_init(
    next_fun: Callable[..., Any], args: Any, kwargs: Any, context: nn.module.InterceptorContext
) -> Any:
    """A linen interceptor: methods log nothing while they initialize the parameters."""
    module = context.module
    initializes = module.scope is not None and module.is_initializing()
    with silent() if initializes else contextlib.nullcontext():
        return next_fun(*args, **kwargs)


def _silence_first_trace_of_scan() -> None:
    """Makes flax's `axes_scan.scan` trace its body without logs the first time.

    `nn.scan` traces the body twice: first to find which broadcast variables the loop does not
    change, then for the loop. Flax 0.12.8 would log what does not depend on the iteration in both
    traces; flax 0.12.12 refuses every effect in the first. Flax has no hook there, so the function
    is replaced. To ignore log calls in the first trace would not be enough: inner jits cache that
    trace, and the loop would use it. `silent` is part of the cache key.
    """
    if not hasattr(axes_scan.scan, "__jaxlog__"):
        axes_scan.scan = _with_silent_first_trace(axes_scan.scan)


def _with_silent_first_trace(scan: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(scan)
    def scan_logging_once(fn: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        def scanned(*operands: Any) -> Any:
            is_first = kwargs.get("check_constancy_invariants", True) and is_captured()

            def body(*inner: Any) -> Any:
                nonlocal is_first
                quiet, is_first = is_first, False
                with silent() if quiet else contextlib.nullcontext():
                    return fn(*inner)

            return scan(body, *args, **kwargs)(*operands)

        return scanned

    setattr(scan_logging_once, "__jaxlog__", True)  # noqa: B010 - functions have no such attribute
    return scan_logging_once
