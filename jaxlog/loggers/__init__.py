"""Loggers: where metrics go. Each is a `Logger`; the loop takes any object with `log_metrics`."""

from __future__ import annotations

from jaxlog.loggers.csv import CSVLogger
from jaxlog.loggers.logger import Logger
from jaxlog.loggers.memory import MemoryLogger
from jaxlog.loggers.tensorboard import TensorBoardLogger

__all__ = ["CSVLogger", "Logger", "MemoryLogger", "TensorBoardLogger"]
