"""`log(name, thunk)`: computed at steps that are written, at others not."""

from __future__ import annotations

import functools
import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, PartitionSpec

import jaxlog
from jaxlog import capture, hook, log
from jaxlog.errors import HookError, LogArgumentError
from jaxlog.logs import Recording, decode_rows
from tests.tracing.placements import PLACEMENTS, REDUCTIONS

X = np.array([3.0, 1.0, 2.5, 0.5], np.float32)
BATCH = np.arange(8, dtype=np.float32)
# One of each kind; test_transforms.py has them all, at steps that are written.
SOME = (
    "top level", "inner jit called twice, cached", "jit in jit", "scan", "nested scan",
    "while_loop", "cond in scan", "vmap", "grad", "vmap of grad", "hessian",
    "grad of scan of checkpoint", "fwd and bwd of custom_vjp in scan",
)  # fmt: skip


@functools.cache
def step_of(place: str) -> tuple[Any, Any]:
    """`(step, recording)`: a step that is told whether it is written."""
    captured = capture(PLACEMENTS[place].run)
    recording = Recording.empty(captured.init(X).schema, rows=1)

    @jax.jit
    def step(recording, x):
        state, _ = captured.run(
            recording.schema, captured.trace((x,), {}), should_write=recording.should_write
        )
        return recording.push(state)[0].whole.rows

    return step, recording


def before(recording: Recording, should_write: bool) -> Recording:
    """The recording before a step that is written or not."""
    steps, whole, shards, _ = recording.arrays
    return Recording(recording.schema, steps, whole, shards, np.asarray(should_write))


@pytest.mark.parametrize("should_write", [True, False])
@pytest.mark.parametrize("place", SOME)
def test_only_steps_that_are_written_have_it(place: str, should_write: bool) -> None:
    step, recording = step_of(place)
    seen = decode_rows(recording.schema, np.asarray(step(before(recording, should_write), X)))
    mean = REDUCTIONS["mean"]
    value = mean.reduce(mean.counts(PLACEMENTS[place].oracle(X.astype(np.float64))))
    np.testing.assert_allclose(seen["mean"].step_values(), [value], rtol=2e-6)
    wanted = [value] if should_write else [np.nan]
    np.testing.assert_allclose(seen["lazy"].step_values(), wanted, rtol=2e-6)


def test_in_a_shard_map() -> None:
    mesh = Mesh(np.array(jax.devices()[:4]), ("d",))

    def step(x):
        log("sum", x.sum, reduce_fx="sum", sync_dist=True)
        return x

    spec = PartitionSpec("d")
    rows = written(jax.shard_map(step, mesh=mesh, in_specs=spec, out_specs=spec), steps=4)
    assert rows == [(1, {"sum": 28.0, "epoch": 0.0}), (3, {"sum": 28.0, "epoch": 0.0})]


def test_under_pmap() -> None:
    def step(x):
        log("sum", x.sum, reduce_fx="sum", sync_dist=True)

    pmap = functools.partial(jax.pmap, devices=jax.devices()[:8])
    rows = written(step, steps=4, batch=np.arange(8.0, dtype=np.float32)[:, None], transform=pmap)
    assert [(step, row["sum"]) for step, row in rows] == [(1, 28.0), (3, 28.0)]


def written(
    step: Any, *, steps: int, batch: Any = BATCH, **options: Any
) -> list[tuple[int, dict[str, float]]]:
    """The rows of a loop that writes every second step."""
    loop_options = {k: options.pop(k) for k in ("accumulate_grad_batches",) if k in options}
    logger = jaxlog.MemoryLogger()
    loop = jaxlog.Loop(logger, log_every_n_steps=2, progress_bar=False, **loop_options)
    train_step = loop.training_step(step, **options)
    with loop:
        for one in loop.train([batch] * steps):
            train_step(one)
    return logger.rows


def test_a_loop_computes_it_when_it_writes() -> None:
    calls: list[float] = []

    def step(x):
        def thunk():
            jax.debug.callback(lambda v: calls.append(float(v)), x[1])
            return x.max()

        log("largest", thunk)

    rows = written(step, steps=6)
    jax.effects_barrier()
    assert [(at, row["largest"]) for at, row in rows] == [(1, 7.0), (3, 7.0), (5, 7.0)]
    assert calls == [1.0] * 3


