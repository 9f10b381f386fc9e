"""The host side: the loop, its hooks, and what it adds up."""

from jaxlog.loop.callbacks import Callback
from jaxlog.loop.cost import Cost
from jaxlog.loop.loop import Loop
from jaxlog.loop.nonfinite import NonFinite

__all__ = ["Callback", "Cost", "Loop", "NonFinite"]
