"""Values for progress bars: the latest that have arrived, without waiting."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from jaxlog.logs import Schema
from jaxlog.loop.devices import latest
from jaxlog.loop.names import Key
from jaxlog.loop.pipeline import Pipeline
from jaxlog.loop.recorder import Recorder

__all__ = ["ProgressValues"]


class ProgressValues:
    """Copies the latest packed row of each step off the device, one row at a time."""

    def __init__(self, recorders: Mapping[str, Recorder], pipeline: Pipeline) -> None:
        """Values of nothing yet."""
        self._recorders = recorders
        self._pipeline = pipeline
        self._flying: dict[int, tuple[Schema, Any]] = {}

    def latest(self) -> dict[str, float]:
        """Tag to value of what was logged with `prog_bar=True`, as of a few steps ago."""
        shown = self._pipeline.results.progress_bar
        for recorder in self._recorders.values():
            for step in recorder.steps:
                suffix = recorder.window.suffix if recorder.window is not None else ""
                shown.update(self._arrived(id(step), suffix))
                wanted = step.schema.has_bar
                if recorder.in_batch and wanted and id(step) not in self._flying:
                    self._take_off(id(step), step.schema, step.last_rows)
        return dict(shown)

    def _take_off(self, key: int, schema: Schema, rows: Any) -> None:
        if rows is not None:
            # Of what other processes log, a process hears when the window comes.
            mine = tuple(row if row is None or _is_here(row) else None for row in rows)
            self._pipeline.drain.start(mine)
            self._flying[key] = (schema, mine)

    def _arrived(self, key: int, suffix: str) -> dict[str, float]:
        if key not in self._flying:
            return {}
        schema, rows = self._flying[key]
        if not all(row.is_ready() for row in rows if row is not None):
            return {}
        del self._flying[key]
        arrived = self._pipeline.drain.read(rows)
        found: dict[str, float] = {}
        for group, column in latest(schema, arrived):
            # A metric of several shards has no value here: it comes with its window.
            if not column.has_steps or not group.first.options.on_step:
                continue
            each = zip(group.specs, column.step_values()[0], column.present()[0], strict=True)
            for spec, value, is_present in each:
                if is_present and spec.options.prog_bar:
                    found[Key(spec.name, spec.options, suffix).step_tag] = float(value)
        return found


def _is_here(row: Any) -> bool:
    return row.is_fully_addressable or row.is_fully_replicated
