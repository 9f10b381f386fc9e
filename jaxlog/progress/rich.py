"""A progress bar drawn by rich, in a terminal or a notebook."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Mapping
from typing import Any

from jaxlog.errors import MissingDependencyError
from jaxlog.progress.bar import Bar, Outline, in_notebook, shown
from jaxlog.progress.epoch_bars import ProgressBar

__all__ = ["RichProgressBar"]


class RichProgressBar(ProgressBar):
    """Like `TqdmProgressBar`, in colour: bars, counts, times and values in aligned columns.

    Needs the extra `rich`. In a notebook it also needs ipywidgets, and without them writes one line
    per epoch. Redraws happen at the end of a batch, not on a thread.

    Args:
        refresh_secs: least time between two redraws, in seconds.
        leave: whether the bar of a finished epoch stays on the screen.
        console: a `rich.console.Console` to draw on; default one on `sys.stderr`.

    Raises:
        MissingDependencyError: rich is not installed.
        LogArgumentError: `refresh_secs` is negative.

    Example:
        >>> import jaxlog
        >>> loop = jaxlog.Loop(logger=False, progress_bar=jaxlog.RichProgressBar(leave=False))
    """

    def __init__(
        self, *, refresh_secs: float = 0.1, leave: bool = True, console: Any = None
    ) -> None:
        try:
            from rich.console import Console  # noqa: PLC0415 - an extra
        except ImportError:
            raise MissingDependencyError.for_package("rich", extra="rich") from None
        # Without a console, look up `sys.stderr` at each epoch: pytest and others replace it.
        file = None if console is None else console.file
        super().__init__(refresh_secs=refresh_secs, leave=leave, file=file)
        # In a notebook rich writes to the cell itself, but only if it was given no stream.
        self.console = console or Console(stderr=not in_notebook())
        self._display: Any = None

    def draws(self) -> bool:
        """Whether output is a terminal or a notebook."""
        if self.console.is_jupyter:
            return importlib.util.find_spec("ipywidgets") is not None
        # If FORCE_COLOR is set, as in CI, rich treats a pipe as a terminal.
        if self._file is None and not sys.stderr.isatty():
            return False
        return bool(self.console.is_terminal)

    def drawn(self, outline: Outline, *, nested: bool) -> Bar:
        """A row of the display; the display starts and ends with its first row."""
        if nested and self._display is not None:
            return _Row(self._display, outline, on_finish=self._display.remove_task)
        self._display = _display(self.console, transient=nested or not self.leave)
        self._display.start()
        return _Row(self._display, outline, on_finish=self._stop)

    def _stop(self, task: Any) -> None:
        del task  # stays visible in the display
        self._display.stop()
        self._display = None


class _Row(Bar):
    def __init__(self, display: Any, outline: Outline, *, on_finish: Any) -> None:
        super().__init__(outline)
        self._display = display
        self._on_finish = on_finish
        self._task = display.add_task(outline.label, total=outline.total, values=_text({}))
        display.refresh()

    def draw(self) -> None:
        values = _text(self.outline.values())
        self._display.update(self._task, completed=self.count, values=values)
        self._display.refresh()

    def finish(self) -> None:
        try:
            self.draw()
        finally:  # also after an error: rich has hidden the cursor and replaced sys.stdout
            self._on_finish(self._task)


def _text(values: Mapping[str, Any]) -> Any:
    from rich.text import Text  # noqa: PLC0415 - an extra

    parts = [(f"{name} ", (shown(value), "bold")) for name, value in values.items()]
    # Text, not markup, which would interpret the brackets in `acc[val]`.
    return Text("  ").join(Text.assemble(*part) for part in parts)


def _display(console: Any, *, transient: bool) -> Any:
    from rich import progress  # noqa: PLC0415 - an extra
    from rich.table import Column  # noqa: PLC0415

    class Values(progress.ProgressColumn):
        def render(self, task: progress.Task) -> Any:
            return task.fields["values"]

    return progress.Progress(
        progress.TextColumn("{task.description}"),
        progress.BarColumn(),
        progress.MofNCompleteColumn(),
        progress.TimeElapsedColumn(),
        progress.TimeRemainingColumn(),
        Values(table_column=Column(no_wrap=True)),
        console=console,
        auto_refresh=False,
        transient=transient,
    )
