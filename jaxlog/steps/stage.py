"""`Stage`: what one stage (training, validation or test) keeps from phase to phase."""

from __future__ import annotations

import warnings
from typing import Any, Protocol

import numpy as np

from jaxlog.errors import HookError, LogArgumentError, SchemaError
from jaxlog.logs import Options, Schema, check_same_options
from jaxlog.steps.batch_size import batch_size, other_size
from jaxlog.windows import HostValue, Key, LoggerCall, Phase, Segment, Settings, Window, key_of

__all__ = ["Stage", "Step"]


class Step(Protocol):
    """A step function as its stage sees it.

    Attributes:
        schema: what it logs, as far as it is known.
        last_rows: the packed rows of its latest call on the device, for bars; None without any.
        is_mapped: whether batches have an axis of devices or lanes in front of their examples.
    """

    schema: Schema
    last_rows: Any

    @property
    def is_mapped(self) -> bool: ...  # noqa: D102 - see the class

    def take(self) -> Segment | None:
        """What it logged since the last `take`; None if nothing."""
        ...


class Stage:
    """The steps of a stage, the keys they log, and the window that is being filled.

    Attributes:
        name: `"train"`, `"validate"` or `"test"`.
        settings: the loop's options.
        steps: the step functions of this stage.
        phase: the phase that is open, or ended but not yet written; None between phases.
        window: what was logged since the last fetch began.
        counts: batches seen by each loader over all phases, the x axis of evaluation steps.
        group: batches of the current optimizer step that have ended.
        in_batch: whether a batch is running.
        calls: calls of step functions in the running batch.
        span: how many steps the running batch takes: several if a scan takes them.
        outputs: what the last step function of the running batch returned.
    """

    def __init__(self, name: str, settings: Settings) -> None:
        """A stage in which nothing has happened."""
        self.name = name
        self.settings = settings
        self.steps: list[Step] = []
        self.phase: Phase | None = None
        self.window: Window | None = None
        self.counts: dict[int, int] = {}
        self.group = 0
        self.in_batch = False
        self.calls = 0
        self.span = 1
        self.outputs: Any = None
        self._batch: Any = None
        self._example_axes = 1
        self._has_warned = False
        self._keys = _KnownKeys()

    # ---- batches --------------------------------------------------------------------------------

    def open_loader(self, phase: Phase, suffix: str) -> None:
        """Begins the batches of one loader, which appends `suffix` to names."""
        self.window = Window(phase, suffix)

    def begin_batch(self, step: int, batch: Any) -> None:
        """Begins a batch with the given x value."""
        window, now = self._window(), self.settings.clock()
        if not window.steps:
            window.begun = now
        window.steps.append(step)
        window.sizes.append(self._size(batch))
        window.times.append(now)
        self.in_batch = True
        self._batch = batch
        self.calls = 0
        self.span = 1

    def end_batch(self) -> None:
        """Ends the batch."""
        # Drop the references: outputs and batch may be large, and the next batch is not there yet.
        self.in_batch = False
        self.outputs = self._batch = None

    def add_step(self, step: Step) -> None:
        """Adds a step function of this stage."""
        self.steps.append(step)
        self._example_axes = max(self._example_axes, 2 if step.is_mapped else 1)

    def _size(self, batch: Any) -> float | None:
        size_of = self.settings.batch_size_fn
        if size_of is None:
            return batch_size(batch, axes=self._example_axes)
        size = size_of(batch)
        if size is not None and not float(size) >= 0:
            raise LogArgumentError(
                f"Loop(batch_size_fn=...) returned {size!r}; return the batch's number of "
                f"examples, or None if it has none"
            )
        return None if size is None else float(size)

    @property
    def size(self) -> float | None:
        """The size of the running batch."""
        return self._window().sizes[-1] if self.in_batch else None

    @property
    def should_write(self) -> bool:
        """Whether the row of the running batch is written."""
        step = self._window().steps[-1]
        return self.settings.should_write_batch(self.name, step, self.group)

    def should_write_from(self, first: int) -> np.ndarray:
        """Which rows of the running batch, from that index on, are written: bool."""
        return self.settings.should_write(self.name, np.array(self._window().steps[first:]))

    @property
    def writes_steps(self) -> bool:
        """Whether anything per step is logged here that loggers are to get."""
        return self._keys.write_steps

    # ---- windows --------------------------------------------------------------------------------

    def should_fetch(self, *, by_age: bool) -> bool:
        """Whether the window is to be fetched: it is full, or old.

        Time in which a step was compiled does not count towards its age: a first window of one row
        after a long compilation would be a copy for nothing.

        Args:
            by_age: whether an old window is to be fetched before it is full.
        """
        window, settings = self._window(), self.settings
        if len(window.steps) >= settings.window_steps:
            return True
        return by_age and window.times[-1] - window.begun > settings.window_secs

    def exclude_compile_time(self) -> None:
        """Begins the window's time anew: a step has just been compiled."""
        self._window().begun = self.settings.clock()

    def take_window(self) -> Window | None:
        """The window so far, or None if nothing was logged in it; a new one goes on after it."""
        window = self._window()
        # Every step function hands over its rows at once, or one of them would log into a window
        # that has been fetched.
        window.segments += [part for part in (step.take() for step in self.steps) if part]
        window.is_open = self.in_batch or self.group > 0
        self.window = window.successor()
        return None if window.is_empty else window

    def _window(self) -> Window:
        assert self.window is not None  # phases open a loader before they hand out batches
        return self.window

    # ---- logging --------------------------------------------------------------------------------

    def begin_call(self, step: Step) -> int:
        """Registers a call of a step function; returns the batch's index in the window.

        Raises:
            HookError: no batch of this stage is running.
        """
        if not self.in_batch:
            raise HookError(
                f"{_name_of(step)}(...) logs in the {self.name} stage, but no {self.name} batch "
                f"is running; call it inside: for batch in loop.{self.name}(batches): ..."
            )
        self.calls += 1
        return len(self._window().steps) - 1

    def begin_steps(self, step: Step, count: int, size: float) -> int:
        """Registers a call that takes several steps, a row each; returns the index of the first.

        Args:
            step: the step function.
            count: how many steps.
            size: examples in each.

        Raises:
            HookError: no batch of this stage is running.
            LogArgumentError: an iteration is not one optimizer step, or the batch has seen a call
                of another length.
        """
        last = self.begin_call(step)
        if self.settings.accumulates:
            raise LogArgumentError(
                f"{_name_of(step)}, a step with scan=True, in a Loop(accumulate_grad_batches="
                f"{self.settings.accumulate_grad_batches}): each iteration is an optimizer step; "
                f"accumulate inside it"
            )
        if self.calls == 1:
            # The batch became several steps: give it a row each, from the one it has.
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

    def require_size(self, name: str) -> None:
        """Checks that the running batch has a size; warns once if its arrays disagree on it.

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
            self.settings.batch_size_fn is None
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

    def add_logger_call(self, call: LoggerCall) -> None:
        """Adds what the host logged in the running batch and is not a scalar."""
        self._window().logger_calls.append(call)

    @property
    def step(self) -> int:
        """The x value of the running batch."""
        return self._window().steps[-1]

    def register(self, key: Key, *, is_metric: bool) -> None:
        """Checks a key against the others of the stage: see `_KnownKeys.add`."""
        self._keys.add(key, is_metric=is_metric)

    def register_schema(self, schema: Schema) -> None:
        """Checks every key of a schema.

        Raises:
            SchemaError: as `_KnownKeys.add`.
        """
        for spec in schema:
            self._keys.add(key_of(spec, ""), is_metric=spec.metric is not None)


class _KnownKeys:
    """The keys of a stage: each has one hook and one set of options, each tag is of one key."""

    def __init__(self) -> None:
        """No key yet."""
        self._options: dict[str, Options] = {}
        self._metrics: set[str] = set()
        self._owners: dict[str, str] = {}  # tag -> name of the key

    @property
    def write_steps(self) -> bool:
        """Whether loggers get per-step values of some key."""
        return any(options.on_step and options.logger for options in self._options.values())

    def add(self, key: Key, *, is_metric: bool) -> None:
        """Adds a key, if it is new.

        Raises:
            SchemaError: it was logged before with other options or as another thing, or another
                key takes one of its tags.
        """
        name, options = key.name, key.options
        if name in self._options:
            check_same_options(name, self._options[name], options)
            if is_metric != (name in self._metrics):
                raise SchemaError(
                    f"{name!r} is logged once as a number and once as a Metric, which do not "
                    f"reduce together; give one of them another name"
                )
            return
        for tag in sorted(key.tags & self._owners.keys()):
            self._refuse(key, self._owners[tag], tag)
        self._options[name] = options
        self._metrics |= {name} if is_metric else set()
        self._owners |= dict.fromkeys(key.tags, name)

    def _refuse(self, key: Key, other: str, tag: str) -> None:
        name = key.name
        both = key.options.forks, self._options[other].forks
        if any(both):
            forked, plain = (name, other) if both[0] else (other, name)
            raise SchemaError(
                f"{plain!r} is logged beside {forked!r}, which on_step=True and on_epoch=True "
                f"fork into '{forked}_step' and '{forked}_epoch': both write {tag!r}; give "
                f"one of them another name"
            )
        histogram, plain = (name, other) if key.is_histogram else (other, name)
        raise SchemaError(
            f"{plain!r} is logged beside the histogram {histogram!r}, whose mean has the tag "
            f"{tag!r}: give one of them another name"
        )


def _name_of(step: Step) -> str:
    """What messages call it."""
    return getattr(step, "__name__", "this step")
