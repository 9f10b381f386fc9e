"""What a loop takes besides steps: own x values, sanity checks, batch sizes, colliding tags."""

from __future__ import annotations

import warnings
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

import jaxlog


def loop_of(**options: Any) -> tuple[jaxlog.Loop, jaxlog.MemoryLogger]:
    logger = jaxlog.MemoryLogger()
    defaults = {"log_every_n_steps": 1, "progress_bar": False}
    return jaxlog.Loop(logger, **(defaults | options)), logger


# ---- step= --------------------------------------------------------------------------------------


def test_a_value_with_its_own_x_is_written_from_anywhere() -> None:
    loop, logger = loop_of()
    with loop:
        loop.log("before", 1.0, step=7)
        for x in loop.train([np.zeros(2)]):
            loop.log("loss", x.sum())
            loop.log("tokens", jnp.float32(2.5), step=1000)
    assert (7, {"before": 1.0}) in logger.rows
    assert (1000, {"tokens": 2.5}) in logger.rows
    assert loop.callback_metrics["tokens"] == 2.5
    assert loop.logged_metrics["before"] == 1.0


def test_it_is_not_written_without_logger() -> None:
    loop, logger = loop_of()
    with loop:
        loop.log("hidden", 1.0, step=7, logger=False, prog_bar=True)
    assert logger.rows == []
    assert dict(loop.progress_bar_metrics) == {"hidden": 1.0}


@pytest.mark.parametrize("step", [-1, 1.5, "3"])
def test_a_step_is_an_int_from_0_on(step: Any) -> None:
    loop, _ = loop_of()
    with pytest.raises(jaxlog.LogArgumentError, match="step="):
        loop.log("x", 1.0, step=step)


def test_a_step_excludes_reductions() -> None:
    loop, _ = loop_of()
    with pytest.raises(jaxlog.LogArgumentError, match="on_epoch"):
        loop.log("x", 1.0, step=1, on_epoch=True)


# ---- sanity check -------------------------------------------------------------------------------


def test_a_sanity_check_keeps_nothing() -> None:
    fired: list[str] = []

    class Watch(jaxlog.Callback):
        def on_sanity_check_start(self, loop: jaxlog.Loop) -> None:
            fired.append(f"start {loop.sanity_checking}")

        def on_sanity_check_end(self, loop: jaxlog.Loop) -> None:
            fired.append("end")

        def on_validation_end(self, loop: jaxlog.Loop) -> None:
            fired.append("validation")

    loop, logger = loop_of(callbacks=[Watch()])

    @loop.validation_step
    def evaluate(x: Any) -> None:
        jaxlog.log("val", x.sum(), on_step=True, on_epoch=True)

    with loop:
        for x in loop.sanity_check([np.ones(2), np.ones(2)]):
            evaluate(x)
        assert not loop.sanity_checking
        assert dict(loop.callback_metrics) == dict(loop.logged_metrics) == {}
        assert fired == ["start True", "end"]
        for x in loop.validate([np.ones(2)]):
            evaluate(x)
    assert logger.rows == [(0, {"val_step": 2.0}), (0, {"val_epoch": 2.0, "epoch": 0.0})]


def test_a_sanity_check_left_by_break_keeps_nothing_either() -> None:
    ended: list[int] = []

    class Watch(jaxlog.Callback):
        def on_sanity_check_end(self, loop: jaxlog.Loop) -> None:
            ended.append(1)

    loop, logger = loop_of(callbacks=[Watch()])
    with loop:
        for _ in loop.sanity_check([np.ones(2), np.ones(2)]):
            loop.log("val", 1.0)
            break
        assert dict(loop.callback_metrics) == {}
        assert not loop.sanity_checking
        assert ended == [1]
    assert logger.rows == []


def test_a_sanity_check_inside_training_is_refused() -> None:
    loop, _ = loop_of()
    for _ in loop.train([np.ones(2)]):
        with pytest.raises(jaxlog.LoopError, match="before training"):
            next(iter(loop.sanity_check([np.ones(2)])))


# ---- batch sizes --------------------------------------------------------------------------------


def mean_with(batch_size_fn: Any) -> float:
    loop, _ = loop_of(batch_size_fn=batch_size_fn)

    @loop.training_step
    def train(batch: Any) -> None:
        jaxlog.log("v", batch["v"], on_epoch=True)

    with loop:
        for _ in loop.epochs(1):
            for v, n in ((1.0, 1), (4.0, 2)):
                for batch in loop.train([{"x": np.zeros(8), "v": np.float32(v), "n": np.int32(n)}]):
                    train(batch)
    return loop.callback_metrics["v_epoch"]


def test_batch_size_fn_tells_the_weight() -> None:
    assert mean_with(None) == 2.5
    assert mean_with(lambda batch: batch["n"]) == 3.0


def test_batch_size_fn_silences_the_warning_about_differing_sizes() -> None:
    loop, _ = loop_of(batch_size_fn=len)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for _ in loop.train([[np.zeros(3), np.zeros(4)]]):
            loop.log("v", 1.0, on_epoch=True)


