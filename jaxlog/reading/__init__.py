"""Reading: event files back into tables and plots."""

from __future__ import annotations

from jaxlog.reading.follow import ScalarRow, follow
from jaxlog.reading.plots import plot_scalars
from jaxlog.reading.scalars import read_scalars

__all__ = ["ScalarRow", "follow", "plot_scalars", "read_scalars"]
