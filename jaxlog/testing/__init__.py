"""Suites that what plugs into jaxlog inherits, to prove that it behaves. They need pytest."""

from __future__ import annotations

from jaxlog.testing.logger_contract import HeldSink, LoggerContract
from jaxlog.testing.metric_laws import MetricLaws

__all__ = ["HeldSink", "LoggerContract", "MetricLaws"]
