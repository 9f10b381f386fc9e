"""`Phase`: one run through training, validation or test data, from its first value to its row."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import numpy as np

from jaxlog.metrics import Metric
from jaxlog.storage import Block
from jaxlog.windows.decode import Decoded, decode
from jaxlog.windows.epoch import EpochReductions
from jaxlog.windows.key import Key, holds_buckets
from jaxlog.windows.latest import LatestValues
from jaxlog.windows.logger_call import LoggerCall, histogram_calls
from jaxlog.windows.nonfinite import NonFiniteWatch
from jaxlog.windows.settings import Settings
from jaxlog.windows.table import Columns, Table, epoch_block
from jaxlog.windows.window import HostValue, Window

__all__ = ["Output", "Phase"]

Output = Block | LoggerCall  # what loggers get


@dataclasses.dataclass
class Phase:
    """An epoch of one stage.

    Attributes:
        stage: `"train"`, `"validate"` or `"test"`.
        epoch: the epoch that its rows carry.
        settings: the loop's options.
        watch: looks for values that are not finite.
        is_silent: whether nothing of it is kept (a sanity check).
        reductions: the reductions over the epoch.
        end: `(step, wall time)` once its data has run out, else None.
        is_complete: whether its data ran out, rather than being left by break.
        deferred: what epoch hooks logged on the host; may still be computed on the device.
    """

    stage: str
    epoch: int
    settings: Settings
    watch: NonFiniteWatch
    is_silent: bool = False
    reductions: EpochReductions = dataclasses.field(default_factory=EpochReductions)
    end: tuple[int, float] | None = None
    is_complete: bool = False
    deferred: list[HostValue] = dataclasses.field(default_factory=list)
    _open_row: Table | None = None

    @property
    def is_training(self) -> bool:
        """Whether this is a training epoch."""
        return self.stage == "train"

    def ingest(self, window: Window, arrays: Any, latest: LatestValues) -> list[Output]:
        """Takes in a fetched window; returns what loggers get, in the order of its steps.

        Args:
            window: what was logged.
            arrays: `window.arrays` as numpy.
            latest: the mappings to bring up to date.
        """
        if self.is_silent:
            return []
        segments, host, payloads = arrays
        size, others = len(window.rows), []
        carried, tables = self._carried(len(window.rows)), []
        for segment, parts in zip(window.segments, segments, strict=True):
            for calls in decode(
                segment,
                parts,
                window,
                self.settings.lanes,
                weighted=self.settings.accumulates,
            ):
                self.watch.check(calls, window.steps_of(calls.batches))
                self.reductions.add(calls)
                others += self._histograms(calls, window)
                rows = calls.table.in_rows(window.row_of[calls.batches], size)
                tables.append(rows.select(rows.columns.on_step))
        tables += self._host_table(window, host)
        table = Table.join([*carried, *tables], size) if carried or tables else None
        others += [
            dataclasses.replace(call, payload=payload)
            for call, payload in zip(window.logger_calls, payloads, strict=True)
        ]
        if table is None:
            return _in_order(None, others)
        self._show(table, tables if carried else None, latest)
        return _in_order(self._written(window, table, latest), others)

    # ---- values of the host ---------------------------------------------------------------------

    def _host_table(self, window: Window, arrays: Any) -> list[Table]:
        """The per-step values of `loop.log` calls as rows; adds them to the epoch's reductions."""
        found: dict[str, Key] = {}
        calls: list[tuple[int, str, float, float]] = []
        for value, (resolved, given) in zip(window.host, arrays, strict=True):
            batch = np.array([value.batch])
            suffix = window.suffix if value.options.add_dataloader_idx else ""
            key = Key(value.name, value.options, suffix, None, holds_buckets(resolved))
            weight = float(window.sizes_of(batch)[0] if given is None else given)
            number = np.array([_as_float(resolved)])
            if not self.watch.keep(key, number, window.steps_of(batch))[0]:
                continue
            if key.options.on_epoch:
                known = resolved if isinstance(resolved, Metric) else number[0].item()
                self.reductions.add_value(key, known, weight)
            if key.options.on_step:
                found.setdefault(key.step_tag, key)
                calls.append((value.batch, key.step_tag, number[0].item(), weight))
        if not calls:
            return []
        columns = Columns.of_steps(list(found.values()))
        table = Table.blank(columns, len(calls), weighted=self.settings.accumulates)
        at = {tag: i for i, tag in enumerate(found)}
        for row, (_, tag, number, weight) in enumerate(calls):
            table.values[row, at[tag]], table.present[row, at[tag]] = number, True
            if table.weights is not None:
                table.weights[row, at[tag]] = weight
        batches = np.array([batch for batch, *_ in calls])
        return [table.in_rows(window.row_of[batches], len(window.rows))]

    def _take_deferred(self) -> None:
        """Adds what epoch hooks logged on the host to the reductions; waits for it if need be."""
        # Taken once: publishing an epoch and writing its row both ask.
        deferred, self.deferred = self.deferred, []
        for host in () if self.is_silent else deferred:
            value, weight = jax.tree.map(np.asarray, (host.value, host.weight))
            number = value if isinstance(value, Metric) else _as_float(value)
            key = Key(host.name, host.options, "", None, holds_buckets(value))
            self.reductions.add_value(key, number, 1.0 if weight is None else float(weight))

    # ---- what is written ------------------------------------------------------------------------

    def _carried(self, size: int) -> list[Table]:
        """What the window before logged of the first row, as a table of the window's rows."""
        row, self._open_row = self._open_row, None
        return [] if row is None else [row.in_rows(np.zeros(1, int), size)]

    def _show(self, table: Table, fresh: list[Table] | None, latest: LatestValues) -> None:
        """Brings the mappings up to date: with every step, whether its row is written or not.

        Args:
            table: the rows of the window.
            fresh: the tables of what this window logged, if the rows hold more: the mappings have
                what the window before logged of the first row, and perhaps something newer since.
            latest: the mappings.
        """
        values, has_any = table.latest()
        if fresh is not None:
            labels = {label for one in fresh for label in one.columns.index}
            has_any = has_any & np.array([label in labels for label in table.columns.index], bool)
        latest.set_steps(table.columns, values, has_any, training=self.is_training)

    def _written(self, window: Window, table: Table, latest: LatestValues) -> Block | None:
        """The rows that are written; keeps the last row while it is incomplete."""
        visible = table.select(table.columns.for_loggers)
        chosen = self.settings.should_write(self.stage, window.rows)
        # The batch, or its group, still runs: the row would be written twice, once half.
        if window.is_open:
            self._open_row = table.last_row()
            chosen[-1] = False
        if chosen.any():
            latest.set_logged(visible.columns, *visible.latest(chosen))
        # Rows of evaluation steps have an x axis of their own, on which an epoch means nothing.
        epoch = float(self.epoch) if self.is_training else None
        return visible.block(chosen, window.rows, window.row_times, epoch)

    def _histograms(self, calls: Decoded, window: Window) -> list[LoggerCall]:
        """The histograms of the window: the states of a metric merged over its steps.

        One a window, at its last step: one a step would need the buckets of every step on the
        device.
        """
        if not self.settings.should_write(self.stage, window.rows).any():
            return []
        return [
            call
            for one in calls.groups
            for spec, i in zip(one.group.specs, one.group.places.tolist(), strict=True)
            if spec.name in one.states and spec.options.on_step and spec.options.logger
            for key in (calls.table.columns.keys[i],)
            for call in histogram_calls(
                key, key.step_label, window.steps[-1], one.states[spec.name]
            )
        ]

    def publish(self, latest: LatestValues) -> None:
        """Brings the mappings up to date with the epoch's values so far."""
        self._take_deferred()
        latest.set_epoch(self.reductions.values())

    def epoch_row(self) -> list[Output]:
        """The row of epoch values and the epoch's histograms; only for a phase that has ended."""
        assert self.end is not None  # a phase is queued for writing when it ends
        self._take_deferred()
        step, time = self.end
        values = [(key, value) for key, value in self.reductions.values() if key.options.logger]
        block = epoch_block(values, step, time, float(self.epoch))
        return _in_order(block, self.reductions.logger_calls(step))


