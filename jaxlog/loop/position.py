"""Where a loop stands: its counters, its open phases, and what moves between them and storage."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import jax

from jaxlog.errors import LoopError
from jaxlog.loop.phase import Phase
from jaxlog.loop.recorder import Recorder
from jaxlog.loop.resume import FORMAT

if TYPE_CHECKING:
    from jaxlog.loop.batches import Loader
    from jaxlog.loop.loop import Loop
    from jaxlog.loop.settings import Settings

__all__ = ["STAGES", "Position"]

STAGES = ("train", "validate", "test")


class Position:
    """Counters and open phases; brings what they hold to the pipeline.

    Attributes:
        global_step: training batches finished.
        current_epoch: epochs finished; inside an epoch, its number.
        stack: recorders of the open phases, the innermost last.
        in_fit: whether an epoch is running.
        num_epochs: how many epochs `epochs` was asked for; None outside.
        epochs_done: how many of those are finished.
        should_stop: set by callbacks: no further epoch begins.
        sanity_checking: whether validation runs whose values are thrown away.
        loader: the loader being read, None outside of phases.
        dataloader_idx: its index.
        closed: whether the loop was closed.
        interrupted: whether an error leaves the loop, so that no more hooks run.
    """

    def __init__(self, loop: Loop, settings: Settings) -> None:
        """Before the first epoch."""
        self.global_step = 0
        self.current_epoch = 0
        self.settings = settings
        self.recorders = {stage: Recorder(stage, settings) for stage in STAGES}
        self.should_stop = False
        self.sanity_checking = False
        self.stack: list[Recorder] = []
        self.in_fit = False
        self.num_epochs: int | None = None
        self.epochs_done = 0
        self.loader: Loader | None = None
        self.dataloader_idx = 0
        self.closed = False
        self.interrupted = False
        self._left: list[tuple[Recorder, tuple[int, float]]] = []
        self._loop = loop

    def _check_open(self) -> None:
        if self.closed:
            raise LoopError("the loop is closed; make a new one (its loggers are closed too)")

    def _check_free(self, recorder: Recorder) -> None:
        self._check_open()
        if recorder in self.stack:
            raise LoopError(
                f"loop.{recorder.stage}(...) inside a loop.{recorder.stage}(...) that still runs; "
                f"finish the first, or leave it with break"
            )

    def _open_phase(self, recorder: Recorder) -> None:
        recorder.phase = Phase(
            recorder.stage,
            self.current_epoch,
            self.settings,
            self._loop.pipeline.watch,
            is_silent=self.sanity_checking,
        )
        self._loop.restore(recorder.phase)

    def _phase(self, recorder: Recorder) -> Phase:
        assert recorder.phase is not None  # opened before batches are handed out
        return recorder.phase

    def last_finished_step(self) -> int:
        """The x value of epoch values: the last step that has run; outside of fit the next one."""
        if not self.in_fit:
            return self.global_step
        recorder = self.recorders["train"]
        running = (recorder.in_batch and recorder.calls > 0) or recorder.group > 0
        return max(self.global_step - (0 if running else 1), 0)

    def swap(self, recorder: Recorder) -> None:
        """Starts fetching what a recorder holds; takes in what was fetched before."""
        if self._fetch(recorder):
            self._loop.pipeline.process(keep=1)

    def _fetch(self, recorder: Recorder) -> bool:
        if recorder.window is None or not len(recorder.window):
            return False
        window = recorder.take_window()
        if window is None:
            return False
        self._loop.pipeline.push_window(window)
        return True

    def _catch_up(self) -> None:
        """Queues what open phases hold, so that rows are written in the order of their steps."""
        for recorder in self._open():
            self.swap(recorder)

    def _open(self) -> list[Recorder]:
        return [*self.stack, *(recorder for recorder, _ in self._left)]

    def seal(self, stage: str) -> None:
        """Queues the epoch row of a phase that has ended."""
        recorder = self.recorders[stage]
        phase = recorder.phase
        if phase is not None and phase.end is not None:
            recorder.phase = None
            self._loop.pipeline.push_end(phase)

    def _abandon(self) -> None:
        """Ends every phase as it stands, without hooks: what was logged is kept."""
        for recorder in reversed(self._open()):
            if recorder.in_batch:
                self._end_batch(recorder, self.dataloader_idx)
            self._fetch(recorder)
            self._phase(recorder).end = self._end(recorder)
        for recorder, end in self._left:
            self._phase(recorder).end = end
        self.stack.clear()
        self._left.clear()
        for stage in ("validate", "test", "train"):
            self.seal(stage)

    def load(self, state: Mapping[str, Any]) -> dict[str, Any]:
        """Takes the counters of `state_of`; returns the rest.

        Raises:
            LoopError: `state` is something else.
        """
        missing = {"global_step", "current_epoch", "evaluation_batches"} - set(state)
        if missing or state.get("format") != FORMAT:
            raise LoopError(
                f"loop.load_state_dict(state): lacks {sorted(missing)} or is of another format "
                f"than {FORMAT}; pass what loop.state_dict() gave"
            )
        self.global_step = int(state["global_step"])
        self.current_epoch = int(state["current_epoch"])
        for stage, counts in state["evaluation_batches"].items():
            self.recorders[stage].counts = {int(i): int(n) for i, n in counts.items()}
        return dict(state)

    def _remove(self, recorder: Recorder) -> None:
        self.stack.remove(recorder)
        self.loader = None

    def _end(self, recorder: Recorder) -> tuple[int, float]:
        if recorder.group:  # the data ran out before the group of batches was full
            recorder.group = 0
            self.global_step += 1
        return self.last_finished_step(), time.time()

    def _end_batch(self, recorder: Recorder, index: int) -> None:
        if recorder.calls and recorder.stage == "train":
            recorder.group += 1
            if recorder.group == self.settings.accumulate_grad_batches:
                recorder.group = 0
                self.global_step += recorder.span
        elif self.sanity_checking:
            pass
        elif recorder.calls:
            recorder.counts[index] = recorder.counts.get(index, 0) + recorder.span
        recorder.end_batch()

    def _swap_if_due(self, recorder: Recorder) -> None:
        window = recorder.window
        assert window is not None  # batches stand in a window
        is_full = len(window) >= recorder.rows
        # Several processes must swap at the same steps, and their clocks differ.
        is_late = window.times[-1] - window.times[0] > self.settings.window_secs
        if recorder.group:
            return  # a row is not torn where it need not be
        if is_full or (is_late and jax.process_count() == 1):
            self.swap(recorder)
