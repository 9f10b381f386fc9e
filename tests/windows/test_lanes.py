"""`Loop(lanes=...)`: runs side by side in one program, each a run of its own for the loggers."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxlog
from jaxlog.errors import LogArgumentError
from tests.counting import counted_compiles
from tests.loop.rig import Rows, batches, loop_of

RATES = np.array([0.1, 0.5, 1.0], np.float32)
TARGETS = [1.0, 2.0, 4.0]


def step(w: Any, rate: Any, batch: Any) -> Any:
    jaxlog.log("loss", (w - batch.mean()) ** 2, on_epoch=True, prog_bar=True)
    jaxlog.log("shard_axes", jaxlog.Mean.of(batch * rate))
    jaxlog.log("seen", jaxlog.Sum.of(batch), on_step=False, on_epoch=True)
    jaxlog.log("lazy", lambda: w + rate)
    jax.lax.cond(rate > 0.3, lambda: jaxlog.log("fast", w), lambda: None)
    return w + rate * (batch.mean() - w)


def alone(rate: float, *, epochs: int) -> list[dict[str, float]]:
    """The rows of a run by itself, in numpy."""
    rows, w = [], 0.0
    for _ in range(epochs):
        losses = []
        for target in TARGETS:
            losses.append((w - target) ** 2)
            rows.append({"loss_step": losses[-1], "shard_axes": target * rate, "lazy": w + rate})
            if rate > 0.3:
                rows[-1]["fast"] = w
            w += rate * (target - w)
        rows.append({"loss_epoch": np.mean(losses), "seen": 2 * sum(TARGETS)})
    return rows


def trained(logger: Any, *, epochs: int = 2, **options: Any) -> jaxlog.Loop:
    options = {"lanes": 3, "progress_bar": False, "log_every_n_steps": 1} | options
    loop = jaxlog.Loop(logger, **options)
    train = loop.training_step(step, in_axes=(0, 0, None), donate_argnums=0)
    w = jnp.zeros(3)
    with loop:
        for _ in loop.epochs(epochs):
            for batch in loop.train(batches(*TARGETS, sizes=[2] * 3)):
                w = train(w, RATES, batch)
    return loop


@pytest.mark.parametrize("window_steps", [1, 2, 64])
def test_every_lane_is_a_run_like_one_alone(window_steps: int) -> None:
    logger = jaxlog.MemoryLogger()
    trained(logger, window_steps=window_steps)
    assert logger.rows == []
    assert list(logger.lanes) == ["lane_0", "lane_1", "lane_2"]
    for rate, lane in zip(RATES, logger.lanes.values(), strict=True):
        rows = [row for _, row in lane.rows]
        for row, wanted in zip(rows, alone(float(rate), epochs=2), strict=True):
            seen = {name: value for name, value in row.items() if name != "epoch"}
            assert seen == pytest.approx(wanted, rel=1e-5, abs=1e-6)


def test_lazy_values_come_with_the_steps_that_are_written() -> None:
    logger = jaxlog.MemoryLogger()
    trained(logger, epochs=1, log_every_n_steps=2)
    steps = [(at, row["lazy"]) for at, row in logger.lanes["lane_1"].rows if "lazy" in row]
    assert steps == [(1, pytest.approx(0.5 + 0.5))]


def test_the_mappings_hold_each_lane_and_the_mean() -> None:
    loop = trained(jaxlog.MemoryLogger(), epochs=1)
    each = [row["loss_epoch"] for rate in RATES for row in alone(float(rate), epochs=1)[-1:]]
    seen = loop.callback_metrics
    assert [seen[f"loss/lane_{i}"] for i in range(3)] == pytest.approx(each, rel=1e-5)
    assert seen["loss"] == seen["loss_epoch"] == pytest.approx(np.mean(each), rel=1e-5)


def test_lanes_with_names_and_directories(tmp_path: Any) -> None:
    loggers = [jaxlog.TensorBoardLogger(tmp_path, "sweep", 0), jaxlog.CSVLogger(tmp_path, "csv", 0)]
    trained(loggers, lanes=["slow", "mid", "fast"])
    found = jaxlog.read_scalars(tmp_path / "sweep", backend="numpy", tags="loss_epoch")
    assert sorted(set(found["run"].tolist())) == [
        f"version_0/{lane}" for lane in ("fast", "mid", "slow")
    ]
    for lane, rate in (("slow", 0.1), ("fast", 1.0)):
        of_lane = found["value"][found["run"] == f"version_0/{lane}"]
        wanted = [row["loss_epoch"] for row in alone(rate, epochs=2) if "loss_epoch" in row]
        np.testing.assert_allclose(of_lane, wanted, rtol=1e-5)
        assert (tmp_path / "csv" / "version_0" / lane / "metrics.csv").exists()


def test_a_plain_logger_gets_every_lane_under_its_name() -> None:
    rows = Rows()
    trained(rows, epochs=1)
    assert {"loss_step/lane_0", "loss_step/lane_2"} <= set(rows.rows[0][1])


def test_what_the_host_logs_goes_to_every_lane() -> None:
    logger = jaxlog.MemoryLogger()
    loop = jaxlog.Loop(logger, lanes=2, progress_bar=False, log_every_n_steps=1)
    train = loop.training_step(lambda w, x: jaxlog.log("v", w + x[0]), in_axes=(0, None))
    with loop:
        for batch in loop.train(batches(1)):
            train(np.arange(2.0, dtype=np.float32), batch)
            loop.log("rate", 0.5)
    for i, lane in enumerate(logger.lanes.values()):
        assert lane.rows == [(0, {"v": 1.0 + i, "rate": 0.5, "epoch": 0.0})]


def test_validation_and_batches_of_their_own() -> None:
    """With a lane axis in the batch, examples stand behind it."""
    logger = jaxlog.MemoryLogger()
    loop = jaxlog.Loop(logger, lanes=2, progress_bar=False)
    evaluate = loop.validation_step(lambda x: jaxlog.log("v", x.mean()))
    data = [np.stack([np.full(n, v), np.full(n, -v)]) for n, v in ((3, 1.0), (1, 5.0))]
    with loop:
        for batch in loop.validate([x.astype(np.float32) for x in data]):
            evaluate(batch)
    values = [lane.rows[0][1]["v"] for lane in logger.lanes.values()]
    assert values == [2.0, -2.0]  # (3 * 1 + 1 * 5) / 4


def test_one_program_for_all_lanes() -> None:
    loop, _ = loop_of(lanes=3, window_secs=1e9)
    train = loop.training_step(lambda w, x: jaxlog.log("v", w * x[0]), in_axes=(0, None))
    with loop, counted_compiles() as compiles:
        for _ in loop.epochs(2):
            for batch in loop.train(batches(1, 2)):
                train(RATES, batch)
        assert len(compiles) == 1


def test_pure_logs_take_lanes_by_vmap() -> None:
    captured = jaxlog.capture(lambda w, x: jaxlog.log("v", w * x))
    start = captured.init(np.float32(0), np.float32(0))
    many = jax.tree.map(lambda leaf: np.broadcast_to(leaf, (3, *np.shape(leaf))), start)
    run = jax.jit(jax.vmap(captured, in_axes=(0, 0, None)))
    for x in (1.0, 3.0):
        many, _ = run(many, RATES, np.float32(x))
    values = jax.vmap(lambda logs: logs.compute()["v"])(many)
    np.testing.assert_allclose(values, 2 * RATES, rtol=1e-6)


@pytest.mark.parametrize("lanes", [0, -1, True, 1.5, "ab", [], ["a", "a"], ["a/b"], [""], [1]])
def test_bad_lanes(lanes: Any) -> None:
    with pytest.raises(LogArgumentError, match=r"Loop\(lanes="):
        jaxlog.Loop(False, lanes=lanes, progress_bar=False)


def test_lanes_with_another_transform_are_refused() -> None:
    loop, _ = loop_of(lanes=2)
    with pytest.raises(LogArgumentError, match="in_axes="):
        loop.training_step(step, transform=jax.pmap)


def test_keywords_to_a_step_with_lanes_are_refused() -> None:
    loop, _ = loop_of(lanes=2)
    train = loop.training_step(lambda x: jaxlog.log("v", x.mean()))
    with loop:
        for batch in loop.train([np.zeros((2, 3), np.float32)]):
            with pytest.raises(LogArgumentError, match=r"\['x'\].*by position"):
                train(x=batch)
