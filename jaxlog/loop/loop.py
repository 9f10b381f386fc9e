"""`Loop`: the host side of logging, as the user sees it; `driver.py` and `fetch.py` do the work."""

from __future__ import annotations

import contextlib
import functools
import time
import types
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Self, TypeVar, Unpack, overload

import jax
from jax.typing import ArrayLike

from jaxlog.loggers import CSVLogger, PerLane, TensorBoardLogger, adapt
from jaxlog.logs import LogOptions, NanPolicy, find_hook, takes_options
from jaxlog.loop.cost import Cost
from jaxlog.loop.dispatch import Dispatcher
from jaxlog.loop.driver import Driver
from jaxlog.loop.fetch import Fetcher
from jaxlog.loop.host_log import HostLog
from jaxlog.loop.loaders import Loader, iterable, loaders_of
from jaxlog.loop.progress_values import ProgressValues
from jaxlog.loop.scopes import LoopState
from jaxlog.progress import TqdmProgressBar
from jaxlog.steps import StepDecorator
from jaxlog.windows import NonFinite, Settings, check_count, lane_names

__all__ = ["Loop"]

T = TypeVar("T")


class Loop:
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
        window_secs: fetch earlier when that many seconds have passed (one process only). Time in
            which a step is compiled does not count.
        lanes: how many runs are trained side by side, or their names. Steps are written for one
            lane; `jax.vmap` maps them, with `in_axes=` and `out_axes=` given to
            `training_step(...)` and its siblings, default 0. Each lane is a run of its own for the
            loggers; the mappings hold every lane's values, `name/lane_0`, and their mean, `name`.
        clock: the wall time of rows, seconds since the epoch.

    Attributes:
        loggers: the loggers, as given.
        callbacks: the callbacks, as given.
        log_every_n_steps: as given.

    Raises:
        LogArgumentError: an argument out of range.
        LoggerError: a logger without `log_metrics`.

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
        nan_policy: NanPolicy = "keep",
        batch_size_fn: Callable[[Any], float | None] | None = None,
        progress_bar: Any = True,
        callbacks: Iterable[Any] = (),
        window_steps: int = 64,
        window_secs: float = 5.0,
        lanes: int | Iterable[str] | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        settings = Settings(
            log_every_n_steps=log_every_n_steps,
            accumulate_grad_batches=accumulate_grad_batches,
            nan_policy=nan_policy,
            batch_size_fn=batch_size_fn,
            window_steps=window_steps,
            window_secs=window_secs,
            lanes=lane_names(lanes),
            clock=clock,
        )
        self.log_every_n_steps = log_every_n_steps
        self.loggers: list[Any] = _loggers(logger)
        self.callbacks: list[Any] = list(callbacks)
        bar = _progress_bar(progress_bar)
        # The bar comes last, so that it shows what callbacks logged.
        listeners = [*self.callbacks, *([] if bar is None else [bar])]
        writing = [adapt(one) for one in self.loggers]
        if settings.lanes:
            writing = [PerLane(one, settings.lanes) for one in writing]
        self._fetcher = Fetcher(writing if self.is_main_process else [], settings)
        self._dispatcher = Dispatcher(self, listeners)
        self._driver = Driver(settings, self._fetcher, self._dispatcher)
        self._host_log = HostLog(self._driver, self._dispatcher, self._fetcher)
        self._progress = ProgressValues(self._driver.stages, self._fetcher)
        self._is_set_up = False

    # ---- steps ----------------------------------------------------------------------------------

    @property
    def training_step(self) -> StepDecorator:
        """`loop.training_step(fn)`: `fn` captured and compiled; call it inside `loop.train`.

        Its arguments are `transform=` (default `jax.jit`), `scan=True` for a step that takes many
        iterations in one program, and what the transform takes, such as `donate_argnums=0`, said of
        `fn`'s own arguments. Without `fn` it is a decorator with arguments. `help()` of this
        attribute of a loop, a `jaxlog.steps.StepDecorator`, says more.
        """
        return StepDecorator(self._driver.stages["train"])

    @property
    def validation_step(self) -> StepDecorator:
        """As `training_step`, for `loop.validate`."""
        return StepDecorator(self._driver.stages["validate"])

    @property
    def test_step(self) -> StepDecorator:
        """As `training_step`, for `loop.test`."""
        return StepDecorator(self._driver.stages["test"])

    # ---- iterators ------------------------------------------------------------------------------

    def epochs(self, count: int) -> Iterator[int]:
        """Yields the number of each of `count` more epochs, from `current_epoch` on.

        Raises:
            LogArgumentError: `count` is not an int, or negative.
            LoopError: inside another `epochs`, or after `close`.
        """
        check_count("count", count, least=0)
        return self._driver.epochs(count)

    def train(self, batches: Iterable[T]) -> Iterator[T]:
        """Yields training batches; one pass is an epoch, or part of the one `epochs` runs.

        Raises:
            LoopError: not an iterable, inside another `train`, or after `close`.
        """
        return self._driver.train(Loader(iterable(batches)))

    @overload
    def validate(self, batches: Mapping[str, Iterable[T]]) -> Iterator[T]: ...
    @overload
    def validate(self, batches: list[list[T]]) -> Iterator[T]: ...
    @overload
    def validate(self, batches: Iterable[T]) -> Iterator[T]: ...
    def validate(self, batches: Any) -> Iterator[Any]:
        """Yields validation batches; may run inside training, whose own values it leaves alone.

        Args:
            batches: an iterable of batches, or several: a dict of loaders, or a list of lists or
                of loader objects. Several append `/dataloader_idx_i`, or `/name` from a dict.

        Raises:
            LoopError: not an iterable, inside another `validate`, or after `close`.
        """
        return self._driver.evaluate("validate", loaders_of(batches))

    @overload
    def test(self, batches: Mapping[str, Iterable[T]]) -> Iterator[T]: ...
    @overload
    def test(self, batches: list[list[T]]) -> Iterator[T]: ...
    @overload
    def test(self, batches: Iterable[T]) -> Iterator[T]: ...
    def test(self, batches: Any) -> Iterator[Any]:
        """As `validate`, for test batches; outside of `epochs` the metric mappings start afresh."""
        return self._driver.evaluate("test", loaders_of(batches))

    def sanity_check(self, batches: Any) -> Iterator[Any]:
        """As `validate`, but nothing is kept of what is logged: to see validation run before
        training.

        Only the hooks `on_sanity_check_start` and `on_sanity_check_end` run.

        Raises:
            LoopError: not an iterable, inside a phase, or after `close`.
        """
        return self._driver.sanity_check(loaders_of(batches))

    # ---- logging on the host --------------------------------------------------------------------

    @takes_options
    def log(
        self,
        name: str,
        value: Any,
        *,
        batch_size: ArrayLike | None = None,
        step: int | None = None,
        **options: Unpack[LogOptions],
    ) -> None:
        """Logs a value on the host: a number, a `jax.Array` (not waited for), or a `Metric`.

        Args:
            name: the key.
            value: shape ().
            batch_size: its weight in means; default the size of the running batch, 1 outside.
            step: an x value of its own: the value is written as it is, under its bare name, from
                anywhere, and takes part in no reduction.
            **options: as in `jaxlog.log`, with the defaults of the hook it is called in.

        Raises:
            LogArgumentError: a name, value or option that cannot be logged.
            HookError: outside of any phase, or in a hook that does not allow it.
            SchemaError: the key was logged before with other options, or from another hook.
        """
        if step is not None:
            self._host_log.log_at_step(name, value, step, options)
        else:
            self._host_log.log(name, value, batch_size, options)

    def log_image(
        self, tag: str, image: Any, *, dataformats: str | None = None, step: int | None = None
    ) -> None:
        """Hands a picture to every logger, in order with the rows around it.

        Args:
            tag: the name.
            image: as `Logger.log_image` takes it; may be a `jax.Array`, which is not waited for.
            dataformats: the order of its axes if it is not the usual one, such as `"CHW"`.
            step: its x value; default that of the row of the running training batch, elsewhere the
                last finished step.
        """
        options = {} if dataformats is None else {"dataformats": dataformats}
        self._host_log.call_loggers("log_image", tag, image, step, **options)

    def log_audio(
        self, tag: str, samples: Any, *, sample_rate: int, step: int | None = None
    ) -> None:
        """Hands sound to every logger; arguments as `Logger.log_audio`, `step` as `log_image`."""
        self._host_log.call_loggers("log_audio", tag, samples, step, sample_rate=sample_rate)

    def log_text(self, tag: str, text: str, *, step: int | None = None) -> None:
        """Hands Markdown to every logger; `step` as `log_image`."""
        self._host_log.call_loggers("log_text", tag, text, step)

    def log_histogram(
        self, tag: str, values: Any, *, edges: Any = None, step: int | None = None
    ) -> None:
        """Hands numbers, or with `edges` their counts, to every logger; `step` as `log_image`."""
        options = {} if edges is None else {"edges": edges}
        self._host_log.call_loggers("log_histogram", tag, values, step, **options)

    def log_hyperparams(self, params: Any, metrics: Mapping[str, Any] | None = None) -> None:
        """Hands hyperparameters to every logger; arguments as `Logger.log_hyperparams`."""
        options = {} if metrics is None else {"metrics": dict(metrics)}
        self._host_log.call_loggers("log_hyperparams", None, params, None, **options)

    @contextlib.contextmanager
    def hook(self, name: str) -> Iterator[None]:
        """`loop.log` calls inside take the defaults of the hook `name`.

        Raises:
            HookError: no such hook.
        """
        with self._dispatcher.inside(find_hook(name).name):
            yield

    # ---- results --------------------------------------------------------------------------------

    @property
    def callback_metrics(self) -> Mapping[str, float]:
        """Everything logged, by tag and by bare name; fetches what it needs, one copy a window.

        With several processes it fetches nothing, since one of them may read it alone: inside a
        phase it is as of the latest window.
        """
        return self._read(lambda: self._fetcher.latest.callback)

    @property
    def logged_metrics(self) -> Mapping[str, float]:
        """What was handed to the loggers."""
        return self._read(lambda: self._fetcher.latest.logged)

    @property
    def progress_bar_metrics(self) -> Mapping[str, float]:
        """What was logged with `prog_bar=True`."""
        return self._read(lambda: self._fetcher.latest.progress_bar)

    def progress_values(self) -> Mapping[str, float]:
        """As `progress_bar_metrics`, but what has arrived by now: never waits for the device."""
        return self._progress.latest()

    @property
    def nonfinite(self) -> Mapping[str, NonFinite]:
        """By name, how often a value was NaN or infinite, and at which step first."""
        return self._read(lambda: self._fetcher.watch.found)

    def _read(self, mapping: Callable[[], Mapping[str, T]]) -> Mapping[str, T]:
        self._driver.sync(reading=True)
        return types.MappingProxyType(dict(mapping()))

    def cost(self) -> Cost:
        """What logging has cost this run so far; costs nothing to ask, and fetches nothing.

        What is still on the device, or on its way, is counted when it has been taken in.
        """
        return self._fetcher.cost()

    @property
    def blocked_secs(self) -> float:
        """Seconds the loop has spent waiting for fetched values and handing them to loggers."""
        return self._fetcher.cost().blocked_secs

    # ---- position -------------------------------------------------------------------------------

    @property
    def global_step(self) -> int:
        """Training batches finished; inside a training batch, its index over all epochs."""
        return self._driver.global_step

    @property
    def current_epoch(self) -> int:
        """Epochs finished; inside an epoch, its number."""
        self._driver.run_deferred()
        return self._driver.current_epoch

    @property
    def num_epochs(self) -> int | None:
        """How many epochs the running `epochs` was asked for."""
        return self._driver.num_epochs

    @property
    def epochs_done(self) -> int:
        """How many epochs the running `epochs` has finished."""
        return self._driver.epochs_done

    @property
    def should_stop(self) -> bool:
        """Whether `epochs` ends after this epoch; callbacks may set it."""
        return self._driver.should_stop

    @should_stop.setter
    def should_stop(self, value: bool) -> None:
        self._driver.should_stop = value

    @property
    def sanity_checking(self) -> bool:
        """Whether `sanity_check` is running."""
        return self._driver.sanity_checking

    @property
    def is_logging_step(self) -> bool:
        """Whether the row of the running training batch is written."""
        driver = self._driver
        group = driver.stages["train"].group
        return driver.settings.should_write_batch("train", driver.global_step, group)

    @property
    def is_main_process(self) -> bool:
        """Whether this process writes and draws."""
        return jax.process_index() == 0

    @property
    def batch_size(self) -> float | None:
        """The size of the running batch; None if it has no array, or none is running."""
        stage = self._driver.running
        return None if stage is None else stage.size

    @property
    def total_batches(self) -> int | None:
        """How many batches the running loader has, if it has a length."""
        loader = self._driver.loader
        return None if loader is None else loader.total

    @property
    def dataloader_idx(self) -> int:
        """Index of the running loader."""
        return self._driver.dataloader_idx

    # ---- resuming and durability ----------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """Counters and accumulators, as plain data and numpy arrays, to resume from."""
        return self._driver.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Resumes: counters go on, and the epoch under way keeps what it had accumulated.

        Raises:
            LoopError: `state` is not from `state_dict`, or the loop is inside a phase.
        """
        self._driver.load_state_dict(state)

    def flush(self) -> None:
        """Fetches and writes everything logged; returns when loggers have it on storage.

        Raises:
            LoggerError: a logger failed, now or in the background.
        """
        self._driver.flush()
        self._fetcher.flush()

    def close(self) -> None:
        """Ends what is open, flushes and closes the loggers; a second call does nothing.

        Raises:
            LoggerError: a logger failed, now or in the background.
        """
        state = self._driver.state
        if state is LoopState.CLOSED:
            return
        with contextlib.ExitStack() as stack:  # each though one before it fails
            stack.callback(self._dispatcher.dispatch, "teardown")
            failed = state is LoopState.INTERRUPTED
            stack.callback(self._fetcher.close, "failed" if failed else "success")
            self._driver.finish()

    def __enter__(self) -> Self:
        if not self._is_set_up:
            self._is_set_up = True
            self._dispatcher.dispatch("setup")
        return self

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        if error is None:
            self.close()
            return
        self._driver.state = LoopState.INTERRUPTED
        for what, action in (
            ("on_exception", functools.partial(self._dispatcher.dispatch, "on_exception", error)),
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
