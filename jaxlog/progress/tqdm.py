"""A progress bar drawn by tqdm, in a terminal or a notebook."""

from __future__ import annotations

import importlib.util
import sys
from typing import IO, Any

from jaxlog.progress.bar import Bar, Outline, in_notebook, shown
from jaxlog.progress.epoch_bars import ProgressBar

__all__ = ["TqdmProgressBar"]


class TqdmProgressBar(ProgressBar):
    """One bar an epoch, one below it for validation and test; shows what `prog_bar=True` logged.

    It never waits for the device while an epoch runs: it shows the latest values that have
    arrived, a few steps old. Where output is no terminal and no notebook it writes one line an
    epoch instead.

    Args:
        refresh_secs: least time between two redraws, in seconds.
        leave: whether the bar of a finished epoch stays.
        file: where to draw; default `sys.stderr`.

    Raises:
        LogArgumentError: `refresh_secs` is negative.

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
        self, *, refresh_secs: float = 0.1, leave: bool = True, file: IO[str] | None = None
    ) -> None:
        super().__init__(refresh_secs=refresh_secs, leave=leave, file=file)

    def draws(self) -> bool:
        """Whether there is a terminal or a notebook to draw in."""
        return in_notebook() or (self._file or sys.stderr).isatty()

    def drawn(self, outline: Outline, *, nested: bool) -> Bar:
        """A tqdm bar."""
        return _TqdmBar(outline, self._file or sys.stderr, leave=self.leave and not nested)


class _TqdmBar(Bar):
    def __init__(self, outline: Outline, stream: IO[str], *, leave: bool) -> None:
        super().__init__(outline)
        self._bar = _tqdm()(
            total=outline.total,
            desc=outline.label,
            file=stream,
            leave=leave,
            dynamic_ncols=True,
            mininterval=0,  # when to redraw is decided here
            miniters=1,
            unit="batch",
        )

    def draw(self) -> None:
        values = {name: shown(value) for name, value in self.outline.values().items()}
        self._bar.set_postfix(values, refresh=False)
        self._bar.update(self.count - self._bar.n)

    def finish(self) -> None:
        try:
            self.draw()
            self._bar.refresh()
        finally:
            self._bar.close()


def _tqdm() -> Any:
    if in_notebook() and importlib.util.find_spec("ipywidgets") is not None:
        from tqdm.notebook import tqdm  # noqa: PLC0415 - needs ipywidgets
    else:
        from tqdm import tqdm  # noqa: PLC0415 - drawn bars only
    return tqdm
