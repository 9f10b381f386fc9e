"""What grows with the number of metrics, of devices and of steps: next to nothing.

    python benchmarks/growth.py [--repeats 7] [--quick]

The loop's own Python is timed around a step whose compiled program is taken out; what taking in a
window costs is what `loop.cost()` counts. Devices are simulated ones on the cores there are.
"""

from __future__ import annotations

import argparse
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import report
from jax.sharding import Mesh, NamedSharding, PartitionSpec

import jaxlog

METRICS = (1, 10, 100, 1000)
DEVICES = (1, 2, 4, 8)
NOTES = (
    "Wanted of the loop's Python: 1000 to 10 at most 1.3. What a window takes includes waits for",
    "the device, which at 1000 metrics is the busy one: that step has nothing else to do.",
)


def model(w: Any, x: Any) -> tuple[Any, Any]:
    """A layer of 512 x 512 on a batch of 256: some milliseconds."""
    loss, grad = jax.value_and_grad(lambda w: jnp.tanh(x @ w).var())(w)
    return w - 0.1 * grad, loss


def logging(count: int) -> Callable[[Any, Any], Any]:
    """The step, with so many metrics."""

    def step(w: Any, x: Any) -> Any:
        w, loss = model(w, x)
        for i in range(count):
            jaxlog.log(f"metric_{i:03}", loss * (1 + i))
        return w

    return step


def loop_to(path: str) -> jaxlog.Loop:
    logger = jaxlog.TensorBoardLogger(path)
    return jaxlog.Loop(logger, log_every_n_steps=1, progress_bar=False)


def passes(
    step: Any, loop: Any, w: Any, x: Any, steps: int, *, ahead: int = 10**9
) -> Callable[[], float]:
    """Microseconds a step of a pass over so many batches, `ahead` of them in flight at most."""

    def train() -> None:
        state = jnp.copy(w)
        for i, batch in enumerate([x] * steps if loop is None else loop.train([x] * steps)):
            state = step(state, batch)
            if i % ahead == ahead - 1:
                jax.block_until_ready(state)
        jax.block_until_ready(state)
        if loop is not None:
            loop.flush()

    return lambda: 1e6 * report.timed(train) / steps


def own_python(count: int, steps: int) -> Callable[[], float]:
    """Microseconds a step of the loop's own Python, around a step that returns at once."""
    loop = jaxlog.Loop(False, progress_bar=False, window_steps=steps + 2, window_secs=1e9)
    step = loop.training_step(logging(count))
    w, x = jnp.zeros((2, 2)), jnp.ones((2, 2))
    for batch in loop.train([x]):
        step(w, batch)
    told = step._recording
    step._compiled = lambda _, w, __: (told, None, w)

    def spent() -> float:
        taken, begun = 0.0, time.perf_counter()
        for i, batch in enumerate(loop.train([x] * steps)):
            step(w, batch)
            if i == steps - 1:  # what a window takes is the other figure
                taken = time.perf_counter() - begun
        return 1e6 * taken / steps

    return spent


def taking_in(count: int, steps: int) -> Callable[[], float]:
    """Microseconds a step of taking in windows; storage.py measures the writers behind them."""
    loop = jaxlog.Loop(False, log_every_n_steps=1, progress_bar=False)
    step = loop.training_step(logging(count))
    w, x = jnp.zeros((2, 2)), jnp.ones((2, 2))

    def spent() -> float:
        before = loop.cost().blocked_secs
        for batch in loop.train([x] * steps):
            step(w, batch)
        return 1e6 * (loop.cost().blocked_secs - before) / steps

    return spent


def by_metrics(repeats: int, steps: int) -> tuple[list[list[str]], dict[int, float]]:
    w = jax.random.normal(jax.random.key(0), (512, 512)) * 0.05
    x = jax.random.normal(jax.random.key(1), (256, 512))
    bare = jax.jit(lambda w, x: model(w, x)[0], donate_argnums=0)
    measures = {0: passes(bare, None, w, x, steps)}
    with tempfile.TemporaryDirectory() as path:
        for count in METRICS:
            loop = loop_to(f"{path}/{count}")
            step = loop.training_step(logging(count), donate_argnums=0)
            measures[count] = passes(step, loop, w, x, steps)
        taken = report.interleaved({str(n): run for n, run in measures.items()}, repeats)
        python = report.interleaved({str(n): own_python(n, 8 * steps) for n in METRICS}, repeats)
        inside = {str(n): taking_in(n, 4 * steps) for n in METRICS}
        windows = report.interleaved(inside, repeats)
    rows = []
    for name in map(str, METRICS):
        own, taken_in = statistics.median(python[name]), statistics.median(windows[name])
        to_ten, to_bare = (report.ratio(a[name], a[b]) for a, b in ((python, "10"), (taken, "0")))
        all_in = statistics.median(taken[name])
        cells = [f"{own:.1f} us", f"{to_ten:.2f}", f"{taken_in:.1f} us", f"{all_in:.0f} us"]
        rows.append([name, *cells, f"{to_bare:.2f}"])
    return rows, {int(name): statistics.median(times) for name, times in taken.items()}