def test_with_accumulation_the_last_batch_of_a_written_step_computes_it() -> None:
    rows = written(lambda x: log("v", lambda: x[3]), steps=8, accumulate_grad_batches=2)
    assert [(at, row["v"]) for at, row in rows] == [(1, 3.0), (3, 3.0)]


def test_for_the_epoch_every_step_counts() -> None:
    calls: list[float] = []

    def step(x):
        def thunk():
            jax.debug.callback(lambda v: calls.append(float(v)), x[1])
            return x.sum()

        log("v", thunk, on_epoch=True)

    rows = written(step, steps=3)
    jax.effects_barrier()
    assert len(calls) == 3
    assert rows[-1] == (2, {"v_epoch": 28.0, "epoch": 0.0})


def test_validation_computes_every_step_it_writes() -> None:
    logger = jaxlog.MemoryLogger()
    loop = jaxlog.Loop(logger, progress_bar=False)
    step = loop.validation_step(lambda x: log("v", lambda: x[0], on_step=True, on_epoch=False))
    with loop:
        for x in loop.validate([X, X + 1]):
            step(x)
    assert logger.rows == [(0, {"v": 3.0}), (1, {"v": 4.0})]


def test_a_metric_can_be_lazy() -> None:
    rows = written(lambda x: log("v", lambda: jaxlog.Mean.of(x)), steps=2)
    assert rows == [(1, {"v": 3.5, "epoch": 0.0})]


def test_beside_the_same_key_that_is_not_lazy() -> None:
    def step(x):
        log("v", x[0])
        log("v", lambda: x[2])

    assert [row["v"] for _, row in written(step, steps=2)] == [1.0]


def test_one_program_for_steps_that_are_written_and_those_that_are_not() -> None:
    traces = []

    def step(x):
        traces.append(0)
        log("v", lambda: x.sum() + 1)

    written(step, steps=5)
    assert len(traces) == 1


def test_steps_that_nobody_asks_are_told_nothing() -> None:
    recording = Recording.empty(capture(lambda x: log("v", x.sum())).init(X).schema, rows=1)
    assert not recording.schema.lazy
    assert len(jax.tree.leaves(recording)) == 2


def test_outside_of_capture_it_is_not_even_called() -> None:
    def fail():
        raise AssertionError

    log("v", fail)
    assert "cond" not in str(jax.make_jaxpr(lambda x: log("v", fail))(X))


def test_the_branch_is_a_branch() -> None:
    """The value is computed inside the conditional, and nowhere else."""

    def step(w, x):
        loss, grad = jax.value_and_grad(lambda w: jnp.sum(jnp.sin(w * x)))(w)
        log("sorted", lambda: jnp.sort(grad)[0])
        return w - grad, loss

    captured = capture(step)
    recording = Recording.empty(captured.init(X, X).schema, rows=1)

    def run(recording, w, x):
        state, out = captured.run(
            recording.schema, captured.trace((w, x), {}), should_write=recording.should_write
        )
        return recording.push(state)[0], out

    text = jax.jit(run).lower(before(recording, True), X, X).compile().as_text()
    assert text is not None
    spec = text[text.index("ENTRY") :]
    assert re.search(r" conditional\(", spec)
    assert not re.search(r" sort\(", spec)
    assert re.search(r" sort\(", text)


@pytest.mark.parametrize(
    ("thunk", "message"),
    [
        (lambda: jnp.ones(3), r"'v'.*shape \(3,\)"),
        (lambda: "text", "'v'"),
        (lambda: None, "'v'"),
    ],
)
def test_what_it_returns_is_checked_while_tracing(thunk: Any, message: str) -> None:
    with pytest.raises(LogArgumentError, match=message):
        capture(lambda _: log("v", thunk)).init(X)


def test_its_options_are_checked_without_capture() -> None:
    with pytest.raises(LogArgumentError, match="non-empty string"):
        log("", lambda: 1.0)
    with hook("on_train_epoch_end"), pytest.raises(HookError):
        log("v", lambda: 1.0, on_step=True)


def test_functions_of_every_kind() -> None:
    class Norm:
        def of_ones(self):
            return 2.0

    def step(_):
        log("partial", functools.partial(jnp.sum, jnp.ones(3)))
        log("method", Norm().of_ones)

    logs, _ = capture(step)(capture(step).init(X), X)
    assert {name: float(value) for name, value in logs.compute().items()} == {
        "partial": 3.0,
        "method": 2.0,
    }
