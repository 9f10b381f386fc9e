"""Rows, media and hyperparameters reach the loggers in one order, that of their steps."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxlog
from jaxlog.errors import LogArgumentError
from tests.loop.rig import batches, logging_step


class Seen(jaxlog.Logger):
    """What a logger is handed, in order."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, Any]] = []

    def log_metrics(self, metrics: Mapping[str, Any], step: int | None = None) -> None:
        self.calls.append(("row", step))

    def log_image(self, tag, image, step=None, *, dataformats=None) -> None:
        assert isinstance(image, np.ndarray)
        self.calls.append((tag, step))

    def log_text(self, tag, text, step=None) -> None:
        self.calls.append((text, step))

    def log_histogram(self, tag, values, step=None, *, edges=None) -> None:
        self.calls.append((tag, step))

    def log_audio(self, tag, samples, step=None, *, sample_rate) -> None:
        self.calls.append((f"{tag}@{sample_rate}", step))

    def log_hyperparams(self, params, metrics=None) -> None:
        self.calls.append(("hyperparams", params))

    @property
    def steps(self) -> list[int]:
        return [step for what, step in self.calls if what != "hyperparams"]


def loop_of(seen: Seen, **options: Any) -> jaxlog.Loop:
    return jaxlog.Loop(seen, **{"progress_bar": False, "log_every_n_steps": 1, **options})


@pytest.mark.parametrize("window_steps", [1, 3, 4, 64])
@pytest.mark.parametrize("every", [1, 2])
def test_an_image_has_the_step_of_its_batch_and_its_place(window_steps: int, every: int) -> None:
    seen = Seen()
    loop = loop_of(seen, window_steps=window_steps, log_every_n_steps=every)
    step = loop.training_step(logging_step("loss"))
    with loop:
        for i, batch in enumerate(loop.train(batches(*range(10)))):
            step(batch)
            if i in {0, 6}:
                loop.log_image("picture", np.zeros((2, 2)))
    images = [step for what, step in seen.calls if what == "picture"]
    assert images == [0, 6]
    assert seen.steps == sorted(seen.steps)
    assert seen.steps.count(6) == (2 if every == 1 else 1)


def test_every_kind_and_hyperparameters_come_in_the_order_of_their_steps() -> None:
    seen = Seen()
    loop = loop_of(seen)
    step = loop.training_step(logging_step("loss"))
    with loop:
        loop.log_hyperparams({"lr": 0.1})
        for i, batch in enumerate(loop.train(batches(0, 1, 2))):
            step(batch)
            if i == 1:
                loop.log_text("note", "half way")
                loop.log_audio("tone", np.zeros(8), sample_rate=8000)
                loop.log_histogram("weights", np.arange(4.0))
    assert seen.calls == [
        ("hyperparams", {"lr": 0.1}),
        ("row", 0), ("row", 1), ("half way", 1), ("tone@8000", 1), ("weights", 1), ("row", 2),
    ]  # fmt: skip


def test_in_evaluation_and_outside_media_have_the_last_finished_step() -> None:
    seen = Seen()
    loop = loop_of(seen)
    step = loop.training_step(logging_step("loss"))
    with loop:
        for _ in loop.epochs(1):
            for batch in loop.train(batches(0, 1)):
                step(batch)
            for _ in loop.validate(batches(5)):
                loop.log_image("in validation", np.zeros((2, 2)))
        loop.log_image("after", np.zeros((2, 2)))
    assert ("in validation", 1) in seen.calls
    assert ("after", 2) in seen.calls


def test_an_explicit_step_is_kept_and_checked() -> None:
    seen = Seen()
    loop = loop_of(seen)
    with loop:
        loop.log_text("note", "later", step=40)
        with pytest.raises(LogArgumentError, match="step=-1"):
            loop.log_text("note", "before", step=-1)
    assert seen.calls == [("later", 40)]


def test_what_is_donated_or_written_to_afterwards_is_kept_as_it_was() -> None:
    memory = jaxlog.MemoryLogger()
    loop = jaxlog.Loop(memory, progress_bar=False)
    donate = jax.jit(lambda x: x + 1, donate_argnums=0)
    with loop:
        for _ in loop.train([0]):
            on_device, on_host = jnp.zeros((2, 2)), np.zeros((2, 2))
            loop.log_image("device", on_device)
            loop.log_image("host", on_host)
            donate(on_device)
            on_host += 1
    for _, _, _, image in memory.media:
        np.testing.assert_array_equal(image, np.zeros((2, 2)))


