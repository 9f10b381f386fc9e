"""`LoopView`: what callbacks and progress bars may read of a loop, and do with it."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import Any, Protocol, Unpack

from jax.typing import ArrayLike

from jaxlog.logs import LogOptions

__all__ = ["LoopView"]


class LoopView(Protocol):
    """The part of `Loop` that callbacks and bars rely on; a test can stand in for the loop with it.

    Example:
        >>> import jaxlog
        >>> class Announce(jaxlog.Callback):
        ...     def on_train_epoch_end(self, loop: jaxlog.LoopView):
        ...         print("epoch", loop.current_epoch, "step", loop.global_step)
        >>> with jaxlog.Loop(False, progress_bar=False, callbacks=[Announce()]) as loop:
        ...     for _ in loop.train([0, 1, 2]):
        ...         pass
        epoch 0 step 3
    """

    @property
    def should_stop(self) -> bool:
        """Whether `epochs` ends after this epoch."""
        ...

    @should_stop.setter
    def should_stop(self, value: bool) -> None: ...

    @property
    def loggers(self) -> list[Any]:
        """The loggers, as given to the loop."""
        ...

    @property
    def callback_metrics(self) -> Mapping[str, float]:
        """Everything logged, by tag and by bare name; fetches what it needs."""
        ...

    @property
    def logged_metrics(self) -> Mapping[str, float]:
        """What was handed to the loggers."""
        ...

    @property
    def progress_bar_metrics(self) -> Mapping[str, float]:
        """What was logged with `prog_bar=True`."""
        ...

    @property
    def global_step(self) -> int:
        """Training batches finished; inside a training batch, its index over all epochs."""
        ...

    @property
    def current_epoch(self) -> int:
        """Epochs finished; inside an epoch, its number."""
        ...

    @property
    def num_epochs(self) -> int | None:
        """How many epochs the running `epochs` was asked for."""
        ...

    @property
    def epochs_done(self) -> int:
        """How many epochs the running `epochs` has finished."""
        ...

    @property
    def total_batches(self) -> int | None:
        """How many batches the running loader has, if it has a length."""
        ...

    @property
    def batch_size(self) -> float | None:
        """The size of the running batch."""
        ...

    @property
    def is_logging_step(self) -> bool:
        """Whether the row of the running training batch is written."""
        ...

    @property
    def is_main_process(self) -> bool:
        """Whether this process writes and draws."""
        ...

    @property
    def sanity_checking(self) -> bool:
        """Whether `sanity_check` is running."""
        ...

    @property
    def blocked_secs(self) -> float:
        """Seconds the loop has spent on logging, on its own thread."""
        ...

    def progress_values(self) -> Mapping[str, float]:
        """As `progress_bar_metrics`, but what has arrived by now: never waits for the device."""
        ...

    def log(
        self,
        name: str,
        value: Any,
        *,
        batch_size: ArrayLike | None = None,
        step: int | None = None,
        **options: Unpack[LogOptions],
    ) -> None:
        """Logs a value on the host, with the defaults of the running hook."""
        ...

    def log_image(
        self, tag: str, image: Any, *, dataformats: str | None = None, step: int | None = None
    ) -> None:
        """Hands a picture to every logger, in order with the rows around it."""
        ...

    def log_audio(
        self, tag: str, samples: Any, *, sample_rate: int, step: int | None = None
    ) -> None:
        """Hands sound to every logger."""
        ...

    def log_text(self, tag: str, text: str, *, step: int | None = None) -> None:
        """Hands Markdown to every logger."""
        ...

    def log_histogram(
        self, tag: str, values: Any, *, edges: Any = None, step: int | None = None
    ) -> None:
        """Hands numbers, or with `edges` their counts, to every logger."""
        ...

    def log_hyperparams(self, params: Any, metrics: Mapping[str, Any] | None = None) -> None:
        """Hands hyperparameters to every logger."""
        ...

    def flush(self) -> None:
        """Fetches and writes everything logged; returns when loggers have it on storage."""
        ...

    def hook(self, name: str) -> AbstractContextManager[None]:
        """`log` calls inside take the defaults of another hook."""
        ...
