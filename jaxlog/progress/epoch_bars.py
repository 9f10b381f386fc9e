"""What every progress bar shows, and when: the hooks of a loop as bars that advance."""

from __future__ import annotations

import contextlib
import sys
from typing import IO, Any

from jaxlog.callbacks import LoopView
from jaxlog.errors import LogArgumentError
from jaxlog.progress.bar import Bar, LineBar, Outline

__all__ = ["ProgressBar"]


class ProgressBar:
    """One bar an epoch, one below it for validation and test; shows what `prog_bar=True` logged.

    A subclass says how a bar is drawn. None of them waits for the device while an epoch runs.
    """

    def __init__(self, *, refresh_secs: float, leave: bool, file: IO[str] | None) -> None:
        """A bar of nothing yet.

        Args:
            refresh_secs: least time between two redraws, in seconds.
            leave: whether the bar of a finished epoch stays.
            file: where lines go that stand for bars; default `sys.stderr`.
        """
        if refresh_secs < 0:
            raise LogArgumentError(
                f"{type(self).__name__}(refresh_secs={refresh_secs!r}): takes seconds, from 0 on"
            )
        self.refresh_secs = refresh_secs
        self.leave = leave
        self._file = file
        self._train: Bar | None = None
        self._evaluation: Bar | None = None

    def draws(self) -> bool:
        """Whether there is a terminal or a notebook to draw in; else a line an epoch is written."""
        raise NotImplementedError

    def drawn(self, outline: Outline, *, nested: bool) -> Bar:
        """A bar on the screen.

        Args:
            outline: what it shows.
            nested: whether it stands below another, and goes when it is finished.
        """
        raise NotImplementedError

    def get_metrics(self, loop: LoopView) -> dict[str, Any]:
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

    def on_train_epoch_start(self, loop: LoopView) -> None:
        """Draws the bar of an epoch."""
        self._close()
        count = loop.num_epochs
        of = f"/{loop.current_epoch - loop.epochs_done + count - 1}" if count else ""
        self._train = self._bar(loop, f"Epoch {loop.current_epoch}{of}", loop.total_batches)

    def on_train_batch_end(self, loop: LoopView, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Moves the bar on."""
        del loop, outputs, batch, batch_idx
        if self._train is not None:
            self._train.advance()

    def on_train_epoch_end(self, loop: LoopView) -> None:
        """Shows the epoch's final values; the one place where the bar waits for them."""
        if self._train is not None:
            loop.progress_bar_metrics  # noqa: B018 - reading fetches, so that the last draw is exact
            bar, self._train = self._train, None
            bar.finish()

    def on_validation_batch_start(
        self, loop: LoopView, batch: Any, batch_idx: int, dataloader_idx: int
    ) -> None:
        """Draws the bar of a validation loader."""
        del batch
        self._begin_evaluation(loop, "Validation", batch_idx, dataloader_idx)

    def on_validation_batch_end(
        self, loop: LoopView, outputs: Any, batch: Any, batch_idx: int, dataloader_idx: int
    ) -> None:
        """Moves the bar on."""
        del loop, outputs, batch, batch_idx, dataloader_idx
        self._advance_evaluation()

    def on_validation_end(self, loop: LoopView) -> None:
        """Takes the validation bar away."""
        del loop
        self._end_evaluation()

    def on_test_batch_start(
        self, loop: LoopView, batch: Any, batch_idx: int, dataloader_idx: int
    ) -> None:
        """Draws the bar of a test loader."""
        del batch
        self._begin_evaluation(loop, "Testing", batch_idx, dataloader_idx)

    def on_test_batch_end(
        self, loop: LoopView, outputs: Any, batch: Any, batch_idx: int, dataloader_idx: int
    ) -> None:
        """Moves the bar on."""
        del loop, outputs, batch, batch_idx, dataloader_idx
        self._advance_evaluation()

    def on_test_end(self, loop: LoopView) -> None:
        """Takes the test bar away."""
        del loop
        self._end_evaluation()

    def on_exception(self, loop: LoopView, exception: BaseException) -> None:
        """Leaves the terminal in order."""
        del loop, exception
        self._close()

    def teardown(self, loop: LoopView) -> None:
        """Leaves the terminal in order."""
        del loop
        self._close()

    # ---- bars -----------------------------------------------------------------------------------

    def _bar(self, loop: LoopView, label: str, total: int | None, *, nested: bool = False) -> Bar:
        values = dict[str, Any] if nested else lambda: self.get_metrics(loop)
        outline = Outline(label, total, self.refresh_secs, values)
        if not loop.is_main_process:
            return Bar(outline)
        if self.draws():
            return self.drawn(outline, nested=nested)
        return Bar(outline) if nested else LineBar(outline, self._file or sys.stderr)

    def _begin_evaluation(self, loop: LoopView, label: str, batch_idx: int, loader: int) -> None:
        if batch_idx:
            return
        self._end_evaluation()
        named = f"{label} {loader}" if loader else label
        # Alone it stays, as an epoch does; below an epoch it goes.
        nested = self._train is not None
        if self._train is not None:
            self._train.draw()  # where it stopped, which may be since its last redraw
        self._evaluation = self._bar(loop, named, loop.total_batches, nested=nested)

    def _advance_evaluation(self) -> None:
        if self._evaluation is not None:
            self._evaluation.advance()

    def _end_evaluation(self) -> None:
        if self._evaluation is not None:
            bar, self._evaluation = self._evaluation, None
            bar.finish()

    def _close(self) -> None:
        bars = (self._train, self._evaluation)
        self._train = self._evaluation = None
        with contextlib.ExitStack() as stack:  # the last first, and each though another fails
            for bar in bars:
                if bar is not None:
                    stack.callback(bar.finish)
