"""`Settings`: what `Loop` was told, and the one rule of which rows are written."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from jaxlog.errors import LogArgumentError
from jaxlog.logs import NAN_POLICIES

__all__ = ["Settings", "check_count"]


@dataclasses.dataclass(frozen=True)
class Settings:
    """The options of a loop; see `Loop` for what they mean.

    Raises:
        LogArgumentError: a value out of range.
    """

    log_every_n_steps: int = 50
    accumulate_grad_batches: int = 1
    nan_policy: str = "keep"
    batch_size_fn: Callable[[Any], float | None] | None = None
    window_steps: int = 64
    window_secs: float = 5.0
    lanes: tuple[str, ...] = ()
    clock: Callable[[], float] = time.time

    def __post_init__(self) -> None:
        check_count("log_every_n_steps", self.log_every_n_steps, least=0)
        check_count("accumulate_grad_batches", self.accumulate_grad_batches, least=1)
        check_count("window_steps", self.window_steps, least=1)
        if self.nan_policy not in NAN_POLICIES:
            raise LogArgumentError(
                f"Loop(nan_policy={self.nan_policy!r}): takes 'keep', 'skip' or 'raise'"
            )
        for name in ("batch_size_fn", "clock"):
            given = getattr(self, name)
            if given is not None and not callable(given):
                returns = (
                    "seconds since the epoch"
                    if name == "clock"
                    else "its number of examples, from the batch"
                )
                raise LogArgumentError(
                    f"Loop({name}={given!r}): takes a function that returns {returns}"
                )

    @property
    def accumulates(self) -> bool:
        """Whether several batches share one row."""
        return self.accumulate_grad_batches > 1

    def should_write(self, stage: str, steps: np.ndarray) -> np.ndarray:
        """Which rows are written, if they are complete: bool, of the shape of `steps`.

        Rows of evaluation steps all are; of training steps, every `log_every_n_steps`-th.

        Args:
            stage: `"train"`, `"validate"` or `"test"`.
            steps: the index of each row's step, int.
        """
        if stage != "train":
            return np.ones(np.shape(steps), bool)
        if not self.log_every_n_steps:
            return np.zeros(np.shape(steps), bool)
        return (np.asarray(steps) + 1) % self.log_every_n_steps == 0

    def should_write_batch(self, stage: str, step: int, group: int) -> bool:
        """Whether a row is written whose last batch is the running one.

        Args:
            stage: `"train"`, `"validate"` or `"test"`.
            step: the index of the step.
            group: batches of that step that have ended.
        """
        if stage != "train":
            return True
        # The same rule as `should_write` for one step, in plain ints: it is asked at every step.
        every = self.log_every_n_steps
        return bool(every) and group + 1 == self.accumulate_grad_batches and (step + 1) % every == 0


def check_count(name: str, value: Any, *, least: int) -> None:
    """Checks that an argument is an int of at least `least`.

    Raises:
        LogArgumentError: it is not.
    """
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise LogArgumentError(f"{name}={value!r}: takes an int of at least {least}")
