"""Stops training when a metric has stopped improving."""

from __future__ import annotations

import difflib
import math
from collections.abc import Mapping
from typing import Any, Literal

from jaxlog.callbacks.callback import Callback
from jaxlog.callbacks.loop_view import LoopView
from jaxlog.errors import LogArgumentError

__all__ = ["EarlyStopping"]


class EarlyStopping(Callback):
    """Ends `loop.epochs` once a metric has not improved for `patience` epochs.

    It checks the metric once an epoch, at `on_train_epoch_end`, which runs after the validation of
    the epoch.

    Args:
        monitor: a key of `loop.callback_metrics`.
        min_delta: smallest change that counts as an improvement.
        patience: epochs without improvement after which training ends.
        mode: `"min"` if lower values are better, `"max"` if higher ones are.
        check_finite: end training when the metric is NaN or infinite.
        stopping_threshold: end training once the metric is better than this.
        divergence_threshold: end training once the metric is worse than this.

    Attributes:
        best_score: the best value so far.
        wait_count: number of epochs since the best value.
        stopped_epoch: the epoch after which it ended training, or None.
        reason: why it ended training, or None.

    Raises:
        LogArgumentError: a bad argument; at the end of an epoch, a monitor that was not logged (the
            message lists similar names).

    Example:
        >>> import jaxlog
        >>> stop = jaxlog.EarlyStopping("val_loss", patience=2)
        >>> loop = jaxlog.Loop(logger=False, progress_bar=False, callbacks=[stop])
        >>> losses = [1.0, 0.5, 0.6, 0.7, 0.8]
        >>> with loop:
        ...     for epoch in loop.epochs(5):
        ...         for batch in loop.train([0]):
        ...             pass
        ...         for batch in loop.validate([0]):
        ...             loop.log("val_loss", losses[epoch], batch_size=1)
        >>> stop.stopped_epoch, stop.best_score
        (3, 0.5)
    """

    def __init__(
        self,
        monitor: str,
        *,
        min_delta: float = 0.0,
        patience: int = 3,
        mode: Literal["min", "max"] = "min",
        check_finite: bool = True,
        stopping_threshold: float | None = None,
        divergence_threshold: float | None = None,
    ) -> None:
        if mode not in ("min", "max"):
            raise LogArgumentError(f"EarlyStopping(mode={mode!r}): takes 'min' or 'max'")
        if not isinstance(patience, int) or patience < 0:
            raise LogArgumentError(f"EarlyStopping(patience={patience!r}): takes an int from 0 on")
        self.monitor = monitor
        self.min_delta = abs(min_delta)
        self.patience = patience
        self.mode = mode
        self.check_finite = check_finite
        self.stopping_threshold = stopping_threshold
        self.divergence_threshold = divergence_threshold
        self.best_score = math.inf if mode == "min" else -math.inf
        self.wait_count = 0
        self.stopped_epoch: int | None = None
        self.reason: str | None = None

    def on_train_epoch_end(self, loop: LoopView) -> None:
        """Ends training if the metric says so."""
        metrics = loop.callback_metrics
        if self.monitor not in metrics:
            raise LogArgumentError(self._unknown(metrics))
        self.reason = self._verdict(metrics[self.monitor])
        if self.reason is not None:
            self.stopped_epoch = loop.current_epoch
            loop.should_stop = True

    def _verdict(self, value: float) -> str | None:
        """The reason to end training, or None. Updates the best score."""
        if self.check_finite and not math.isfinite(value):
            return f"{self.monitor} is {value}, and was {self.best_score} at best"
        if self.stopping_threshold is not None and self._better(value, self.stopping_threshold):
            return f"{self.monitor} = {value} is better than {self.stopping_threshold}"
        worse = self.divergence_threshold
        if worse is not None and self._better(worse, value):
            return f"{self.monitor} = {value} is worse than {worse}"
        margin = self.min_delta if self.mode == "max" else -self.min_delta
        if self._better(value, self.best_score + margin):
            self.best_score = value
            self.wait_count = 0
            return None
        self.wait_count += 1
        if self.wait_count < max(self.patience, 1):
            return None
        return (
            f"{self.monitor} did not improve on {self.best_score} in the last "
            f"{self.wait_count} epochs"
        )

    def _better(self, a: float, b: float) -> bool:
        return a < b if self.mode == "min" else a > b

    def _unknown(self, metrics: Mapping[str, float]) -> str:
        near = difflib.get_close_matches(self.monitor, metrics, n=3)
        hint = f"did you mean {' or '.join(map(repr, near))}?" if near else ""
        known = ", ".join(sorted(metrics)) or "nothing at all"
        return (
            f"EarlyStopping(monitor={self.monitor!r}): this epoch logged {known}; {hint} Log it "
            f"with jaxlog.log({self.monitor!r}, ...) in a step"
        )

    def state_dict(self) -> dict[str, Any]:
        """The best score and the wait count, for `load_state_dict`."""
        return {"best_score": self.best_score, "wait_count": self.wait_count}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Resumes from `state_dict`."""
        self.best_score = float(state["best_score"])
        self.wait_count = int(state["wait_count"])
