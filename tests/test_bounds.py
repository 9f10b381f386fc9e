"""The lower bounds of pyproject.toml are the versions that CI installs for its oldest suite."""

from __future__ import annotations

import pathlib
import re
import tomllib

import pytest

ROOT = pathlib.Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))


def _bounds(requirements: list[object]) -> dict[str, str]:
    found = [
        re.match(r"([\w.-]+)>=([\w.]+)$", line) for line in requirements if isinstance(line, str)
    ]
    return {match[1]: match[2] for match in found if match}


PINS = dict(
    line.split("==")
    for line in (ROOT / ".ci" / "oldest.txt").read_text("utf-8").splitlines()
    if "==" in line
)
EXTRAS = PROJECT["project"]["optional-dependencies"]


@pytest.mark.parametrize(
    "requirements",
    [PROJECT["project"]["dependencies"], PROJECT["dependency-groups"]["test"]],
    ids=["dependencies", "test"],
)
def test_what_ci_installs_is_pinned_at_its_bound(requirements: list[object]) -> None:
    bounds = _bounds(requirements)
    assert len(bounds) == len(requirements)
    assert {name: PINS.get(name) for name in bounds} == bounds


@pytest.mark.parametrize("extra", EXTRAS)
def test_an_extra_agrees_with_the_pins(extra: str) -> None:
    bounds = _bounds(EXTRAS[extra])
    assert {name: PINS[name] for name in bounds if name in PINS} == {
        name: bound for name, bound in bounds.items() if name in PINS
    }


def test_all_holds_every_extra() -> None:
    (line,) = EXTRAS["all"]
    assert set(line.removeprefix("jaxlog[").removesuffix("]").split(",")) == set(EXTRAS) - {"all"}
