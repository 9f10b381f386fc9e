"""What was logged: the schema (static) and `Logs` (arrays)."""

from jaxlog.logs.arguments import check_call
from jaxlog.logs.hooks import HOOKS, Hook, find_hook, resolve_flags
from jaxlog.logs.logs import Logs
from jaxlog.logs.options import (
    CALL_ARGUMENTS,
    NAN_POLICIES,
    LogOptions,
    NanPolicy,
    Options,
    check_names,
    check_options,
    takes_options,
)
from jaxlog.logs.schema import KeySpec, Schema

__all__ = [
    "CALL_ARGUMENTS",
    "HOOKS",
    "NAN_POLICIES",
    "Hook",
    "KeySpec",
    "LogOptions",
    "Logs",
    "NanPolicy",
    "Options",
    "Schema",
    "check_call",
    "check_names",
    "check_options",
    "find_hook",
    "resolve_flags",
    "takes_options",
]
