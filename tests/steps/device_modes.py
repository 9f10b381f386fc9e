"""One training script, run on one device, on several in every way JAX has, on several processes.

`python device_modes.py MODE PROCESS PROCESSES PORT` runs it as one process of several and prints
what it saw as JSON.
"""

from __future__ import annotations

import contextlib
import functools
import json
import sys
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.sharding import AxisType, NamedSharding, PartitionSpec

import jaxlog

AXIS = "data"
WHOLE, SPLIT = PartitionSpec(), PartitionSpec(AXIS)
SHARDS = 8
EXAMPLES = (16, 16, 8)
X = [np.arange(n, dtype=np.float32) % 13 - 4 + i for i, n in enumerate(EXAMPLES)]
# Shards weigh very differently; the first has nothing to say in the first batch.
KEPT = [(np.arange(n) * 7 + i) % 5 > (n - np.arange(n)) // 4 for i, n in enumerate(EXAMPLES)]
EPOCHS = 2


def log_all(x: Any, kept: Any, w: Any) -> None:
    """One call for each way to log what shards hold in parts; every shard says the same of `w`."""
    every = functools.partial(jaxlog.log, sync_dist=True, on_epoch=True)
    count = kept.sum()
    mean = jnp.where(kept, x, 0).sum() / jnp.maximum(count, 1)
    every("loss", mean, batch_size=count)
    every("masked", x, mask=kept)
    every("sum", x.sum(), reduce_fx="sum")
    every("integer", (x.astype(jnp.int32) + 2**21).sum(), reduce_fx="sum")
    every("least", x.min(), reduce_fx="min")
    every("examples", x.size, reduce_fx="sum")
    every("graph", mean, batch_size=count, enable_graph=True)
    every("metric", jaxlog.Mean.of(x, weights=kept))
    every("seen", jaxlog.Sum.of(x), on_step=False)
    jaxlog.log("w", w, rank_zero_only=True, on_epoch=True)


def expected() -> list[dict[str, float]]:
    """The rows of one epoch, the last of them the epoch's own, in float64."""
    rows: list[dict[str, float]] = []
    x, kept = [v.astype(np.float64) for v in X], KEPT
    for xi, ki in zip(x, kept, strict=True):
        one = {"loss": xi[ki].mean(), "masked": xi[ki].mean(), "sum": xi.sum(), "least": xi.min()}
        one |= {"graph": one["loss"], "metric": one["loss"], "examples": xi.size}
        one |= {"integer": xi.sum() + 2**21 * xi.size}
        rows.append({f"{name}_step": float(value) for name, value in one.items()})
    together, chosen = np.concatenate(x), np.concatenate(kept)
    epoch = {"loss": together[chosen].mean(), "masked": together[chosen].mean()}
    epoch |= {"sum": together.sum(), "least": together.min(), "examples": together.size}
    epoch |= {"graph": epoch["loss"], "metric": epoch["loss"]}
    epoch |= {"integer": together.sum() + 2**21 * together.size}
    rows.append({f"{n}_epoch": float(v) for n, v in epoch.items()} | {"seen": together.sum()})
    return rows


def whole_step(w: Any, x: Any, kept: Any) -> Any:
    """For jit, on one device or on several: arrays are global."""
    log_all(x, kept, w)
    return w + x.mean()


def shard_step(w: Any, x: Any, kept: Any) -> Any:
    """For a shard: what is trained takes its one collective."""
    log_all(x, kept, w)
    return w + lax.pmean(x.mean(), AXIS)


def mesh_of(kind: AxisType) -> Any:
    devices = jax.devices()[:SHARDS]
    return jax.make_mesh((len(devices),), (AXIS,), axis_types=(kind,), devices=devices)


def whole(tree: Any, mesh: Any, spec: PartitionSpec) -> Any:
    """Global arrays, of which each process gives its part."""
    sharding = NamedSharding(mesh, spec)

    def one(x: Any) -> jax.Array:
        x = np.asarray(x)
        return jax.make_array_from_callback(x.shape, sharding, lambda index: x[index])

    return jax.tree.map(one, tree)


def per_device(x: np.ndarray) -> np.ndarray:
    """What pmap takes: an axis of the devices of this process in front."""
    here, count = jax.local_device_count(), min(SHARDS, jax.device_count())
    first = jax.process_index() * here
    return x.reshape(count, -1)[first : first + min(here, count)]


Mode = Callable[[jaxlog.Loop], tuple[Any, Any, Any, Any]]  # step, w, to a batch, around the run


def _one(loop: jaxlog.Loop) -> Any:
    return loop.training_step(whole_step), jnp.zeros(()), tuple, contextlib.nullcontext()


def _jit(kind: AxisType) -> Mode:
    def make(loop: jaxlog.Loop) -> Any:
        mesh = mesh_of(kind)
        around = jax.set_mesh(mesh) if kind == AxisType.Explicit else contextlib.nullcontext()
        return (
            loop.training_step(whole_step),
            whole(np.zeros((), np.float32), mesh, WHOLE),
            lambda batch: whole(batch, mesh, SPLIT),
            around,
        )

    return make


def _shard_map(kind: AxisType, *, check: bool) -> Mode:
    def make(loop: jaxlog.Loop) -> Any:
        mesh = mesh_of(kind)
        step = jax.shard_map(
            shard_step, mesh=mesh, in_specs=(WHOLE, SPLIT, SPLIT), out_specs=WHOLE, check_vma=check
        )
        return (
            loop.training_step(step, donate_argnums=0),
            whole(np.zeros((), np.float32), mesh, WHOLE),
            lambda batch: whole(batch, mesh, SPLIT),
            contextlib.nullcontext(),
        )

    return make


def _pmap(*, inside: bool) -> Mode:
    def make(loop: jaxlog.Loop) -> Any:
        pmap = functools.partial(jax.pmap, axis_name=AXIS, devices=jax.devices()[:SHARDS])
        step = loop.training_step(pmap(shard_step)) if inside else None
        return (
            step or loop.training_step(shard_step, transform=pmap),
            np.zeros(min(SHARDS, jax.local_device_count()), np.float32),
            lambda batch: tuple(map(per_device, batch)),
            contextlib.nullcontext(),
        )

    return make


MODES: dict[str, Mode] = {
    "one device": _one,
    "jit, auto": _jit(AxisType.Auto),
    "jit, explicit": _jit(AxisType.Explicit),
    "shard_map": _shard_map(AxisType.Auto, check=True),
    "shard_map, explicit": _shard_map(AxisType.Explicit, check=True),
    "shard_map, unchecked": _shard_map(AxisType.Auto, check=False),
    "pmap": _pmap(inside=False),
    "pmap inside": _pmap(inside=True),
}


def run(mode: str, **options: Any) -> list[dict[str, float]]:
    """Every row written, by that many epochs."""
    logger = jaxlog.MemoryLogger()
    loop = jaxlog.Loop(logger, log_every_n_steps=1, progress_bar=False, **options)
    step, w, to_batch, around = MODES[mode](loop)
    with around, loop:
        for _ in loop.epochs(EPOCHS):
            for batch in loop.train([to_batch(pair) for pair in zip(X, KEPT, strict=True)]):
                w = step(w, *batch)
    return [row for _, row in logger.rows]


if __name__ == "__main__":
    mode, process, processes, port = sys.argv[1:]
    jax.config.update("jax_platforms", "cpu")
    jax.config.update("jax_num_cpu_devices", SHARDS // int(processes))
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    jax.distributed.initialize(f"127.0.0.1:{port}", int(processes), int(process))
    sys.stdout.write(json.dumps(run(mode, window_steps=2)))
