"""A progress bar drawn by tqdm, in a terminal or a notebook."""

from __future__ import annotations

import importlib.util
import sys
from typing import IO, Any

from jaxlog.progress.bar import Bar, Outline, in_notebook, shown
from jaxlog.progress.epoch_bars import ProgressBar

__all__ = ["TqdmProgressBar"]


class TqdmProgressBar(ProgressBar):
    """One bar per epoch and one below it for validation and test, with `prog_bar=True` values.

    It does not wait for the device while an epoch runs, so the values are a few steps old. If
    output is neither a terminal nor a notebook, it writes one line per epoch instead.

    Args:
        refresh_secs: least time between two redraws, in seconds.
        leave: whether the bar of a finished epoch stays on the screen.
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
        """Whether output is a terminal or a notebook."""
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
            mininterval=0,  # Bar.advance decides when to redraw
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
