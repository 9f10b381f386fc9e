"""What the steps between two fetches logged, on its way to the host."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import numpy as np

from jaxlog.logs import Options, Schema

__all__ = ["HostValue", "Segment", "Window"]


@dataclasses.dataclass
class Segment:
    """What one step function logged in a window.

    Attributes:
        schema: what was logged.
        parts: the rows and states of a recording, on the device; not donated any more.
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
        value: a number, a `jax.Array` of shape () still on its way, or a `Metric`.
        weight: explicit weight, perhaps still on its way, or None for the batch size.
        batch: index of the batch in the window, where it was logged in one.
    """

    name: str
    options: Options
    value: Any
    weight: Any
    batch: int = 0


@dataclasses.dataclass
class Window:
    """Up to `rows` batches of one loader in one phase; a column per attribute.

    Attributes:
        phase: the phase it belongs to.
        loader: index of the loader.
        suffix: what the loader appends to names.
        steps: x value of each batch.
        sizes: batch size of each batch; None where it has no array.
        times: wall time of each batch, seconds since the epoch.
        segments: what step functions logged.
        host: what `loop.log` logged in batches.
        is_open: whether the last row is not complete: its batch, or its group, still runs.
        continues: whether the first batch was the open one of the window before.
    """

    phase: Any
    loader: int = 0
    suffix: str = ""
    steps: list[int] = dataclasses.field(default_factory=list)
    sizes: list[float | None] = dataclasses.field(default_factory=list)
    times: list[float] = dataclasses.field(default_factory=list)
    segments: list[Segment] = dataclasses.field(default_factory=list)
    host: list[HostValue] = dataclasses.field(default_factory=list)
    is_open: bool = False
    continues: bool = False

    def __len__(self) -> int:
        return len(self.steps)

    @functools.cached_property
    def row_of(self) -> np.ndarray:
        """The row of each batch, int: batches of one optimizer step share one."""
        steps = np.asarray(self.steps, np.int64)
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
        """Everything in it that lives on a device."""
        parts = [segment.parts for segment in self.segments]
        return parts, [(host.value, host.weight) for host in self.host]
