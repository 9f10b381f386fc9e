"""`transform=jax.pmap`: logs carry a device axis, and the host reduces it."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

import jaxlog

DEVICES = 4
# Two epochs of three batches, (device, example); the last is smaller.
BATCHES = [
    np.arange(n * DEVICES, dtype=np.float32).reshape(DEVICES, n) + 10 * i
    for i, n in enumerate((4, 4, 2))
]


def step(w: Any, x: Any) -> Any:
    jaxlog.log("first", x.mean())
    jaxlog.log("mean", x.mean(), sync_dist=True, on_epoch=True)
    jaxlog.log("weighted", x.mean(), sync_dist=True, on_epoch=True, batch_size=x[0] + 1)
    jaxlog.log("sum", x.sum(), sync_dist=True, on_epoch=True, reduce_fx="sum")
    jaxlog.log("max", x.max(), sync_dist=True, on_epoch=True, reduce_fx="max")
    jaxlog.log("count", x.size, sync_dist=True, on_epoch=True, reduce_fx="sum")
    jaxlog.log("metric", jaxlog.Mean.of(x), sync_dist=True, on_epoch=True)
    jaxlog.log("own", jaxlog.Mean.of(x), on_step=False, on_epoch=True)
    lax.cond(x[0] > 5, lambda: jaxlog.log("some", x[0], sync_dist=True), lambda: None)
    return w + lax.pmean(x.mean(), "batch")


@pytest.mark.parametrize("window_steps", [1, 2, 64])
def test_values_are_those_of_all_devices(window_steps: int) -> None:
    logger = jaxlog.MemoryLogger()
    loop = jaxlog.Loop(logger, log_every_n_steps=1, progress_bar=False, window_steps=window_steps)
    pmap = functools.partial(jax.pmap, axis_name="batch", devices=jax.devices()[:DEVICES])
    train = loop.training_step(step, transform=pmap, donate_argnums=0)
    w = jnp.zeros(DEVICES)
    with loop:
        for _ in loop.epochs(2):
            for x in loop.train(BATCHES):
                w = train(w, x)
    np.testing.assert_allclose(w, 2 * sum(x.mean() for x in BATCHES), rtol=1e-6)
    rows = [row for _, row in logger.rows if "first" in row]
    for row, x in zip(rows, BATCHES * 2, strict=True):
        assert row["first"] == pytest.approx(x[0].mean())
        for tag in ("mean_step", "metric_step"):
            assert row[tag] == pytest.approx(x.mean())
        weighted = np.average(x.mean(1), weights=x[:, 0] + 1)
        assert row["weighted_step"] == pytest.approx(weighted, rel=1e-6)
        assert (row["sum_step"], row["max_step"]) == (x.sum(), x.max())
        assert row["count_step"] == x.size
        later = x[:, 0][x[:, 0] > 5]
        assert row["some"] == pytest.approx(later.mean())
    examples = np.concatenate([x.ravel() for x in BATCHES])
    metrics = loop.callback_metrics
    assert metrics["mean_epoch"] == pytest.approx(examples.mean(), rel=1e-7)
    assert metrics["metric_epoch"] == pytest.approx(examples.mean(), rel=1e-7)
    assert metrics["count_epoch"] == examples.size
    assert metrics["max_epoch"] == examples.max()
    assert metrics["own"] == pytest.approx(np.concatenate([x[0] for x in BATCHES]).mean())


def test_one_array_a_window_leaves_the_devices() -> None:
    loop = jaxlog.Loop(logger=False, progress_bar=False)

    @loop.training_step(transform=jax.pmap, axis_name="i", in_axes=(None, 0))
    def train(scale: Any, x: Any) -> Any:
        jaxlog.log("v", x.mean() * scale, sync_dist=True, prog_bar=True)

    x = np.ones((jax.local_device_count(), 2), np.float32)
    with loop:
        for batch in loop.train([x] * 5):
            train(2.0, batch)
    assert loop.cost().copies == 1
    assert loop.callback_metrics["v"] == 2.0


def test_a_sum_of_what_is_summed_already_is_refused() -> None:
    loop = jaxlog.Loop(False, progress_bar=False)

    def twice(x: Any) -> None:
        jaxlog.log("v", lax.psum(x.sum(), "batch"), reduce_fx="sum", sync_dist=True)

    train = loop.training_step(twice, transform=functools.partial(jax.pmap, axis_name="batch"))
    with loop:
        for x in loop.train([np.ones((jax.device_count(), 2), np.float32)]):
            with pytest.raises(jaxlog.SchemaError, match="a psum has reduced over devices"):
                train(x)
