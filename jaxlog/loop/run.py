"""The iterators of a loop: epochs, and the phases in them, from first hook to last."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import jax

from jaxlog.errors import LoopError
from jaxlog.loop.batches import Loader
from jaxlog.loop.position import Position
from jaxlog.loop.recorder import Recorder
from jaxlog.loop.settings import Settings

if TYPE_CHECKING:
    from jaxlog.loop.loop import Loop

__all__ = ["Run"]

_PREFIX = {"train": "on_train", "validate": "on_validation", "test": "on_test"}


class Run(Position):
    """A position, and the moves the user makes from it."""

    def __init__(self, loop: Loop, settings: Settings) -> None:
        """A run before its first epoch."""
        super().__init__(loop, settings)
        self._fit_left = False
        self._sanity_left = False
        self._settling = False
        self._implicit = False

    # ---- epochs ---------------------------------------------------------------------------------

    def epochs(self, count: int) -> Iterator[int]:
        """Yields the number of each epoch; opens and closes training around it."""
        self._check_open()
        self.settle()
        if self.stack:
            raise LoopError(
                f"loop.epochs(...) inside a loop.{self.stack[-1].stage}(...) that still runs; "
                f"finish that first, or leave it with break"
            )
        self._end_implicit_fit()
        if self.in_fit:
            raise LoopError("loop.epochs(...) inside another loop.epochs(...): one at a time")
        self.num_epochs = count
        try:
            self._begin_fit()
            self.should_stop = False
            for done in range(count):
                self.epochs_done = done
                yield self.current_epoch
                self._check_open()
                self.settle()
                self.end_epoch(trained=False)
                if self.should_stop:
                    break
        except GeneratorExit:
            self._fit_left = True  # see `settle`
            raise
        except BaseException:
            self.in_fit = False
            raise
        finally:
            self.num_epochs = None
        self._end_fit()

    def _begin_fit(self) -> None:
        self.in_fit = True
        self._loop.fire("on_fit_start")
        self._open_phase(self.recorders["train"])
        self._loop.fire("on_train_start")

    def _end_fit(self) -> None:
        if self.closed or self.interrupted or not self.in_fit:
            return
        self.end_epoch()
        self.in_fit = False
        self.recorders["train"].phase = None
        self._warn_if_silent()
        self._loop.fire("on_train_end")
        self._loop.fire("on_fit_end")

    def end_epoch(self, *, trained: bool = True) -> None:
        """Ends the training epoch: its last hook and its row.

        Args:
            trained: whether to do so only if it has trained; else an epoch without training counts
                too, though no training hook runs for it.
        """
        recorder = self.recorders["train"]
        if self.closed or recorder.phase is None:
            return
        if recorder.phase.end is None:
            if not trained:
                self.current_epoch += 1
                recorder.phase.epoch = self.current_epoch
            return
        self.seal("validate")
        self.seal("test")
        self._loop.fire("on_train_epoch_end")
        self.seal("train")
        self.current_epoch += 1
        if self.in_fit:
            self._open_phase(recorder)

    def _warn_if_silent(self) -> None:
        every, recorder = self.settings.log_every_n_steps, self.recorders["train"]
        if self._loop.loggers and recorder.writes_steps and 0 < self.global_step < every:
            warnings.warn(
                f"training ended after {self.global_step} steps, before the first row at "
                f"log_every_n_steps={every}: no value per step was written; write "
                f"Loop(log_every_n_steps={self.global_step}) or less to see them",
                stacklevel=3,
            )

    def _end_implicit_fit(self) -> None:
        """Ends what a `train` outside of `epochs` began."""
        if self._implicit and not self.stack:
            self._implicit = False
            self._end_fit()

    # ---- phases ---------------------------------------------------------------------------------

    def train(self, loader: Loader) -> Iterator[Any]:
        """Yields training batches."""
        self.settle()
        recorder = self.recorders["train"]
        self._check_free(recorder)
        if not self.in_fit:
            self._implicit = True
            self._begin_fit()
        if self._implicit:
            self.end_epoch()
        phase = self._phase(recorder)
        is_first = phase.end is None  # else a second pass inside one epoch adds to the first
        phase.end, phase.is_complete = None, False
        with self._running(recorder):
            self.loader = loader
            if is_first:
                self._loop.fire("on_train_epoch_start")
            recorder.open_loader(phase, 0, None, 1)
            yield from self._batches(recorder, loader, 0)
            phase.is_complete = True

    def evaluate(self, stage: str, loaders: Sequence[Loader]) -> Iterator[Any]:
        """Yields the batches of one evaluation loader after the other."""
        self.settle()
        recorder = self.recorders[stage]
        self._check_free(recorder)
        if stage == "test":
            self._end_implicit_fit()
        self._catch_up()
        self.seal(stage)
        if stage == "test" and not self.in_fit:
            self._loop.forget()
        prefix = _PREFIX[stage]
        self._open_phase(recorder)
        with self._running(recorder):
            self._fire(f"{prefix}_start")
            self._fire(f"{prefix}_epoch_start")
            for index, loader in enumerate(loaders):
                recorder.open_loader(self._phase(recorder), index, loader.label, len(loaders))
                yield from self._batches(recorder, loader, index)
                self.swap(recorder)

    def sanity_check(self, loaders: Sequence[Loader]) -> Iterator[Any]:
        """As `evaluate("validate", ...)`, but nothing that it logs is kept."""
        self.settle()
        if self.stack:
            raise LoopError("loop.sanity_check(...) inside a phase; call it before training")
        self.sanity_checking = True
        try:
            self._loop.fire("on_sanity_check_start")
            yield from self.evaluate("validate", loaders)
        except GeneratorExit:
            self._sanity_left = True  # see `settle`
            raise
        except BaseException:
            self.sanity_checking = False
            raise
        self._end_sanity_check()

    def _end_sanity_check(self) -> None:
        self.seal("validate")
        self.sanity_checking = False
        self._loop.fire("on_sanity_check_end")

    @contextlib.contextmanager
    def _running(self, recorder: Recorder) -> Iterator[None]:
        """Keeps a phase on the stack; its last hooks run unless an error leaves it."""
        self.stack.append(recorder)
        try:
            yield
        except GeneratorExit:
            # The user's loop was left, by break or by an error: what comes next tells which. An
            # error raised here would go nowhere, so nothing is done that could raise one.
            if not self.closed:
                self._remove(recorder)
                self._left.append((recorder, self._end(recorder)))
            raise
        except BaseException:
            if not self.closed:
                self._remove(recorder)
                self._phase(recorder).end = self._end(recorder)
                self.swap(recorder)
            raise
        self._end_phase(recorder, self._end(recorder))

    def _fire(self, hook: str, *args: Any) -> None:
        """Calls an evaluation hook; in a sanity check there is nothing for callbacks to look at."""
        if not self.sanity_checking:
            self._loop.fire(hook, *args)

    def _end_phase(self, recorder: Recorder, end: tuple[int, float]) -> None:
        try:
            self.swap(recorder)
        finally:
            if recorder in self.stack:
                self._remove(recorder)
            self._phase(recorder).end = end
        if recorder.stage != "train":
            prefix = _PREFIX[recorder.stage]
            self._fire(f"{prefix}_epoch_end")
            self._fire(f"{prefix}_end")

    def settle(self) -> None:
        """Ends, with their hooks, the phases that were left by break.

        Every move of the loop begins with this. An error that leaves the loop's `with` block comes
        before any other move, and then no hook runs.
        """
        if not (self._left or self._sanity_left or self._fit_left):
            return  # as nearly always
        if self.interrupted or self._settling:
            return
        self._settling = True  # hooks read the loop, which would settle what comes after them
        try:
            while self._left:
                self._end_phase(*self._left.pop(0))
            if self._sanity_left:
                self._sanity_left = False
                self._end_sanity_check()
            if self._fit_left:
                self._fit_left = False
                self._end_fit()
        finally:
            self._settling = False

    def _batches(self, recorder: Recorder, loader: Loader, index: int) -> Iterator[Any]:
        self.loader, self.dataloader_idx = loader, index
        prefix = _PREFIX[recorder.stage]
        training = recorder.stage == "train"
        which = () if training else (index,)
        fire = self._fire
        # Most runs listen to no batch, and then nothing is called at every one of them.
        hears_start = self._loop.hears(f"{prefix}_batch_start")
        hears_end = self._loop.hears(f"{prefix}_batch_end")
        validation = self.recorders["validate"]
        for batch_idx, batch in enumerate(loader.batches):
            if training:
                if validation.phase is not None:
                    self.seal("validate")
                step = self.global_step
            else:
                step = recorder.counts.get(index, 0)
            recorder.begin_batch(step, batch)
            try:
                if hears_start:
                    fire(f"{prefix}_batch_start", batch, batch_idx, *which)
                yield batch
                self._check_open()
                self.settle()
                self.loader, self.dataloader_idx = loader, index
                recorder.calls += 1  # the user's loop came round: the batch counts
                if hears_end:
                    fire(f"{prefix}_batch_end", recorder.outputs, batch, batch_idx, *which)
            finally:
                if not self.closed:
                    self._end_batch(recorder, index)
            self._swap_if_due(recorder)

    # ---- the end ---------------------------------------------------------------------------------

    def sync(self, *, reading: bool = False) -> None:
        """Takes in everything logged so far and brings the mappings up to date.

        Args:
            reading: whether somebody only looks. With several processes one of them may look by
                itself, so windows that are not full stay where they are: to fetch one may take all.
        """
        self.settle()
        if not reading or jax.process_count() == 1:
            self._catch_up()
        self._loop.pipeline.process()
        for recorder in self.recorders.values():
            if recorder.phase is not None and recorder.phase.end is not None:
                recorder.phase.publish(self._loop.pipeline.results)

    def finish(self) -> None:
        """Ends what is open: with hooks what was left or trained outside of `epochs`."""
        try:
            self.settle()
            self._end_implicit_fit()
        finally:
            self._abandon()
            self.closed = True
