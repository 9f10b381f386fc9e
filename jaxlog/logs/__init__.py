"""What was logged: the schema (static) and `Logs` (arrays)."""

from jaxlog.logs.hooks import HOOKS, Hook
from jaxlog.logs.logs import Logs
from jaxlog.logs.schema import Entry, Options, Schema

__all__ = ["HOOKS", "Entry", "Hook", "Logs", "Options", "Schema"]
