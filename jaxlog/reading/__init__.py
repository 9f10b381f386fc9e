"""Reading: event files back into tables and plots.

`find_runs` lists the files, `split_records` finds their records, `decode_scalars` turns those into
columns (`parse_event` reads one event's bytes), and `read_scalars` and `follow` hand them out.
"""

from __future__ import annotations

from jaxlog.reading.decoder import ScalarColumns, decode_scalars
from jaxlog.reading.follow import ScalarRow, follow
from jaxlog.reading.plots import plot_scalars
from jaxlog.reading.protobuf import Event, EventScalar, ProtobufError, parse_event
from jaxlog.reading.record_parser import Records, split_records
from jaxlog.reading.runs import RunFiles, find_runs
from jaxlog.reading.scalars import read_scalars

__all__ = [
    "Event",
    "EventScalar",
    "ProtobufError",
    "Records",
    "RunFiles",
    "ScalarColumns",
    "ScalarRow",
    "decode_scalars",
    "find_runs",
    "follow",
    "parse_event",
    "plot_scalars",
    "read_scalars",
    "split_records",
]
