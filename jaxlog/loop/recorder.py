"""What one stage (training, validation or test) keeps from phase to phase."""

from __future__ import annotations

import time
import warnings
from typing import Any

import numpy as np

from jaxlog.errors import HookError, LogArgumentError, SchemaError
from jaxlog.logs import Options
from jaxlog.logs.schema import check_same_options
from jaxlog.loop.batches import batch_size, other_size
from jaxlog.loop.names import Key, loader_suffix
from jaxlog.loop.phase import Phase
from jaxlog.loop.scan import LoopScan
from jaxlog.loop.settings import Settings
from jaxlog.loop.step import LoopStep
from jaxlog.loop.window import HostValue, Segment, Window

__all__ = ["Recorder"]


class Recorder:
    """The steps of a stage, the keys they log, and the window being filled.

    Attributes:
        stage: `"train"`, `"validate"` or `"test"`.
        rows: how many steps a window holds.
        steps: the step functions of this stage.
        phase: the phase that is open, or ended but not yet written; None between.
        window: what was logged since the last fetch began.
        span: how many steps the running batch takes: several where a scan takes them.
        group: batches of the current optimizer step that have ended.
        counts: batches seen by each loader over all phases, the x axis of evaluation steps.
    """

    def __init__(self, stage: str, settings: Settings) -> None:
        """A stage in which nothing has happened."""
        self.stage = stage
        self.rows = settings.window_steps
        self.lanes = settings.lanes
        self.group = 0
        self._settings = settings
        self._size_of = settings.batch_size_fn
        self.steps: list[LoopStep | LoopScan] = []
        self._axes = 1  # how many axes of a batch, in front, hold examples
        self.phase: Phase | None = None
        self.window: Window | None = None
        self.counts: dict[int, int] = {}
        self.in_batch = False
        self.calls = 0
        self.span = 1
        self.outputs: Any = None
        self._batch: Any = None
        self._has_warned = False
        self._keys: dict[str, Options] = {}
        self._tags: dict[str, str] = {}
        self._metrics: set[str] = set()

    # ---- batches --------------------------------------------------------------------------------

    def open_loader(self, phase: Phase, index: int, label: str | None, count: int) -> None:
        """Begins the batches of one loader."""
        self.window = Window(phase, index, loader_suffix(index, label, count))

    def begin_batch(self, step: int, batch: Any) -> None:
        """Begins a batch with the given x value."""
        window = self._window()
        window.steps.append(step)
        window.sizes.append(self._size(batch))
        window.times.append(time.time())
        self.in_batch = True
        self._batch = batch
        self.calls = 0
        self.span = 1

    def add_step(self, step: LoopStep | LoopScan) -> None:
        """Adds a step function of this stage."""
        self.steps.append(step)
        self._axes = max(self._axes, 2 if step.is_mapped else 1)

    def _size(self, batch: Any) -> float | None:
        if self._size_of is None:
            return batch_size(batch, axes=self._axes)
        size = self._size_of(batch)
        if size is not None and not float(size) >= 0:
            raise LogArgumentError(
                f"Loop(batch_size_fn=...) returned {size!r}; return the batch's number of "
                f"examples, or None where it has none"
            )
        return None if size is None else float(size)

    @property
    def should_write(self) -> bool:
        """Whether the row of the running batch is one that is written."""
        if self.stage != "train":
            return True
        return self._settings.is_written(self._window().steps[-1], self.group)

    @property
    def writes_steps(self) -> bool:
        """Whether anything per step is logged here that loggers are to get."""
        return any(options.on_step and options.logger for options in self._keys.values())

    @property
    def size(self) -> float | None:
        """The size of the running batch."""
        return self._window().sizes[-1] if self.in_batch else None

    def end_batch(self) -> None:
        """Ends the batch."""
        self.in_batch = False
        self.outputs = self._batch = None

    def take_window(self) -> Window | None:
        """The window so far, or None if it has nothing to say; a new one goes on after it.

        A batch or a group that is still running stands in both: as the last of the one, the first
        of the other.
        """
        window = self._window()
        window.segments += [part for part in (step.take() for step in self.steps) if part]
        window.is_open = self.in_batch or self.group > 0
        self.window = fresh = Window(window.phase, window.loader, window.suffix)
        if window.is_open:
            fresh.continues = True
            fresh.steps = window.steps[-1:]
            fresh.sizes = window.sizes[-1:]
            fresh.times = window.times[-1:]
        return window if window.segments or window.host or window.continues else None

    def _window(self) -> Window:
        assert self.window is not None  # phases open a loader before they hand out batches
        return self.window

    # ---- logging --------------------------------------------------------------------------------

    def begin_call(self, step: LoopStep | LoopScan) -> int:
        """Registers a call of a step function; returns the batch's index in the window.

        Raises:
            HookError: no batch of this stage is running.
        """
        if not self.in_batch:
            raise HookError(
                f"{_name_of(step)}(...) logs in the {self.stage} stage, but no {self.stage} batch "
                f"is running; call it inside: for batch in loop.{self.stage}(batches): ..."
            )
        self.calls += 1
        return len(self._window().steps) - 1

    def begin_steps(self, step: LoopScan, count: int, size: float) -> int:
        """Registers a call that takes several steps, a row each; returns the index of the first.

        Args:
            step: the step function.
            count: how many steps.
            size: examples in each.

        Raises:
            HookError: no batch of this stage is running.
            LogArgumentError: it is not one optimizer step an iteration, or the batch has seen a
                call of another length.
        """
        last = self.begin_call(step)
        if self._settings.accumulate_grad_batches > 1:
            raise LogArgumentError(
                f"{_name_of(step)}, a step with scan=True, in a Loop(accumulate_grad_batches="
                f"{self._settings.accumulate_grad_batches}): each iteration is an optimizer step; "
                f"accumulate inside it"
            )
        if self.calls == 1:
            window, self.span = self._window(), count
            window.steps += [window.steps[-1] + i for i in range(1, count)]
            window.times += window.times[-1:] * (count - 1)
            window.sizes[-1:] = [size] * count
        if self.span != count:
            raise LogArgumentError(
                f"{_name_of(step)}, a step with scan=True, takes {count} steps in a batch in which "
                f"{self.span} were taken; call steps of one length in a batch"
            )
        return last if self.calls == 1 else last - count + 1

    def should_write_from(self, first: int) -> np.ndarray:
        """Which of the running batch's rows, from that one on, are written: bool."""
        steps = self._window().steps[first:]
        is_written = self._settings.is_written
        return np.array([self.stage != "train" or is_written(step, 0) for step in steps], bool)

    def require_size(self, name: str) -> None:
        """Checks that the running batch has a size; warns once where its arrays disagree on it.

        Raises:
            LogArgumentError: it has none.
        """
        size = self._window().sizes[-1]
        if size is None:
            raise LogArgumentError(
                f"log({name!r}, ..., on_epoch=True): the batch holds no array, so its size, the "
                f"weight in the mean over the epoch, is unknown; write log({name!r}, ..., "
                f"batch_size=<number of examples>)"
            )
        if (
            self._size_of is None
            and not self._has_warned
            and (other := other_size(self._batch)) is not None
        ):
            self._has_warned = True
            warnings.warn(
                f"log({name!r}, ..., on_epoch=True): arrays of the batch have leading dimensions "
                f"{size:g} and {other}; the first, {size:g}, is its weight in the mean over the "
                f"epoch; write batch_size=<number of examples> to say which is right",
                stacklevel=4,
            )

    def add_segment(self, segment: Segment | None) -> None:
        """Adds what a step function logged."""
        if segment is not None:
            self._window().segments.append(segment)

    def add_host(self, name: str, options: Options, value: Any, weight: Any) -> None:
        """Adds what the host logged in the running batch."""
        if weight is None and options.on_epoch and options.reduce_fx == "mean":
            self.require_size(name)
        window = self._window()
        window.host.append(HostValue(name, options, value, weight, len(window) - 1))

    def register(self, name: str, options: Options, *, is_metric: bool) -> None:
        """Holds a key to one hook, one set of options and one kind in this stage, a tag to one key.

        Raises:
            SchemaError: it was logged before with others, or a forked key writes the same tag.
        """
        if name in self._keys:
            check_same_options(name, self._keys[name], options)
            if is_metric != (name in self._metrics):
                raise SchemaError(
                    f"{name!r} is logged once as a number and once as a Metric, which do not "
                    f"reduce together; give one of them another name"
                )
            return
        key = Key(name, options, "")
        tags = {key.bare} | ({key.step_tag, key.epoch_tag} if options.forks else set())
        for tag in tags:
            if tag in self._tags:
                other = self._tags[tag]
                forked, plain = (name, other) if options.forks else (other, name)
                raise SchemaError(
                    f"{plain!r} is logged beside {forked!r}, which on_step=True and on_epoch=True "
                    f"fork into '{forked}_step' and '{forked}_epoch': both write {tag!r}; give "
                    f"one of them another name"
                )
        self._keys[name] = options
        self._metrics |= {name} if is_metric else set()
        self._tags |= dict.fromkeys(tags, name)


def _name_of(step: LoopStep | LoopScan) -> str:
    """What messages call it."""
    return getattr(step, "__name__", "this step")
