"""The one-way rule: a logged value goes down the list of parts once, and so do the imports."""

from __future__ import annotations

import ast
import dataclasses
import graphlib
import importlib
import pathlib
import textwrap
from collections.abc import Iterator

import pytest

PACKAGE = pathlib.Path(__file__).parent.parent / "jaxlog"

# Part -> the parts of jaxlog it may import besides itself. FACE is jaxlog/__init__.py.
FACE = "__init__"
MAY_IMPORT: dict[str, set[str]] = {
    "errors": set(),
    "compat": {"errors"},
    "metrics": {"errors", "compat"},
    "logs": {"errors", "compat", "metrics"},
    "tracing": {"errors", "compat", "metrics", "logs"},
    "storage": {"errors"},
    "loggers": {"errors", "storage"},
    "reading": {"errors", "storage"},
    "command_line": {"errors", "storage", "reading"},
    "__main__": {"command_line"},
    "callbacks": {"errors", "logs"},  # the loop comes as an argument, a LoopView
    "progress": {"errors", "callbacks"},
    "windows": {"errors", "metrics", "logs", "storage"},
    "steps": {"errors", "compat", "metrics", "logs", "tracing", "windows"},
}
MAY_IMPORT["loop"] = {"errors", "metrics", "logs", "loggers", "storage"} | {
    "callbacks", "progress", "windows", "steps"
}  # fmt: skip
_BUILT = set(MAY_IMPORT)
MAY_IMPORT["interop"] = _BUILT
MAY_IMPORT["testing"] = _BUILT | {FACE}
MAY_IMPORT["demo"] = _BUILT | {FACE, "interop"}
MAY_IMPORT[FACE] = _BUILT | {"interop"}

NEVER_JAX = {"loggers", "storage", "reading", "command_line"}
ONLY_JAX_TREE = {"windows"}  # a fetched window is numpy; metric states are pytrees
PURE = {"metrics", "logs", "tracing"}
EFFECTS = {"time", "threading", "os", "io", "fsspec", "pathlib"} | {
    "asyncio", "concurrent", "multiprocessing", "queue", "shutil", "subprocess", "tempfile"
}  # fmt: skip
OPTIONAL = {
    "matplotlib", "mlflow", "pandas", "polars", "pyarrow", "rich", "sklearn", "tensorboard",
    "tensorboardX", "wandb",
}  # fmt: skip
OPTIONAL_AT_TOP = {"interop", "demo"}
EMPTY_NAMES = {"base", "common", "helpers", "manager", "utils"}


@dataclasses.dataclass(frozen=True)
class Import:
    """One imported module: its dotted name, and where the import stands."""

    module: str
    line: int
    typing_only: bool = False
    at_top: bool = True


def imports_of(tree: ast.Module) -> list[Import]:
    return list(_walk(tree, typing_only=False, at_top=True))


def _walk(node: ast.AST, *, typing_only: bool, at_top: bool) -> Iterator[Import]:
    for name in _names(node):
        yield Import(name, getattr(node, "lineno", 0), typing_only, at_top)
    if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)):
        at_top = False
    guarded: list[ast.stmt] = []
    if isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING"):
        guarded = node.body
    for child in ast.iter_child_nodes(node):
        only = typing_only or child in guarded
        yield from _walk(child, typing_only=only, at_top=at_top)


def _names(node: ast.AST) -> Iterator[str]:
    match node:
        case ast.Import():
            yield from (alias.name for alias in node.names)
        case ast.ImportFrom(level=0, module=str(module)):
            yield from (f"{module}.{alias.name}" for alias in node.names)
        case ast.ImportFrom():
            yield ".relative"
        # What is reached without an import: jax._src.core, jax.device_get
        case ast.Attribute(value=ast.Name(id="jax" | "jaxlib" as root), attr=attr):
            if not attr.startswith("__"):
                yield f"{root}.{attr}"
        case ast.Call(func=func, args=[ast.Constant(value=str(module)), *_]):
            if ast.unparse(func).endswith(("import_module", "__import__")):
                yield module


def part_of(path: str) -> str:
    """The part of jaxlog that a file such as `metrics/mean.py` belongs to."""
    first = path.split("/", maxsplit=1)[0].removesuffix(".py")
    return "demo" if first.startswith("demo") else first


def _target(module: str) -> str:
    """The part that `jaxlog.x.y` names; what is no part is a name of the public face."""
    rest = module.removeprefix("jaxlog").removeprefix(".").split(".")[0]
    return part_of(rest) if part_of(rest) in MAY_IMPORT else FACE


