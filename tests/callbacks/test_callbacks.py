"""The callbacks that ship, in a running loop."""

from __future__ import annotations

import math
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxlog


def loop_of(callback: Any, **options: Any) -> tuple[jaxlog.Loop, jaxlog.MemoryLogger]:
    logger = jaxlog.MemoryLogger()
    defaults = {"log_every_n_steps": 1, "progress_bar": False, "callbacks": [callback]}
    return jaxlog.Loop(logger, **(defaults | options)), logger


def series(logger: jaxlog.MemoryLogger, tag: str) -> list[tuple[int, float]]:
    return [(step, row[tag]) for step, row in logger.rows if tag in row]


# ---- EarlyStopping ------------------------------------------------------------------------------


def stopped_after(losses: list[float], **options: Any) -> tuple[int, jaxlog.EarlyStopping]:
    stop = jaxlog.EarlyStopping("val", **options)
    loop, _ = loop_of(stop)
    epochs = 0
    with loop:
        for epoch in loop.epochs(len(losses)):
            epochs += 1
            for _ in loop.train([np.ones(2)]):
                pass
            for _ in loop.validate([np.ones(2)]):
                loop.log("val", losses[epoch])
    return epochs, stop


@pytest.mark.parametrize(
    ("losses", "options", "epochs"),
    [
        ([3, 2, 1, 0], {}, 4),
        ([3, 2, 2, 2, 2, 1], {"patience": 2}, 4),
        ([3, 2, 2, 2, 1, 1], {"patience": 3}, 6),
        ([3, 2.9, 2.8, 2.7], {"patience": 1, "min_delta": 0.5}, 2),
        ([1, 2, 3, 2, 2], {"mode": "max", "patience": 1}, 4),
        ([1, math.nan, 0.5], {}, 2),
        ([1, math.inf, 0.5], {}, 2),
        ([1, math.nan, 0.5], {"check_finite": False}, 3),
        ([3, 2, 1, 0], {"stopping_threshold": 1.5}, 3),
        ([3, 9, 1, 0], {"divergence_threshold": 5}, 2),
        ([1, 2], {"patience": 0}, 2),
    ],
)
def test_early_stopping(losses: list[float], options: dict[str, Any], epochs: int) -> None:
    seen, stop = stopped_after(losses, **options)
    assert seen == epochs
    assert (stop.reason is None) == (stop.stopped_epoch is None)
    if epochs < len(losses):
        assert stop.stopped_epoch == epochs - 1
        assert "val" in str(stop.reason)


def test_a_misspelt_monitor_lists_close_names() -> None:
    stop = jaxlog.EarlyStopping("val_los")
    loop, _ = loop_of(stop)

    def fit() -> None:
        with loop:
            for _ in loop.epochs(1):
                for _ in loop.train([np.ones(2)]):
                    loop.log("val_loss", 1.0)

    with pytest.raises(jaxlog.LogArgumentError, match="did you mean 'val_loss'"):
        fit()


def test_early_stopping_resumes() -> None:
    _, stop = stopped_after([3, 2, 2], patience=5)
    again = jaxlog.EarlyStopping("val", patience=5)
    again.load_state_dict(stop.state_dict())
    assert (again.best_score, again.wait_count) == (2, 1)


@pytest.mark.parametrize("options", [{"mode": "least"}, {"patience": -1}, {"patience": 1.5}])
def test_early_stopping_refuses(options: dict[str, Any]) -> None:
    with pytest.raises(jaxlog.LogArgumentError, match=next(iter(options))):
        jaxlog.EarlyStopping("val", **options)


def test_a_second_fit_after_a_stop_runs() -> None:
    stop = jaxlog.EarlyStopping("v", patience=1)
    loop, _ = loop_of(stop)
    with loop:
        for _ in range(2):
            for _ in loop.epochs(5):
                for _ in loop.train([np.ones(2)]):
                    loop.log("v", 1.0)
    assert loop.current_epoch == 3  # two epochs until it stopped, and one after


# ---- LearningRateMonitor ------------------------------------------------------------------------


def test_the_rate_of_a_schedule_is_that_of_the_step() -> None:
    schedule = optax.linear_schedule(1.0, 0.0, 4)
    loop, logger = loop_of(jaxlog.LearningRateMonitor(schedule), log_every_n_steps=2)
    with loop:
        for _ in loop.epochs(2):
            for _ in loop.train([np.ones(2)] * 2):
                pass
    assert series(logger, "lr") == [(1, 0.75), (3, 0.25)]


@pytest.mark.parametrize("interval", ["step", "epoch"])
def test_the_rate_of_an_injected_state_outlives_its_donation(
    interval: Literal["step", "epoch"],
) -> None:
    optimizer = optax.inject_hyperparams(optax.sgd)(
        learning_rate=optax.linear_schedule(0.5, 0.0, 2)
    )
    loop, logger = loop_of(jaxlog.LearningRateMonitor(logging_interval=interval))

    @loop.training_step(donate_argnums=0)
    def train(carry: Any, x: Any) -> Any:
        params, state = carry
        updates, state = optimizer.update({"w": x.sum()}, state)
        return optax.apply_updates(params, updates), state

    params = {"w": jnp.zeros(())}
    carry = (params, optimizer.init(params))
    with loop:
        for _ in loop.epochs(1):
            for x in loop.train([np.ones(2)] * 3):
                carry = train(carry, x)
    rates = [(0, 0.5), (1, 0.25), (2, 0.0)]
    assert series(logger, "lr") == (rates if interval == "step" else rates[-1:])


