"""Flax linen: what modules log under its transforms and in `init`, and what they have sown."""

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
        variables: what `apply(..., mutable=[collection])` returned beside its result.
        collection: the first argument of `sow`.
        prefix: stands before every name; end it with `/` for a group of its own.
        reduce: makes one number of an array, such as `jnp.mean`; called for each value with axes.
            Under `nn.scan` and `nn.vmap` sown values have the axis of the layers in front.
        **options: as in `jaxlog.log`.

    A module that sows a name several times in a step logs it as often.

    Raises:
        LogArgumentError: `variables` has no such collection, or a value has axes and nobody said
            how to reduce it.

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
    """Linen's modules in captured functions."""

    @contextlib.contextmanager
    def capturing(self) -> Iterator[None]:
        """`init` records nothing, and `nn.scan` records each iteration once."""
        _hush_rehearsals()
        try:
            with nn.intercept_methods(_hush_init):
                yield
        except ValueError as error:
            if "data dependency on the scan body" not in str(error):
                raise
            raise CaptureError(
                "flax's nn.scan refuses its body: a broadcast variable depends on what the loop "
                "changes; or, with flax 0.12.12, the body has an effect other than a log, such as "
                "jax.debug.print: then write nn.scan(..., check_constancy_invariants=False)"
            ) from error


def _hush_init(
    next_fun: Callable[..., Any], args: Any, kwargs: Any, context: nn.module.InterceptorContext
) -> Any:
    """An interceptor of linen's: a method that runs to make the parameters logs nothing."""
    module = context.module
    initialises = module.scope is not None and module.is_initializing()
    with silent() if initialises else contextlib.nullcontext():
        return next_fun(*args, **kwargs)


def _hush_rehearsals() -> None:
    """Makes flax's scan call its body without logs the first time.

    `nn.scan` traces the body twice: once to find what the loop does not change, of which trace
    nothing else is kept, and then for the loop. Flax 0.12.8 would log what does not depend on the
    iteration in both; 0.12.12 refuses every effect in the first. Flax has no hook
    there, and inner jits are cached: their traces of a rehearsal must not be those of the loop, so
    nothing that jaxlog does at a log call would be enough.
    """
    if not hasattr(axes_scan.scan, "__jaxlog__"):
        axes_scan.scan = _with_silent_rehearsal(axes_scan.scan)


def _with_silent_rehearsal(scan: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(scan)
    def scan_once_heard(fn: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        def scanned(*operands: Any) -> Any:
            rehearses = kwargs.get("check_constancy_invariants", True) and is_captured()

            def body(*inner: Any) -> Any:
                nonlocal rehearses
                quiet, rehearses = rehearses, False
                with silent() if quiet else contextlib.nullcontext():
                    return fn(*inner)

            return scan(body, *args, **kwargs)(*operands)

        return scanned

    setattr(scan_once_heard, "__jaxlog__", True)  # noqa: B010 - functions have no such attribute
    return scan_once_heard
