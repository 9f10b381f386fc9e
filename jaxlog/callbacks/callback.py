"""`Callback`: user code at the hooks of a loop."""

from __future__ import annotations

from typing import Any

__all__ = ["HOST_HOOKS", "Callback"]


class Callback:
    """Base class: override the hooks you need; each may call `loop.log` with the hook's defaults.

    Where logging is allowed, and with which defaults, is Lightning's table: batch hooks of training
    log per step, the rest per epoch; in `setup`, `teardown`, `on_fit_*` and `on_*_end` (but not
    `on_*_epoch_end` and `on_*_batch_end`) logging is an error.

    Every hook gets the loop, a `Loop`; annotate it as that, or as `LoopView`, which names what
    callbacks may rely on. Here it is `Any`, so that a type checker takes either in an override.

    Example:
        >>> import jaxlog
        >>> class Patience(jaxlog.Callback):
        ...     best = float("inf")
        ...     def on_validation_epoch_end(self, loop):
        ...         self.best = min(self.best, loop.callback_metrics["val_loss"])
        ...         loop.log("best_val_loss", self.best)
    """

    def setup(self, loop: Any) -> None:
        """The loop is entered."""

    def teardown(self, loop: Any) -> None:
        """The loop is closed; everything logged was written."""

    def on_exception(self, loop: Any, exception: BaseException) -> None:
        """An exception leaves the loop's `with` block."""

    def on_fit_start(self, loop: Any) -> None:
        """`loop.epochs` begins."""

    def on_fit_end(self, loop: Any) -> None:
        """`loop.epochs` ends."""

    def on_train_start(self, loop: Any) -> None:
        """Training begins, before its first epoch."""

    def on_train_end(self, loop: Any) -> None:
        """Training ends, after its last epoch."""

    def on_train_epoch_start(self, loop: Any) -> None:
        """A training epoch begins."""

    def on_train_epoch_end(self, loop: Any) -> None:
        """A training epoch ends, after the validation inside it, as in Lightning."""

    def on_train_batch_start(self, loop: Any, batch: Any, batch_idx: int) -> None:
        """A training batch begins."""

    def on_train_batch_end(self, loop: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        """A training batch ends; `outputs` is what its last training step returned."""

    def on_sanity_check_start(self, loop: Any) -> None:
        """`loop.sanity_check` begins; the validation hooks do not run inside it."""

    def on_sanity_check_end(self, loop: Any) -> None:
        """`loop.sanity_check` ends."""

    def on_validation_start(self, loop: Any) -> None:
        """Validation begins."""

    def on_validation_end(self, loop: Any) -> None:
        """Validation ends."""

    def on_validation_epoch_start(self, loop: Any) -> None:
        """Validation begins, after `on_validation_start`."""

    def on_validation_epoch_end(self, loop: Any) -> None:
        """Every validation batch was seen; `loop.callback_metrics` has their reductions."""

    def on_validation_batch_start(
        self, loop: Any, batch: Any, batch_idx: int, dataloader_idx: int
    ) -> None:
        """A validation batch begins."""

    def on_validation_batch_end(
        self, loop: Any, outputs: Any, batch: Any, batch_idx: int, dataloader_idx: int
    ) -> None:
        """A validation batch ends."""

    def on_test_start(self, loop: Any) -> None:
        """Testing begins."""

    def on_test_end(self, loop: Any) -> None:
        """Testing ends."""

    def on_test_epoch_start(self, loop: Any) -> None:
        """Testing begins, after `on_test_start`."""

    def on_test_epoch_end(self, loop: Any) -> None:
        """Every test batch was seen; `loop.callback_metrics` has their reductions."""

    def on_test_batch_start(
        self, loop: Any, batch: Any, batch_idx: int, dataloader_idx: int
    ) -> None:
        """A test batch begins."""

    def on_test_batch_end(
        self, loop: Any, outputs: Any, batch: Any, batch_idx: int, dataloader_idx: int
    ) -> None:
        """A test batch ends."""


HOST_HOOKS = tuple(name for name in vars(Callback) if not name.startswith("_"))