@pytest.mark.parametrize("bad", [lambda _: -1, lambda _: float("nan")])
def test_a_size_that_is_none_is_refused(bad: Any) -> None:
    loop, _ = loop_of(batch_size_fn=bad)
    with pytest.raises(jaxlog.LogArgumentError, match="batch_size_fn"):
        next(iter(loop.train([np.ones(2)])))


# ---- tags ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("first", ["forked", "plain"])
def test_a_name_beside_the_fork_that_makes_it_is_refused(first: str) -> None:
    calls = [("x", {"on_epoch": True}), ("x_step", {})]
    loop, _ = loop_of()
    for _ in loop.train([np.ones(2)]):
        for name, options in calls if first == "forked" else reversed(calls):
            if name == calls[1 if first == "forked" else 0][0]:
                with pytest.raises(jaxlog.SchemaError, match="both write 'x_step'"):
                    loop.log(name, 1.0, **options)
            else:
                loop.log(name, 1.0, **options)


def test_the_same_collision_in_a_traced_step_is_refused() -> None:
    loop, _ = loop_of()

    @loop.training_step
    def train(x: Any) -> None:
        jaxlog.log("x", x.sum(), on_epoch=True)
        jaxlog.log("x_epoch", x.sum())

    for x in loop.train([np.ones(2)]):
        with pytest.raises(jaxlog.SchemaError, match="both write 'x_epoch'"):
            train(x)


# ---- nothing to see -----------------------------------------------------------------------------


def fit(steps: int, every: int, *, logger: bool = True) -> None:
    loop, _ = loop_of(log_every_n_steps=every)
    with loop:
        for _ in loop.epochs(1):
            for _ in loop.train([np.ones(2)] * steps):
                loop.log("v", 1.0, logger=logger)


def test_a_run_too_short_for_its_first_row_warns() -> None:
    with pytest.warns(UserWarning, match="after 3 steps.*log_every_n_steps=4"):
        fit(3, 4)


@pytest.mark.parametrize(("steps", "every"), [(4, 4), (3, 0), (0, 4)])
def test_other_runs_do_not_warn(steps: int, every: int) -> None:
    fit(steps, every)
    fit(3, 4, logger=False)


# ---- found by use -------------------------------------------------------------------------------


def test_a_key_is_a_number_or_a_metric_not_both() -> None:
    loop, _ = loop_of()

    @loop.training_step
    def train(x: Any) -> None:
        jaxlog.log("m", jaxlog.Mean.of(x), on_epoch=True)

    for x in loop.train([np.ones(2)]):
        train(x)
        with pytest.raises(jaxlog.SchemaError, match="once as a number and once as a Metric"):
            loop.log("m", 100.0, on_epoch=True)


def test_the_weight_of_a_host_value_may_be_on_the_device() -> None:
    loop, _ = loop_of()
    with loop:
        for v, n in loop.train([(jnp.float32(1), jnp.int32(1)), (jnp.float32(4), jnp.int32(2))]):
            loop.log("v", v, batch_size=n, on_epoch=True)
    assert loop.callback_metrics["v_epoch"] == 3.0


def test_a_state_saved_after_the_training_of_an_epoch_goes_on_with_the_next() -> None:
    def epoch_means(loop: jaxlog.Loop, count: int, *, save_after: int | None = None) -> Any:
        means, state = [], None
        with loop:
            for epoch in loop.epochs(count):
                for x in loop.train([np.full(2, epoch, np.float32)]):
                    loop.log("v", x.mean(), on_epoch=True)
                means.append(loop.callback_metrics["v_epoch"])
                if epoch == save_after:
                    state = loop.state_dict()
                    break
        return means, state

    first, state = epoch_means(loop_of()[0], 3, save_after=0)
    again, _ = loop_of()
    again.load_state_dict(state)
    assert again.current_epoch == 1
    assert first + epoch_means(again, 2)[0] == [0.0, 1.0, 2.0]


class Plain:
    """A logger of the fewest words."""

    def __init__(self) -> None:
        self.rows: list[Any] = []

    def log_metrics(self, metrics: Any, step: int) -> None:
        self.rows.append((step, dict(metrics)))


class Keeping(Plain):
    """A logger that keeps how the run ended."""

    status = ""

    def finalize(self, status: str) -> None:
        self.status = status


def test_a_logger_need_only_have_log_metrics() -> None:
    plain = Plain()
    with jaxlog.Loop(plain, log_every_n_steps=1, progress_bar=False) as loop:
        for _ in loop.train([np.ones(2)]):
            loop.log("v", 1.0)
        loop.flush()
    assert plain.rows == [(0, {"v": 1.0, "epoch": 0.0})]


def test_loggers_are_told_how_the_run_ended() -> None:
    good, bad = Keeping(), Keeping()
    with jaxlog.Loop(good, progress_bar=False):
        pass

    def fail() -> None:
        with jaxlog.Loop(bad, progress_bar=False):
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert (good.status, bad.status) == ("success", "failed")
