"""HOST: the loop around the user's steps."""

from jaxlog.loop.cost import Cost
from jaxlog.loop.dispatch import Dispatcher
from jaxlog.loop.fetch import Fetcher
from jaxlog.loop.loop import Loop
from jaxlog.loop.progress_values import ProgressValues

__all__ = ["Cost", "Dispatcher", "Fetcher", "Loop", "ProgressValues"]