def broken_rules(path: str, source: str) -> list[str]:
    """What is wrong with the file at `path` (below jaxlog/), a line each."""
    part = part_of(path)
    if part not in MAY_IMPORT:
        return [f"{path}: has no place in the map of jaxlog; give it one in MAY_IMPORT"]
    rules = [
        f"{path}: a module named {word!r} says nothing of what is in it"
        for word in path.removesuffix(".py").split("/")
        if word.strip("_") in EMPTY_NAMES
    ]
    rules.extend(
        f"{path}:{found.line}: imports {found.module}: {reason}"
        for found in imports_of(ast.parse(source))
        if (reason := _wrong(part, found)) is not None
    )
    return rules


def _wrong(part: str, found: Import) -> str | None:
    root, *rest = found.module.split(".")
    target = _target(found.module) if root == "jaxlog" else None
    private = root in {"jax", "jaxlib"} and any(
        word.startswith("_") and not word.startswith("__") for word in rest
    )
    checks = [
        (found.module == ".relative", "imports are absolute"),
        (private and part != "compat", "private to jax; only jaxlog/compat.py may reach in"),
        (root in {"jax", "jaxlib", "flax"} and part in NEVER_JAX, "this part never sees jax"),
        (
            root == "jax" and part in ONLY_JAX_TREE and rest[:1] not in ([], ["tree"]),
            "a fetched window is numpy: of jax only jax.tree",
        ),
        (root in EFFECTS and part in PURE, "this part is pure: no time, threads or files"),
        (
            root in OPTIONAL
            and found.at_top
            and not found.typing_only
            and part not in OPTIONAL_AT_TOP,
            "optional: import it inside the function that needs it",
        ),
        (
            target not in {None, part} | MAY_IMPORT[part],  # under TYPE_CHECKING too
            f"{part} may import {sorted(MAY_IMPORT[part])}",
        ),
    ]
    return next((reason for wrong, reason in checks if wrong), None)


FILES = sorted(str(path.relative_to(PACKAGE).as_posix()) for path in PACKAGE.rglob("*.py"))


@pytest.mark.parametrize("path", FILES)
def test_imports_point_down(path: str) -> None:
    assert broken_rules(path, (PACKAGE / path).read_text("utf-8")) == []


def test_there_is_something_to_check() -> None:
    assert {"errors.py", "compat.py"} <= set(FILES)


@pytest.mark.parametrize("path", [file for file in FILES if "__main__" not in file])
def test_every_module_imports_or_says_what_is_missing(path: str) -> None:
    # Collection passes over modules whose import fails, so a broken one would go unseen there.
    name = ".".join(["jaxlog", *path.removesuffix(".py").split("/")]).removesuffix(".__init__")
    try:
        importlib.import_module(name)
    except ImportError as error:
        missing = (error.name or "").split(".")[0]
        named = type(error).__name__ == "MissingDependencyError"
        assert named or (path.startswith("interop/") and missing not in {"", "jax", "jaxlog"})


