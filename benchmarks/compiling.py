"""What comes before the first step: importing, tracing and compiling.

    python benchmarks/compiling.py [--repeats 7] [--quick]

A model of eight layers in a scan under remat and grad logs twenty values at several depths. Each
repeat traces and compiles a fresh function. Imports are timed in processes of their own.
"""

from __future__ import annotations

import argparse
import functools
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import report

import jaxlog


def _keep(kind: str, aux: dict[str, Any], name: str, value: Any) -> None:
    if kind == "logged":
        jaxlog.log(name, value)
    elif kind == "returned":
        aux[name] = value


def step_of(kind: str) -> Callable[[Any, Any], Any]:
    """A training step that keeps twenty values as `kind` says; a new function each time."""

    keep = functools.partial(_keep, kind)

    def block(x: Any, w: Any) -> Any:
        aux: dict[str, Any] = {}
        for i in range(2):  # these stand in a scan, in a remat, in a grad
            x = jax.nn.gelu(x @ w) + x
            x = x / jnp.sqrt((x**2).mean(-1, keepdims=True) + 1e-6)
            keep(aux, f"block/{i}", x.mean())
            keep(aux, f"largest/{i}", x.max())
        return x, aux

    def loss_fn(params: Any, x: Any) -> Any:
        aux: dict[str, Any] = {}
        x = x @ params["in"]
        for i in range(6):
            keep(aux, f"in/{i}", x[..., i].mean())
        x, inner = jax.lax.scan(jax.checkpoint(block), x, params["blocks"])
        loss = (jax.nn.log_softmax(x @ params["out"]) ** 2).mean()
        keep(aux, "loss", loss)
        return loss, aux | {name: values.mean() for name, values in inner.items()}

    def step(params: Any, x: Any) -> Any:
        (loss, aux), grads = jax.value_and_grad(loss_fn, has_aux=True)(params, x)
        for name, grad in grads.items():
            for i in range(3):
                keep(aux, f"grads/{name}/{i}", jnp.linalg.norm(grad) * i)
        return jax.tree.map(lambda p, g: p - 0.1 * g, params, grads), loss, aux

    return step


def seconds(params: Any, x: Any, kind: str) -> float:
    """To the first result, of a step that is traced and compiled."""
    jax.clear_caches()
    step = step_of(kind)
    if kind != "logged":
        run = jax.jit(step)
        return report.timed(lambda: jax.block_until_ready(run(params, x)))
    loop = jaxlog.Loop(False, progress_bar=False)
    run = loop.training_step(step)
    for _ in loop.train([x]):
        taken = report.timed(lambda: jax.block_until_ready(run(params, x)))
    return taken


def import_secs(program: str, cache: str) -> float:
    """Of a fresh interpreter, by its own clock; the first time it makes the byte code."""
    own = {**os.environ, "PYTHONPYCACHEPREFIX": cache}
    own.pop("PYTHONDONTWRITEBYTECODE", None)
    code = (
        "import jax, flax, time; t = time.perf_counter(); "
        f"{program}; print(time.perf_counter() - t)"
    )
    run = subprocess.run(
        [sys.executable, "-c", code], env=own, capture_output=True, text=True, check=True
    )
    return float(run.stdout)


def main() -> None:
    """All three, and the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--quick", action="store_true", help="one repeat: does it run?")
    options = parser.parse_args()
    repeats = 1 if options.quick else options.repeats
    key = jax.random.key(0)
    params = {
        "in": jax.random.normal(key, (16, 64)),
        "blocks": jax.random.normal(key, (8, 64, 64)) * 0.1,
        "out": jax.random.normal(key, (64, 10)),
    }
    x = jax.random.normal(key, (32, 16))
    cache = tempfile.TemporaryDirectory()
    measures = {
        "trace and compile, without the 20 values": lambda: seconds(params, x, "left out"),
        "the 20 values returned, `has_aux` and scan outputs": lambda: seconds(
            params, x, "returned"
        ),
        "the 20 values logged": lambda: seconds(params, x, "logged"),
        "`import jaxlog` after jax and flax": lambda: import_secs("import jaxlog", cache.name),
    }
    taken = report.interleaved(measures, repeats)
    cache.cleanup()
    bare, returned, logged, imported = taken.values()
    middle = [f"{1e3 * statistics.median(times):.0f} ms" for times in taken.values()]
    wanted = ["", "", "<= 1.1", "<= 60 ms"]
    more = f"{report.ratio(logged, bare):.2f}; to returned {report.ratio(logged, returned):.2f}"
    ratios = ["1.00", f"{report.ratio(returned, bare):.2f}", more, ""]
    assert imported
    rows = list(zip(taken, middle, ratios, wanted, strict=True))
    head = ["before the first step", "median", "ratio", "wanted"]
    text = "\n".join([report.machine(), "", report.table(head, rows)])
    print(text) if options.quick else report.write("compiling.py", text)


if __name__ == "__main__":
    main()
