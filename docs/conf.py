"""How the pages are built; `scripts/check` builds them, with every warning an error.

Cells of pages and notebooks run in the build. Their output is kept under `_build/` until a source
file of jaxlog changes, so a second build runs no cell.
"""

from __future__ import annotations

import hashlib
import inspect
import json
import logging as stdlib_logging
import os
import pathlib
import re
import sys
from typing import Any

from sphinx.application import Sphinx
from sphinx.util import logging

import jaxlog

HERE = pathlib.Path(__file__).parent
ROOT = HERE.parent
PACKAGE = pathlib.Path(jaxlog.__file__).parent

# The kernels that run cells must use the interpreter and the devices of this build.
os.environ["PATH"] = f"{pathlib.Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
os.environ.setdefault("JAX_PLATFORMS", "cpu")
# They must not read the user's IPython configuration, nor print how they are connected.
os.environ["IPYTHONDIR"] = str(HERE / "_build" / "ipython")
profile = HERE / "_build" / "ipython" / "profile_default"
profile.mkdir(parents=True, exist_ok=True)
(profile / "ipython_kernel_config.py").write_text("get_config().IPKernelApp.log_level = 40\n")
stdlib_logging.getLogger("traitlets").setLevel("WARNING")

project = "jaxlog"
author = "The jaxlog authors"
project_copyright = author
version = release = jaxlog.__version__

extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.viewcode"]
exclude_patterns = ["_build", "**.ipynb_checkpoints"]
html_theme = "furo"
html_title = "jaxlog"
html_static_path = ["_static"]
html_css_files = ["jaxlog.css"]
html_copy_source = False
html_show_sphinx = False
templates_path: list[str] = []

# ---- pages --------------------------------------------------------------------------------------

myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3
suppress_warnings = ["myst.header"]  # pages that include a file start at its level

nb_execution_mode = "cache"
nb_execution_timeout = 300
nb_execution_raise_on_error = True
nb_execution_show_tb = True
nb_execution_in_temp = True  # what cells write is not left in docs/
nb_output_stderr = "remove"  # a progress bar redraws itself, which a page cannot show
nb_merge_streams = True


def _sources() -> str:
    """A digest of all that a cell may call."""
    digest = hashlib.sha256()
    for path in sorted(PACKAGE.rglob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


nb_execution_cache_path = str(HERE / "_build" / "cells" / _sources())

# ---- the reference ------------------------------------------------------------------------------

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_class_signature = "mixed"
maximum_signature_line_length = 88
add_module_names = False
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True
toc_object_entries_show_parents = "hide"

# Docstrings have code in single backticks. If it is a documented name, it becomes a link.
default_role = "py:obj"
nitpicky = True
nitpick_ignore_regex = [
    ("py:obj", r".*"),  # the backticks above: most are code, not references
    ("py:.*", r"(jax|np|npt|numpy|optax|fsspec|matplotlib|pd|pl|collections)\..*"),
    ("py:.*", r"(contextlib|types|typing|os|pathlib)\..*"),
    ("py:class", r"(jaxlog\..*\.)?[A-Z]"),  # type variables
    ("py:class", r"jaxlog\.logs\.(schema|options)\..*|Literal|Callable|Sequence|NanPolicy|Any"),
    ("py:class", r"Reduce|Figure|A DataFrame|the backend|a dict|arrays|Table"),
]


# ---- what else has to hold ----------------------------------------------------------------------


_CODE = re.compile(r"``[^`]+``|(?<![`:\w])`([^`]+)`(?![`_])(\w?)")
_NAME = re.compile(r"[A-Za-z_][\w.]*")


def _mark_code(*event: Any) -> None:
    """Makes a literal of backticks around code that is not a name, before docutils parses them."""
    lines: list[str] = event[-1]

    def marked(found: re.Match[str]) -> str:
        code, after = found[1], found[2]
        if code is None:
            return found[0]
        role = f"`{code}`" if _NAME.fullmatch(code) else f"``{code}``"
        return f"{role}\\ {after}" if after else role  # docutils does not parse `Callback`s

    lines[:] = _CODE.sub(marked, "\n".join(lines)).split("\n")


class _Named:
    """A default value that a signature shows by name."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __repr__(self) -> str:
        return self._name


def _name_defaults(app: Sphinx, obj: Any, bound_method: bool) -> None:  # noqa: FBT001 - sphinx's
    """Shows functions among default values as `time.time`, not by their address.

    `autodoc_preserve_defaults` does that too, but it reads the defaults from the source. It fails
    if the signature has more parameters than the source, as that of `jaxlog.log` has.
    """
    del app, bound_method
    try:
        shown = inspect.signature(obj)
    except (TypeError, ValueError):
        return
    named = [
        one.replace(
            default=_Named(f"{one.default.__module__.split('.')[0]}.{one.default.__name__}")
        )
        if inspect.isroutine(one.default)
        else one
        for one in shown.parameters.values()
    ]
    if any(isinstance(one.default, _Named) for one in named):
        obj.__signature__ = shown.replace(parameters=named)


def _copy_notebooks() -> None:
    """Copies the notebooks into docs/, because sphinx reads only files below its own folder."""
    here = HERE / "_notebooks"
    here.mkdir(exist_ok=True)
    names = set()
    for path in (ROOT / "notebooks").glob("*.ipynb"):
        text = path.read_text("utf-8")
        if any(cell.get("outputs") for cell in json.loads(text)["cells"]):
            raise RuntimeError(
                f"{path.relative_to(ROOT)} has outputs, which the build would not show and git "
                f"should not carry; clear them: jupyter nbconvert --clear-output --inplace {path}"
            )
        names.add(path.name)
        copy = here / path.name
        if not copy.exists() or copy.read_text("utf-8") != text:
            copy.write_text(text, "utf-8")
    for stale in here.glob("*.ipynb"):
        if stale.name not in names:
            stale.unlink()


def _check_complete(app: Sphinx, env: Any) -> None:
    """Warns of public names that are not in the reference."""
    del app
    documented = {name for name, *_ in env.get_domain("py").get_objects()}
    missing = [name for name in jaxlog.__all__ if f"jaxlog.{name}" not in documented]
    if missing:
        logging.getLogger(__name__).warning(
            "not in docs/api: %s", ", ".join(missing), location="api/index"
        )


def setup(app: Sphinx) -> None:
    """Connects the checks."""
    app.connect("autodoc-before-process-signature", _name_defaults)
    app.connect("autodoc-process-docstring", _mark_code, priority=100)
    app.connect("env-check-consistency", _check_complete)


_copy_notebooks()
