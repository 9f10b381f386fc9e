"""`ScalarAtStep`: a scalar with an x value of its own, `loop.log(name, value, step=...)`."""

from __future__ import annotations

import dataclasses
from typing import Any

from jaxlog.logs import Options
from jaxlog.metrics import Metric
from jaxlog.storage import Block
from jaxlog.windows.key import Key, holds_buckets
from jaxlog.windows.latest import LatestValues
from jaxlog.windows.logger_call import histogram_calls
from jaxlog.windows.phase import Output

__all__ = ["ScalarAtStep"]


@dataclasses.dataclass(frozen=True)
class ScalarAtStep:
    """A value that belongs to no step of the loop and takes part in no reduction.

    Attributes:
        name: its tag.
        options: its options; the ones about steps and epochs do not apply.
        arrays: the value: a number, a `jax.Array` of shape () or a `Metric`.
        step: its x value.
        time: its wall time, seconds since the epoch.
    """

    name: str
    options: Options
    arrays: Any
    step: int
    time: float

    def ingest(self, value: Any, latest: LatestValues) -> list[Output]:
        """Brings the mappings up to date; returns the row to write, and the histogram of one.

        Args:
            value: `arrays` on the host.
            latest: the mappings.
        """
        number = value.host_compute() if isinstance(value, Metric) else float(value)
        options = dataclasses.replace(self.options, on_step=False, on_epoch=True)
        key = Key(self.name, options, is_histogram=holds_buckets(value))
        latest.set_epoch([(key, number)])
        if not options.logger:
            return []
        buckets = histogram_calls(key, key.epoch_label, self.step, value)
        return [Block.row({key.epoch_tag: number}, self.step, self.time), *buckets]
