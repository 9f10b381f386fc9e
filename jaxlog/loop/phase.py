"""One run through training, validation or test data: its accumulators and its rows."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from typing import Any

import jax
import numpy as np

from jaxlog.logs import Options
from jaxlog.logs.tape import decode_rows
from jaxlog.loop.accumulators import Accumulator
from jaxlog.loop.names import Key
from jaxlog.loop.results import Results
from jaxlog.loop.rows import Table, epoch_block
from jaxlog.loop.window import HostValue, Segment, Window
from jaxlog.metrics import Metric
from jaxlog.storage.block import Block

__all__ = ["Phase"]


@dataclasses.dataclass
class Phase:
    """An epoch of one stage, from its first hook to its row in the event file.

    Attributes:
        stage: `"train"`, `"validate"` or `"test"`.
        epoch: the epoch that its rows carry.
        log_every_n_steps: which training rows are written; 0 writes none.
        accumulators: epoch reductions by name and loader suffix.
        end: `(step, wall time)` once its data has run out, else None.
        deferred: what epoch hooks logged on the host, perhaps still on its way from the device.
    """

    stage: str
    epoch: int
    log_every_n_steps: int
    accumulators: dict[tuple[str, str], Accumulator] = dataclasses.field(default_factory=dict)
    end: tuple[int, float] | None = None
    deferred: list[HostValue] = dataclasses.field(default_factory=list)
    _open_row: dict[str, float] = dataclasses.field(default_factory=dict)

    @property
    def is_training(self) -> bool:
        """Whether this is a training epoch."""
        return self.stage == "train"

    # ---- taking in ------------------------------------------------------------------------------

    def absorb(self, window: Window, arrays: Any, results: Results) -> Block | None:
        """Takes in a fetched window: accumulators, mappings; returns the rows to write.

        Args:
            window: what was logged.
            arrays: `window.arrays` as numpy.
            results: the mappings to bring up to date.
        """
        segments, host = arrays
        table = Table(len(window))
        for tag, value in self._open_row.items():
            table.set(tag, np.zeros(1, int), np.array([value]))
        self._open_row = {}
        for segment, (rows, metrics) in zip(window.segments, segments, strict=True):
            self._absorb_segment(window, segment, rows, metrics, table)
        for value, resolved in zip(window.host, host, strict=True):
            self._absorb_host(window, value, resolved, table)
        return self._rows(window, table, results)

    def _absorb_segment(
        self,
        window: Window,
        segment: Segment,
        rows: np.ndarray,
        metrics: dict[str, Metric],
        table: Table,
    ) -> None:
        batches = np.asarray(segment.batches, int)
        sizes = window.sizes_of(batches)
        for name, column in decode_rows(segment.schema, rows[: len(batches)]).items():
            options = column.entry.options
            suffix = window.suffix if options.add_dataloader_idx else ""
            present = column.present() if column.cells else np.ones(len(batches), bool)
            if options.on_epoch:
                accumulator = self.accumulator(name, options, suffix)
                if column.entry.metric is None:
                    accumulator.add_column(column, sizes)
                elif present.any():
                    accumulator.add_metric(metrics[name])
            if options.on_step:
                values = column.step_values(sizes)
                table.set_key(Key(name, options, suffix), batches[present], values[present])

    def _absorb_host(self, window: Window, host: HostValue, resolved: Any, table: Table) -> None:
        suffix = window.suffix if host.options.add_dataloader_idx else ""
        batch = np.array([host.batch])
        if host.options.on_epoch:
            weight = float(window.sizes_of(batch)[0]) if host.weight is None else host.weight
            self.add_value(dataclasses.replace(host, weight=weight), resolved, suffix)
        if host.options.on_step:
            value = np.array([_as_float(resolved)])
            table.set_key(Key(host.name, host.options, suffix), batch, value)

    def add_value(self, host: HostValue, resolved: Any, suffix: str = "") -> None:
        """Adds one host value to its epoch reduction; outside of batches it weighs 1."""
        accumulator = self.accumulator(host.name, host.options, suffix)
        if isinstance(resolved, Metric):
            accumulator.add_metric(resolved)
        else:
            weight = 1.0 if host.weight is None else host.weight
            accumulator.add_value(_as_float(resolved), weight)

    def accumulator(self, name: str, options: Options, suffix: str) -> Accumulator:
        """The reduction of one key, made when first asked for."""
        return self.accumulators.setdefault((name, suffix), Accumulator(options))

    # ---- giving out -----------------------------------------------------------------------------

    def _rows(self, window: Window, table: Table, results: Results) -> Block | None:
        for tag, key in table.keys.items():
            last = table.last(tag)
            if last is not None:
                results.set_step(key, last, training=self.is_training)
        visible = table.without({tag for tag, key in table.keys.items() if not key.options.logger})
        steps = np.asarray(window.steps, np.int64)
        chosen = self._due(steps)
        if window.is_open:
            self._open_row = visible.row(len(window) - 1)
            chosen[-1] = False
        for tag in visible.values:
            written = visible.last(tag, chosen)
            if written is not None:
                results.logged[tag] = written
        epoch = float(self.epoch) if self.is_training else None
        return visible.block(chosen, steps, np.asarray(window.times), epoch)

    def _due(self, steps: np.ndarray) -> np.ndarray:
        if not self.is_training:
            return np.ones(len(steps), bool)
        if self.log_every_n_steps == 0:
            return np.zeros(len(steps), bool)
        return (steps + 1) % self.log_every_n_steps == 0

    def epoch_values(self) -> Iterable[tuple[Key, float]]:
        """Everything reduced over the epoch."""
        deferred, self.deferred = self.deferred, []
        for host in deferred:
            self.add_value(host, jax.tree.map(np.asarray, host.value))
        for (name, suffix), accumulator in self.accumulators.items():
            if accumulator.options.on_epoch and not accumulator.is_empty:
                yield Key(name, accumulator.options, suffix), accumulator.compute()

    def publish(self, results: Results) -> None:
        """Brings the mappings up to date with the epoch's values so far."""
        for key, value in self.epoch_values():
            results.set_epoch(key, value)

    def epoch_row(self) -> Block | None:
        """The row of epoch values, for a phase that has ended."""
        assert self.end is not None  # rows of running phases are nobody's business
        values = {key.epoch_tag: value for key, value in self.epoch_values() if key.options.logger}
        step, time = self.end
        return epoch_block(values, step, time, float(self.epoch))


def _as_float(value: Any) -> float:
    return value.host_compute() if isinstance(value, Metric) else float(value)
