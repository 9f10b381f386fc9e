"""`jaxlog.__all__` lists what `import jaxlog` shows; each name has a docstring and an example."""

from __future__ import annotations
import __future__

import inspect

import pytest

import jaxlog

NAMES = list(getattr(jaxlog, "__all__", ()))


def _shown() -> set[str]:
    """Public attributes, without the parts (submodules) that importing leaves there."""
    return {
        name
        for name in dir(jaxlog)
        if not name.startswith("_")
        and not inspect.ismodule(getattr(jaxlog, name))
        and not isinstance(getattr(jaxlog, name), __future__._Feature)
    }


@pytest.mark.skipif(
    getattr(jaxlog, "__file__", None) is None, reason="jaxlog/__init__.py is not written yet"
)
def test_all_is_what_the_package_shows() -> None:
    modules = {name for name in NAMES if inspect.ismodule(getattr(jaxlog, name))}
    assert set(NAMES) - modules == _shown()
    assert NAMES


def test_no_name_is_listed_twice() -> None:
    assert len(set(NAMES)) == len(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_each_name_has_an_example(name: str) -> None:
    member = getattr(jaxlog, name)
    doc = inspect.getdoc(member) or ""
    assert doc, f"{name} has no docstring"
    inherited = inspect.isclass(member) and not member.__doc__
    assert not inherited, f"{name} has only the docstring of its base"
    # An error is shown where it is raised: in the docstring of what raises it.
    is_error = inspect.isclass(member) and issubclass(member, Exception)
    assert is_error or inspect.ismodule(member) or ">>>" in doc, f"{name} has no example"
