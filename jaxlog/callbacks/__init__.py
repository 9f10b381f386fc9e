"""HOST: `Callback`, the view of a loop that it gets, and the callbacks that ship."""

from jaxlog.callbacks.callback import HOST_HOOKS, Callback
from jaxlog.callbacks.device_stats import DeviceStatsMonitor
from jaxlog.callbacks.early_stopping import EarlyStopping
from jaxlog.callbacks.learning_rate import LearningRateMonitor
from jaxlog.callbacks.loop_view import LoopView
from jaxlog.callbacks.throughput import ThroughputMonitor

__all__ = [
    "HOST_HOOKS",
    "Callback",
    "DeviceStatsMonitor",
    "EarlyStopping",
    "LearningRateMonitor",
    "LoopView",
    "ThroughputMonitor",
]
