"""`Window`: what a loop logged since the last fetch, on its way to the host."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import numpy as np

from jaxlog.logs import Options, Schema
from jaxlog.windows.logger_call import LoggerCall

__all__ = ["HostValue", "Segment", "Window"]


@dataclasses.dataclass
class Segment:
    """What one step function logged in a window.

    Attributes:
        schema: what was logged.
        parts: the rows and states of a recording, on the device; no longer donated.
        batches: for each row in use, the index of its batch in the window.
        has_lanes: whether each array has an axis of lanes in front.
    """

    schema: Schema
    parts: Any
    batches: list[int]
    has_lanes: bool = False


@dataclasses.dataclass(frozen=True)
class HostValue:
    """One `loop.log` call.

    Attributes:
        name: the key.
        options: its options.
        value: a number, a `jax.Array` of shape () that may still be computed, or a `Metric`.
        weight: explicit weight, may still be computed; None for the batch size.
        batch: index of the batch in the window, for a value that was logged in one.
    """

    name: str
    options: Options
    value: Any
    weight: Any
    batch: int = 0


@dataclasses.dataclass
class Window:
    """Consecutive batches of one loader in one phase; lists with one element a batch.

    Attributes:
        phase: the phase it belongs to.
        suffix: what its loader appends to names.
        steps: x value of each batch.
        sizes: batch size of each batch; None if it has no array.
        times: wall time of each batch, seconds since the epoch.
        begun: when the window began to fill, or compiling last ended: seconds since the epoch.
        segments: what step functions logged.
        host: what `loop.log` logged in batches.
        logger_calls: what was logged in batches and is not a scalar.
        is_open: whether the last row is incomplete: its batch, or its group of batches, still runs.
        continues: whether the first batch was the open one of the window before.
    """

    phase: Any
    suffix: str = ""
    steps: list[int] = dataclasses.field(default_factory=list)
    sizes: list[float | None] = dataclasses.field(default_factory=list)
    times: list[float] = dataclasses.field(default_factory=list)
    begun: float = 0.0
    segments: list[Segment] = dataclasses.field(default_factory=list)
    host: list[HostValue] = dataclasses.field(default_factory=list)
    logger_calls: list[LoggerCall] = dataclasses.field(default_factory=list)
    is_open: bool = False
    continues: bool = False

    def __len__(self) -> int:
        return len(self.steps)

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing in it to read."""
        return not (self.segments or self.host or self.logger_calls or self.continues)

    def successor(self) -> Window:
        """The window that goes on after this one.

        A batch or a group of batches that still runs is in both: the last batch of this window and
        the first of the next.
        """
        fresh = Window(self.phase, self.suffix)
        if self.is_open:
            fresh.continues = True
            fresh.steps, fresh.sizes = self.steps[-1:], self.sizes[-1:]
            fresh.times, fresh.begun = self.times[-1:], self.times[-1]
        return fresh

    @functools.cached_property
    def row_of(self) -> np.ndarray:
        """The row of each batch, int: batches of one optimizer step share one."""
        steps = np.asarray(self.steps, np.int64)
        # A new row begins where the step changes: batches of one step follow each other.
        return np.cumsum(np.diff(steps, prepend=steps[:1]) != 0)

    @functools.cached_property
    def rows(self) -> np.ndarray:
        """The x value of each row: int64."""
        rows = np.zeros(int(self.row_of[-1]) + 1, np.int64)
        rows[self.row_of] = self.steps
        return rows

    @property
    def row_times(self) -> np.ndarray:
        """The wall time of the last batch of each row, seconds since the epoch."""
        times = np.zeros(len(self.rows))
        times[self.row_of] = self.times
        return times

    def steps_of(self, batches: np.ndarray) -> np.ndarray:
        """The x values of some batches: int64."""
        return np.asarray(self.steps, np.int64)[batches]

    def sizes_of(self, batches: np.ndarray) -> np.ndarray:
        """Batch sizes as weights: float64; 1 for a batch that has no array."""
        sizes = [self.sizes[batch] for batch in batches]
        return np.array([1.0 if size is None else size for size in sizes])

    @property
    def arrays(self) -> Any:
        """Everything in it that may be on a device."""
        parts = [segment.parts for segment in self.segments]
        host = [(value.value, value.weight) for value in self.host]
        return parts, host, [call.payload for call in self.logger_calls]

    def ingest(self, arrays: Any, latest: Any) -> Any:
        """`Phase.ingest` of its phase."""
        return self.phase.ingest(self, arrays, latest)
