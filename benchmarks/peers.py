"""Twenty metrics at every step, on event files: against the bare loop and against named peers.

Two steps: one of some milliseconds, a layer of 512 x 512 on a batch of 256, and one of some
microseconds. All variants train on the same batches and log the same twenty values, their repeats
interleaved. What is timed is everything, up to the last file's flush. Peers that are not installed
are left out.

    python benchmarks/peers.py [--repeats 7] [--quick]
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import statistics
import tempfile
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import report

import jaxlog

NAMES = [f"metric_{i:02}" for i in range(20)]
Measure = Callable[[], float]


def model(w: Any, x: Any) -> tuple[Any, dict[str, Any]]:
    """One step of gradient descent, and twenty values that belong to it."""
    loss, grad = jax.value_and_grad(lambda w: jnp.tanh(x @ w).var())(w)
    return w - 0.1 * grad, {name: loss * (1 + i) for i, name in enumerate(NAMES)}


class Case:
    """A size of step: its batch, its first weights, and how long a repeat is.

    Attributes:
        name: what the table calls it.
        steps: in one repeat of a variant that costs next to nothing; slow ones take fewer.
    """

    def __init__(self, name: str, width: int, batch: int, steps: int, slow: int) -> None:
        key = jax.random.key(0)
        self.name, self.steps, self.slow = name, steps, slow
        self.w = jax.random.normal(key, (width, width)) * 0.05
        self.x = jax.random.normal(key, (batch, width))

    def start(self) -> Any:
        """Weights of one's own, to be donated."""
        return jnp.copy(self.w)


@contextlib.contextmanager
def folder() -> Iterator[str]:
    with tempfile.TemporaryDirectory() as path:
        yield path


def per_step(steps: int, run: Callable[[], object]) -> float:
    """Microseconds a step."""
    return 1e6 * report.timed(run) / steps


# ---- variants: each makes a function that trains one repeat and returns microseconds a step ------


def bare(case: Case) -> Measure:
    step = jax.jit(lambda w, x: model(w, x)[0], donate_argnums=0)

    def train() -> None:
        w = case.start()
        for x in [case.x] * case.steps:
            w = step(w, x)
        jax.block_until_ready(w)

    return lambda: per_step(case.steps, train)


def logged_by_jaxlog(case: Case, window_steps: int = 64) -> Measure:
    def step(w: Any, x: Any) -> Any:
        w, values = model(w, x)
        jaxlog.log_dict(values)
        return w

    path = tempfile.TemporaryDirectory()  # as long as the benchmark
    logger = jaxlog.TensorBoardLogger(path.name)
    loop = jaxlog.Loop(logger, log_every_n_steps=1, progress_bar=False, window_steps=window_steps)
    run = loop.training_step(step, donate_argnums=0)

    def train() -> None:
        w = case.start()
        for x in loop.train([case.x] * case.steps):
            w = run(w, x)
        jax.block_until_ready(w)
        loop.flush()

    del path  # its finalizer runs when the interpreter ends
    return lambda: per_step(case.steps, train)


def by_hand(case: Case, writer_of: Callable[[str], Any], every: int, *, at_once: bool) -> Measure:
    """Values come out of the step, and go to a writer on the spot."""
    step = jax.jit(model, donate_argnums=0)
    steps = case.slow if every == 1 else case.steps

    def train() -> None:
        with folder() as path:
            writer, w = writer_of(path), case.start()
            for i in range(steps):
                w, values = step(w, case.x)
                if (i + 1) % every:
                    continue
                numbers = jax.device_get(values) if at_once else values
                for name, value in numbers.items():
                    writer.add_scalar(name, float(value), i)
            jax.block_until_ready(w)
            writer.close()

    return lambda: per_step(steps, train)


def by_callback(case: Case) -> Measure:
    import tensorboardX

    writers: list[Any] = []

    def step(w: Any, x: Any) -> Any:
        w, values = model(w, x)
        for name, value in values.items():
            jax.debug.callback(
                lambda value, name=name: writers[-1].add_scalar(name, float(value)), value
            )
        return w

    run = jax.jit(step, donate_argnums=0)

    def train() -> None:
        with folder() as path:
            writers.append(tensorboardX.SummaryWriter(path))
            w = case.start()
            for _ in range(case.slow):
                w = run(w, case.x)
            jax.block_until_ready(w)
            jax.effects_barrier()
            writers.pop().close()

    return lambda: per_step(case.slow, train)


