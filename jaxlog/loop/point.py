"""One value with an x value of its own: `loop.log(name, value, step=...)`."""

from __future__ import annotations

import dataclasses
from typing import Any

from jaxlog.logs import Options
from jaxlog.loop.names import Key
from jaxlog.loop.results import Results
from jaxlog.metrics import Metric
from jaxlog.storage.block import Block

__all__ = ["Point"]


@dataclasses.dataclass(frozen=True)
class Point:
    """A value that belongs to no step of the loop.

    Attributes:
        name: its tag.
        options: its options; the ones about steps and epochs do not apply.
        value: a number, a `jax.Array` of shape () or a `Metric`.
        step: its x value.
        time: its wall time, seconds since the epoch.
    """

    name: str
    options: Options
    value: Any
    step: int
    time: float

    def publish(self, results: Results, resolved: Any) -> Block | None:
        """Brings the mappings up to date; returns the row to write."""
        value = resolved.host_compute() if isinstance(resolved, Metric) else float(resolved)
        plain = dataclasses.replace(self.options, on_step=False, on_epoch=True)
        results.set_epoch(Key(self.name, plain, ""), value)
        if not self.options.logger:
            return None
        return Block.row({self.name: value}, self.step, self.time)
