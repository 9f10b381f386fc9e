"""Suites of tests that a metric of one's own inherits. They need pytest, and nothing else does."""

from jaxlog.testing.metric_laws import MetricLaws

__all__ = ["MetricLaws"]
