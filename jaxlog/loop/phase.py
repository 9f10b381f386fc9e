"""One run through training, validation or test data: its accumulators and its rows."""

from __future__ import annotations

import dataclasses
import operator
from collections.abc import Iterable, Iterator
from typing import Any

import jax
import numpy as np

from jaxlog.logs import Options
from jaxlog.logs.tape import Column
from jaxlog.loop.accumulators import Accumulator
from jaxlog.loop.devices import logged
from jaxlog.loop.histograms import BucketRow, bucket_rows
from jaxlog.loop.lanes import means_over_lanes
from jaxlog.loop.names import Key
from jaxlog.loop.nonfinite import NonFiniteWatch
from jaxlog.loop.results import Results
from jaxlog.loop.rows import Table, epoch_block
from jaxlog.loop.settings import Settings
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
        settings: the loop's options.
        watch: looks for values that are not finite.
        is_silent: whether nothing of it is kept (a sanity check).
        accumulators: epoch reductions by name and loader suffix.
        end: `(step, wall time)` once its data has run out, else None.
        is_complete: whether its data ran out, rather than being left by break.
        deferred: what epoch hooks logged on the host, perhaps still on its way from the device.
        written: how many rows of per-step values were handed to the loggers.
        histograms: of metrics that count into buckets, for the loggers.
    """

    stage: str
    epoch: int
    settings: Settings
    watch: NonFiniteWatch
    is_silent: bool = False
    accumulators: dict[tuple[str, str], Accumulator] = dataclasses.field(default_factory=dict)
    end: tuple[int, float] | None = None
    is_complete: bool = False
    deferred: list[HostValue] = dataclasses.field(default_factory=list)
    written: int = 0
    histograms: list[BucketRow] = dataclasses.field(default_factory=list)
    _open_row: Table | None = None

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
        if self.is_silent:
            return None
        segments, host = arrays
        table = Table(len(window.rows))
        if self._open_row is not None:
            table.carry(self._open_row)
            self._open_row = None
        for segment, parts in zip(window.segments, segments, strict=True):
            batches = np.asarray(segment.batches)
            for suffix, part in self._lanes(segment, parts):
                for column, state in logged(segment.schema, part, len(batches)):
                    self._absorb_column(window, batches, column, state, table, lane=suffix)
        for value, (resolved, weight) in zip(window.host, host, strict=True):
            known = dataclasses.replace(value, value=resolved, weight=weight)
            self._absorb_host(window, known, table)
        return self._rows(window, table, results)

    def _lanes(self, segment: Segment, parts: Any) -> Iterator[tuple[str, Any]]:
        """What each lane appends to names, and what it logged."""
        if not segment.has_lanes:
            yield "", parts
            return
        for i, lane in enumerate(self.settings.lanes):
            yield f"/{lane}", jax.tree.map(operator.itemgetter(i), parts)

    def _absorb_column(
        self,
        window: Window,
        batches: np.ndarray,
        column: Column,
        state: Metric | None,
        table: Table,
        *,
        lane: str,
    ) -> None:
        """Takes in what a step function logged under one name."""
        options = column.entry.options
        suffix = (window.suffix if options.add_dataloader_idx else "") + lane
        key = Key(column.entry.name, options, suffix)
        kept = column.present() if column.cells else np.ones(len(batches), bool)
        if column.has_steps:
            values = column.step_values(window.sizes_of(batches))
            # Absent values are no news; of the others the watch says which stay.
            kept[kept] = self.watch.keep(key, values[kept], window.steps_of(batches[kept]))
            column, batches, values = column.take(kept), batches[kept], values[kept]
            if options.on_step:
                rows = window.row_of[batches]
                if self.settings.accumulate_grad_batches == 1:
                    table.set_key(key, rows, values)
                else:
                    table.fold_key(key, rows, values, column.weights(window.sizes_of(batches)))
        if options.on_step and options.logger and self._due(window.rows).any():
            self.histograms += bucket_rows(key.step_tag, window.steps[-1], state)
        if options.on_epoch and kept.any():
            accumulator = self.accumulator(key.name, options, key.suffix)
            if state is None:
                accumulator.add_column(column, window.sizes_of(batches))
            else:
                accumulator.add_metric(state)

    def _absorb_host(self, window: Window, host: HostValue, table: Table) -> None:
        """Takes in one `loop.log` call."""
        suffix = window.suffix if host.options.add_dataloader_idx else ""
        key, batch = Key(host.name, host.options, suffix), np.array([host.batch])
        weight = host.weight if host.weight is not None else window.sizes_of(batch)[0]
        value = np.array([_as_float(host.value)])
        if not self.watch.keep(key, value, window.steps_of(batch))[0]:
            return
        if host.options.on_epoch:
            self.add_value(host, float(weight), suffix)
        if host.options.on_step:
            rows = window.row_of[batch]
            if self.settings.accumulate_grad_batches == 1:
                table.set_key(key, rows, value)
            else:
                table.fold_key(key, rows, value, np.array([float(weight)]))

    def add_value(self, host: HostValue, weight: float, suffix: str = "") -> None:
        """Adds one host value to its epoch reduction."""
        accumulator = self.accumulator(host.name, host.options, suffix)
        if isinstance(host.value, Metric):
            accumulator.add_metric(host.value)
        else:
            accumulator.add_value(_as_float(host.value), weight)

    def accumulator(self, name: str, options: Options, suffix: str) -> Accumulator:
        """The reduction of one key, made when first asked for."""
        return self.accumulators.setdefault((name, suffix), Accumulator(options))

    # ---- giving out -----------------------------------------------------------------------------

    def take_histograms(self) -> list[BucketRow]:
        """Those that the loggers have not got yet."""
        taken, self.histograms = self.histograms, []
        return taken

    def _rows(self, window: Window, table: Table, results: Results) -> Block | None:
        latest = [(key, table.last(tag)) for tag, key in table.keys.items()]
        known = [(key, last) for key, last in latest if last is not None]
        for key, last in (*known, *means_over_lanes(known, self.settings.lanes)):
            results.set_step(key, last, training=self.is_training)
        visible = table.without({tag for tag, key in table.keys.items() if not key.options.logger})
        steps, times = window.rows, window.row_times
        chosen = self._due(steps)
        if window.is_open:
            self._open_row = visible.last_row()
            chosen[-1] = False
        for tag in visible.values:
            written = visible.last(tag, chosen)
            if written is not None:
                results.logged[tag] = written
        epoch = float(self.epoch) if self.is_training else None
        block = visible.block(chosen, steps, times, epoch)
        self.written += 0 if block is None else len(block.steps)
        return block

    def _due(self, steps: np.ndarray) -> np.ndarray:
        if not self.is_training:
            return np.ones(len(steps), bool)
        every = self.settings.log_every_n_steps
        return (steps + 1) % every == 0 if every else np.zeros(len(steps), bool)

    def epoch_values(self) -> Iterable[tuple[Key, float]]:
        """Everything reduced over the epoch."""
        deferred, self.deferred = self.deferred, []
        for host in () if self.is_silent else deferred:
            value, weight = jax.tree.map(np.asarray, (host.value, host.weight))
            known = dataclasses.replace(host, value=value)
            self.add_value(known, 1.0 if weight is None else float(weight))
        for (name, suffix), accumulator in self.accumulators.items():
            if accumulator.options.on_epoch and not accumulator.is_empty:
                yield Key(name, accumulator.options, suffix), accumulator.compute()

    def publish(self, results: Results) -> None:
        """Brings the mappings up to date with the epoch's values so far."""
        values = list(self.epoch_values())
        for key, value in (*values, *means_over_lanes(values, self.settings.lanes)):
            results.set_epoch(key, value)

    def epoch_row(self) -> Block | None:
        """The row of epoch values, for a phase that has ended."""
        assert self.end is not None  # rows of running phases are nobody's business
        values = {key.epoch_tag: value for key, value in self.epoch_values() if key.options.logger}
        step, time = self.end
        for (name, suffix), one in self.accumulators.items():
            if one.options.on_epoch and one.options.logger:
                tag = Key(name, one.options, suffix).epoch_tag
                self.histograms += bucket_rows(tag, step, one.metric)
        return epoch_block(values, step, time, float(self.epoch))


def _as_float(value: Any) -> float:
    if isinstance(value, Metric):
        return value.host_compute()
    return float(np.asarray(value).reshape(()))  # one element, perhaps of shape (1,)
