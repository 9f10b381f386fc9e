"""`ProgressValues`: the latest values for progress bars, as far as they have arrived."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from jaxlog.logs import Schema
from jaxlog.loop.fetch import Fetcher
from jaxlog.steps import Stage
from jaxlog.windows import key_of, latest_row

__all__ = ["ProgressValues"]


class ProgressValues:
    """Copies the latest packed row of each step off the device, one row at a time.

    A bar asks several times a second. A copy that is not complete is left for the next time.
    """

    def __init__(self, stages: Mapping[str, Stage], fetcher: Fetcher) -> None:
        """Values of nothing yet."""
        self._stages = stages
        self._fetcher = fetcher
        self._copies: dict[int, tuple[Schema, Any]] = {}  # under way, by id of the step

    def latest(self) -> dict[str, float]:
        """Tag to value of what was logged with `prog_bar=True`, as of a few steps ago."""
        shown = self._fetcher.latest.progress_bar
        for stage in self._stages.values():
            for step in stage.steps:
                suffix = stage.window.suffix if stage.window is not None else ""
                shown.update(self._arrived(id(step), suffix))
                # One copy under way a step: a bar wants a recent value, not every value.
                if stage.in_batch and step.schema.has_bar and id(step) not in self._copies:
                    self._start(id(step), step.schema, step.last_rows)
        return dict(shown)

    def _start(self, step: int, schema: Schema, rows: Any) -> None:
        if rows is not None:
            # Values of other processes come with the window.
            mine = tuple(row if row is None or _is_here(row) else None for row in rows)
            self._fetcher.start(mine)
            self._copies[step] = (schema, mine)

    def _arrived(self, step: int, suffix: str) -> dict[str, float]:
        if step not in self._copies:
            return {}
        schema, rows = self._copies[step]
        if not all(row.is_ready() for row in rows if row is not None):
            return {}
        del self._copies[step]
        found: dict[str, float] = {}
        for group, column in latest_row(schema, self._fetcher.read(rows)):
            # A metric of several shards has no value here: it comes with its window.
            if not column.has_steps or not group.first.options.on_step:
                continue
            each = zip(group.specs, column.step_values()[0], column.present()[0], strict=True)
            for spec, value, is_present in each:
                if is_present and spec.options.prog_bar:
                    found[key_of(spec, suffix).step_tag] = float(value)
        return found


def _is_here(row: Any) -> bool:
    return row.is_fully_addressable or row.is_fully_replicated