def test_lanes_each_get_media_and_what_the_host_logs_under_its_own_name() -> None:
    memory = jaxlog.MemoryLogger()
    rates = {"slow": 0.1, "fast": 0.5}
    loop = jaxlog.Loop(memory, log_every_n_steps=1, progress_bar=False, lanes=list(rates))
    with loop:
        for _ in loop.train([np.ones((2, 4))]):
            loop.log_text("note", "both")
            for name, rate in rates.items():
                loop.log(f"lr/{name}", rate)
    for lane in memory.lanes.values():
        ((_, row),) = lane.rows
        assert {tag: row[tag] for tag in row if tag != "epoch"} == {"lr/slow": 0.1, "lr/fast": 0.5}
        assert [kind for kind, *_ in lane.media] == ["text"]


def test_a_plain_logger_without_media_is_not_asked() -> None:
    class Plain:
        def log_metrics(self, metrics: Mapping[str, float], step: int) -> None: ...

    loop = jaxlog.Loop(Plain(), progress_bar=False)
    with loop:
        for _ in loop.train([0]):
            loop.log_image("picture", np.zeros((2, 2)))


@pytest.mark.parametrize(
    ("log", "message"),
    [
        (lambda loop, x: loop.log("a", x.mean()), r"loop.log\('a', ...\).*write jaxlog.log"),
        (lambda loop, x: loop.log("a", x.mean(), step=3), "step=3.*write jaxlog.log"),
        (lambda loop, x: loop.log_image("i", x), r"log_image\('i', ...\).*what the step returns"),
        (lambda loop, x: loop.log_hyperparams({"a": x}), "log_hyperparams.*what the step returns"),
    ],
)
def test_the_loop_is_not_called_inside_a_step(log, message) -> None:
    loop = jaxlog.Loop(False, progress_bar=False)
    step = loop.training_step(lambda x: log(loop, x))

    def train() -> None:
        with loop:
            for x in loop.train([jnp.ones((2, 2))]):
                step(x)

    with pytest.raises(LogArgumentError, match=message):
        train()


def test_a_picture_that_a_logger_refuses_costs_no_row() -> None:
    class Refuses(Seen):
        def log_image(self, tag, image, step=None, *, dataformats=None) -> None:
            raise jaxlog.LoggerError("no such picture")

    first, second = Refuses(), Seen()
    loop = jaxlog.Loop([first, second], log_every_n_steps=1, progress_bar=False)
    step = loop.training_step(logging_step("loss"))

    def train() -> None:
        with loop:
            for i, batch in enumerate(loop.train(batches(0, 1, 2))):
                step(batch)
                if i == 1:
                    loop.log_image("picture", np.zeros((2, 2)))

    with pytest.raises(jaxlog.LoggerError, match="no such picture"):
        train()
    assert first.steps == [0, 1, 2]
    assert second.steps == [0, 1, 1, 2]


def test_nothing_of_a_sanity_check_is_kept() -> None:
    seen = Seen()
    loop = loop_of(seen)
    with loop:
        for _ in loop.sanity_check(batches(1)):
            loop.log_image("picture", np.zeros((2, 2)))
    assert seen.calls == []


def test_hyperparameters_arrive_as_they_were() -> None:
    seen = Seen()
    params = {"z": 1, "a": np.float32(0.5), 3: "three", "nested": {"b": [1, 2]}}
    with loop_of(seen) as loop:
        loop.log_hyperparams(params)
        params["nested"]["b"].append(3)
    ((_, found),) = seen.calls
    assert list(found) == ["z", "a", 3, "nested"]
    assert type(found["a"]) is type(np.float32(0))
    assert found["nested"] == {"b": [1, 2]}


def test_lanes_that_log_an_epoch_of_their_own_each_have_one() -> None:
    memory = jaxlog.MemoryLogger()
    loop = jaxlog.Loop(memory, log_every_n_steps=1, progress_bar=False, lanes=2)

    @loop.training_step
    def step(x: Any) -> None:
        jaxlog.log("loss", x.mean())
        jaxlog.log("epoch", x[0], mask=x[0] > 1)

    with loop:
        for x in loop.train([np.array([[1.0], [2.0]])]):
            step(x)
    found = {name: lane.rows[0][1]["epoch"] for name, lane in memory.lanes.items()}
    assert found == {"lane_0": 0.0, "lane_1": 2.0}
