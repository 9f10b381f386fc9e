"""pyproject.toml, the versions of the oldest suite, the locks and the workflow agree."""

from __future__ import annotations

import pathlib
import re
import tomllib

import pytest
from packaging.requirements import Requirement

ROOT = pathlib.Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
EXTRAS = PROJECT["project"]["optional-dependencies"]
GROUPS = PROJECT["dependency-groups"]


def _bounds(requirements: list[object]) -> dict[str, str]:
    found = [
        re.match(r"([\w.-]+)>=([\w.]+)$", line) for line in requirements if isinstance(line, str)
    ]
    return {match[1]: match[2] for match in found if match}


def _pins(path: pathlib.Path) -> dict[str, str]:
    lines = path.read_text("utf-8").splitlines()
    return dict(line.split("==") for line in lines if "==" in line)


PINS = _pins(ROOT / ".ci" / "oldest.txt")
LOCKS = sorted((ROOT / ".ci").glob("lock-*.txt"))


@pytest.mark.parametrize(
    "requirements",
    [PROJECT["project"]["dependencies"], GROUPS["test"]],
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


# ---- the locks ----------------------------------------------------------------------------------


# What scripts/lock resolves: the dependencies, every group, and the extra demo.
LOCKED = [
    Requirement(line)
    for lines in (PROJECT["project"]["dependencies"], *GROUPS.values(), EXTRAS["demo"])
    for line in lines
    if isinstance(line, str) and not line.startswith("jaxlog[")
]


@pytest.mark.parametrize("lock", LOCKS, ids=lambda path: path.stem)
def test_a_lock_holds_what_pyproject_asks_for(lock: pathlib.Path) -> None:
    pins = _pins(lock)
    locked = {requirement.name: pins.get(requirement.name.lower()) for requirement in LOCKED}
    wrong = [
        f"{lock.name} has {locked[requirement.name]} of {requirement}; run scripts/lock"
        for requirement in LOCKED
        if (version := locked[requirement.name]) is None or version not in requirement.specifier
    ]
    assert wrong == []


def test_every_version_of_python_that_is_claimed_has_a_lock() -> None:
    claimed = re.findall(
        r"Programming Language :: Python :: (3\.\d+)", "\n".join(PROJECT["project"]["classifiers"])
    )
    assert [path.stem for path in LOCKS] == [f"lock-{version}" for version in claimed]


def test_the_formatter_and_the_type_checker_are_pinned() -> None:
    assert [re.search(r"==[\d.]+$", line) is not None for line in GROUPS["check"]] == [True, True]


def test_the_workflow_runs_every_part() -> None:
    parts = re.search(r"set -- (.+)$", (ROOT / ".ci" / "run").read_text("utf-8"), re.MULTILINE)
    jobs = re.search(r"part: \[(.+)\]", (ROOT / ".github/workflows/ci.yml").read_text("utf-8"))
    assert parts is not None
    assert jobs is not None
    assert jobs[1].split(", ") == parts[1].split()
