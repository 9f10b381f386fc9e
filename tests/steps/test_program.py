"""The compiled step: the ring buffer is written in place by one update; nothing else is added.

The only tests of the loop that read the text of an optimized program. They pin what speed depends
on; if a new XLA writes it differently, mend the patterns here.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType

import jaxlog
from jaxlog.loop import Dispatcher
from tests.loop.rig import loop_of
from tests.steps import device_modes
from tests.steps.device_modes import mesh_of

ROWS = 64
COLLECTIVE = re.compile(r"= \S+ (all-\w+|reduce-scatter|collective-\w+)\(")


def logging(count: int, **options: Any) -> Callable[[Any, Any], Any]:
    def step(w: Any, x: Any) -> Any:
        value = (w * x).sum()
        for i in range(count):
            jaxlog.log(f"metric_{i}", value * i, **options)
        return w + value

    return step


def compiled(count: int, **options: Any) -> str:
    """The optimized program of a step with so many metrics."""
    loop, _ = loop_of(window_steps=ROWS)
    step = loop.training_step(logging(count, **options), donate_argnums=0)
    w, x = jnp.ones(4), jnp.ones(4)
    for batch in loop.train([x]):
        w = step(w, batch)
    return step.lower(w, x).compile().as_text()


def spec_of(program: str) -> list[str]:
    """The instructions of the main computation, without the fusions it calls."""
    body = program[program.index("\nENTRY") :]
    return [line.strip() for line in body.splitlines() if " = " in line]


@pytest.mark.parametrize("count", [1, 20, 100])
def test_a_step_gives_back_what_it_was_given(count: int) -> None:
    program = compiled(count)
    header = program.splitlines()[0]
    aliased = header[header.index("input_output_alias") :]
    # The counter, the ring buffer and the user's donated argument, each to the result it becomes.
    assert re.findall(r"\{(\d+)\}: \((\d+), \{\}, \S+\)", aliased) == [
        ("0", "0"), ("1", "1"), ("2", "2"),
    ]  # fmt: skip


@pytest.mark.parametrize("count", [1, 20, 100])
def test_the_tape_is_never_copied_and_updated_once(count: int) -> None:
    ring_buffer = f"s32[{ROWS},{count}]"
    made = [line for line in spec_of(compiled(count)) if f" = {ring_buffer}" in line]
    made = [line for line in made if " parameter(" not in line]
    assert len(made) == 1
    assert "dynamic-update-slice" in made[0]
    assert " copy(" not in made[0]


def test_a_row_leaves_the_device_by_itself_only_for_a_bar() -> None:
    assert "s32[20]" not in compiled(20).splitlines()[0]
    assert "s32[20]" in compiled(20, prog_bar=True).splitlines()[0]


def test_the_program_grows_by_a_few_instructions_for_twenty_metrics() -> None:
    one, twenty = (len(spec_of(compiled(count))) for count in (1, 20))
    assert twenty - one <= 2


@pytest.mark.parametrize("count", [1, 1000])
def test_a_step_hands_the_device_two_arrays_however_many_metrics(count: int) -> None:
    loop, _ = loop_of()
    step = loop.training_step(logging(count))
    w = jnp.ones(4)
    for batch in loop.train([w]):
        step(w, batch)
    arguments, _ = step.lower(w, w).args_info
    assert len(jax.tree.leaves(arguments)) == 2 + 2


def collectives(lowered: Any) -> list[str]:
    return COLLECTIVE.findall(lowered.compile().as_text())


@pytest.mark.parametrize("kind", [AxisType.Auto, AxisType.Explicit])
def test_logging_adds_no_collective_to_the_step(kind: AxisType) -> None:
    mesh = mesh_of(kind)
    around = {"mesh": mesh, "in_specs": (device_modes.WHOLE, device_modes.SPLIT)}

    def body(w: jax.Array, x: Any) -> jax.Array:
        device_modes.log_all(x, x > 0, w)
        return w + jax.lax.pmean(x.mean(), device_modes.AXIS)

    step = jax.shard_map(body, **around, out_specs=device_modes.WHOLE)
    w = device_modes.whole(np.zeros((), np.float32), mesh, device_modes.WHOLE)
    x = device_modes.whole(device_modes.X[0], mesh, device_modes.SPLIT)
    loop = jaxlog.Loop(False, progress_bar=False)
    train_step = loop.training_step(step)
    assert collectives(train_step.lower(w, x)) == ["all-reduce"]
    assert collectives(jax.jit(step).lower(w, x)) == ["all-reduce"]


def test_a_hook_without_listeners_is_not_dispatched(monkeypatch: pytest.MonkeyPatch) -> None:
    dispatched: list[str] = []
    monkeypatch.setattr(Dispatcher, "dispatch", lambda _, hook, *__: dispatched.append(hook))
    loop, _ = loop_of()
    step = loop.training_step(logging(1))
    with loop:
        for batch in loop.train([np.ones(4)] * 3):
            step(np.ones(4), batch)
    assert "on_train_epoch_start" in dispatched
    assert not [hook for hook in dispatched if "batch" in hook]


def test_the_work_on_a_window_does_not_grow_with_its_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    from jaxlog.logs import Column

    decoded: list[tuple[int, ...]] = []
    values = Column.step_values

    def counted(self: Column, *args: Any) -> Any:
        found = values(self, *args)
        decoded.append(found.shape)
        return found

    monkeypatch.setattr(Column, "step_values", counted)
    loop, rows = loop_of(window_steps=4)
    step = loop.training_step(logging(100))
    with loop:
        for batch in loop.train([np.ones(4, np.float32)] * 8):
            step(np.ones(4, np.float32), batch)
    assert decoded == [(4, 100), (4, 100)]
    assert len(rows.of("metric_99")) == 8