def _as_float(value: Any) -> float:
    if isinstance(value, Metric):
        return value.host_compute()
    return float(np.asarray(value).reshape(()))  # one element, perhaps of shape (1,)


def _in_order(block: Block | None, others: list[LoggerCall]) -> list[Output]:
    """Rows and other calls by step, the row first: a logger never sees a step below the last one.

    Rows whose x values fall (a user logged `"step"`) have no such order, and come first.
    """
    if block is None or not others or (np.diff(block.steps) < 0).any():
        return [*([] if block is None else [block]), *others]
    found: list[Output] = []
    done = 0
    for call in sorted(others, key=lambda call: -1 if call.step is None else call.step):
        step = -1 if call.step is None else call.step
        upto = int(np.searchsorted(block.steps, step, side="right"))
        if upto > done:
            found.append(_part(block, done, upto))
            done = upto
        found.append(call)
    if done < len(block.steps):
        found.append(_part(block, done, len(block.steps)))
    return found


def _part(block: Block, first: int, last: int) -> Block:
    """Some rows of a block."""
    if (first, last) == (0, len(block.steps)):
        return block
    rows = slice(first, last)
    return dataclasses.replace(
        block,
        steps=block.steps[rows],
        wall_times=block.wall_times[rows],
        values=block.values[rows],
        present=None if block.present is None else block.present[rows],
    )
