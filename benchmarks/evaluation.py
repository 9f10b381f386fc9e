"""A validation epoch of a thousand tiny batches with ten epoch metrics, against the bare loop.

python benchmarks/evaluation.py [--repeats 7] [--quick]
"""

from __future__ import annotations

import argparse
import statistics
from typing import Any

import jax
import jax.numpy as jnp
import report

import jaxlog

BATCHES = 1000


def loss_of(w: Any, x: Any) -> Any:
    """Two layers of 128, on 32 examples."""
    return jnp.tanh(jnp.tanh(x @ w) @ w).var()


def step(w: Any, x: Any) -> Any:
    """The same with ten values that are reduced over the epoch."""
    loss = loss_of(w, x)
    for i in range(10):
        jaxlog.log(f"metric_{i}", loss * (1 + i))
    return loss


def main() -> None:
    """Both loops, and the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--quick", action="store_true", help="few batches: does it run?")
    options = parser.parse_args()
    w = jax.random.normal(jax.random.key(0), (128, 128)) * 0.1
    batches = [jnp.ones((32, 128))] * (50 if options.quick else BATCHES)
    bare = jax.jit(loss_of)
    loop = jaxlog.Loop(jaxlog.MemoryLogger(), progress_bar=False)
    logged = loop.validation_step(step)

    def by_hand() -> None:
        for x in batches:
            loss = bare(w, x)
        jax.block_until_ready(loss)

    def by_loop() -> None:
        for x in loop.validate(batches):
            logged(w, x)
        assert loop.callback_metrics["metric_9"]

    measures = {
        "bare loop": lambda: report.timed(by_hand),
        "10 metrics": lambda: report.timed(by_loop),
    }
    taken = report.interleaved(measures, options.repeats)
    rows = []
    for name, times in taken.items():
        more = statistics.median(a - b for a, b in zip(times, taken["bare loop"], strict=True))
        each = f"{1e6 * more / len(batches):+.1f} us"
        ratio = f"{report.ratio(times, taken['bare loop']):.3f}"
        rows.append([name, f"{1e3 * statistics.median(times):.1f} ms", ratio, each])
    head = [f"{len(batches)} batches", "an epoch", "ratio", "more a batch"]
    parts = [report.machine(), "", report.table(head, rows), "", "Wanted: at most 1.05."]
    print("\n".join(parts)) if options.quick else report.write("evaluation.py", "\n".join(parts))


if __name__ == "__main__":
    main()
