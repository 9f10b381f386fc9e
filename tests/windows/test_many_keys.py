"""Keys of all kinds beside each other: each comes out as if it were alone."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxlog
from tests.loop.rig import loop_of

VALUES = [3.0, -1.0, 4.0, 1.5, -9.0, 2.5, 6.0]
LOGGED = {
    "mean": {},
    "mean_epoch": {"on_step": False, "on_epoch": True},
    "sum": {"reduce_fx": "sum", "on_epoch": True},
    "min": {"reduce_fx": "min", "on_epoch": True},
    "max": {"reduce_fx": "max", "on_step": False, "on_epoch": True},
    "weighted": {"batch_size": 2, "on_epoch": True},
    "shown": {"prog_bar": True, "logger": False},
    "plain": {"reduce_fx": "max"},
}


def log_one(name: str, x: Any) -> None:
    value = x.astype(jnp.int32) if name == "sum" else x
    jaxlog.log(name, value, mask=x > 0 if name == "plain" else None, **LOGGED[name])


def metric(x: Any) -> None:
    jaxlog.log("metric", jaxlog.Mean.of(x), on_step=True, on_epoch=True)


def run(names: list[str], **options: object) -> tuple[dict, list, dict]:
    """What callbacks, loggers and bars are told of those names."""
    loop, rows = loop_of(window_steps=3, **options)

    @loop.training_step
    def step(x: Any) -> None:
        for name in names:
            metric(x) if name == "metric" else log_one(name, x)

    with loop:
        for _ in loop.epochs(2):
            for x in loop.train([np.float32(v) for v in VALUES]):
                step(x)
    found = sorted(event for event in rows.events() if event[0] != "epoch")
    return dict(loop.callback_metrics), found, dict(loop.progress_bar_metrics)


@pytest.mark.parametrize("options", [{}, {"accumulate_grad_batches": 2}, {"nan_policy": "skip"}])
def test_each_key_comes_out_as_if_it_were_alone(options: dict) -> None:
    names = [*LOGGED, "metric"]
    callback, events, bar = run(names, **options)
    alone = [run([name], **options) for name in names]
    assert callback == {tag: x for one, _, _ in alone for tag, x in one.items()}
    assert events == sorted(event for _, each, _ in alone for event in each)
    assert bar == {tag: x for _, _, one in alone for tag, x in one.items()}


def test_values_that_are_not_finite_are_skipped_key_by_key() -> None:
    loop, rows = loop_of(nan_policy="skip")

    @loop.training_step
    def step(x: Any) -> None:
        jaxlog.log("a", x, on_epoch=True)
        jaxlog.log("b", 1 / x, on_epoch=True)
        jaxlog.log("c", x + 1, reduce_fx="sum", on_epoch=True)

    with loop:
        for x in loop.train([np.float32(v) for v in (1.0, 0.0, np.nan, 2.0)]):
            step(x)
    assert rows.of("a_step") == [(0, 1.0), (1, 0.0), (3, 2.0)]
    assert rows.of("b_step") == [(0, 1.0), (3, 0.5)]
    assert rows.of("c_step") == [(0, 2.0), (1, 1.0), (3, 3.0)]
    assert [loop.callback_metrics[f"{name}_epoch"] for name in "abc"] == [1.0, 0.75, 6.0]
    assert {name: (bad.count, bad.first_step) for name, bad in loop.nonfinite.items()} == {
        "a": (1, 2), "b": (2, 1), "c": (1, 2),
    }  # fmt: skip


def test_two_steps_of_one_stage_share_rows() -> None:
    loop, rows = loop_of(window_steps=4)
    one = loop.training_step(lambda x: jaxlog.log("one", x), transform=jax.jit)
    two = loop.training_step(lambda x: jaxlog.log("two", -x))
    with loop:
        for i, x in enumerate(loop.train([np.float32(v) for v in range(6)])):
            one(x)
            if i % 2:
                two(x)
    assert rows.of("one") == [(i, float(i)) for i in range(6)]
    assert rows.of("two") == [(i, -float(i)) for i in (1, 3, 5)]
    assert loop.logged_metrics["one"] == 5.0
