"""Logs the learning rate."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax

from jaxlog.errors import LogArgumentError
from jaxlog.loop import Callback, Loop

__all__ = ["LearningRateMonitor"]


class LearningRateMonitor(Callback):
    """Logs the learning rate, from an optimizer state or from a schedule.

    Without a schedule it looks through what the training step returns for the states of
    `optax.inject_hyperparams`. Values stay on the device until the loop fetches its window.

    Args:
        schedule: an optax schedule, called with `loop.global_step`; None reads the step's outputs.
        logging_interval: `"step"`, at steps that are written, or `"epoch"`, at each epoch's end.
        name: the tag; several injected states append `/0`, `/1`, ...
        hyperparameter: which injected hyperparameter to read.

    Raises:
        LogArgumentError: a bad argument; at the first batch, outputs without such a state.

    Example:
        >>> import jaxlog, optax
        >>> monitor = jaxlog.LearningRateMonitor(optax.linear_schedule(1.0, 0.0, 4))
        >>> logger = jaxlog.MemoryLogger()
        >>> loop = jaxlog.Loop(logger, log_every_n_steps=1, progress_bar=False, callbacks=[monitor])
        >>> with loop:
        ...     for batch in loop.train([0, 1]):
        ...         pass
        >>> [row["lr"] for _, row in logger.rows]
        [1.0, 0.75]
    """

    def __init__(
        self,
        schedule: Callable[[Any], Any] | None = None,
        *,
        logging_interval: str = "step",
        name: str = "lr",
        hyperparameter: str = "learning_rate",
    ) -> None:
        if logging_interval not in ("step", "epoch"):
            raise LogArgumentError(
                f"LearningRateMonitor(logging_interval={logging_interval!r}): takes 'step' or "
                f"'epoch'"
            )
        if schedule is not None and not callable(schedule):
            raise LogArgumentError(
                f"LearningRateMonitor(schedule={schedule!r}): takes a function of the step, such "
                f"as optax.cosine_decay_schedule(...); a constant needs no monitor"
            )
        self.schedule = schedule
        self.logging_interval = logging_interval
        self.name = name
        self.hyperparameter = hyperparameter
        self._latest: dict[str, Any] = {}

    def on_train_batch_end(self, loop: Loop, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Logs the rate of this step, or keeps it for the end of the epoch."""
        del batch, batch_idx
        if self.logging_interval == "step" and not loop.is_logging_step:
            return
        rates = self._rates(loop, outputs)
        if self.logging_interval == "step":
            self._log(loop, rates)
        else:
            # The state is donated to the next step; a copy of the number outlives it.
            self._latest = {name: loop.keep(rate) for name, rate in rates.items()}

    def on_train_epoch_end(self, loop: Loop) -> None:
        """Logs the rate of the epoch's last step."""
        if self.logging_interval == "epoch":
            self._log(loop, self._latest)

    def _log(self, loop: Loop, rates: dict[str, Any]) -> None:
        for name, rate in rates.items():
            loop.log(name, rate, batch_size=1)

    def _rates(self, loop: Loop, outputs: Any) -> dict[str, Any]:
        if self.schedule is not None:
            return {self.name: self.schedule(loop.global_step)}
        found = [
            node.hyperparams[self.hyperparameter]
            for node in jax.tree.leaves(outputs, is_leaf=_is_injected)
            if _is_injected(node) and self.hyperparameter in node.hyperparams
        ]
        if not found:
            raise LogArgumentError(
                f"LearningRateMonitor(): the training step returned no optimizer state with an "
                f"injected {self.hyperparameter!r}; build the optimizer with "
                f"optax.inject_hyperparams(optax.adam)(learning_rate=...) and return its state, or "
                f"give the monitor the schedule"
            )
        if len(found) == 1:
            return {self.name: found[0]}
        return {f"{self.name}/{i}": rate for i, rate in enumerate(found)}


def _is_injected(node: Any) -> bool:
    """Whether a node is the state of `optax.inject_hyperparams`, of any optax version."""
    return isinstance(getattr(node, "hyperparams", None), dict)
