"""The same script logs the same numbers on one device and on many, however they are used."""

from __future__ import annotations

import functools
import json
import os
import pathlib
import socket
import subprocess
import sys
from typing import Any

import jax
import numpy as np
import pytest
from jax.sharding import AxisType

import jaxlog
from tests.counting import counted_compiles
from tests.steps import device_modes
from tests.steps.device_modes import EPOCHS, MODES, SHARDS, expected, mesh_of, run


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("window_steps", [1, 64])
def test_every_way_to_use_devices_logs_the_same(mode: str, window_steps: int) -> None:
    check(run(mode, window_steps=window_steps))


def check(rows: list[dict[str, float]]) -> None:
    assert len(rows) == EPOCHS * len(expected())
    w = 0.0
    for row, wanted in zip(rows, expected() * EPOCHS, strict=True):
        seen = {name: row[name] for name in wanted}
        assert seen == pytest.approx(wanted, rel=1e-6, abs=1e-6)
        for name in ("integer_step", "examples_step", "integer_epoch", "examples_epoch"):
            assert seen.get(name) == wanted.get(name)  # exactly
        if "w_step" in row:
            assert row["w_step"] == pytest.approx(w, rel=1e-6)
            w += wanted["sum_step"] / wanted["examples_step"]


def speak(x: Any) -> None:
    """Shard `i` holds the value `i`; each key says which of the eight are to be heard."""
    value = x[0]
    jaxlog.log("first", value)
    jaxlog.log("rank zero", value, sync_dist=True, rank_zero_only=True)
    jaxlog.log("all", value, sync_dist=True)
    jaxlog.log("axis", value, sync_dist=True, sync_dist_group=device_modes.AXIS)
    groups = [[0, 2, 4, 6], [1, 3, 5, 7]]
    jaxlog.log("group", value, sync_dist=True, sync_dist_group=groups, reduce_fx="sum")
    jaxlog.log("group metric", jaxlog.Sum.of(value), sync_dist=True, sync_dist_group=groups)
    jaxlog.log("first metric", jaxlog.Sum.of(value))
    jaxlog.log("masked", value, sync_dist=True, mask=value > 4)
    jax.lax.cond(value > 5, lambda: jaxlog.log("branch", value, sync_dist=True), lambda: None)
    jaxlog.log("scanned", value, sync_dist=True, reduce_fx="max")


SPOKEN = {
    "first": 0, "rank zero": 0, "all": 3.5, "axis": 3.5, "group": 12, "group metric": 12,
    "first metric": 0, "masked": 6, "branch": 6.5, "scanned": 7,
}  # fmt: skip


@pytest.mark.parametrize("mode", ["shard_map", "shard_map, unchecked", "in a scan", "pmap"])
def test_which_shards_speak(mode: str) -> None:
    logger = jaxlog.MemoryLogger()
    loop = jaxlog.Loop(logger, log_every_n_steps=1, progress_bar=False)
    x = np.arange(SHARDS, dtype=np.float32)
    if mode == "pmap":
        pmap = functools.partial(jax.pmap, axis_name=device_modes.AXIS)
        step, x = loop.training_step(speak, transform=pmap), x[:, None]
    else:
        inner = jax.shard_map(
            speak,
            mesh=mesh_of(AxisType.Auto),
            in_specs=device_modes.SPLIT,
            out_specs=device_modes.WHOLE,
            check_vma="unchecked" not in mode,
        )

        def scanned(x: Any) -> None:
            jax.lax.scan(lambda carry, _: (carry, inner(x)), 0, None, length=1)

        step = loop.training_step(scanned if mode == "in a scan" else inner)
    with loop:
        for batch in loop.train([x, x]):
            step(batch)
    assert len(logger.rows) == 2
    for _, row in logger.rows:
        assert {name: row[name] for name in SPOKEN} == SPOKEN


# ---- what it costs ------------------------------------------------------------------------------


def test_a_sharded_step_compiles_once() -> None:
    loop = jaxlog.Loop(False, progress_bar=False, window_steps=2, window_secs=1e9)
    step, w, to_batch, _ = MODES["shard_map"](loop)
    pairs = zip(device_modes.X[:2] * 2, device_modes.KEPT[:2] * 2, strict=True)
    data = [to_batch(pair) for pair in pairs]
    with loop, counted_compiles() as compiles:
        for _ in loop.epochs(3):
            for batch in loop.train(data):
                w = step(w, *batch)
        assert len(compiles) == 1
    windows = 3 * len(data) / 2
    # The rows of the whole and of the shards, two leaves of the metric, one of the other.
    assert loop.cost().copies == 5 * windows


@pytest.mark.parametrize(
    ("axes", "options"),
    [(AxisType.Auto, {}), (AxisType.Explicit, {}), (AxisType.Auto, {"lanes": 1})],
    ids=["auto", "explicit", "lanes"],
)
def test_a_mesh_of_one_device(axes: AxisType, options: dict[str, Any]) -> None:
    # The batch's sharding names a mesh axis for its first axis; no sharding of the logs may.
    mesh = jax.make_mesh((1,), ("data",), devices=jax.devices()[:1], axis_types=(axes,))
    spec = jax.sharding.PartitionSpec("data")
    batch = jax.device_put(
        np.full((1, 8, 2) if options else (8, 2), 3.0, np.float32),
        jax.sharding.NamedSharding(mesh, spec),
    )
    loop = jaxlog.Loop(False, progress_bar=False, window_steps=2, **options)
    step = loop.training_step(lambda x: jaxlog.log("loss", x.mean(), on_epoch=True))
    with loop, counted_compiles() as compiles:
        for one in loop.train([batch] * 4):
            step(one)
        assert len(compiles) == 1
    assert loop.callback_metrics["loss"] == 3.0


# ---- several processes --------------------------------------------------------------------------


def processes(count: int, module: str, *arguments: str) -> list[subprocess.CompletedProcess[str]]:
    """Runs a module as that many processes; gives up on all when one hangs."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    root = pathlib.Path(__file__).parents[2]
    environment = {k: v for k, v in os.environ.items() if k != "XLA_FLAGS"}
    environment["PYTHONPATH"] = str(root)
    running = [
        subprocess.Popen(
            [sys.executable, "-m", module, *arguments, str(i), str(count), str(port)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment,
            cwd=root,
        )
        for i in range(count)
    ]
    done = []
    try:
        for one in running:
            out, err = one.communicate(timeout=120)
            done.append(subprocess.CompletedProcess(one.args, one.returncode, out, err))
    finally:
        for one in running:
            one.kill()
    return done


@pytest.mark.parametrize("mode", ["jit, auto", "shard_map", "pmap"])
def test_two_processes_log_the_same(mode: str) -> None:
    first, second = processes(2, "tests.steps.device_modes", mode)
    assert first.returncode == second.returncode == 0, first.stderr + second.stderr
    check(json.loads(first.stdout.splitlines()[-1]))
    assert json.loads(second.stdout.splitlines()[-1]) == []  # only the first writes


def test_processes_that_log_different_keys_all_hear_of_it() -> None:
    done = processes(2, "tests.steps.different_keys")
    for one in done:
        assert one.returncode == 3, one.stderr
        assert "process 1 logs ['extra'], process 0 does not" in one.stdout