def plot(times: dict[int, float]) -> None:
    import matplotlib as mpl

    mpl.use("agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(6, 3.5), layout="constrained")
    axes.plot(METRICS, [times[count] / 1e3 for count in METRICS], marker="o", label="jaxlog")
    axes.axhline(times[0] / 1e3, color="black", linewidth=0.8, label="bare loop")
    axes.set(xscale="log", xlabel="metrics, every step written", ylabel="ms a step")
    axes.set_ylim(bottom=0)
    axes.legend()
    figure.savefig(report.HERE / "metrics.png", dpi=120)


def on_devices(repeats: int, steps: int) -> None:
    """Prints the bare step and the step with 20 metrics, each in us; for a process of its own."""
    mesh = Mesh(np.array(jax.devices()), ("data",))
    shard = NamedSharding(mesh, PartitionSpec("data"))
    x = jax.device_put(jax.random.normal(jax.random.key(1), (256, 512)), shard)
    whole = NamedSharding(mesh, PartitionSpec())
    w = jax.device_put(jax.random.normal(jax.random.key(0), (512, 512)) * 0.05, whole)
    bare = jax.jit(lambda w, x: model(w, x)[0], donate_argnums=0)
    with tempfile.TemporaryDirectory() as path:
        loop = loop_to(path)
        step = loop.training_step(logging(20), donate_argnums=0)
        # Simulated devices that run too far ahead wait for each other forever, on two cores.
        measures = {
            "bare": passes(bare, None, w, x, steps, ahead=8),
            "own": passes(step, loop, w, x, steps, ahead=8),
        }
        taken = report.interleaved(measures, repeats)
        loop.close()
    both = [statistics.median(taken[name]) for name in ("bare", "own")]
    print(*both, report.ratio(taken["own"], taken["bare"]))


def by_devices(repeats: int, steps: int) -> list[list[str]]:
    rows = []
    for count in DEVICES:
        flags = f"--xla_force_host_platform_device_count={count}"
        command = [sys.executable, __file__, "--devices", "--repeats", str(repeats)]
        run = subprocess.run(
            [*command, "--steps", str(steps)],
            env={**os.environ, "XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"},
            capture_output=True,
            text=True,
            check=True,
        )
        bare, own, ratio = map(float, run.stdout.split())
        rows.append([str(count), f"{bare:.0f} us", f"{own:.0f} us", f"{ratio:.2f}"])
    return rows


def memory(steps: int) -> list[str]:
    """The resident memory after a tenth of the steps, and after all."""
    loop = jaxlog.Loop(False, log_every_n_steps=1, progress_bar=False)
    step = loop.training_step(lambda w, x: jaxlog.log("loss", (w * x).sum()) or w, donate_argnums=0)
    w, x = jnp.zeros(4), jnp.ones(4)
    marks = []
    for part in (0.1, 0.9):
        for batch in loop.train(x for _ in range(int(part * steps))):
            w = step(w, batch)
        jax.block_until_ready(w)
        marks.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10)
    early, late = marks
    return [f"{steps:.0e}".replace("+0", ""), f"{early:.0f} MiB", f"{late:.0f} MiB"]


def main() -> None:
    """All three, and the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--steps", type=int, default=128)
    parser.add_argument("--quick", action="store_true", help="few steps: does it run?")
    parser.add_argument("--devices", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    steps = 8 if options.quick else options.steps
    if options.devices:
        on_devices(options.repeats, steps)
        return
    rows, times = by_metrics(options.repeats, steps)
    head = ["metrics", "loop's Python a step", "to 10", "a window taken in, a step"]
    head += ["3 ms step, all in", "to bare"]
    parts = [report.machine(), "", report.table(head, rows), "", *NOTES]
    head = ["devices", "bare", "20 metrics", "ratio"]
    parts += ["", report.table(head, by_devices(options.repeats, steps)), ""]
    parts += ["Wanted: no more than the bare step grows.", ""]
    grown = memory(10_000 if options.quick else 10**6)
    parts.append(report.table(["steps", "most memory after a tenth", "after all"], [grown]))
    if options.quick:
        print("\n".join(parts))
        return
    report.write("growth.py", "\n".join(parts))
    plot(times)


if __name__ == "__main__":
    main()
