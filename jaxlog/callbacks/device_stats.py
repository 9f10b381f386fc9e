"""Logs the memory of the accelerators."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import Any

import jax

from jaxlog.callbacks.callback import Callback
from jaxlog.callbacks.loop_view import LoopView

__all__ = ["DeviceStatsMonitor"]


class DeviceStatsMonitor(Callback):
    """Logs the memory statistics of this process's devices, at the steps that are written.

    Tags are `device_0/bytes_in_use`, `device_0/peak_bytes_in_use` and so on. A statistic that the
    backend does not report is left out. A backend that reports none (CPU) causes one warning.

    Args:
        statistics: names of the backend's statistics to log; values are bytes or counts.
        devices: returns the devices to log.

    Example:
        >>> import jaxlog
        >>> loop = jaxlog.Loop(logger=False, callbacks=[jaxlog.DeviceStatsMonitor()])
    """

    def __init__(
        self,
        statistics: Sequence[str] = ("bytes_in_use", "peak_bytes_in_use", "bytes_limit"),
        *,
        devices: Callable[[], Sequence[Any]] = jax.local_devices,
    ) -> None:
        self.statistics = tuple(statistics)
        self._list_devices = devices
        self._devices: list[tuple[int, Any]] = []

    def on_train_start(self, loop: LoopView) -> None:
        """Finds the devices that report statistics; warns if there are none."""
        del loop
        devices = self._list_devices()
        self._devices = [(i, d) for i, d in enumerate(devices) if d.memory_stats()]
        if not self._devices:
            warnings.warn(
                f"DeviceStatsMonitor(): the {devices[0].platform} backend reports no memory "
                f"statistics, so there is nothing to log; leave the callback out here",
                stacklevel=2,
            )

    def on_train_batch_end(self, loop: LoopView, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Logs the current statistics."""
        del outputs, batch, batch_idx
        if not loop.is_logging_step:
            return
        for index, device in self._devices:
            reported = device.memory_stats()
            for statistic in self.statistics:
                if statistic in reported:
                    loop.log(f"device_{index}/{statistic}", reported[statistic])
