"""One program a step, one array a window: nothing else is compiled, nothing else is copied."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec

import jaxlog
from tests.counting import counted_compiles
from tests.loop.rig import loop_of

ARRAY: Any = type(jnp.zeros(()))
FOREVER = 1e9  # window_secs: no clock has a say here


@contextlib.contextmanager
def counted_copies(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """The ways in which an array's values come to the host inside, each with the array's shape."""
    copies: list[str] = []
    inside: list[str] = []

    def watch(name: str, original: Any) -> Any:
        def watched(self: Any, *args: Any, **kwargs: Any) -> Any:
            if isinstance(self, ARRAY) and not inside:  # __float__ reads _value: that is one copy
                copies.append(f"{name} {self.shape}")
            inside.append(name)
            try:
                return original(self, *args, **kwargs)
            finally:
                inside.pop()

        return watched

    with monkeypatch.context() as patch:
        for name in (
            "__array__", "__bool__", "__float__", "__index__", "__int__", "__iter__", "item",
            "tolist", "copy_to_host_async",
        ):  # fmt: skip
            patch.setattr(ARRAY, name, watch(name, getattr(ARRAY, name)))
        value = ARRAY.__dict__["_value"]
        patch.setattr(ARRAY, "_value", property(watch("_value", value.fget)))
        for name in ("array", "asarray"):  # on the CPU numpy reads the buffer and calls no method
            patch.setattr(np, name, watch(name, getattr(np, name)))
        yield copies


def train_step(state: jax.Array, batch: jax.Array) -> jax.Array:
    jaxlog.log("loss", (batch - state).mean(), on_epoch=True, prog_bar=True)
    jaxlog.log("largest", batch.max(), reduce_fx="max")
    return state + 0.5 * batch.mean()


def metric_step(state: jax.Array, batch: jax.Array) -> jax.Array:
    jaxlog.log("mean", jaxlog.Mean.of(batch), on_step=True, on_epoch=True)
    return train_step(state, batch)


def on_four_devices(batch: np.ndarray, spec: PartitionSpec) -> jax.Array:
    mesh = Mesh(np.array(jax.devices()[:4]), ("data",))
    return jax.device_put(batch, NamedSharding(mesh, spec))


def data(*, sharded: bool = False) -> list[jax.Array]:
    arrays = [np.full((4, 2), i, np.float32) for i in range(5)]
    if sharded:
        return [on_four_devices(array, PartitionSpec("data")) for array in arrays]
    return [jnp.asarray(array) for array in arrays]


def start(*, sharded: bool = False) -> jax.Array:
    if sharded:
        return on_four_devices(np.zeros((), np.float32), PartitionSpec())
    return jax.device_put(np.zeros((), np.float32))


@pytest.mark.parametrize("window_steps", [2, 64])
@pytest.mark.parametrize("step", [train_step, metric_step])
@pytest.mark.parametrize("donate", [{}, {"donate_argnums": 0}])
@pytest.mark.parametrize("sharded", [False, True])
def test_a_step_compiles_once(step, donate, sharded, window_steps) -> None:
    batches, state = data(sharded=sharded), start(sharded=sharded)
    loop, rows = loop_of(window_steps=window_steps)
    step = loop.training_step(step, **donate)
    with loop, counted_compiles() as compiles:
        for _ in loop.epochs(3):
            for batch in loop.train(batches):
                state = step(state, batch)
            assert loop.callback_metrics["largest"] == 4.0
        loop.flush()
        assert len(compiles) == 1
    assert len(rows.of("loss_step")) == 15


def test_training_and_validation_compile_once_each() -> None:
    batches, state = data(), start()
    loop, rows = loop_of(window_steps=3)
    step = loop.training_step(train_step, donate_argnums=0)
    eval_step = loop.validation_step(metric_step)
    with loop, counted_compiles() as compiles:
        for _ in loop.epochs(3):
            for batch in loop.train(batches):
                state = step(state, batch)
            for batch in loop.validate(batches):
                eval_step(state, batch)
            assert loop.callback_metrics["mean_epoch"] == 2.0
        assert len(compiles) == 2
    assert len(rows.of("mean_step")) == 15


def test_compiles_are_counted() -> None:
    with counted_compiles() as compiles:
        jax.jit(lambda x: x * 3 + 1)(1.0).block_until_ready()
    assert len(compiles) == 1


def test_copies_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    x, y = jax.jit(lambda: (jnp.ones(()), jnp.ones(3)))()
    with counted_copies(monkeypatch) as copies:
        float(x)
        np.asarray(y)
    assert len(copies) == 2


@pytest.mark.parametrize("sharded", [False, True])
def test_scalars_cost_one_array_a_window(monkeypatch, sharded) -> None:
    batches, state = data(sharded=sharded), start(sharded=sharded)
    loop, rows = loop_of(window_steps=2, window_secs=FOREVER)
    step = loop.training_step(train_step, donate_argnums=0)
    with counted_copies(monkeypatch) as copies, loop:
        for _ in loop.epochs(2):
            for batch in loop.train(batches):
                state = step(state, batch)
    assert loop.cost().copies == 2 * 3  # five steps are windows of two, two and one
    begun = [copy for copy in copies if copy.startswith("copy_to_host_async")]
    assert len(begun) == loop.cost().copies
    # Each is read once, and nothing else is.
    assert len(copies) - len(begun) == len(begun)
    assert len(rows.of("loss_step")) == 10


def test_nothing_is_copied_inside_a_window(monkeypatch: pytest.MonkeyPatch) -> None:
    batches, state = data(), start()
    loop, _ = loop_of(window_secs=FOREVER)
    step = loop.training_step(metric_step, donate_argnums=0)
    with loop:
        for batch in loop.train(batches[:1]):
            state = step(state, batch)
        for _ in range(2):
            with counted_copies(monkeypatch) as copies:
                for batch in loop.train(batches):
                    before = len(copies)
                    state = step(state, batch)
                    assert len(copies) == before
            assert 0 < len(copies) <= 2 * loop.cost().copies


def test_a_metric_costs_its_leaves_a_window(monkeypatch: pytest.MonkeyPatch) -> None:
    batches, state = data(), start()
    loop, _ = loop_of(window_secs=FOREVER)
    step = loop.training_step(metric_step)
    with counted_copies(monkeypatch) as copies, loop:
        for batch in loop.train(batches):
            state = step(state, batch)
    leaves = len(jax.tree.leaves(jaxlog.Mean.empty()))
    assert loop.cost().copies == 1 + leaves
    assert len(copies) == 2 * (1 + leaves)


def test_steps_and_swaps_transfer_nothing_implicitly() -> None:
    batches, state = data(), start()
    loop, rows = loop_of(window_steps=2)
    step = loop.training_step(metric_step, donate_argnums=0)
    with loop, jax.transfer_guard_host_to_device("disallow"):
        for _ in loop.epochs(2):
            for batch in loop.train(batches):
                state = step(state, batch)
    assert len(rows.of("loss_step")) == 10


def test_the_guard_against_transfers_bites() -> None:
    add = jax.jit(lambda x: x + 1)
    with jax.transfer_guard_host_to_device("disallow"), pytest.raises(Exception, match="Disallow"):
        add(np.ones(3))


def test_a_device_value_logged_on_the_host_is_one_copy(monkeypatch: pytest.MonkeyPatch) -> None:
    values = list(jax.jit(lambda: (jnp.ones(()), 2 * jnp.ones(())))())
    loop, rows = loop_of(window_secs=FOREVER)
    with counted_copies(monkeypatch) as copies, loop:
        for value in loop.train(values):
            before = len(copies)
            loop.log("value", value)
            assert len(copies) == before
    assert rows.of("value") == [(0, 1.0), (1, 2.0)]
    assert loop.cost().copies == 2
    assert len(copies) == 4


def test_donated_parameters_and_what_is_fetched_late_do_not_meet() -> None:
    batches, first = data(), start()
    loop, rows = loop_of(window_steps=1)
    step = loop.training_step(train_step, donate_argnums=0)
    with loop:
        state = first
        for batch in loop.train(batches):
            state = step(state, batch)
    assert first.is_deleted()
    state = 0.0
    for i, (_, loss) in enumerate(rows.of("loss_step")):
        assert loss == i - state
        state += 0.5 * i
