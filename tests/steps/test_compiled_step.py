"""`training_step` and its siblings: what they take, and that they are called like the function."""

from __future__ import annotations

import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec

import jaxlog
from jaxlog.errors import LogArgumentError, SchemaError
from tests.loop.rig import batches, loop_of


def add(state: jax.Array, batch: Any, scale: Any = 1) -> jax.Array:
    """Adds."""
    jaxlog.log("loss", batch[0] * scale)
    return state + scale * batch.sum()


def run(step: Any, loop: jaxlog.Loop, *args: Any, **kwargs: Any) -> Any:
    """The step's result after batches of 1 and 2, its state carried along."""
    state = jnp.zeros(())
    with loop:
        for batch in loop.train(batches(1, 2)):
            state = step(state, batch, *args, **kwargs)
    return state


LOSSES = [(0, 1.0), (1, 2.0)]


def test_the_bare_decorator() -> None:
    loop, rows = loop_of()

    @loop.training_step
    def step(state, batch):
        return add(state, batch)

    assert run(step, loop) == 3.0
    assert rows.of("loss") == LOSSES


def test_the_decorator_with_arguments() -> None:
    loop, rows = loop_of()

    @loop.training_step(donate_argnums=0)
    def step(state, batch):
        return add(state, batch)

    assert run(step, loop) == 3.0
    assert rows.of("loss") == LOSSES


def test_a_step_keeps_name_and_docstring() -> None:
    loop, _ = loop_of()
    step = loop.training_step(add)
    assert (step.__name__, step.__doc__, step.__wrapped__) == ("add", "Adds.", add)


class Trainer:
    """Steps that are methods, and objects that are steps."""

    def step(self, state: jax.Array, batch: Any) -> jax.Array:
        return add(state, batch)

    __call__ = step


@pytest.mark.parametrize(
    "fn",
    [
        Trainer().step,
        Trainer(),
        functools.partial(add, scale=1),
        jax.jit(add),
        jax.jit(add, donate_argnums=0),
        lambda state, batch: add(state, batch, 1),
        lambda *args: add(*args, scale=1),
        jax.checkpoint(add),
    ],
    ids=["method", "object", "partial", "jitted", "donating", "lambda", "varargs", "remat"],
)
def test_functions_of_every_kind(fn: Any) -> None:
    loop, rows = loop_of()
    assert run(loop.training_step(fn), loop) == 3.0
    assert rows.of("loss") == LOSSES