def rates_of(outputs: list[Any], **options: Any) -> list[dict[str, float]]:
    """What the monitor logs of the outputs of a step that returns one of `outputs` a call."""
    loop, logger = loop_of(jaxlog.LearningRateMonitor(**options))
    step = loop.training_step(lambda out: out)
    with loop:
        for out in loop.train(outputs):
            step(out)
    return [{tag: row[tag] for tag in row if tag != "epoch"} for _, row in logger.rows]


def injected(rate: Any, inner: Any = optax.sgd, **options: Any) -> Any:
    return optax.inject_hyperparams(inner)(learning_rate=rate, **options)


def test_every_injected_state_has_a_tag_and_other_keys_of_its_name_have_none() -> None:
    params = {"learning_rate": jnp.zeros(2), "w": jnp.zeros(2)}
    several = {"a": injected(0.5).init(params), "b": injected(0.25).init(params)}
    assert rates_of([params | several]) == [{"lr/0": 0.5, "lr/1": 0.25}]


def test_an_injected_state_inside_another_is_found() -> None:
    def outer(learning_rate: Any) -> Any:
        return optax.chain(injected(0.125), optax.scale(learning_rate))

    assert rates_of([injected(0.5, outer).init(jnp.zeros(2))]) == [{"lr/0": 0.5, "lr/1": 0.125}]


def test_the_outputs_may_change_their_structure() -> None:
    state = injected(0.5).init(jnp.zeros(2))
    assert rates_of([state, (jnp.zeros(3), state), state]) == [{"lr": 0.5}] * 3


def test_another_hyperparameter_than_the_rate() -> None:
    state = injected(0.5, momentum=0.75).init(jnp.zeros(2))
    assert rates_of([state], hyperparameter="momentum", name="m") == [{"m": 0.75}]


def test_outputs_without_a_rate_say_what_to_do() -> None:
    loop, _ = loop_of(jaxlog.LearningRateMonitor())

    def fit() -> None:
        with loop:
            for _ in loop.train([np.ones(2)]):
                pass

    with pytest.raises(jaxlog.LogArgumentError, match="inject_hyperparams"):
        fit()


@pytest.mark.parametrize("options", [{"schedule": 0.1}, {"logging_interval": "batch"}])
def test_learning_rate_monitor_refuses(options: dict[str, Any]) -> None:
    with pytest.raises(jaxlog.LogArgumentError, match=next(iter(options))):
        jaxlog.LearningRateMonitor(**options)


# ---- ThroughputMonitor --------------------------------------------------------------------------


def test_throughput_counts_the_time_between_rows_without_validation() -> None:
    now = [0.0]
    monitor = jaxlog.ThroughputMonitor(clock=lambda: now[0])
    loop, logger = loop_of(monitor, log_every_n_steps=2)
    with loop:
        for _ in loop.epochs(1):
            for i, _ in enumerate(loop.train([np.ones(size) for size in (4, 4, 8, 2)])):
                now[0] += 0.5
                if i == 2:
                    for _ in loop.validate([np.ones(2)]):
                        now[0] += 100.0
    assert series(logger, "throughput/steps_per_sec") == [(1, 2.0), (3, 2.0)]
    assert series(logger, "throughput/examples_per_sec") == [(1, 8.0), (3, 10.0)]
    assert all(value >= 0 for _, value in series(logger, "throughput/logging_ms"))


def test_throughput_without_batch_sizes_has_no_examples() -> None:
    loop, logger = loop_of(jaxlog.ThroughputMonitor())
    with loop:
        for _ in loop.train(range(2)):
            pass
    assert not series(logger, "throughput/examples_per_sec")
    assert len(series(logger, "throughput/steps_per_sec")) == 2


# ---- DeviceStatsMonitor -------------------------------------------------------------------------


class Device:
    platform = "gpu"

    def __init__(self, used: int) -> None:
        self.used = used

    def memory_stats(self) -> dict[str, int]:
        return {"bytes_in_use": self.used, "num_allocs": 3}


def test_device_stats_are_logged_for_each_device() -> None:
    devices = [Device(10), Device(20)]
    loop, logger = loop_of(jaxlog.DeviceStatsMonitor(devices=lambda: devices), log_every_n_steps=2)
    with loop:
        for _ in loop.train([np.ones(2)] * 4):
            devices[1].used += 1
    assert series(logger, "device_0/bytes_in_use") == [(1, 10.0), (3, 10.0)]
    assert series(logger, "device_1/bytes_in_use") == [(1, 22.0), (3, 24.0)]
    assert not series(logger, "device_0/num_allocs")


def test_a_backend_without_statistics_is_named_once() -> None:
    loop, logger = loop_of(jaxlog.DeviceStatsMonitor())

    def fit() -> None:
        with loop:
            for _ in loop.epochs(1):
                for _ in loop.train([np.ones(2)]):
                    pass

    with pytest.warns(UserWarning, match=f"the {jax.default_backend()} backend") as caught:
        fit()
    assert len(caught) == 1
    assert not logger.rows
