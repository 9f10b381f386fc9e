"""The options of a loop that its rooms share."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

from jaxlog.errors import LogArgumentError
from jaxlog.logs import NAN_POLICIES

__all__ = ["Settings"]


@dataclasses.dataclass(frozen=True)
class Settings:
    """What `Loop` was told; see there for the meaning.

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

    def __post_init__(self) -> None:
        check_count("log_every_n_steps", self.log_every_n_steps, least=0)
        check_count("accumulate_grad_batches", self.accumulate_grad_batches, least=1)
        check_count("window_steps", self.window_steps, least=1)
        if self.nan_policy not in NAN_POLICIES:
            raise LogArgumentError(
                f"Loop(nan_policy={self.nan_policy!r}): takes 'keep', 'skip' or 'raise'"
            )
        if self.batch_size_fn is not None and not callable(self.batch_size_fn):
            raise LogArgumentError(
                f"Loop(batch_size_fn={self.batch_size_fn!r}): takes a function of the batch that "
                f"returns its number of examples"
            )

    def is_written(self, step: int, group: int) -> bool:
        """Whether the row of training step `step` is written, and complete after this batch.

        Args:
            step: index of the optimizer step.
            group: batches of it that have ended.
        """
        every = self.log_every_n_steps
        return bool(every) and group + 1 == self.accumulate_grad_batches and (step + 1) % every == 0


def check_count(name: str, value: Any, *, least: int) -> None:
    """Holds an argument to the ints from `least` on.

    Raises:
        LogArgumentError: it is none of them.
    """
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise LogArgumentError(f"{name}={value!r}: takes an int of at least {least}")
