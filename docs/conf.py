"""How the pages are built: `scripts/check` does, with every warning an error.

Cells of pages and notebooks run in the build. What they printed is kept under `_build/` for as long
as no source file of jaxlog changes, so a second build runs none.
"""

from __future__ import annotations

import hashlib
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

# The kernels that run cells find the interpreter and the devices that this build has.
os.environ["PATH"] = f"{pathlib.Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
os.environ.setdefault("JAX_PLATFORMS", "cpu")
# They see nothing of the user's own IPython, and say nothing of how they are connected.
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
autodoc_preserve_defaults = True
# Otherwise the union that numpy defines it as fills the signature.
autodoc_type_aliases = {"npt.ArrayLike": "numpy.typing.ArrayLike"}
autodoc_class_signature = "mixed"
maximum_signature_line_length = 88
add_module_names = False
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True
toc_object_entries_show_parents = "hide"

# Docstrings put code into single backticks. What names something here becomes a link.
default_role = "py:obj"
nitpicky = True
nitpick_ignore_regex = [
    ("py:obj", r".*"),  # the backticks above: most are code, and no reference
    (
        "py:.*",
        r"(jax|np|npt|numpy|pd|pl|optax|fsspec|matplotlib|collections|types|typing|os|pathlib)\..*",
    ),
    ("py:class", r"jaxlog\.logs\.schema\..*|Reduce|Figure|A DataFrame|the backend"),
]


# ---- what else has to hold ----------------------------------------------------------------------


_CODE = re.compile(r"``[^`]+``|(?<![`:\w])`([^`]+)`(?![`_])(\w?)")
_NAME = re.compile(r"[A-Za-z_][\w.]*")


def _mark_code(*event: Any) -> None:
    """Backticks around code that is no name become a literal, before anyone parses them."""
    lines: list[str] = event[-1]

    def marked(found: re.Match[str]) -> str:
        code, after = found[1], found[2]
        if code is None:
            return found[0]
        role = f"`{code}`" if _NAME.fullmatch(code) else f"``{code}``"
        return f"{role}\\ {after}" if after else role  # `Callback`s is no markup to docutils

    lines[:] = _CODE.sub(marked, "\n".join(lines)).split("\n")


def _copy_notebooks() -> None:
    """Sphinx reads below its own folder only, and the notebooks lie beside it."""
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
    """Every public name stands in the reference."""
    del app
    documented = {name for name, *_ in env.get_domain("py").get_objects()}
    missing = [name for name in jaxlog.__all__ if f"jaxlog.{name}" not in documented]
    if missing:
        logging.getLogger(__name__).warning(
            "not in docs/api: %s", ", ".join(missing), location="api/index"
        )


def setup(app: Sphinx) -> None:
    """Connects the checks."""
    app.connect("autodoc-process-docstring", _mark_code, priority=100)
    app.connect("env-check-consistency", _check_complete)


_copy_notebooks()
