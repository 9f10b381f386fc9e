"""HOST: the loop around the user's steps."""

from jaxlog.loop.cost import Cost
from jaxlog.loop.loop import Loop

__all__ = ["Cost", "Loop"]
