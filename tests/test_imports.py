"""`import jaxlog` brings what a training step needs; the rest comes with its first use.

By what is loaded, never by a clock.
"""

from __future__ import annotations

import subprocess
import sys

import pytest

# Each is heavy, or stands for a part of jaxlog that a training step does without.
LATER = [
    "IPython", "chex", "clu", "fsspec", "google.cloud", "ipywidgets", "matplotlib", "metrax",
    "mlflow", "optax", "pandas", "polars", "pyarrow", "rich", "s3fs", "sklearn", "tensorboard",
    "tensorboardX", "tensorflow", "torch", "tqdm", "wandb", "jax.experimental.multihost_utils",
    "jaxlog.command_line", "jaxlog.demo", "jaxlog.interop.linen", "jaxlog.interop.nnx",
    "jaxlog.testing",
]  # fmt: skip


def loaded(program: str) -> set[str]:
    """The modules in a fresh interpreter after that program."""
    code = f"{program}\nimport sys\nprint(*sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(run.stdout.split())


@pytest.fixture(scope="module")
def after_jax() -> set[str]:
    return loaded("import jax, jaxlib, numpy")


@pytest.fixture(scope="module")
def after_jaxlog() -> set[str]:
    return loaded("import jaxlog")


@pytest.mark.parametrize("module", LATER)
def test_comes_with_its_first_use(module: str, after_jax: set[str], after_jaxlog: set[str]) -> None:
    found = {name for name in after_jaxlog - after_jax if f"{name}.".startswith(f"{module}.")}
    assert found == set()


def test_flax_comes_with_the_program_that_uses_it(after_jaxlog: set[str]) -> None:
    assert "flax" not in after_jaxlog


def test_a_logger_opens_its_filesystem_with_its_first_file() -> None:
    made = loaded("import jaxlog; jaxlog.TensorBoardLogger('memory://runs')")
    assert "fsspec" not in made
    written = loaded(
        "import jaxlog\n"
        "with jaxlog.TensorBoardLogger('memory://runs') as logger:\n"
        "    logger.log_metrics({'loss': 1.0}, 0)"
    )
    assert "fsspec" in written
    assert "tensorboardX" not in written
