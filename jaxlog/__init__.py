"""jaxlog: logging for JAX and Flax, from anywhere in a compiled step to event files.

The rooms, top to bottom; a room imports only from rooms below it::

    testing/    suites to inherit: MetricLaws, LoggerContract
    demo.py     the demonstration: a Flax model on real digits
    interop/    Flax, and one file an optional dependency
    loop/       HOST    the face, the driver of phases and hooks, the queue to the loggers
    progress/   HOST    bars
    callbacks/  HOST    Callback, the view of a loop that it gets, callbacks that ship
    steps/      DEVICE  a user's function captured and compiled, its recording threaded out of sight
    windows/    HOST    a fetched window to rows and epoch values; numpy, of JAX only jax.tree
    tracing/    PURE    log, hook, the log primitive, capture, one rule a JAX primitive
    logs/       PURE    schema (static), Logs and recordings (arrays), options, the decoding of rows
    metrics/    PURE    metric states and the one table of reductions
    command_line/  I/O  the command jaxlog: event files in a terminal
    loggers/    I/O     one file a logger; never sees a jax.Array
    reading/    I/O     event files back into tables and plots
    storage/    I/O     event records, files over fsspec, the background writer
    compat.py   everything that depends on the version of JAX
    errors.py   the exception tree

A value goes down once and never back up: `log` -> the log primitive -> `capture` -> a recording on
the device -> one copy a window -> rows -> loggers -> event files -> `read_scalars`. The page
"A tour of the internals" follows one.
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
from jaxlog.logs import LogOptions, Logs
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
    "LogOptions",
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
