"""One run through training, validation or test data: its accumulators and its rows."""

from __future__ import annotations

import dataclasses
import operator
from collections.abc import Iterable, Iterator
from typing import Any

import jax
import numpy as np

from jaxlog.logs import Options
from jaxlog.loop.accumulators import Accumulator
from jaxlog.loop.devices import logged
from jaxlog.loop.histograms import BucketRow, bucket_rows
from jaxlog.loop.lanes import means_over_lanes
from jaxlog.loop.names import Key
from jaxlog.loop.nonfinite import NonFiniteWatch
from jaxlog.loop.results import Results
from jaxlog.loop.rows import Table, epoch_block
from jaxlog.loop.settings import Settings
from jaxlog.loop.sheet import Sheet, names_of
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
            sizes, steps = window.sizes_of(batches), window.steps_of(batches)
            for lane, part in self._lanes(segment, parts):
                names = names_of(segment.schema, window.suffix, lane)
                sheet = Sheet(names, logged(segment.schema, part, len(batches)), sizes)
                sheet.check(self.watch, steps)
                folds = self.settings.accumulate_grad_batches > 1
                sheet.fill(table, window.row_of[batches], folds=folds)
                sheet.reduce_into(self._accumulator_of)
                if self._should_write(window.rows).any():
                    self._add_histograms(sheet, window.steps[-1])
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
        found = self.accumulators.get((name, suffix))
        if found is None:
            found = self.accumulators[name, suffix] = Accumulator(options)
        return found

    def _accumulator_of(self, key: Key) -> Accumulator:
        return self.accumulator(key.name, key.options, key.suffix)

    # ---- giving out -----------------------------------------------------------------------------

    def _add_histograms(self, sheet: Sheet, step: int) -> None:
        for key, state in sheet.states():
            if key.options.on_step and key.options.logger:
                self.histograms += bucket_rows(key.step_tag, step, state)

    def take_histograms(self) -> list[BucketRow]:
        """Those that the loggers have not got yet."""
        taken, self.histograms = self.histograms, []
        return taken

    def _rows(self, window: Window, table: Table, results: Results) -> Block | None:
        self._show(table, results)
        visible = table.without({tag for tag, key in table.keys.items() if not key.options.logger})
        steps, times = window.rows, window.row_times
        chosen = self._should_write(steps)
        if window.is_open:
            self._open_row = visible.last_row()
            chosen[-1] = False
        written, has_any = visible.last(chosen)
        if has_any.any():
            tags = tuple(visible.index)
            if not has_any.all():
                tags = tuple(tag for tag, has in zip(tags, has_any, strict=True) if has)
            results.set_logged(tags, written[has_any])
        epoch = float(self.epoch) if self.is_training else None
        block = visible.block(chosen, steps, times, epoch)
        self.written += 0 if block is None else len(block.steps)
        return block

    def _show(self, table: Table, results: Results) -> None:
        """Brings the mappings up to date with the latest values."""
        if not table.keys:
            return
        values, has_any = table.last()
        at = [table.index[tag] for tag in table.keys]
        keys, values, has_any = table.keys, values[at], has_any[at]
        if not has_any.all():
            keys = {tag: key for (tag, key), has in zip(keys.items(), has_any, strict=True) if has}
            values = values[has_any]
        if keys:
            results.set_steps(keys, values, training=self.is_training)
        if self.settings.lanes:
            known = zip(keys.values(), values.tolist(), strict=True)
            means = list(means_over_lanes(known, self.settings.lanes))
            if means:
                tags, each = {key.step_tag: key for key, _ in means}, [x for _, x in means]
                results.set_steps(tags, np.array(each), training=self.is_training)

    def _should_write(self, steps: np.ndarray) -> np.ndarray:
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
