"""HOST: a fetched window becomes rows for the loggers and values for the epoch; numpy, never JAX.

The way of a window through `Phase.ingest`, which reads top to bottom:

1. `decode`: the packed rows of each step function become a `Table` with one row a call, read by
   layout group (keys that are stored and reduced in one way are one array). Values of several
   devices and lanes are reduced or told apart here.
2. `NonFiniteWatch.check`: NaN and infinities are counted, and marked absent if the policy says so.
3. `EpochReductions.add`: what is kept goes into the reductions over the epoch.
4. `Table.in_rows`: calls become rows: several batches may share the row of one optimizer step.
5. `Table.join`: the tables of all step functions and of the host become one.
6. `LatestValues`: the mappings that users read get the latest value of each key.
7. `Settings.should_write` and `Table.block`: the rows that are written, as a `Block`.

Read the files in this order: `key.py` (names and tags), `window.py` (what comes in), `table.py`,
`decode.py`, `epoch.py`, `phase.py`.
"""

from jaxlog.windows.decode import latest_row
from jaxlog.windows.epoch import Accumulator, EpochReductions
from jaxlog.windows.key import Key, holds_buckets, key_of, loader_suffix
from jaxlog.windows.lane_names import lane_names, means_over_lanes
from jaxlog.windows.latest import LatestValues
from jaxlog.windows.logger_call import LoggerCall
from jaxlog.windows.nonfinite import NonFinite, NonFiniteWatch
from jaxlog.windows.phase import Output, Phase
from jaxlog.windows.scalar_at_step import ScalarAtStep
from jaxlog.windows.settings import Settings, check_count
from jaxlog.windows.table import Columns, Table
from jaxlog.windows.window import HostValue, Segment, Window

__all__ = [
    "Accumulator",
    "Columns",
    "EpochReductions",
    "HostValue",
    "Key",
    "LatestValues",
    "LoggerCall",
    "NonFinite",
    "NonFiniteWatch",
    "Output",
    "Phase",
    "ScalarAtStep",
    "Segment",
    "Settings",
    "Table",
    "Window",
    "check_count",
    "holds_buckets",
    "key_of",
    "lane_names",
    "latest_row",
    "loader_suffix",
    "means_over_lanes",
]
