"""Loggers: where metrics go. Each is a `Logger`; the loop takes any object with `log_metrics`.

`protocol.py` documents the optional methods of such an object and adapts it to a `Logger`.
`lanes.py` splits the values of several runs in one program.
"""

from __future__ import annotations

from jaxlog.loggers.csv import CSVLogger
from jaxlog.loggers.file_logger import FileLogger
from jaxlog.loggers.lanes import PerLane
from jaxlog.loggers.logger import Logger, checked_metrics, checked_step
from jaxlog.loggers.memory import MemoryLogger
from jaxlog.loggers.protocol import (
    CanClose,
    CanFinalize,
    CanFlush,
    HasLanes,
    HasPending,
    LoggerLike,
    TakesAudio,
    TakesBlocks,
    TakesHistograms,
    TakesHyperparams,
    TakesImages,
    TakesText,
    adapt,
)
from jaxlog.loggers.tensorboard import TensorBoardLogger

__all__ = [
    "CSVLogger",
    "CanClose",
    "CanFinalize",
    "CanFlush",
    "FileLogger",
    "HasLanes",
    "HasPending",
    "Logger",
    "LoggerLike",
    "MemoryLogger",
    "PerLane",
    "TakesAudio",
    "TakesBlocks",
    "TakesHistograms",
    "TakesHyperparams",
    "TakesImages",
    "TakesText",
    "TensorBoardLogger",
    "adapt",
    "checked_metrics",
    "checked_step",
]
