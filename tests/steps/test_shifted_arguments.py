"""What jit and pmap are told of the user's arguments, once the recording stands before them."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec

import jaxlog
from jaxlog.errors import LogArgumentError
from tests.loop.rig import loop_of


def step(a: Any, b: Any, *, scale: Any = 1.0) -> Any:
    jaxlog.log("sum", (a + b).sum() * scale)
    return a + b


@pytest.mark.parametrize(
    ("options", "donated"),
    [
        ({"donate_argnums": 0}, (True, False)),
        ({"donate_argnums": (1,)}, (False, True)),
        ({"donate_argnames": "b"}, (False, True)),
        ({"donate_argnames": ("a", "b")}, (True, True)),
        ({}, (False, False)),
    ],
)
def test_donation_names_the_users_arguments(options: dict[str, Any], donated) -> None:
    loop, rows = loop_of()
    run = loop.training_step(step, **options)
    a, b = jnp.ones(4), jnp.full(4, 2.0)
    with loop:
        for _ in loop.train([0]):
            if all(donated):  # one result takes one buffer; jax says that the other is not used
                with pytest.warns(UserWarning, match="donated"):
                    run(a, b)
            else:
                run(a, b)
    deleted = (a.is_deleted(), b.is_deleted())
    # Of two donated arguments one is used: there is one result of their shape.
    assert any(deleted) if all(donated) else deleted == donated
    assert rows.of("sum") == [(0, 12.0)]


@pytest.mark.parametrize("options", [{"static_argnums": 1}, {"static_argnames": ("power",)}])
def test_static_arguments(options: dict[str, Any]) -> None:
    def raised(x: Any, power: int) -> Any:
        jaxlog.log("sum", (x**power).sum())
        return [x] * power  # needs a number, not a tracer

    loop, rows = loop_of()
    run = loop.training_step(raised, **options)
    with loop:
        for power in loop.train([2, 3]):
            assert len(run(jnp.full(2, 2.0), power)) == power
    assert rows.of("sum") == [(0, 8.0), (1, 16.0)]


def test_shardings_are_said_of_the_users_arguments_and_result() -> None:
    mesh = Mesh(np.array(jax.devices()[:2]), ("data",))
    split, whole = (NamedSharding(mesh, PartitionSpec(*axes)) for axes in (("data",), ()))
    loop, rows = loop_of()
    run = loop.training_step(step, in_shardings=(split, whole), out_shardings=split)
    with loop:
        for _ in loop.train([0]):
            assert run(jnp.ones(4), jnp.ones(4)).sharding == split
    assert rows.of("sum") == [(0, 8.0)]


def test_numbers_of_arguments_are_ints() -> None:
    loop, _ = loop_of()
    run = loop.training_step(step, donate_argnums="a")
    with pytest.raises(LogArgumentError, match="donate_argnums='a'"):
        run.lower(jnp.ones(1), jnp.ones(1))


def test_lower_gives_the_program_without_a_phase() -> None:
    loop, _ = loop_of()
    run = loop.training_step(step, donate_argnums=0)
    text = run.lower(jnp.ones(4), jnp.ones(4)).as_text()
    assert "jit_step" in text
    with loop:
        for _ in loop.train([0]):
            assert run(jnp.ones(4), jnp.ones(4)).shape == (4,)
