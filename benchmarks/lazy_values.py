"""What a lazy value costs at the steps that do not write it.

A training step on a 512 x 512 layer logs its loss. Beside it: a histogram of a million numbers,
logged as a function and written once in 50 steps, or never, or logged as a value, which computes it
at every step. usage: python benchmarks/lazy_values.py [--steps 200] [--repeats 7]
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import report

import jaxlog

EVERY = 50
EDGES = tuple(jnp.linspace(-4, 4, 31).tolist())


def step_of(kind: str) -> Callable[..., Any]:
    """The step that logs in that way."""

    def step(w: Any, weights: Any, x: Any) -> Any:
        def loss_fn(w: Any) -> Any:
            return jnp.tanh(x @ w).var()

        loss, grad = jax.value_and_grad(loss_fn)(w)
        jaxlog.log("loss", loss)
        if "lazy" in kind:
            jaxlog.log("histogram", lambda: jaxlog.Histogram.of(weights + loss, edges=EDGES))
        elif kind == "always":
            jaxlog.log("histogram", jaxlog.Histogram.of(weights + loss, edges=EDGES))
        return w - 0.1 * grad

    return step


def seconds(run: Any, w: Any, weights: Any, batches: list[Any], loop: Any) -> float:
    """The time of a pass over the batches."""
    begun = time.perf_counter()
    for x in loop.train(batches):
        w = run(w, weights, x)
    jax.block_until_ready(w)
    return time.perf_counter() - begun


def main() -> None:
    """Interleaved repeats of all variants, and their medians as a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--repeats", type=int, default=7)
    options = parser.parse_args()
    key = jax.random.key(0)
    w, x = jax.random.normal(key, (512, 512)) * 0.05, jax.random.normal(key, (256, 512))
    weights = jax.random.normal(key, (1_000_000,))
    runs = {}
    for kind in ("without", "lazy, never written", "lazy", "always"):
        every = 10**9 if "never" in kind else EVERY
        loop = jaxlog.Loop(jaxlog.MemoryLogger(), log_every_n_steps=every, progress_bar=False)
        runs[kind] = loop.training_step(step_of(kind)), loop
    steps = {kind: options.steps // 20 if kind == "always" else options.steps for kind in runs}
    taken: dict[str, list[float]] = {kind: [] for kind in runs}
    for repeat in range(options.repeats + 1):  # the first compiles
        for kind, (run, loop) in runs.items():
            spent = seconds(run, w, weights, [x] * steps[kind], loop)
            if repeat:
                taken[kind].append(1e3 * spent / steps[kind])
    rows = [
        [kind, f"{statistics.median(times):.3f}", f"{report.ratio(times, taken['without']):.3f}"]
        for kind, times in taken.items()
    ]
    head = [f"histogram of 1M values, every {EVERY} steps", "ms a step", "ratio"]
    wanted = "Wanted of a lazy one: at most 1.05."
    report.write(
        "lazy_values.py", "\n".join([report.machine(), "", report.table(head, rows), "", wanted])
    )


if __name__ == "__main__":
    main()
