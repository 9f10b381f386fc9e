"""What was logged: the schema (static) and `Logs` (arrays)."""

from jaxlog.logs.hooks import HOOKS, Hook
from jaxlog.logs.logs import Logs
from jaxlog.logs.schema import KeySpec, Options, Schema

__all__ = ["HOOKS", "Hook", "KeySpec", "Logs", "Options", "Schema"]
