"""Values for progress bars: the latest that have arrived, without waiting."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from jaxlog.logs import Schema
from jaxlog.loop.devices import columns_of
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
                wanted = any(e.options.prog_bar and e.options.on_step for e in step.schema)
                if recorder.in_batch and wanted and id(step) not in self._flying:
                    self._take_off(id(step), step.schema, step.last_row)
        return dict(shown)

    def _take_off(self, key: int, schema: Schema, row: Any) -> None:
        if row is not None:
            self._pipeline.drain.start(row)
            self._flying[key] = (schema, row)

    def _arrived(self, key: int, suffix: str) -> dict[str, float]:
        if key not in self._flying or not self._flying[key][1].is_ready():
            return {}
        schema, row = self._flying.pop(key)
        columns = columns_of(schema, np.expand_dims(self._pipeline.drain.read(row), -2), 1)
        return {
            Key(name, column.entry.options, suffix).step_tag: float(column.step_values()[0])
            for name, column in columns.items()
            if column.entry.options.prog_bar
            and column.entry.options.on_step
            and column.present()[0]
        }
