"""`training_step(fn, scan=True)`: an epoch in one program, with a row for every step."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxlog
from jaxlog.errors import HookError, LogArgumentError
from tests.counting import counted_compiles
from tests.loop.rig import loop_of

XS = np.arange(12, dtype=np.float32).reshape(6, 2)  # six steps of two examples


def step(w: Any, x: Any) -> tuple[Any, Any]:
    jaxlog.log("loss", (w - x.mean()) ** 2, on_epoch=True)
    jaxlog.log("mean", jaxlog.Mean.of(x), on_epoch=True)
    jaxlog.log("lazy", lambda: w + 100)
    jax.lax.cond(x[0] > 5, lambda: jaxlog.log("late", x[0]), lambda: None)
    return w + 0.5 * (x.mean() - w), x.sum()


def by_steps(epochs: int, **options: Any) -> tuple[list[Any], float]:
    """The same by a loop over batches."""
    loop, logger = loop_of(**options)
    train = loop.training_step(step)
    w: Any = jnp.float32(0)
    with loop:
        for _ in loop.epochs(epochs):
            for x in loop.train(list(XS)):
                w, _ = train(w, x)
    return logger.rows, float(w)


def by_scan(epochs: int, chunk: int = 6, **options: Any) -> tuple[list[Any], float, Any]:
    loop, logger = loop_of(**options)
    train = loop.training_step(step, scan=True, donate_argnums=0)
    w, ys = jnp.float32(0), None
    with loop:
        for _ in loop.epochs(epochs):
            for xs in loop.train([XS[i : i + chunk] for i in range(0, 6, chunk)]):
                w, ys = train(w, xs)
    assert loop.global_step == 6 * epochs
    return logger.rows, float(w), ys


@pytest.mark.parametrize("log_every_n_steps", [1, 2, 5])
@pytest.mark.parametrize("chunk", [6, 3, 1])
def test_the_rows_are_those_of_a_loop_over_steps(chunk: int, log_every_n_steps: int) -> None:
    wanted, w = by_steps(2, log_every_n_steps=log_every_n_steps)
    rows, scanned, ys = by_scan(2, chunk, log_every_n_steps=log_every_n_steps)
    assert scanned == pytest.approx(w)
    np.testing.assert_allclose(ys, XS[-chunk:].sum(1))
    assert [at for at, _ in rows] == [at for at, _ in wanted]
    for (_, row), (_, other) in zip(rows, wanted, strict=True):
        assert row == pytest.approx(other, rel=1e-6)


def test_one_program_for_an_epoch_and_one_copy() -> None:
    loop, _ = loop_of(window_steps=4)
    train = loop.training_step(step, scan=True)
    w = jax.device_put(np.float32(0))
    with loop, counted_compiles() as compiles:
        for _ in loop.epochs(3):
            for xs in loop.train([XS]):
                w, _ = train(w, xs)
        assert len(compiles) == 1
    # The rows, the metric's state of the window: a scan of six is not torn to windows of four.
    assert loop.cost().copies == 3 * 3


def test_validation_counts_its_steps() -> None:
    loop, logger = loop_of()

    @loop.validation_step(scan=True)
    def evaluate(total: Any, x: Any) -> tuple[Any, None]:
        jaxlog.log("v", x.mean(), on_step=True)
        return total + x.sum(), None

    with loop:
        for _ in range(2):
            for xs in loop.validate([XS[:2]]):
                total, _ = evaluate(0.0, xs)
                assert float(total) == 6.0
    assert [(at, row) for at, row in logger.rows if "v_step" in row] == [
        (0, {"v_step": 0.5}), (1, {"v_step": 2.5}), (2, {"v_step": 0.5}), (3, {"v_step": 2.5}),
    ]  # fmt: skip


def test_the_weight_is_that_of_one_step() -> None:
    """Two steps of three examples, then one of one: an epoch mean over seven."""
    loop, logger = loop_of()
    train = loop.training_step(
        lambda c, x: (c, jaxlog.log("v", x[0], on_step=False, on_epoch=True)), scan=True
    )
    with loop:
        for _ in loop.epochs(1):
            for xs in loop.train([np.ones((2, 3), np.float32), np.full((1, 1), 8, np.float32)]):
                train(0, xs)
    assert logger.rows[-1][1]["v"] == 2.0


def test_a_tree_of_arrays_and_no_batch_axis() -> None:
    loop, logger = loop_of()
    train = loop.training_step(
        lambda c, x: (c, jaxlog.log("v", x["a"] + x["b"].sum(), batch_size=1)), scan=True
    )
    with loop:
        for xs in loop.train([{"a": np.arange(2.0), "b": np.ones((2, 2))}]):
            train(0, xs)
    assert [row["v"] for _, row in logger.rows] == [2.0, 3.0]


def test_a_reader_in_the_middle_sees_the_steps_taken() -> None:
    loop, _ = loop_of()
    train = loop.training_step(step, scan=True)
    with loop:
        for xs in loop.train([XS]):
            train(jnp.float32(0), xs)
            assert loop.callback_metrics["mean_step"] == pytest.approx(XS[-1].mean())
        assert loop.callback_metrics["mean_epoch"] == pytest.approx(XS.mean())


@pytest.mark.parametrize("xs", [(), 1.0, (XS, XS[:3])])
def test_xs_that_cannot_be_scanned(xs: Any) -> None:
    loop, _ = loop_of()
    train = loop.training_step(step, scan=True)
    with loop:
        for _ in loop.train([XS]):
            with pytest.raises(LogArgumentError, match="one leading dimension"):
                train(0.0, xs)


def test_outside_of_its_phase() -> None:
    loop, _ = loop_of()
    train = loop.training_step(step, scan=True)
    with pytest.raises(HookError, match="no train batch is running"):
        train(0.0, XS)


def test_what_it_does_not_go_with() -> None:
    loop, _ = loop_of()
    with pytest.raises(LogArgumentError, match="scan=True"):
        loop.training_step(step, scan=True, transform=jax.pmap)
    lanes, _ = loop_of(lanes=2)
    with pytest.raises(LogArgumentError, match="scan=True"):
        lanes.training_step(step, scan=True)
    accumulating, _ = loop_of(accumulate_grad_batches=2)
    train = accumulating.training_step(step, scan=True)
    with accumulating:
        for xs in accumulating.train([XS]):
            with pytest.raises(LogArgumentError, match="accumulate inside it"):
                train(0.0, xs)


def test_two_lengths_in_one_batch() -> None:
    loop, _ = loop_of()
    train = loop.training_step(step, scan=True)
    with loop:
        for xs in loop.train([XS]):
            w, _ = train(jnp.float32(0), xs)
            with pytest.raises(LogArgumentError, match="takes 2 steps in a batch in which 6"):
                train(w, xs[:2])
