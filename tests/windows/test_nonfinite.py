"""NaN and infinity: counted per key, reported at the first step, dealt with by policy."""

from __future__ import annotations

import logging
import math
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

import jaxlog

VALUES = [1.0, math.nan, 3.0, math.inf, 5.0]


def step(scale: Any, batch: Any) -> None:
    jaxlog.log("loss", batch["v"] * scale, on_epoch=True)
    jaxlog.log("fine", jnp.float32(2), on_epoch=True)


def run(policy: Any = "keep", fn: Any = step, **options: Any) -> tuple[jaxlog.Loop, list[Any]]:
    logger = jaxlog.MemoryLogger()
    loop = jaxlog.Loop(
        logger, log_every_n_steps=1, progress_bar=False, nan_policy=policy, **options
    )
    train = loop.training_step(fn)
    with loop:
        for _ in loop.epochs(1):
            for v in loop.train([{"x": np.zeros(2), "v": np.float32(v)} for v in VALUES]):
                train(1.0, v)
    return loop, logger.rows


def test_keep_lets_them_through_and_counts() -> None:
    loop, rows = run()
    assert [row["loss_step"] for _, row in rows[:5]] == pytest.approx(VALUES, nan_ok=True)
    assert math.isnan(loop.callback_metrics["loss_epoch"])
    assert dict(loop.nonfinite) == {"loss": jaxlog.NonFinite(count=2, first_step=1)}


def test_skip_leaves_the_steps_out_of_rows_and_reductions() -> None:
    loop, rows = run("skip")
    logged = {s: row["loss_step"] for s, row in rows[:5] if "loss_step" in row}
    assert logged == {0: 1.0, 2: 3.0, 4: 5.0}
    assert loop.callback_metrics["loss_epoch"] == 3.0
    assert loop.nonfinite["loss"].count == 2


def test_raise_names_the_key_and_the_first_step_after_everything_was_written() -> None:
    logger = jaxlog.MemoryLogger()
    loop = jaxlog.Loop(logger, log_every_n_steps=1, progress_bar=False, nan_policy="raise")
    train = loop.training_step(step)

    def fit() -> None:
        with loop:
            for _ in loop.epochs(1):
                for v in loop.train([{"x": np.zeros(2), "v": np.float32(v)} for v in VALUES]):
                    train(1.0, v)

    with pytest.raises(jaxlog.NonFiniteError, match=r"'loss' became nan at step 1") as caught:
        fit()
    assert isinstance(caught.value, FloatingPointError)
    assert [row["loss_step"] for _, row in logger.rows[:5]] == pytest.approx(VALUES, nan_ok=True)


def test_the_policy_of_a_log_call_is_stronger_than_the_loops() -> None:
    def mixed(scale: Any, batch: Any) -> None:
        jaxlog.log("kept", batch["v"] * scale)
        jaxlog.log("skipped", batch["v"] * scale, nan_policy="skip")

    _, rows = run("keep", mixed)
    assert sum("kept" in row for _, row in rows) == 5
    assert sum("skipped" in row for _, row in rows) == 3


def test_the_first_step_is_reported_once(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, logger="jaxlog"):
        run(window_steps=1)
    (record,) = caplog.records
    assert "'loss' became nan at step 1" in record.getMessage()


def test_no_step_waits_for_the_check() -> None:
    loop, _ = run(window_steps=5)
    assert loop.cost().copies == 1


@pytest.mark.parametrize("window_steps", [1, 2, 64])
def test_counts_do_not_depend_on_windows(window_steps: int) -> None:
    loop, _ = run(window_steps=window_steps)
    assert loop.nonfinite["loss"] == jaxlog.NonFinite(count=2, first_step=1)


def test_host_values_and_evaluation_loaders_count_too() -> None:
    loop = jaxlog.Loop(logger=False, progress_bar=False, nan_policy="skip")
    with loop:
        for v in loop.validate([[1.0, math.nan], [math.nan, 3.0]]):
            loop.log("v", v, batch_size=1)
    assert dict(loop.nonfinite) == {
        "v/dataloader_idx_0": jaxlog.NonFinite(1, 1),
        "v/dataloader_idx_1": jaxlog.NonFinite(1, 0),
    }
    assert dict(loop.callback_metrics) == {"v/dataloader_idx_0": 1.0, "v/dataloader_idx_1": 3.0}


def test_metrics_logged_per_step_are_watched() -> None:
    def fn(scale: Any, batch: Any) -> None:
        jaxlog.log("m", jaxlog.Mean.of(batch["v"] * scale), on_epoch=True)

    loop, _ = run("keep", fn)
    assert loop.nonfinite["m"].count == 2


def test_an_unknown_policy_is_refused_at_once() -> None:
    with pytest.raises(jaxlog.LogArgumentError, match="nan_policy='drop'"):
        jaxlog.Loop(logger=False, nan_policy="drop")  # type: ignore[arg-type]
    with pytest.raises(jaxlog.LogArgumentError, match="nan_policy='drop'"):
        jaxlog.log("x", 1.0, nan_policy="drop")  # pyright: ignore[reportArgumentType]