@pytest.mark.parametrize(
    ("path", "source", "reason"),
    [
        ("metrics/mean.py", "from jaxlog.logs.schema import Schema", "metrics may import"),
        ("metrics/mean.py", "from jaxlog import logs", "metrics may import"),
        ("metrics/mean.py", "import jaxlog", "metrics may import"),
        ("metrics/mean.py", "from jaxlog import Mean", "metrics may import"),
        ("logs/state.py", "import jaxlog.tracing.log", "logs may import"),
        ("logs/state.py", "def f():\n    import jaxlog.tracing.log", "logs may import"),
        ("tracing/log.py", "from jaxlog.loop import Loop", "tracing may import"),
        ("storage/events.py", "from jaxlog.loggers import CSVLogger", "storage may import"),
        ("reading/scalars.py", "from jaxlog.loggers import CSVLogger", "reading may import"),
        ("progress/bar.py", "from jaxlog.loop import Loop", "progress may import"),
        ("progress/bar.py", "from jaxlog.compat import host_float64", "progress may import"),
        ("progress/bar.py", "if TYPE_CHECKING:\n    from jaxlog.loop import Loop", "progress may"),
        ("windows/phase.py", "from jaxlog.steps import Stage", "windows may import"),
        ("steps/stage.py", "from jaxlog.loop import Loop", "steps may import"),
        ("windows/phase.py", "import jax.numpy as jnp", "of jax only jax.tree"),
        ("windows/phase.py", "import jax\njax.device_get(x)", "of jax only jax.tree"),
        ("errors.py", "from jaxlog.compat import host_float64", "errors may import"),
        ("loop/loop.py", "from jaxlog.testing import MetricLaws", "loop may import"),
        ("loggers/csv.py", "import jax", "never sees jax"),
        ("loggers/csv.py", "def f():\n    from jax import numpy", "never sees jax"),
        ("loggers/csv.py", "from jaxlog.compat import host_float64", "loggers may import"),
        ("storage/events.py", "import importlib\nimportlib.import_module('jax')", "never sees"),
        ("reading/x.py", "if TYPE_CHECKING:\n    import jax", "never sees jax"),
        ("metrics/mean.py", "import time", "pure"),
        ("logs/state.py", "def f():\n    import threading", "pure"),
        ("tracing/log.py", "from os import path", "pure"),
        ("tracing/log.py", "import io, fsspec, pathlib", "pure"),
        ("reading/table.py", "import pandas as pd", "optional"),
        ("reading/table.py", "try:\n    import polars\nexcept ImportError: ...", "optional"),
        ("reading/table.py", "class A:\n    from matplotlib import pyplot", "optional"),
        ("loggers/x.py", "from tensorboardX import SummaryWriter", "optional"),
        ("tracing/log.py", "from jax._src import core", "private to jax"),
        ("tracing/log.py", "from jax import _src", "private to jax"),
        ("tracing/log.py", "import jax\njax._src.core.Jaxpr", "private to jax"),
        ("interop/nnx.py", "import jaxlib._jax", "private to jax"),
        ("metrics/mean.py", "from . import metric", "absolute"),
        ("metrics/utils.py", "", "says nothing"),
        ("loggers/_base.py", "", "says nothing"),
        ("loop/helpers/x.py", "", "says nothing"),
        ("misc/x.py", "", "no place in the map"),
    ],
)
def test_a_broken_rule_is_seen(path: str, source: str, reason: str) -> None:
    rules = broken_rules(path, source)
    assert rules
    assert all(reason in rule for rule in rules), rules


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("metrics/mean.py", "import jax\nfrom jaxlog.metrics.metric import Metric"),
        ("metrics/mean.py", "from jaxlog import errors, compat"),
        ("tracing/log.py", "from jax.extend.core import Primitive\njax.__version__"),
        ("loop/fetch.py", "import os, threading\nfrom jaxlog.loggers import CSVLogger"),
        ("windows/phase.py", "import jax\njax.tree.map(f, x)"),
        ("reading/table.py", "if TYPE_CHECKING:\n    import pandas as pd"),
        ("reading/table.py", "def f():\n    import pandas as pd"),
        ("interop/wandb.py", "import wandb\nfrom jaxlog.loggers.csv import CSVLogger"),
        ("demo.py", "import jaxlog, pandas, jax"),
        ("demo_parts/data.py", "import sklearn\nfrom jaxlog import Loop"),
        ("compat.py", "from jax._src import core"),
        ("__init__.py", "from jaxlog.interop import wandb\nfrom jaxlog.loop import Loop"),
    ],
)
def test_a_held_rule_passes(path: str, source: str) -> None:
    assert broken_rules(path, textwrap.dedent(source)) == []


def files_imported_by(path: str) -> set[str]:
    """The files of jaxlog that a file imports, under TYPE_CHECKING too."""
    found = set()
    for one in imports_of(ast.parse((PACKAGE / path).read_text("utf-8"))):
        names = one.module.split(".")
        for length in range(len(names), 1, -1):
            stem = "/".join(names[1:length])
            if names[0] == "jaxlog" and {f"{stem}.py", f"{stem}/__init__.py"} & set(FILES):
                found |= {f"{stem}.py", f"{stem}/__init__.py"} & set(FILES)
                break
    return found - {path}


def test_no_file_imports_itself_through_others() -> None:
    sorter = graphlib.TopologicalSorter({path: files_imported_by(path) for path in FILES})
    try:
        sorter.prepare()
    except graphlib.CycleError as error:
        pytest.fail(f"a circle of imports: {' -> '.join(error.args[1])}")


def test_no_room_is_more_than_a_fifth_of_the_house() -> None:
    lines: dict[str, int] = {}
    for path in FILES:
        count = len((PACKAGE / path).read_text("utf-8").splitlines())
        lines[part_of(path)] = lines.get(part_of(path), 0) + count
    largest = max(lines, key=lines.__getitem__)
    assert lines[largest] <= 0.18 * sum(lines.values()), largest


@pytest.mark.parametrize("path", FILES)
def test_functions_are_short(path: str) -> None:
    tree = ast.parse((PACKAGE / path).read_text("utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            assert node.end_lineno is not None  # only nodes made by hand have none
            doc = ast.get_docstring(node) or ""
            length = node.end_lineno - node.lineno - len(doc.splitlines())
            assert length <= 60, f"{path}:{node.lineno} {node.name} has {length} lines"
