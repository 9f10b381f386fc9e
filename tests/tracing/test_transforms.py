"""Each value is counted once, wherever it is logged: placements x reductions against numpy."""

from __future__ import annotations

import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxlog import capture
from tests.tracing.placements import PLACED, PLACEMENTS, REDUCTIONS, Placement, cached

ROWS = 4
STEPS = np.array(
    [
        [1.5, 2.25, 0.75, 3.0],
        [2.5, 3.5, 1.25, 4.0],
        [3.0, 1.0, 2.5, 0.5],
        [1.0, 0.25, 0.5, 0.75],
        [2.25, 3.25, 1.75, 2.75],
        [3.75, 2.0, 0.25, 1.5],
    ],
)

BY_BATCH = ("mean", "masked", "lazy")


def expected(placement: Placement, reduction: str) -> tuple[float, list[float]]:
    """`(compute(), history())` of the same program in float64."""
    counts, reduce = REDUCTIONS[reduction].counts, REDUCTIONS[reduction].reduce
    steps = [counts(placement.oracle(x)) for x in STEPS]
    history = [reduce(parts) if parts else math.nan for parts in steps][-ROWS:]
    if reduction in BY_BATCH:  # a step weighs by its batch, however many values it logged
        steps = [[(reduce(parts), 4.0)] if parts else [] for parts in steps]
    return reduce([part for parts in steps for part in parts]), history


# One for all placements: those with the same schema share its program.
_compute = jax.jit(lambda logs: logs.compute())


@functools.cache
def ran(name: str) -> tuple[dict[str, float], dict[str, np.ndarray], Any]:
    """`(compute(), history(), last result)` of a compiled program that donates its logs."""
    captured = capture(PLACEMENTS[name].run, rows=ROWS)
    batches = [jnp.asarray(x, jnp.float32) for x in STEPS]
    logs, out = captured.init(batches[0]), None
    step = jax.jit(captured, donate_argnums=0)
    for x in batches:
        logs, out = step(logs, x)
    values = {key: float(value) for key, value in _compute(logs).items()}
    return values, logs.history(), out


CASES = [(place, reduction) for place in PLACEMENTS for reduction in PLACED]


def test_number_of_cases() -> None:
    assert (len(PLACEMENTS), len(PLACED), len(CASES)) == (87, 13, 1131)


@pytest.mark.parametrize(("place", "reduction"), CASES)
def test_counts_each_value_once(place: str, reduction: str) -> None:
    computed, history, _ = ran(place)
    value, steps = expected(PLACEMENTS[place], reduction)
    np.testing.assert_allclose(computed[reduction], value, rtol=2e-6)
    np.testing.assert_allclose(history[reduction], steps, rtol=2e-6)


@functools.cache
def plain_results() -> dict[str, Any]:
    """What every placement returns without capture, in one program."""
    run = jax.jit(lambda x: {name: place.run(x) for name, place in PLACEMENTS.items()})
    return run(jnp.asarray(STEPS[-1], jnp.float32))


@pytest.mark.parametrize("place", PLACEMENTS)
def test_leaves_results_alone(place: str) -> None:
    *_, out = ran(place)
    plain = plain_results()[place]
    assert jax.tree.structure(out) == jax.tree.structure(plain)
    for ours, theirs in zip(jax.tree.leaves(out), jax.tree.leaves(plain), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-6)


def test_inner_jit_compiled_outside_of_capture_still_logs_inside() -> None:
    x = jnp.float32(1.5)
    cached(x)  # its cache now holds a program without logs

    def step(x: jax.Array) -> jax.Array:
        return cached(x)

    captured = capture(step)
    logs, _ = captured(captured.init(x), x)
    assert logs.history()["mean"] == [1.5]
