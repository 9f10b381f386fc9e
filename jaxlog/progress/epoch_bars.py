"""`ProgressBar`: maps the hooks of a loop to bars, one for each epoch and evaluation loader."""

from __future__ import annotations

import contextlib
import sys
from typing import IO, Any

from jaxlog.callbacks import LoopView
from jaxlog.errors import LogArgumentError
from jaxlog.progress.bar import Bar, LineBar, Outline

__all__ = ["ProgressBar"]


class ProgressBar:
    """One bar per epoch and one below it for validation and test, with `prog_bar=True` values.

    Subclasses define how a bar is drawn. No bar waits for the device while an epoch runs.
    """

    def __init__(self, *, refresh_secs: float, leave: bool, file: IO[str] | None) -> None:
        """A progress bar without a running epoch.

        Args:
            refresh_secs: least time between two redraws, in seconds.
            leave: whether the bar of a finished epoch stays on the screen.
            file: where to write; default `sys.stderr`, looked up at each epoch.
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
        """Whether output is a terminal or notebook; otherwise one line per epoch is written."""
        raise NotImplementedError

    def drawn(self, outline: Outline, *, nested: bool) -> Bar:
        """A bar on the screen.

        Args:
            outline: what it shows.
            nested: whether it is below another bar and disappears when it is finished.
        """
        raise NotImplementedError

    def get_metrics(self, loop: LoopView) -> dict[str, Any]:
        """The values to show, by name: the logger's version, then logged values.

        Args:
            loop: the loop; `loop.progress_values()` does not wait for the device, the mappings
                `loop.*_metrics` do.
        """
        items: dict[str, Any] = {}
        version = getattr(loop.loggers[0], "version", None) if loop.loggers else None
        if version is not None:
            items["v_num"] = str(version)
        items.update(loop.progress_values())
        return items

    # ---- hooks ----------------------------------------------------------------------------------

    def on_train_epoch_start(self, loop: LoopView) -> None:
        """Starts the bar of an epoch."""
        self._close()
        count = loop.num_epochs
        of = f"/{loop.current_epoch - loop.epochs_done + count - 1}" if count else ""
        self._train = self._bar(loop, f"Epoch {loop.current_epoch}{of}", loop.total_batches)

    def on_train_batch_end(self, loop: LoopView, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Advances the bar."""
        del loop, outputs, batch, batch_idx
        if self._train is not None:
            self._train.advance()

    def on_train_epoch_end(self, loop: LoopView) -> None:
        """Shows the epoch's final values; the only place where the bar waits for the device."""
        if self._train is not None:
            loop.progress_bar_metrics  # noqa: B018 - reading fetches, so that the last draw is exact
            bar, self._train = self._train, None
            bar.finish()

    def on_validation_batch_start(
        self, loop: LoopView, batch: Any, batch_idx: int, dataloader_idx: int
    ) -> None:
        """Starts the bar of a validation loader at its first batch."""
        del batch
        self._begin_evaluation(loop, "Validation", batch_idx, dataloader_idx)

    def on_validation_batch_end(
        self, loop: LoopView, outputs: Any, batch: Any, batch_idx: int, dataloader_idx: int
    ) -> None:
        """Advances the bar."""
        del loop, outputs, batch, batch_idx, dataloader_idx
        self._advance_evaluation()

    def on_validation_end(self, loop: LoopView) -> None:
        """Ends the validation bar."""
        del loop
        self._end_evaluation()

    def on_test_batch_start(
        self, loop: LoopView, batch: Any, batch_idx: int, dataloader_idx: int
    ) -> None:
        """Starts the bar of a test loader at its first batch."""
        del batch
        self._begin_evaluation(loop, "Testing", batch_idx, dataloader_idx)

    def on_test_batch_end(
        self, loop: LoopView, outputs: Any, batch: Any, batch_idx: int, dataloader_idx: int
    ) -> None:
        """Advances the bar."""
        del loop, outputs, batch, batch_idx, dataloader_idx
        self._advance_evaluation()

    def on_test_end(self, loop: LoopView) -> None:
        """Ends the test bar."""
        del loop
        self._end_evaluation()

    def on_exception(self, loop: LoopView, exception: BaseException) -> None:
        """Ends all bars, so that the terminal is in a normal state."""
        del loop, exception
        self._close()

    def teardown(self, loop: LoopView) -> None:
        """Ends all bars, so that the terminal is in a normal state."""
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
        # The bar of an evaluation within an epoch disappears at its end; one on its own stays.
        nested = self._train is not None
        if self._train is not None:
            self._train.draw()  # its last redraw may be up to refresh_secs old
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
        # ExitStack finishes the nested bar first, and the other one also if that raises.
        with contextlib.ExitStack() as stack:
            for bar in bars:
                if bar is not None:
                    stack.callback(bar.finish)
