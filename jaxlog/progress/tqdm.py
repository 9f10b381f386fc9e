"""A progress bar drawn by tqdm, in a terminal or a notebook."""

from __future__ import annotations

import importlib.util
import sys
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, TextIO

if TYPE_CHECKING:
    from jaxlog.loop import Loop

__all__ = ["TqdmProgressBar"]


class TqdmProgressBar:
    """One bar an epoch, one below it for validation and test; shows what `prog_bar=True` logged.

    It never waits for the device while an epoch runs: it shows the latest values that have
    arrived, a few steps old. Where output is no terminal and no notebook it writes one line an
    epoch instead.

    Args:
        refresh_secs: least time between two redraws, in seconds.
        leave: whether the bar of a finished epoch stays.
        file: where to draw; default `sys.stderr`.

    Example:
        Override `get_metrics` to choose what is shown:

        >>> import jaxlog
        >>> class Bar(jaxlog.TqdmProgressBar):
        ...     def get_metrics(self, loop):
        ...         items = super().get_metrics(loop)
        ...         items.pop("v_num", None)
        ...         return items
        >>> loop = jaxlog.Loop(logger=False, progress_bar=Bar())
    """

    def __init__(
        self, *, refresh_secs: float = 0.1, leave: bool = True, file: TextIO | None = None
    ) -> None:
        self.refresh_secs = refresh_secs
        self.leave = leave
        self._file = file
        self._train: _Bar | None = None
        self._evaluation: _Bar | None = None

    def get_metrics(self, loop: Loop) -> dict[str, Any]:
        """What the bar shows, by name: the logger's version, then what was logged.

        Args:
            loop: the loop; `loop.progress_values()` does not wait, the `loop.*_metrics` do.
        """
        items: dict[str, Any] = {}
        version = getattr(loop.loggers[0], "version", None) if loop.loggers else None
        if version is not None:
            items["v_num"] = str(version)
        items.update(loop.progress_values())
        return items

    # ---- hooks ----------------------------------------------------------------------------------

    def on_train_epoch_start(self, loop: Loop) -> None:
        """Draws the bar of an epoch."""
        self._close()
        count = loop.num_epochs
        of = f"/{loop.current_epoch - loop.epochs_done + count - 1}" if count else ""
        self._train = self._bar(loop, f"Epoch {loop.current_epoch}{of}", loop.total_batches)

    def on_train_batch_end(self, loop: Loop, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Moves the bar on."""
        del loop, outputs, batch, batch_idx
        if self._train is not None:
            self._train.advance()

    def on_train_epoch_end(self, loop: Loop) -> None:
        """Shows the epoch's final values; the one place where the bar waits for them."""
        if self._train is not None:
            loop.progress_bar_metrics  # noqa: B018 - reading fetches, so that the last draw is exact
            self._train.finish()
            self._train = None

    def on_validation_batch_start(
        self, loop: Loop, batch: Any, batch_idx: int, dataloader_idx: int
    ) -> None:
        """Draws the bar of a validation loader."""
        del batch
        self._begin_evaluation(loop, "Validation", batch_idx, dataloader_idx)

    def on_validation_batch_end(
        self, loop: Loop, outputs: Any, batch: Any, batch_idx: int, dataloader_idx: int
    ) -> None:
        """Moves the bar on."""
        del loop, outputs, batch, batch_idx, dataloader_idx
        self._advance_evaluation()

    def on_validation_end(self, loop: Loop) -> None:
        """Takes the validation bar away."""
        del loop
        self._end_evaluation()

    def on_test_batch_start(
        self, loop: Loop, batch: Any, batch_idx: int, dataloader_idx: int
    ) -> None:
        """Draws the bar of a test loader."""
        del batch
        self._begin_evaluation(loop, "Testing", batch_idx, dataloader_idx)

    def on_test_batch_end(
        self, loop: Loop, outputs: Any, batch: Any, batch_idx: int, dataloader_idx: int
    ) -> None:
        """Moves the bar on."""
        del loop, outputs, batch, batch_idx, dataloader_idx
        self._advance_evaluation()

    def on_test_end(self, loop: Loop) -> None:
        """Takes the test bar away."""
        del loop
        self._end_evaluation()

    def on_exception(self, loop: Loop, exception: BaseException) -> None:
        """Leaves the terminal in order."""
        del loop, exception
        self._close()

    def teardown(self, loop: Loop) -> None:
        """Leaves the terminal in order."""
        del loop
        self._close()

    # ---- drawing --------------------------------------------------------------------------------

    def _bar(self, loop: Loop, label: str, total: int | None, *, nested: bool = False) -> _Bar:
        stream = self._file or sys.stderr
        draws = loop.is_main_process and (_in_notebook() or stream.isatty())
        says = loop.is_main_process and not nested
        kind = _DrawnBar if draws else _LineBar if says else _Bar
        return kind(
            label,
            total,
            stream=stream,
            leave=self.leave and not nested,
            refresh_secs=self.refresh_secs,
            values=lambda: self.get_metrics(loop),
        )

    def _begin_evaluation(self, loop: Loop, label: str, batch_idx: int, loader: int) -> None:
        if batch_idx:
            return
        self._end_evaluation()
        named = f"{label} {loader}" if loader else label
        self._evaluation = self._bar(loop, named, loop.total_batches, nested=True)

    def _advance_evaluation(self) -> None:
        if self._evaluation is not None:
            self._evaluation.advance()

    def _end_evaluation(self) -> None:
        if self._evaluation is not None:
            self._evaluation.finish()
            self._evaluation = None

    def _close(self) -> None:
        for bar in (self._evaluation, self._train):
            if bar is not None:
                bar.finish()
        self._evaluation = self._train = None


class _Bar:
    """Counts, and shows nothing."""

    def __init__(
        self,
        label: str,
        total: int | None,
        *,
        stream: TextIO,
        leave: bool,
        refresh_secs: float,
        values: Callable[[], Mapping[str, Any]],
    ) -> None:
        self.label = label
        self.total = total
        self.stream = stream
        self.leave = leave
        self.values = values
        self.count = 0
        self._refresh_secs = refresh_secs
        self._drawn = time.monotonic()

    def advance(self) -> None:
        """One batch more; redraws when it is time."""
        self.count += 1
        now = time.monotonic()
        if now - self._drawn >= self._refresh_secs:
            self._drawn = now
            self.draw()

    def draw(self) -> None:
        """Shows where things stand."""

    def finish(self) -> None:
        """Shows the end of it."""


class _LineBar(_Bar):
    """One line when it is over."""

    def finish(self) -> None:
        of = "" if self.total is None else f"/{self.total}"
        shown = "".join(f", {name}={_shown(value)}" for name, value in self.values().items())
        print(f"{self.label}: {self.count}{of} batches{shown}", file=self.stream, flush=True)


class _DrawnBar(_Bar):
    """A tqdm bar."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._bar = _tqdm()(
            total=self.total,
            desc=self.label,
            file=self.stream,
            leave=self.leave,
            dynamic_ncols=True,
            mininterval=0,
            unit="batch",
        )

    def draw(self) -> None:
        values = {name: _shown(value) for name, value in self.values().items()}
        self._bar.set_postfix(values, refresh=False)
        self._bar.update(self.count - self._bar.n)

    def finish(self) -> None:
        self.draw()
        self._bar.refresh()
        self._bar.close()


def _shown(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def _in_notebook() -> bool:
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    return type(shell).__name__ == "ZMQInteractiveShell"


def _tqdm() -> Any:
    if _in_notebook() and importlib.util.find_spec("ipywidgets") is not None:
        from tqdm.notebook import tqdm  # noqa: PLC0415 - needs ipywidgets
    else:
        from tqdm import tqdm  # noqa: PLC0415 - drawn bars only
    return tqdm