class Layer(nn.Module):
    """A layer that logs."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        x = nn.Dense(1, kernel_init=nn.initializers.ones)(x[:, None])
        jaxlog.log("activation", x.mean())
        return x


def test_a_flax_apply() -> None:
    layer = Layer()
    params = layer.init(jax.random.key(0), np.ones(1, np.float32))
    loop, rows = loop_of()
    step = loop.training_step(
        lambda params, batch: jax.tree.map(jnp.sum, layer.apply(params, batch))
    )
    method: Any = loop.training_step(layer.apply)
    with loop:
        for batch in loop.train(batches(1, 2)):
            assert step(params, batch) == batch.sum()
            assert method(params, batch).shape == (1, 1)
    assert rows.of("activation") == LOSSES


@pytest.mark.parametrize("by_name", [False, True])
@pytest.mark.parametrize(
    "options",
    [
        {"donate_argnums": 0},
        {"donate_argnums": (0,)},
        {"donate_argnames": "state"},
        {"donate_argnames": ("state",)},
        {"donate_argnums": 0, "donate_argnames": "state"},
    ],
    ids=str,
)
def test_donation(options: dict[str, Any], by_name: bool) -> None:
    def step(state, batch):
        return add(state, batch)

    loop, _ = loop_of()
    step = loop.training_step(step, **options)
    state, kept = jnp.zeros(()), jnp.ones(2)
    with loop:
        for _ in loop.train(batches(1)):
            if by_name:
                step(state=state, batch=kept)
            else:
                step(state, kept)
    assert state.is_deleted()
    assert not kept.is_deleted()


def test_nothing_is_donated_unasked() -> None:
    loop, _ = loop_of()
    step = loop.training_step(add)
    state = jnp.zeros(())
    with loop:
        for batch in loop.train(batches(1)):
            step(state, batch)
    assert not state.is_deleted()


@pytest.mark.parametrize("options", [{"static_argnums": 2}, {"static_argnames": "twice"}], ids=str)
@pytest.mark.parametrize("by_name", [False, True])
def test_static_arguments(options: dict[str, Any], by_name: bool) -> None:
    def step(state: jax.Array, batch: Any, twice: bool) -> jax.Array:
        return add(state, 2 * batch if twice else batch)

    loop, rows = loop_of()
    step = loop.training_step(step, **options)
    state = run(step, loop, twice=True) if by_name else run(step, loop, True)
    assert state == 6.0
    assert rows.of("loss") == [(0, 2.0), (1, 4.0)]


def test_static_counted_from_the_end() -> None:
    loop, rows = loop_of()
    step = loop.training_step(add, static_argnums=-1)
    assert run(step, loop, 3) == 9.0
    assert rows.of("loss") == [(0, 3.0), (1, 6.0)]


def test_arguments_by_keyword() -> None:
    loop, rows = loop_of()
    step = loop.training_step(add, donate_argnames="state")
    with loop:
        for batch in loop.train(batches(1, 2)):
            assert step(state=jnp.zeros(()), batch=batch, scale=2) == 2 * batch[0]
    assert rows.of("loss") == [(0, 2.0), (1, 4.0)]


@pytest.mark.parametrize("one_for_all", [False, True])
@pytest.mark.parametrize("static", [{}, {"static_argnums": 2}, {"static_argnames": "scale"}])
def test_shardings(one_for_all: bool, static: dict[str, Any]) -> None:
    mesh = Mesh(np.array(jax.devices()[:4]), ("data",))
    split, whole = (NamedSharding(mesh, PartitionSpec(*axes)) for axes in (("data",), ()))
    in_shardings = whole if one_for_all else (whole, split)
    loop, rows = loop_of()
    step = loop.training_step(
        add, in_shardings=in_shardings, out_shardings=whole, donate_argnums=0, **static
    )
    state = jnp.zeros(())
    with loop:
        for batch in loop.train(batches(1, 2, sizes=(4, 8))):
            state = step(state, batch, 1) if static else step(state, batch)
    assert state.sharding == whole
    assert state == 4 + 16
    assert rows.of("loss") == LOSSES


def test_a_transform_of_ones_own() -> None:
    calls = []

    def transform(fn: Any, **options: Any) -> Any:
        calls.append((fn.__name__, options))
        return jax.jit(fn, **options)

    loop, rows = loop_of()
    step = loop.training_step(add, transform=transform, static_argnums=2)
    assert run(step, loop, 2) == 6.0
    assert calls == [("add", {"static_argnums": (3,), "donate_argnums": (0,)})]
    assert rows.of("loss") == [(0, 2.0), (1, 4.0)]


@pytest.mark.parametrize("fn", [3, "step"])
def test_what_is_no_function(fn: Any) -> None:
    loop, _ = loop_of()
    with pytest.raises(LogArgumentError, match="takes a function"):
        loop.training_step(fn)


def test_argument_numbers_that_are_none() -> None:
    loop, _ = loop_of()
    step = loop.training_step(add, donate_argnums=("state",))
    with loop:
        for batch in loop.train(batches(1)):
            with pytest.raises(LogArgumentError, match="donate_argnums"):
                step(jnp.zeros(()), batch)


def test_two_steps_of_a_stage_hold_a_key_to_the_same_options() -> None:
    loop, _ = loop_of()
    first = loop.training_step(lambda batch: jaxlog.log("loss", batch[0]))
    second = loop.training_step(lambda batch: jaxlog.log("loss", batch[0], on_epoch=True))
    with loop:
        for batch in loop.train(batches(1)):
            first(batch)
            with pytest.raises(SchemaError, match="on_epoch"):
                second(batch)


def test_one_function_in_every_stage() -> None:
    loop, rows = loop_of()

    def step(batch: Any) -> None:
        jaxlog.log("loss", batch[0])

    train, validate, test = (
        decorate(step) for decorate in (loop.training_step, loop.validation_step, loop.test_step)
    )
    with loop:
        for _ in loop.epochs(1):
            for batch in loop.train(batches(1)):
                train(batch)
            for batch in loop.validate(batches(2, 4)):
                validate(batch)
        for batch in loop.test(batches(5, 7)):
            test(batch)
    assert rows.of("loss") == [(0, 1.0), (0, 3.0), (1, 6.0)]
