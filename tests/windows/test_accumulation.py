"""`accumulate_grad_batches=k`: one row an optimizer step, values reduced over its batches."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import jaxlog

VALUES = [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0]
SIZES = [1, 3, 2, 2, 1, 1, 5]


def batches() -> list[dict[str, Any]]:
    pairs = zip(VALUES, SIZES, strict=True)
    return [{"x": np.zeros((size, 2)), "v": np.float32(v)} for v, size in pairs]


def run(
    k: int, *, epochs: int = 1, reads: bool = False, **options: Any
) -> tuple[jaxlog.Loop, list[Any]]:
    logger = jaxlog.MemoryLogger()
    defaults = {"log_every_n_steps": 1, "progress_bar": False}
    loop = jaxlog.Loop(logger, accumulate_grad_batches=k, **(defaults | options))

    @loop.training_step
    def train(batch: Any) -> None:
        jaxlog.log("mean", batch["v"], on_epoch=True)
        jaxlog.log("weighted", batch["v"], batch_size=batch["v"])
        for fx in ("sum", "min", "max"):
            jaxlog.log(fx, batch["v"], reduce_fx=fx)

    with loop:
        for _ in loop.epochs(epochs):
            for batch in loop.train(batches()):
                train(batch)
                loop.log("host", batch["v"])
                if reads:
                    assert loop.callback_metrics["max"] >= batch["v"]
    return loop, logger.rows


def groups(k: int) -> list[slice]:
    return [slice(at, at + k) for at in range(0, len(VALUES), k)]


@pytest.mark.parametrize("reads", [False, True])
@pytest.mark.parametrize("window_steps", [1, 2, 3, 64])
@pytest.mark.parametrize("k", [1, 2, 3, 7, 10])
def test_rows_are_the_reduction_of_each_group(k: int, window_steps: int, reads: bool) -> None:
    loop, rows = run(k, window_steps=window_steps, reads=reads)
    steps = [(s, row) for s, row in rows if "sum" in row]
    assert [s for s, _ in steps] == list(range(len(groups(k))))
    for (_, row), group in zip(steps, groups(k), strict=True):
        values, sizes = np.array(VALUES[group]), np.array(SIZES[group])
        assert row["mean_step"] == pytest.approx((values * sizes).sum() / sizes.sum())
        assert row["host"] == pytest.approx((values * sizes).sum() / sizes.sum())
        assert row["weighted"] == pytest.approx((values**2).sum() / values.sum())
        assert row["sum"] == values.sum()
        assert row["min"] == values.min()
        assert row["max"] == values.max()
    expected = np.average(VALUES, weights=SIZES)
    assert loop.callback_metrics["mean_epoch"] == pytest.approx(expected)


def test_global_step_counts_optimizer_steps_and_a_short_group_is_one() -> None:
    loop, rows = run(3, epochs=2)
    assert loop.global_step == 6
    assert [s for s, row in rows if "sum" in row] == [0, 1, 2, 3, 4, 5]
    assert [s for s, row in rows if "mean_epoch" in row] == [2, 5]


def test_log_every_n_steps_counts_optimizer_steps() -> None:
    _, rows = run(2, log_every_n_steps=2)
    assert [s for s, row in rows if "sum" in row] == [1, 3]


def test_one_compile_and_one_copy_a_window_all_the_same() -> None:
    loop, _ = run(2, window_steps=7)
    assert loop.cost().copies == 1


@pytest.mark.parametrize("k", [0, -1, 1.5, True])
def test_anything_but_a_positive_int_is_refused(k: Any) -> None:
    with pytest.raises(jaxlog.LogArgumentError, match="accumulate_grad_batches"):
        jaxlog.Loop(logger=False, accumulate_grad_batches=k)
