"""`Loop`: the host side. Phases, hooks, results; no value crosses but in packed windows."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Self

import jax

from jaxlog.errors import LogArgumentError, LoopError
from jaxlog.loggers import CSVLogger, TensorBoardLogger
from jaxlog.loop.batches import Loader, iterable, loaders_of
from jaxlog.loop.host_log import STEP_HOOKS, HostLog
from jaxlog.loop.lanes import PerLane, lane_names
from jaxlog.loop.phase import Phase
from jaxlog.loop.pipeline import Pipeline
from jaxlog.loop.progress import ProgressValues
from jaxlog.loop.resume import restore_phase, state_of
from jaxlog.loop.run import Run
from jaxlog.loop.scan import LoopScan
from jaxlog.loop.settings import Settings, check_count
from jaxlog.loop.step import LoopStep
from jaxlog.progress import TqdmProgressBar

__all__ = ["Loop"]


class Loop(HostLog):
    """The host loop: opens phases, threads logs through steps, reduces, shows and writes.

    Args:
        logger: a logger, a list of them, None for TensorBoard and CSV files under
            `./jaxlog_logs`, or False for none.
        log_every_n_steps: training rows are written when `(global_step + 1)` is a multiple of it;
            0 writes none. Every step counts in epoch values all the same.
        accumulate_grad_batches: how many training batches make one optimizer step, for a step
            function that applies its update every so many calls (`optax.MultiSteps`). They share
            one row, each value reduced over the group, and count as one step.
        nan_policy: what becomes of a step whose value is NaN or infinite: `"keep"` it, `"skip"` it
            in rows and reductions, or `"raise"` a `NonFiniteError` once it has arrived. Each key's
            first such step is reported (through `logging`), all are counted in `loop.nonfinite`.
        batch_size_fn: tells the number of examples in a batch; None takes the leading dimension of
            its first array.
        progress_bar: True for a `TqdmProgressBar`, False for none, or a bar of your own.
        callbacks: `Callback`s, or plain objects with some of its methods.
        window_steps: how many steps are kept on the device between two fetches.
        window_secs: fetch earlier when that many seconds have passed (one process only).
        lanes: how many runs are trained side by side, or their names. Steps are written for one
            lane; `jax.vmap` maps them, with `in_axes=` and `out_axes=` given to
            `training_step(...)` and its siblings, default 0. Each lane is a run of its own for the
            loggers; the mappings hold every lane's values, `name/lane_0`, and their mean, `name`.

    Raises:
        LogArgumentError: an argument out of range.

    Example:
        >>> import jax, jaxlog
        >>> def train_step(w, batch):
        ...     jaxlog.log("loss", ((batch - w) ** 2).mean(), on_epoch=True)
        ...     return w + 0.5 * (batch.mean() - w)
        >>> logger = jaxlog.MemoryLogger()
        >>> loop = jaxlog.Loop(logger, log_every_n_steps=1, progress_bar=False)
        >>> train_step = loop.training_step(train_step)
        >>> w = jax.numpy.zeros(())
        >>> with loop:
        ...     for epoch in loop.epochs(1):
        ...         for batch in loop.train([jax.numpy.ones(2), jax.numpy.ones(2)]):
        ...             w = train_step(w, batch)
        >>> loop.callback_metrics["loss_epoch"]
        0.625
        >>> logger.rows[0]
        (0, {'loss_step': 1.0, 'epoch': 0.0})
    """

    def __init__(
        self,
        logger: Any = None,
        *,
        log_every_n_steps: int = 50,
        accumulate_grad_batches: int = 1,
        nan_policy: str = "keep",
        batch_size_fn: Callable[[Any], float | None] | None = None,
        progress_bar: Any = True,
        callbacks: Iterable[Any] = (),
        window_steps: int = 64,
        window_secs: float = 5.0,
        lanes: int | Iterable[str] | None = None,
    ) -> None:
        settings = Settings(
            log_every_n_steps=log_every_n_steps,
            accumulate_grad_batches=accumulate_grad_batches,
            nan_policy=nan_policy,
            batch_size_fn=batch_size_fn,
            window_steps=window_steps,
            window_secs=window_secs,
            lanes=lane_names(lanes),
        )
        self.log_every_n_steps = log_every_n_steps
        self.loggers: list[Any] = _loggers(logger)
        self.callbacks: list[Any] = list(callbacks)
        bar = _progress_bar(progress_bar)
        # The bar comes last, so that it shows what callbacks logged.
        super().__init__([*self.callbacks, *([] if bar is None else [bar])])
        self._run = Run(self, settings)
        writing = self.loggers if self.is_main_process else []
        if settings.lanes:
            writing = [
                PerLane(one, settings.lanes) if hasattr(one, "for_lane") else one for one in writing
            ]
        self.pipeline = Pipeline(writing, nan_policy)
        self._progress = ProgressValues(self._run.recorders, self.pipeline)
        self._restored: dict[str, Any] | None = None
        self._is_set_up = False

    # ---- steps ----------------------------------------------------------------------------------

    def training_step(
        self,
        fn: Callable[..., Any] | None = None,
        *,
        transform: Callable[..., Any] = jax.jit,
        scan: bool = False,
        **transform_kwargs: Any,
    ) -> Any:
        """`fn` captured and compiled; call it as before, inside `loop.train`.

        Args:
            fn: the step; None makes this a decorator with arguments.
            transform: what compiles it, `jax.jit` or something called like it.
            scan: whether one call takes many steps: `fn(carry, x)` returns `(carry, y)`, and the
                result is called with `(carry, xs)` and scans them, as `lax.scan` does, in one
                program. Every iteration is a step, with a row of its own.
            **transform_kwargs: what `transform` takes, said of `fn`'s own arguments, such as
                `donate_argnums=0` or `static_argnames=("train",)`.

        Raises:
            LogArgumentError: `fn` is not callable.
        """
        return self._step("train", fn, transform, transform_kwargs, scan=scan)

    def validation_step(
        self,
        fn: Callable[..., Any] | None = None,
        *,
        transform: Callable[..., Any] = jax.jit,
        scan: bool = False,
        **transform_kwargs: Any,
    ) -> Any:
        """As `training_step`, for `loop.validate`."""
        return self._step("validate", fn, transform, transform_kwargs, scan=scan)

    def test_step(
        self,
        fn: Callable[..., Any] | None = None,
        *,
        transform: Callable[..., Any] = jax.jit,
        scan: bool = False,
        **transform_kwargs: Any,
    ) -> Any:
        """As `training_step`, for `loop.test`."""
        return self._step("test", fn, transform, transform_kwargs, scan=scan)

    def _step(
        self,
        stage: str,
        fn: Callable[..., Any] | None,
        transform: Callable[..., Any],
        transform_kwargs: Mapping[str, Any],
        *,
        scan: bool,
    ) -> Any:
        if fn is None:
            return functools.partial(
                self._step,
                stage,
                transform=transform,
                transform_kwargs=transform_kwargs,
                scan=scan,
            )
        recorder, hook = self._run.recorders[stage], STEP_HOOKS[stage]
        if scan and (transform is not jax.jit or recorder.lanes):
            raise LogArgumentError(
                "scan=True with transform= or Loop(lanes=...): the scan is compiled by jax.jit "
                "as it is; leave one of the two out"
            )
        step: LoopStep | LoopScan
        if scan:
            step = LoopScan(recorder, fn, hook, transform_kwargs)
        else:
            step = LoopStep(recorder, fn, hook, transform, transform_kwargs)
        recorder.add_step(step)
        return step

    # ---- iterators ------------------------------------------------------------------------------

    def epochs(self, count: int) -> Iterator[int]:
        """Yields the number of each of `count` more epochs, from `current_epoch` on.

        Raises:
            LogArgumentError: `count` is no int, or negative.
            LoopError: inside another `epochs`, or after `close`.
        """
        check_count("count", count, least=0)
        return self._run.epochs(count)

    def train(self, batches: Iterable[Any]) -> Iterator[Any]:
        """Yields training batches; one pass is an epoch, or part of the one `epochs` runs.

        Raises:
            LoopError: not an iterable, inside another `train`, or after `close`.
        """
        return self._run.train(Loader(iterable(batches)))

    def validate(self, batches: Any) -> Iterator[Any]:
        """Yields validation batches; may run inside training, whose own values it leaves alone.

        Args:
            batches: an iterable of batches, or several: a dict of loaders, or a list of lists or
                of loader objects. Several append `/dataloader_idx_i`, or `/name` from a dict.

        Raises:
            LoopError: not an iterable, inside another `validate`, or after `close`.
        """
        return self._run.evaluate("validate", loaders_of(batches))

    def sanity_check(self, batches: Any) -> Iterator[Any]:
        """As `validate`, but nothing is kept of what is logged: to see validation run before
        training.

        Only the hooks `on_sanity_check_start` and `on_sanity_check_end` run.

        Raises:
            LoopError: not an iterable, inside a phase, or after `close`.
        """
        return self._run.sanity_check(loaders_of(batches))

    def test(self, batches: Any) -> Iterator[Any]:
        """As `validate`, for test batches; outside of `epochs` the metric mappings start afresh."""
        return self._run.evaluate("test", loaders_of(batches))

    # ---- resuming -------------------------------------------------------------------------------

    def forget(self) -> None:
        """Empties the three mappings."""
        self._run.sync()
        self.pipeline.results.clear()

    def state_dict(self) -> dict[str, Any]:
        """Counters and accumulators, as plain data and numpy arrays, to resume from."""
        self._run.sync()
        return state_of(self._run)

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Resumes: counters go on, and the epoch under way keeps what it had accumulated.

        Raises:
            LoopError: `state` is not from `state_dict`, or the loop has already run.
        """
        if self._run.stack or self._run.in_fit:
            raise LoopError("loop.load_state_dict(...) inside a phase; load before loop.epochs")
        self._restored = self._run.load(state)

    def restore(self, phase: Phase) -> None:
        """Gives a new phase the accumulators of a resumed run, once."""
        if self._restored is not None and phase.is_training:
            restore_phase(phase, self._restored)
            self._restored = None

    # ---- durability -----------------------------------------------------------------------------

    def flush(self) -> None:
        """Fetches and writes everything logged; returns when loggers have it on storage.

        Raises:
            LoggerError: a logger failed, now or in the background.
        """
        self._run.sync()
        if not self._run.stack:
            for stage in ("validate", "test"):
                self._run.seal(stage)
        self.pipeline.flush()

    def close(self) -> None:
        """Ends what is open, flushes and closes the loggers; a second call does nothing.

        Raises:
            LoggerError: a logger failed, now or in the background.
        """
        if self._run.closed:
            return
        try:
            self._run.finish()
        finally:
            try:
                self.pipeline.close("failed" if self._run.interrupted else "success")
            finally:
                self.fire("teardown")

    def __enter__(self) -> Self:
        if not self._is_set_up:
            self._is_set_up = True
            self.fire("setup")
        return self

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        if error is None:
            self.close()
            return
        self._run.interrupted = True
        for what, action in (
            ("on_exception", functools.partial(self.fire, "on_exception", error)),
            ("closing the loop", self.close),
        ):
            try:
                action()
            except Exception as other:  # noqa: BLE001 - the first error is the one that matters
                if other is not error:
                    error.add_note(f"and {what} failed: {type(other).__name__}: {other}")


def _loggers(logger: Any) -> list[Any]:
    if logger is None:
        events = TensorBoardLogger(".")
        return [events, CSVLogger(".", version=events.version)]
    if logger is False:
        return []
    return list(logger) if isinstance(logger, (list, tuple)) else [logger]


def _progress_bar(bar: Any) -> Any:
    if bar is True:
        return TqdmProgressBar()
    return None if bar is False else bar
