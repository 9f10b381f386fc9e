"""The callbacks that ship. They use only what `Callback` offers, as a callback of yours would."""

from jaxlog.callbacks.device_stats import DeviceStatsMonitor
from jaxlog.callbacks.early_stopping import EarlyStopping
from jaxlog.callbacks.learning_rate import LearningRateMonitor
from jaxlog.callbacks.throughput import ThroughputMonitor

__all__ = ["DeviceStatsMonitor", "EarlyStopping", "LearningRateMonitor", "ThroughputMonitor"]
