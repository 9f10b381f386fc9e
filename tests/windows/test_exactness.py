"""Epoch values are exact: large counts, long epochs of low precision, windows of any size."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

import jaxlog
from tests.golden.cases import CASES, run_case
from tests.loop.rig import Rows, loop_of


def run(step: Any, data: list[Any], **options: Any) -> tuple[jaxlog.Loop, Rows]:
    loop, rows = loop_of(**{"log_every_n_steps": 0, **options})
    step = loop.training_step(step)
    with loop:
        for batch in loop.train(data):
            step(batch)
    return loop, rows


@pytest.mark.parametrize("reduce_fx", ["mean", "sum", "min", "max"])
def test_ints_beyond_2_to_the_24(reduce_fx: Any) -> None:
    numbers = [2**24 + 1, 2**30 + 3, 2**31 - 1, -(2**31), 7]

    def step(batch: Any) -> None:
        jaxlog.log("n", batch, on_epoch=True, reduce_fx=reduce_fx)

    loop, rows = run(step, [np.int32(n) for n in numbers], log_every_n_steps=1)
    expected = {
        "mean": Fraction(sum(numbers), len(numbers)),
        "sum": sum(numbers),
        "min": min(numbers),
        "max": max(numbers),
    }[reduce_fx]
    assert Fraction(loop.callback_metrics["n_epoch"]) == Fraction(float(expected))
    assert rows.of("n_step") == list(enumerate(numbers))


def test_python_ints_in_a_step_and_on_the_host() -> None:
    loop, rows = loop_of()

    def step(batch: Any) -> None:
        jaxlog.log("constant", 2**24 + 1, on_epoch=True)

    step = loop.training_step(step)
    with loop:
        for batch in loop.train([np.zeros(1), np.zeros(3)]):
            step(batch)
            loop.log("host", 2**40 + 1, on_epoch=True)
    assert rows.of("constant_step") == [(0, 2**24 + 1), (1, 2**24 + 1)]
    assert rows.of("constant_epoch") == [(1, 2**24 + 1)]
    assert rows.of("host_step") == [(0, 2**40 + 1), (1, 2**40 + 1)]
    assert rows.of("host_epoch") == [(1, 2**40 + 1)]


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32"])
def test_a_long_epoch_of_low_precision(dtype: str) -> None:
    rng = np.random.default_rng(0)
    values = jnp.asarray(rng.normal(size=5000) + 100, dtype)
    exact = [Fraction(float(value)) for value in np.asarray(values, np.float64)]

    def step(batch: Any) -> None:
        jaxlog.log("mean", batch, on_step=False, on_epoch=True)
        jaxlog.log("sum", batch, on_step=False, on_epoch=True, reduce_fx="sum")

    loop, _ = run(step, list(values))
    assert loop.callback_metrics["sum"] == pytest.approx(float(sum(exact)), rel=1e-14)
    assert loop.callback_metrics["mean"] == pytest.approx(float(sum(exact) / 5000), rel=1e-14)


def test_uneven_batches_divide_once() -> None:
    rng = np.random.default_rng(1)
    sizes = [*([7] * 30), 3, 1]
    values = [float(np.float32(x)) for x in rng.normal(size=len(sizes))]
    numerator = sum(Fraction(v) * size for v, size in zip(values, sizes, strict=True))

    def step(batch: Any) -> None:
        jaxlog.log("v", batch[0], on_step=False, on_epoch=True)

    data = [np.full(size, v, np.float32) for v, size in zip(values, sizes, strict=True)]
    loop, _ = run(step, data)
    assert loop.callback_metrics["v"] == pytest.approx(float(numerator / sum(sizes)), rel=1e-14)


MIXED = ("both_step_and_epoch", "batch_hooks", "two_validation_dataloaders")


@pytest.mark.parametrize("case", [c for c in CASES if c["case"] in MIXED], ids=lambda c: c["case"])
def test_windows_of_every_size_write_the_same(case: dict[str, Any]) -> None:
    written = []
    for window_steps in (64, *range(1, 8)):
        rows = Rows()
        loop = next(run_case(case, rows, window_steps=window_steps))
        loop.close()
        written.append((rows.rows, dict(loop.callback_metrics), dict(loop.logged_metrics)))
    assert written[0][0]
    assert all(other == written[0] for other in written[1:])


def test_windows_of_every_size_merge_a_metric_to_the_same() -> None:
    def step(batch: Any) -> None:
        jaxlog.log("mean", jaxlog.Mean.of(batch), on_step=True, on_epoch=True)

    data = [np.arange(n, dtype=np.float32) for n in (1, 5, 2, 7, 3)]
    written = [run(step, data, window_steps=n, log_every_n_steps=1)[1].rows for n in range(1, 8)]
    assert written[0][-1] == (4, {"mean_epoch": 35 / 18, "epoch": 0.0})
    assert all(rows == written[0] for rows in written)


@pytest.mark.parametrize("window_steps", [1, 2, 3])
def test_more_calls_in_a_batch_than_a_window_holds(window_steps: int) -> None:
    loop, rows = loop_of(window_steps=window_steps)

    def step(x: Any) -> None:
        jaxlog.log("x", x, on_epoch=True)

    step = loop.training_step(step)
    with loop:
        for batch in loop.train([np.arange(5.0), np.arange(5.0, 9.0)]):
            for x in batch:
                step(x)
    assert rows.of("x_step") == [(0, 4.0), (1, 8.0)]
    assert rows.of("x_epoch") == [(1, (5 * 10 + 4 * 26) / (5 * 5 + 4 * 4))]


def test_nan_stays_nan_and_leaves_other_epochs_alone() -> None:
    loop, rows = loop_of()

    def step(batch: Any) -> None:
        for reduce_fx in ("mean", "sum", "min", "max"):
            jaxlog.log(reduce_fx, batch, on_step=False, on_epoch=True, reduce_fx=reduce_fx)
        jaxlog.log("masked", batch, on_step=False, on_epoch=True, mask=~jnp.isnan(batch))

    step = loop.training_step(step)
    with loop:
        for _ in loop.epochs(2):
            nan = np.nan if loop.current_epoch == 0 else 3.0
            for batch in loop.train([np.float32(1), np.float32(nan)]):
                step(batch)
    (_, first), (_, second) = rows.rows
    assert np.isnan([first[name] for name in ("mean", "sum", "min", "max")]).all()
    assert first["masked"] == 1.0
    assert second == {
        "mean": 2.0, "sum": 4.0, "min": 1.0, "max": 3.0, "masked": 2.0, "epoch": 1.0
    }  # fmt: skip
