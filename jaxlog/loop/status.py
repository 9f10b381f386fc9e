"""What callbacks, bars and user code may read of a loop."""

from __future__ import annotations

import types
from collections.abc import Mapping

import jax

from jaxlog.loop.cost import Cost
from jaxlog.loop.nonfinite import NonFinite
from jaxlog.loop.pipeline import Pipeline
from jaxlog.loop.progress import ProgressValues
from jaxlog.loop.run import Run

__all__ = ["Status"]


class Status:
    """The reading half of a `Loop`: results and counters."""

    pipeline: Pipeline
    _run: Run
    _progress: ProgressValues

    # ---- results --------------------------------------------------------------------------------

    @property
    def callback_metrics(self) -> Mapping[str, float]:
        """Everything logged, by tag and by bare name; fetches what it needs, one copy a window.

        With several processes it fetches nothing, since one of them may read it alone: inside a
        phase it is as of the latest window.
        """
        return self._mapping("callback")

    @property
    def logged_metrics(self) -> Mapping[str, float]:
        """What was handed to the loggers."""
        return self._mapping("logged")

    @property
    def progress_bar_metrics(self) -> Mapping[str, float]:
        """What was logged with `prog_bar=True`."""
        return self._mapping("progress_bar")

    def _mapping(self, which: str) -> Mapping[str, float]:
        self._run.sync(reading=True)
        return types.MappingProxyType(dict(getattr(self.pipeline.results, which)))

    def progress_values(self) -> Mapping[str, float]:
        """As `progress_bar_metrics`, but what has arrived by now: never waits for the device."""
        return self._progress.latest()

    # ---- where the loop stands ------------------------------------------------------------------

    @property
    def nonfinite(self) -> Mapping[str, NonFinite]:
        """By name, how often a value was NaN or infinite, and at which step first."""
        self._run.sync(reading=True)
        return types.MappingProxyType(dict(self.pipeline.watch.found))

    @property
    def blocked_secs(self) -> float:
        """Seconds the loop has spent waiting for fetched values and handing them to loggers."""
        return self.pipeline.cost().blocked_secs

    def cost(self) -> Cost:
        """What logging has cost this run so far; costs nothing to ask, and fetches nothing.

        What is still on the device, or on its way, is counted when it has been taken in.
        """
        return self.pipeline.cost()

    @property
    def should_stop(self) -> bool:
        """Whether `epochs` ends after this epoch; callbacks may set it."""
        return self._run.should_stop

    @should_stop.setter
    def should_stop(self, value: bool) -> None:
        self._run.should_stop = value

    @property
    def sanity_checking(self) -> bool:
        """Whether `sanity_check` is running."""
        return self._run.sanity_checking

    @property
    def is_logging_step(self) -> bool:
        """Whether the row of the running training batch is one that is written."""
        group = self._run.recorders["train"].group
        return self._run.settings.is_written(self.global_step, group)

    @property
    def batch_size(self) -> float | None:
        """The size of the running batch; None where it has no array, or none is running."""
        return self._run.stack[-1].size if self._run.stack else None

    @property
    def global_step(self) -> int:
        """Training batches finished; inside a training batch, its index over all epochs."""
        return self._run.global_step

    @property
    def current_epoch(self) -> int:
        """Epochs finished; inside an epoch, its number."""
        self._run.settle()
        return self._run.current_epoch

    @property
    def num_epochs(self) -> int | None:
        """How many epochs the running `epochs` was asked for."""
        return self._run.num_epochs

    @property
    def epochs_done(self) -> int:
        """How many epochs the running `epochs` has finished."""
        return self._run.epochs_done

    @property
    def is_main_process(self) -> bool:
        """Whether this process writes and draws."""
        return jax.process_index() == 0

    @property
    def total_batches(self) -> int | None:
        """How many batches the running loader has, where it has a length."""
        loader = self._run.loader
        return None if loader is None else loader.total

    @property
    def dataloader_idx(self) -> int:
        """Index of the running loader."""
        return self._run.dataloader_idx