def merged(case: Case, single: Callable[[dict[str, Any]], Any]) -> Measure:
    """A collection of metrics merged at every step, computed at the end; nothing per step."""
    first = jax.jit(lambda x: single(model(case.w, x)[1]))(case.x)

    def step(w: Any, metrics: Any, x: Any) -> Any:
        w, values = model(w, x)
        return w, jax.tree.map(jnp.asarray, metrics.merge(single(values)))

    run = jax.jit(step, donate_argnums=0)

    def train() -> None:
        w, metrics = case.start(), first
        for x in [case.x] * case.steps:
            w, metrics = run(w, metrics, x)
        jax.block_until_ready((w, metrics))

    return lambda: per_step(case.steps, train)


def by_clu(case: Case) -> Measure:
    import flax
    from clu import metrics

    fields = {name: metrics.Average.from_output(name) for name in NAMES}
    made = type("Metrics", (metrics.Collection,), {"__annotations__": fields})
    collection: Any = flax.struct.dataclass(made)
    return merged(case, lambda values: collection.single_from_model_output(**values))


def by_metrax(case: Case) -> Measure:
    import flax
    import metrax

    class Every:
        """Twenty averages as one."""

        parts: dict[str, Any]

        def merge(self, other: Any) -> Any:
            both = {name: part.merge(other.parts[name]) for name, part in self.parts.items()}
            return self.replace(parts=both)  # type: ignore[attr-defined]

    Every.__annotations__ = {"parts": Any}
    every: Any = flax.struct.dataclass(Every)
    average = metrax.Average.from_model_output
    return merged(
        case, lambda values: every(parts={name: average(x[None]) for name, x in values.items()})
    )


def by_nnx(case: Case) -> Measure:
    from flax import nnx

    step = jax.jit(model, donate_argnums=0)
    metrics = nnx.MultiMetric(**{name: nnx.metrics.Average(name) for name in NAMES})

    def train() -> None:
        w = case.start()
        for _ in range(case.slow):
            w, values = step(w, case.x)
            metrics.update(**values)
        jax.block_until_ready((w, metrics.compute()))

    return lambda: per_step(case.slow, train)


def by_lightning(case: Case) -> dict[str, Measure]:
    """Lightning's loop with `self.log`, and the same loop without: a torch module of that size."""
    import logging
    import warnings

    import pytorch_lightning as pl
    import torch
    from pytorch_lightning.loggers import TensorBoardLogger

    logging.getLogger("pytorch_lightning").setLevel("ERROR")
    warnings.filterwarnings("ignore", module="pytorch_lightning")
    width, steps = case.w.shape[0], case.slow

    class Module(pl.LightningModule):
        def __init__(self, *, logs: bool) -> None:
            super().__init__()
            self.layer, self.logs = torch.nn.Linear(width, width, bias=False), logs

        def training_step(self, batch: Any) -> Any:
            loss = torch.tanh(self.layer(batch)).var()
            if self.logs:
                for i, name in enumerate(NAMES):
                    self.log(name, loss.detach() * (1 + i))
            return loss

        def configure_optimizers(self) -> Any:
            return torch.optim.SGD(self.parameters(), 0.1)

    batches: Any = [torch.randn(case.x.shape)] * steps

    def train(*, logs: bool) -> None:
        with folder() as path:
            trainer = pl.Trainer(
                max_steps=steps,
                logger=TensorBoardLogger(path) if logs else False,
                log_every_n_steps=1,
                enable_checkpointing=False,
                enable_progress_bar=False,
                enable_model_summary=False,
                accelerator="cpu",
            )
            trainer.fit(Module(logs=logs), torch.utils.data.DataLoader(batches, batch_size=None))

    return {
        "Lightning, its own bare loop": lambda: per_step(steps, lambda: train(logs=False)),
        "Lightning `self.log`": lambda: per_step(steps, lambda: train(logs=True)),
    }


