"""`StepDecorator`: what `loop.training_step`, `validation_step` and `test_step` are."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any, Literal, ParamSpec, TypeVar, overload

import jax

from jaxlog.errors import LogArgumentError
from jaxlog.steps.compiled_step import CompiledStep
from jaxlog.steps.scan_step import ScanStep
from jaxlog.steps.stage import Stage

__all__ = ["STEP_HOOKS", "StepDecorator"]

P = ParamSpec("P")
R = TypeVar("R")

STEP_HOOKS = {"train": "training_step", "validate": "validation_step", "test": "test_step"}


class StepDecorator:
    """Makes step functions of one stage: `loop.training_step(fn)`, or a decorator with arguments.

    Example:
        >>> import jaxlog
        >>> loop = jaxlog.Loop(False, progress_bar=False)
        >>> @loop.validation_step
        ... def evaluate(batch):
        ...     jaxlog.log("val_loss", batch.mean())
        >>> loop.validation_step
        <loop.validation_step>
    """

    def __init__(self, stage: Stage) -> None:
        """A decorator for the steps of `stage`."""
        self._stage = stage

    @overload
    def __call__(
        self,
        fn: Callable[P, R],
        *,
        transform: Callable[..., Any] = ...,
        scan: Literal[False] = ...,
        **transform_kwargs: Any,
    ) -> CompiledStep[P, R]: ...

    @overload
    def __call__(
        self, fn: Callable[..., Any], *, scan: Literal[True], **transform_kwargs: Any
    ) -> ScanStep: ...

    @overload
    def __call__(
        self,
        *,
        transform: Callable[..., Any] = ...,
        scan: Literal[False] = ...,
        **transform_kwargs: Any,
    ) -> Callable[[Callable[P, R]], CompiledStep[P, R]]: ...

    @overload
    def __call__(
        self, *, scan: Literal[True], **transform_kwargs: Any
    ) -> Callable[[Callable[..., Any]], ScanStep]: ...

    def __call__(
        self,
        fn: Callable[..., Any] | None = None,
        *,
        transform: Callable[..., Any] = jax.jit,
        scan: bool = False,
        **transform_kwargs: Any,
    ) -> Any:
        """`fn` captured and compiled; call it as before, inside the phase of its stage.

        Args:
            fn: the step; None makes this a decorator with arguments.
            transform: what compiles it, `jax.jit` or something called like it.
            scan: whether one call takes many steps: `fn(carry, x)` returns `(carry, y)`, and the
                result is called with `(carry, xs)` and scans them, as `lax.scan` does, in one
                program. Every iteration is a step, with a row of its own.
            **transform_kwargs: what `transform` takes, said of `fn`'s own arguments, such as
                `donate_argnums=0` or `static_argnames=("train",)`.

        Raises:
            LogArgumentError: `fn` is not callable, or options that exclude each other.
        """
        if fn is None:
            return functools.partial(self._make, transform, transform_kwargs, scan)
        return self._make(transform, transform_kwargs, scan, fn)

    def _make(
        self,
        transform: Callable[..., Any],
        kwargs: Mapping[str, Any],
        scan: bool,  # noqa: FBT001 - bound by partial
        fn: Callable[..., Any],
    ) -> CompiledStep[Any, Any] | ScanStep:
        stage, hook = self._stage, STEP_HOOKS[self._stage.name]
        if scan and (transform is not jax.jit or stage.settings.lanes):
            raise LogArgumentError(
                "scan=True with transform= or Loop(lanes=...): the scan is compiled by jax.jit "
                "as it is; leave one of the two out"
            )
        step: CompiledStep[Any, Any] | ScanStep
        if scan:
            step = ScanStep(stage, fn, hook, kwargs)
        else:
            step = CompiledStep(stage, fn, hook, transform, kwargs)
        # In the order of the calls, which is the same on every process.
        stage.add_step(step)
        return step

    def __repr__(self) -> str:
        return f"<loop.{STEP_HOOKS[self._stage.name]}>"
