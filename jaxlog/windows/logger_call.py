"""What loggers get besides rows of scalars: histograms, pictures, sound, text, hyperparameters."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from jaxlog.metrics import Metric
from jaxlog.windows.key import Key, holds_buckets

__all__ = ["LoggerCall", "histogram_calls"]


@dataclasses.dataclass(frozen=True)
class LoggerCall:
    """One call of a logger's method, kept until the rows before it have been written.

    Attributes:
        method: the name of the method, such as `"log_image"`.
        tag: its name; None for hyperparameters.
        payload: its value: an array that may still be computed, a text or a mapping.
        step: its x value; None for hyperparameters.
        options: keyword arguments of the method.
        lane: the lane it is of; None for all lanes.
    """

    method: str
    tag: str | None
    payload: Any
    step: int | None
    options: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    lane: str | None = None

    @property
    def arrays(self) -> Any:
        """The payload, which may be on a device; hyperparameters are taken as they are."""
        return () if self.tag is None else self.payload

    def ingest(self, payload: Any, latest: Any) -> list[LoggerCall]:
        """The call with its payload on the host, to be made."""
        del latest  # no mapping holds what is not a scalar
        return [self if self.tag is None else dataclasses.replace(self, payload=payload)]

    def write(self, logger: Any) -> None:
        """Hands it to a logger.

        Args:
            logger: of one run, or of one run a lane (`loggers.PerLane`).
        """
        target = logger if self.lane is None else logger.for_lane(self.lane)
        place = () if self.tag is None else (self.tag,)
        at = () if self.step is None else (self.step,)
        getattr(target, self.method)(*place, self.payload, *at, **self.options)


def histogram_calls(key: Key, tag: str, step: int, state: Any) -> Iterator[LoggerCall]:
    """The histogram of a metric that has counted anything into buckets; else nothing.

    Args:
        key: what was logged.
        tag: the name of the histogram.
        step: the x value.
        state: what was merged, on the host; a number has no histogram.
    """
    if not isinstance(state, Metric) or not holds_buckets(state):
        return
    edges, counts = (np.asarray(part) for part in state.buckets())  # type: ignore[attr-defined]
    if counts.any():
        options = {"edges": edges.astype(np.float64)}
        counted = counts.astype(np.int64)
        yield LoggerCall("log_histogram", tag, counted, step, options, key.lane)
