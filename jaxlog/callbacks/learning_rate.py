"""Logs the learning rate."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import jax

from jaxlog.callbacks.callback import Callback
from jaxlog.callbacks.loop_view import LoopView
from jaxlog.errors import LogArgumentError

__all__ = ["LearningRateMonitor"]


class LearningRateMonitor(Callback):
    """Logs the learning rate, from an optimizer state or from a schedule.

    Without a schedule it searches the outputs of the training step for states of
    `optax.inject_hyperparams`. Values stay on the device until the loop fetches its window.

    Args:
        schedule: an optax schedule, called with `loop.global_step`; None reads the step's outputs.
        logging_interval: `"step"` logs at the steps that are written, `"epoch"` at the end of each
            epoch.
        name: the tag; if there are several injected states, `/0`, `/1`, ... are appended.
        hyperparameter: name of the injected hyperparameter to read.

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
        logging_interval: Literal["step", "epoch"] = "step",
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
        self._structure = jax.tree.structure(None)
        self._positions: list[int] = []

    def on_train_batch_end(self, loop: LoopView, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Logs the rate of this step, or keeps it for the end of the epoch."""
        del batch, batch_idx
        if self.logging_interval == "step" and not loop.is_logging_step:
            return
        rates = self._rates(loop, outputs)
        if self.logging_interval == "step":
            self._log(loop, rates)
        else:
            # The next step may donate the state and so delete its arrays; a copy stays valid.
            self._latest = {
                name: rate.copy() if isinstance(rate, jax.Array) else rate
                for name, rate in rates.items()
            }

    def on_train_epoch_end(self, loop: LoopView) -> None:
        """Logs the rate of the epoch's last step."""
        if self.logging_interval == "epoch":
            self._log(loop, self._latest)

    def _log(self, loop: LoopView, rates: dict[str, Any]) -> None:
        for name, rate in rates.items():
            loop.log(name, rate, batch_size=1)

    def _rates(self, loop: LoopView, outputs: Any) -> dict[str, Any]:
        if self.schedule is not None:
            return {self.name: self.schedule(loop.global_step)}
        rates = self._injected(outputs)
        if not rates:
            raise LogArgumentError(
                f"LearningRateMonitor(): the training step returned no optimizer state with an "
                f"injected {self.hyperparameter!r}; build the optimizer with "
                f"optax.inject_hyperparams(optax.adam)(learning_rate=...) and return its state, or "
                f"give the monitor the schedule"
            )
        if len(rates) == 1:
            return {self.name: rates[0]}
        return {f"{self.name}/{i}": rate for i, rate in enumerate(rates)}

    def _injected(self, outputs: Any) -> list[Any]:
        """The injected hyperparameters among the leaves of `outputs`."""
        leaves, structure = jax.tree.flatten(outputs)
        if structure != self._structure:
            # optax's search takes 7 ms for a thousand leaves, so search once for each structure,
            # in a tree that holds the position of each leaf in place of the leaf.
            self._structure = structure
            positions = jax.tree.unflatten(structure, range(len(leaves)))
            self._positions = _find(positions, self.hyperparameter)
        return [leaves[position] for position in self._positions]


def _find(tree: Any, hyperparameter: str) -> list[Any]:
    """The leaves at `hyperparams[hyperparameter]` of every injected state in `tree`."""
    import optax  # noqa: PLC0415 - heavy, and a loop without this monitor does not need it

    def is_injected(path: Any, _: Any) -> bool:
        # The same key also stands for a schedule's state, and may occur in the user's own trees.
        return len(path) > 1 and getattr(path[-2], "name", None) == "hyperparams"

    found = optax.tree.get_all_with_path(tree, hyperparameter, filtering=is_injected)
    return [leaf for _, value in found for leaf in jax.tree.leaves(value)]
