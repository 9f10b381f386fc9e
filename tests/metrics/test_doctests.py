"""Every example in the docstrings of jaxlog.metrics runs and prints what it says."""

from __future__ import annotations

import doctest
import importlib
import inspect
import pkgutil

import pytest

import jaxlog.metrics

MODULES = [
    f"jaxlog.metrics.{module.name}" for module in pkgutil.iter_modules(jaxlog.metrics.__path__)
]


@pytest.mark.parametrize("name", MODULES)
def test_examples_run(name: str) -> None:
    assert doctest.testmod(importlib.import_module(name)).failed == 0


def test_every_public_name_has_an_example() -> None:
    for name in jaxlog.metrics.__all__:
        member = getattr(jaxlog.metrics, name)
        if inspect.isclass(member) or inspect.isfunction(member):
            assert ">>>" in (member.__doc__ or ""), name
