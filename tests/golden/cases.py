"""Runs a golden case through `Loop`, hook by hook as Lightning did."""

from __future__ import annotations

import json
import pathlib
from collections.abc import Iterator, Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np

import jaxlog

CASES: list[dict[str, Any]] = json.loads(
    (pathlib.Path(__file__).parent / "lightning.json").read_text()
)

# Hooks that run inside the compiled training step.
TRACED = ("training_step", "on_after_backward", "on_before_optimizer_step")


def lookup(table: Any, epoch: int, batch: int, loader: int = 0) -> float:
    """The scripted value: `[epoch][batch]`, each modulo the length."""
    if isinstance(table, dict):
        table = table[str(loader)]
    row = table[epoch % len(table)]
    return row[batch % len(row)]


class Scripted(jaxlog.Callback):
    """Logs a case's host-side calls."""

    def __init__(self, calls: Mapping[str, Any]) -> None:
        self.calls = calls
        self.evaluations = -1

    def _log(self, loop: jaxlog.Loop, hook: str, epoch: int, batch: int, loader: int = 0) -> None:
        for call in self.calls.get(hook, ()):
            value = lookup(call["value"], epoch, batch, loader)
            loop.log(call["name"], value, **call.get("options", {}))

    def on_train_start(self, loop: jaxlog.Loop) -> None:
        self._log(loop, "on_train_start", 0, 0)

    def on_train_epoch_start(self, loop: jaxlog.Loop) -> None:
        self._log(loop, "on_train_epoch_start", loop.current_epoch, 0)

    def on_train_epoch_end(self, loop: jaxlog.Loop) -> None:
        self._log(loop, "on_train_epoch_end", loop.current_epoch, 0)

    def on_train_batch_start(self, loop: jaxlog.Loop, batch: Any, batch_idx: int) -> None:
        self._log(loop, "on_train_batch_start", loop.current_epoch, batch_idx)

    def on_train_batch_end(
        self, loop: jaxlog.Loop, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self._log(loop, "on_train_batch_end", loop.current_epoch, batch_idx)

    def on_validation_start(self, loop: jaxlog.Loop) -> None:
        self.evaluations += 1
        self._log(loop, "on_validation_start", loop.current_epoch, 0)

    def on_validation_epoch_end(self, loop: jaxlog.Loop) -> None:
        self._log(loop, "on_validation_epoch_end", loop.current_epoch, 0)


def batches(case: Mapping[str, Any], key: str, hooks: tuple[str, ...], epoch: int) -> list[Any]:
    """The batches of one epoch; each carries its rows and the scripted values of traced hooks."""
    sizes = case[key]
    if isinstance(sizes[0], list):
        return [_loader(case, part, hooks, epoch, i) for i, part in enumerate(sizes)]
    return _loader(case, sizes, hooks, epoch, 0)


def _loader(
    case: Mapping[str, Any], sizes: list[int], hooks: tuple[str, ...], epoch: int, loader: int
) -> list[Any]:
    return [
        {
            "x": np.zeros((size, 2), np.float32),
            "values": {
                f"{hook}/{i}": np.float32(lookup(call["value"], epoch, batch, loader))
                for hook in hooks
                for i, call in enumerate(case["calls"].get(hook, ()))
            },
        }
        for batch, size in enumerate(sizes)
    ]


def scripted_step(case: Mapping[str, Any], hooks: tuple[str, ...]) -> Any:
    """A step that logs what the case's traced hooks log."""

    def step(state: Any, batch: Any) -> Any:
        for hook in hooks:
            with jaxlog.hook(hook):
                for i, call in enumerate(case["calls"].get(hook, ())):
                    value = batch["values"][f"{hook}/{i}"]
                    jaxlog.log(call["name"], value, **call.get("options", {}))
        return state + batch["x"].sum()

    return step


def run_case(case: Mapping[str, Any], logger: Any, **loop_options: Any) -> Iterator[jaxlog.Loop]:
    """Yields the loop after fit, and after test where the case has one."""
    loop = jaxlog.Loop(
        logger,
        log_every_n_steps=case["log_every_n_steps"],
        callbacks=[Scripted(case["calls"])],
        **{"progress_bar": False, **loop_options},
    )
    train_step = loop.training_step(scripted_step(case, TRACED), donate_argnums=0)
    eval_step = loop.validation_step(scripted_step(case, ("validation_step",)))
    test_step = loop.test_step(scripted_step(case, ("test_step",)))
    state = jnp.zeros(())
    with loop:
        for epoch in loop.epochs(case["epochs"]):
            for batch in loop.train(batches(case, "train_batches", TRACED, epoch)):
                state = train_step(state, batch)
            if case.get("val_batches"):
                loaders = batches(case, "val_batches", ("validation_step",), epoch)
                for batch in loop.validate(loaders):
                    eval_step(state, batch)
        yield loop
        if case.get("test_batches"):
            for batch in loop.test(batches(case, "test_batches", ("test_step",), 0)):
                test_step(state, batch)
            yield loop
