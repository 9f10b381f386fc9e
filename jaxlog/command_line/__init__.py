"""The command `jaxlog`: event files in a terminal, and into other formats."""

from __future__ import annotations

from jaxlog.command_line.main import main
from jaxlog.command_line.show import sparkline

__all__ = ["main", "sparkline"]
