"""What logs add to a compiled program: one row written in place, and nothing that leaves it."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from jaxlog import capture, log
from jaxlog.logs import Logs, Recording
from jaxlog.metrics import Mean

ROWS = 16
X = np.arange(64, dtype=np.float32)


def captured_of(keys: int) -> Callable[[jax.Array], jax.Array]:
    def step(x):
        for i in range(keys):
            log(f"v{i}", x[i] * 2, on_epoch=True)
        return jnp.sin(x)

    return step


@functools.cache
def program(keys: int, *, in_loop: bool = False, donate: bool = True) -> str:
    """The optimised program of a captured step, or of the step of a loop."""
    captured = capture(captured_of(keys), rows=ROWS)

    def recorded(recording: Recording, x: Any) -> Any:
        state, out = captured.run(recording.schema, captured.trace((x,), {}))
        return recording.push(state)[0], out

    logs: Any = captured.init(X)
    if in_loop:
        logs = Recording.empty(logs.schema, ROWS)
    step = jax.jit(recorded if in_loop else captured, donate_argnums=0 if donate else ())
    return str(step.lower(logs, X).compile().as_text())


def put(logs: Logs, x: Any) -> Logs:
    """A step in the explicit style."""
    logs = logs.log("a", x).log("b", x, reduce_fx="max").log("c", x, batch_size=x)
    return logs.log("d", Mean.of(x)).advance()


@functools.cache
def declared() -> Logs:
    return put(Logs.empty(rows=ROWS), jnp.float32(0)).reset()


@functools.cache
def explicit(kind: str) -> str:
    run = {
        "step": put,
        "scan": lambda logs, x: lax.scan(
            lambda logs, x: (put(logs, x), None), logs, x * jnp.arange(5.0)
        )[0],
    }[kind]
    return str(jax.jit(run, donate_argnums=0).lower(declared(), jnp.float32(1)).compile().as_text())


PROGRAMS: dict[str, Callable[[], str]] = {
    "one key": lambda: program(1),
    "forty keys": lambda: program(40, in_loop=True),
    "explicit step": lambda: explicit("step"),
    "explicit scan": lambda: explicit("scan"),
}
# Everything by which a program reaches outside of itself, or other devices.
LEAVES = re.compile(
    r" (custom-call|infeed|outfeed|send|recv|copy-start|all-\w+|collective-\w+|reduce-scatter)\("
)


def instructions(text: str, name: str) -> list[str]:
    return [line.strip() for line in text.splitlines() if f" {name}(" in line]


def aliases(text: str) -> set[tuple[int, int]]:
    """`(output, parameter)` of each buffer that is written in place."""
    header = text.splitlines()[0]
    found = re.findall(r"\{(\d+)\}: \((\d+), \{\}, (?:may|must)-alias\)", header)
    return {(int(output), int(parameter)) for output, parameter in found}


@pytest.mark.parametrize("name", PROGRAMS)
def test_one_row_is_written(name: str) -> None:
    writes = instructions(PROGRAMS[name](), "dynamic-update-slice")
    ring_buffer = [
        line for line in writes if f" s32[{ROWS}," in line.split("dynamic-update-slice(")[0]
    ]
    assert len(ring_buffer) == len(writes) == 1


@pytest.mark.parametrize("name", PROGRAMS)
def test_nothing_leaves_the_program(name: str) -> None:
    text = PROGRAMS[name]()
    assert "ENTRY" in text
    assert LEAVES.findall(text) == []
    assert "callback" not in text
    assert "host" not in re.sub(r"metadata=\{[^}]*\}", "", text.split("ENTRY")[1])


def test_what_the_check_looks_for_is_found() -> None:
    def step(x):
        jax.debug.callback(lambda x: None, x)
        return x

    assert LEAVES.findall(str(jax.jit(step).lower(X).compile().as_text())) == ["custom-call"]


@pytest.mark.parametrize("name", PROGRAMS)
def test_the_ring_buffer_is_not_copied(name: str) -> None:
    copies = instructions(PROGRAMS[name](), "copy")
    assert [line for line in copies if f"s32[{ROWS}," in line] == []


@pytest.mark.parametrize("name", PROGRAMS)
def test_every_buffer_of_donated_logs_is_reused(name: str) -> None:
    text = PROGRAMS[name]()
    buffers = len(jax.tree.leaves(declared()))
    if "key" in name:
        buffers = 3 if name == "one key" else 2  # rows, steps, totals
    assert aliases(text) == {(i, i) for i in range(buffers)}


def test_without_donation_the_ring_buffer_is_copied() -> None:
    text = program(1, donate=False)
    assert aliases(text) == set()
    assert any(f"s32[{ROWS}," in line for line in instructions(text, "copy"))


def test_more_keys_are_a_wider_row_not_more_outputs() -> None:
    few, many = (program(n, in_loop=True) for n in (1, 40))
    outputs = [re.search(r"->\s*\(([^)]*)\)", text.split("ENTRY")[1]) for text in (few, many)]
    shapes = [re.findall(r"\w+\[[\d,]*\]", found.group(1)) for found in outputs if found]
    assert shapes == [
        ["s32[]", f"s32[{ROWS},1]", "f32[64]"],
        ["s32[]", f"s32[{ROWS},40]", "f32[64]"],
    ]


@pytest.mark.parametrize("name", ["step", "scan"])
def test_donated_explicit_logs_are_gone_and_the_new_are_right(name: str) -> None:
    run = jax.jit(put, donate_argnums=0)
    if name == "scan":
        run = jax.jit(
            lambda logs, x: lax.scan(lambda logs, _: (put(logs, x), None), logs, None, length=1)[0],
            donate_argnums=0,
        )
    logs = run(declared(), jnp.float32(1))
    pointer = logs.ring_buffer.rows.unsafe_buffer_pointer()
    after = run(logs, jnp.float32(3))
    assert all(leaf.is_deleted() for leaf in jax.tree.leaves(logs))
    assert after.ring_buffer.rows.unsafe_buffer_pointer() == pointer
    assert list(after.history()) == list("abcd")
    assert all(values.tolist() == [1.0, 3.0] for values in after.history().values())
    assert {key: float(value) for key, value in after.compute().items()} == {
        "a": 2.0, "b": 3.0, "c": 2.5, "d": 2.0,
    }  # fmt: skip
