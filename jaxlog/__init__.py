"""jaxlog: logging for JAX and Flax, from anywhere in a compiled step to event files.

The house, top to bottom; imports point down only::

    testing/    tests to inherit
    demo.py     the demonstration: a Flax model on real digits
    interop/    Flax, and one file an optional dependency
    command_line/  I/O  the command jaxlog: event files in a terminal
    callbacks/  HOST  callbacks that ship
    loop/       HOST  hooks, phases, windows (the only device-to-host copy), results, callbacks
    progress/   HOST  bars
    tracing/    PURE  log, hook, the primitive, capture, one file for control-flow rules
    logs/       PURE  schema (static) and Logs (arrays)
    metrics/    PURE  metric states: empty, of, update, merge, compute
    loggers/    I/O   one file a logger; never sees a jax.Array
    reading/    I/O   event files back into tables and plots
    storage/    I/O   event records, event files over fsspec, the background writer
    compat.py   everything that depends on the version of JAX
    errors.py   the exception tree

A value goes down once and never back up: `log` -> the log primitive -> `capture` -> `Logs` -> (one
copy) -> `Loop` -> loggers -> event files -> `read_scalars`.
"""

from importlib.metadata import version as _version

from jaxlog import interop as interop  # says what capture has to know of Flax
from jaxlog.callbacks import (
    Callback,
    DeviceStatsMonitor,
    EarlyStopping,
    LearningRateMonitor,
    LoopView,
    ThroughputMonitor,
)
from jaxlog.errors import (
    CaptureError,
    HookError,
    JaxlogError,
    LogArgumentError,
    LoggerError,
    LoopError,
    MissingDependencyError,
    NonFiniteError,
    ReadError,
    SchemaError,
    WriteError,
)
from jaxlog.loggers import CSVLogger, Logger, MemoryLogger, TensorBoardLogger
from jaxlog.logs import Logs
from jaxlog.loop import Cost, Loop
from jaxlog.metrics import (
    AUROC,
    Accuracy,
    ConfusionMatrix,
    Histogram,
    Last,
    Max,
    Mean,
    Metric,
    Min,
    Quantiles,
    Sum,
    Variance,
    state,
)
from jaxlog.progress import RichProgressBar, TqdmProgressBar
from jaxlog.reading import follow, plot_scalars, read_scalars
from jaxlog.tracing import Captured, hook, log_dict, log_gradient
from jaxlog.tracing.capture import capture
from jaxlog.tracing.log import log
from jaxlog.windows import NonFinite

__version__ = _version("jaxlog")

__all__ = [
    "AUROC",
    "Accuracy",
    "CSVLogger",
    "Callback",
    "CaptureError",
    "Captured",
    "ConfusionMatrix",
    "Cost",
    "DeviceStatsMonitor",
    "EarlyStopping",
    "Histogram",
    "HookError",
    "JaxlogError",
    "Last",
    "LearningRateMonitor",
    "LogArgumentError",
    "Logger",
    "LoggerError",
    "Logs",
    "Loop",
    "LoopError",
    "LoopView",
    "Max",
    "Mean",
    "MemoryLogger",
    "Metric",
    "Min",
    "MissingDependencyError",
    "NonFinite",
    "NonFiniteError",
    "Quantiles",
    "ReadError",
    "RichProgressBar",
    "SchemaError",
    "Sum",
    "TensorBoardLogger",
    "ThroughputMonitor",
    "TqdmProgressBar",
    "Variance",
    "WriteError",
    "capture",
    "follow",
    "hook",
    "log",
    "log_dict",
    "log_gradient",
    "plot_scalars",
    "read_scalars",
    "state",
]
