"""Logging from anywhere in a traced program: `log`, `log_dict`, `hook`, `capture`."""

from jaxlog.tracing import rules as rules  # registers the rules
from jaxlog.tracing.capture import Captured, capture
from jaxlog.tracing.context import hook
from jaxlog.tracing.gradient import log_gradient
from jaxlog.tracing.log import log, log_dict

__all__ = ["Captured", "capture", "hook", "log", "log_dict", "log_gradient"]