def variants(case: Case) -> tuple[dict[str, Measure], list[str]]:
    """The variants, and the packages that are missing for others."""
    found: dict[str, Measure] = {
        "bare loop": bare(case),
        "jaxlog": logged_by_jaxlog(case),
        "jaxlog, `window_steps=512`": logged_by_jaxlog(case, 512),
    }
    missing = []

    def add(package: str, name: str, make: Callable[[], Measure]) -> None:
        if importlib.util.find_spec(package) is None:
            missing.append(package)
        else:
            found[name] = make()

    def tensorboardx(path: str) -> Any:
        import tensorboardX

        return tensorboardX.SummaryWriter(path)

    def torch(path: str) -> Any:
        from torch.utils.tensorboard import SummaryWriter

        return SummaryWriter(path)

    every, rarely = "`float()` + tensorboardX, every step", "the same, every 50 steps"
    add("tensorboardX", every, lambda: by_hand(case, tensorboardx, 1, at_once=False))
    add("tensorboardX", rarely, lambda: by_hand(case, tensorboardx, 50, at_once=False))
    add("torch", "`device_get` + torch", lambda: by_hand(case, torch, 1, at_once=True))
    add("tensorboardX", "`jax.debug.callback` + tensorboardX", lambda: by_callback(case))
    add("clu", "CLU collection, merged, no files", lambda: by_clu(case))
    add("metrax", "metrax, merged, no files", lambda: by_metrax(case))
    add("flax", "`nnx.MultiMetric`, no files", lambda: by_nnx(case))
    if importlib.util.find_spec("pytorch_lightning") is None:
        missing.append("pytorch_lightning")
    else:
        found |= by_lightning(case)
    return found, sorted(set(missing))


def plot(columns: dict[str, dict[str, float]]) -> None:
    """How much longer a step takes, by peer."""
    import matplotlib as mpl

    mpl.use("agg")
    from matplotlib import pyplot as plt

    (large, ratios), *_ = columns.items()
    names = [name for name in ratios if not name.startswith(("bare", "Lightning, its"))][::-1]
    figure, axes = plt.subplots(figsize=(8, 3.5), layout="constrained")
    colors = ["tab:blue" if name.startswith("jaxlog") else "tab:gray" for name in names]
    bars = axes.barh(names, [ratios[name] for name in names], color=colors)
    axes.bar_label(bars, fmt="%.2f", padding=3)
    axes.axvline(1, color="black", linewidth=0.8)
    axes.set(xlabel="time of a step, bare loop = 1", xscale="log")
    axes.set_title(f"20 metrics at every step, {large}")
    figure.savefig(report.HERE / "peers.png", dpi=120)


def main() -> None:
    """Both sizes of step, and the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--quick", action="store_true", help="a tenth of the steps: does it run?")
    options = parser.parse_args()
    part = 10 if options.quick else 1
    cases = [
        Case("512 x 512, batch 256", 512, 256, 384 // part, 32 // part),
        Case("4 x 4, batch 2", 4, 2, 4096 // part, 64 // part),
    ]
    ratios: dict[str, dict[str, float]] = {}
    rows: dict[str, list[str]] = {}
    missing: list[str] = []
    for case in cases:
        measures, missing = variants(case)
        taken = report.interleaved(measures, options.repeats)
        ratios[case.name] = {}
        for name, times in taken.items():
            base = "Lightning, its own bare loop" if name.startswith("Lightning") else "bare loop"
            found = ratios[case.name][name] = report.ratio(times, taken[base])
            extra = statistics.median(a - b for a, b in zip(times, taken[base], strict=True))
            middle = statistics.median(times)
            cells = [f"{middle:.0f} us", f"{found:.2f}", f"{extra:+.0f} us"]
            rows.setdefault(name, [name]).extend(cells)
    head = ["20 metrics a step"]
    for case in cases:
        head += [case.name, "ratio", "more"]
    lines = [report.machine(), "", report.table(head, rows.values()), ""]
    if missing:
        lines.append(f"Not installed here, so left out: {', '.join(missing)}.\n")
    lines.append("Wanted of jaxlog: at most 1.02 of a 3 ms step, and 12 us more on the small one.")
    lines.append("Lightning's ratio is to its own bare loop.")
    if options.quick:
        print("\n".join(lines))
        return
    report.write("peers.py", "\n".join(lines))
    plot(ratios)


if __name__ == "__main__":
    main()
