"""A metric that counts into buckets reaches the loggers as a histogram."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, PartitionSpec

import jaxlog
from jaxlog.loggers import MemoryLogger
from tests.loop.rig import Rows

EDGES = (0.0, 1.0, 2.0)


def loop_of(logger, **options) -> jaxlog.Loop:
    return jaxlog.Loop(logger, **{"progress_bar": False, "log_every_n_steps": 1, **options})


def histograms(logger: MemoryLogger) -> list[tuple[str, int | None, list[int]]]:
    assert all(kind == "histogram" for kind, *_ in logger.media)
    for _, _, _, (_, edges) in logger.media:
        np.testing.assert_array_equal(edges, EDGES)
    return [(tag, step, counts.tolist()) for _, tag, step, (counts, _) in logger.media]


def train(loop: jaxlog.Loop, *, epochs: int = 1, steps: int = 3, **options) -> None:
    @loop.training_step
    def step(batch):
        jaxlog.log("h", jaxlog.Histogram.of(batch, edges=EDGES), **options)

    with loop:
        for _ in loop.epochs(epochs):
            for batch in loop.train([jnp.full(4, i + 0.5) for i in range(steps)]):
                step(batch)


def test_an_epoch_has_one() -> None:
    logger = MemoryLogger()
    train(loop_of(logger), epochs=2, on_step=False, on_epoch=True)
    assert histograms(logger) == [("h", 2, [0, 4, 4, 4]), ("h", 5, [0, 4, 4, 4])]
    # A tag that carries both a histogram and a scalar is in no tab of TensorBoard.
    assert [row["h/mean"] for _, row in logger.rows if "h/mean" in row] == [1.5, 1.5]
    assert not [row for _, row in logger.rows if "h" in row]


def test_steps_have_one_a_window() -> None:
    logger = MemoryLogger()
    train(loop_of(logger, window_steps=2), steps=5, on_step=True, on_epoch=False)
    assert histograms(logger) == [
        ("h", 1, [0, 4, 4, 0]),
        ("h", 3, [0, 0, 0, 8]),
        ("h", 4, [0, 0, 0, 4]),
    ]


def test_both_fork() -> None:
    logger = MemoryLogger()
    train(loop_of(logger), on_step=True, on_epoch=True)
    assert histograms(logger) == [("h_step", 2, [0, 4, 4, 4]), ("h_epoch", 2, [0, 4, 4, 4])]


@pytest.mark.parametrize(
    "options", [{"on_step": True, "logger": False}, {"on_step": False, "logger": False}]
)
def test_not_where_loggers_get_nothing(options) -> None:
    logger = MemoryLogger()
    train(loop_of(logger), on_epoch=True, **options)
    assert not logger.media


def test_not_where_no_step_is_written() -> None:
    logger = MemoryLogger()
    train(loop_of(logger, log_every_n_steps=0), on_step=True, on_epoch=False)
    assert not logger.media


def test_shards_add_up() -> None:
    mesh = Mesh(np.array(jax.devices()[:4]), ("data",))
    logger = MemoryLogger()
    loop = loop_of(logger)

    @loop.training_step
    def step(batch):
        def shard(x):
            counted = jaxlog.Histogram.of(x, edges=EDGES)
            jaxlog.log("h", counted, on_step=True, on_epoch=True, sync_dist=True)
            return x

        spec = PartitionSpec("data")
        return jax.shard_map(shard, mesh=mesh, in_specs=spec, out_specs=spec)(batch)

    with loop:
        for batch in loop.train([jnp.array([-1.0, 0.5, 1.5, 2.5])] * 2):
            step(batch)
    assert histograms(logger) == [("h_step", 1, [2, 2, 2, 2]), ("h_epoch", 1, [2, 2, 2, 2])]


def test_lanes_have_their_own() -> None:
    logger = MemoryLogger()
    loop = loop_of(logger, lanes=2)

    @loop.training_step(in_axes=(0, None))
    def step(scale, batch):
        jaxlog.log("h", jaxlog.Histogram.of(batch * scale, edges=EDGES), on_epoch=True)

    with loop:
        for batch in loop.train([jnp.full(3, 0.6)]):
            step(jnp.array([1.0, 2.0]), batch)
    assert not logger.media
    found = {name: histograms(lane) for name, lane in logger.lanes.items()}
    assert found == {
        "lane_0": [("h_step", 0, [0, 3, 0, 0]), ("h_epoch", 0, [0, 3, 0, 0])],
        "lane_1": [("h_step", 0, [0, 0, 3, 0]), ("h_epoch", 0, [0, 0, 3, 0])],
    }


def test_a_plain_logger_gets_the_mean_only() -> None:
    rows = Rows()
    train(loop_of(rows), on_step=False, on_epoch=True)
    assert rows.of("h/mean") == [(2, 1.5)]


def test_the_host_logs_one_too() -> None:
    logger = MemoryLogger()
    loop = loop_of(logger)
    with loop:
        for batch in loop.train([np.full(2, 0.5)] * 2):
            metric = jaxlog.Histogram.of(jnp.asarray(batch), edges=EDGES)
            loop.log("h", metric, on_step=False, on_epoch=True)
    assert histograms(logger) == [("h", 1, [0, 4, 0, 0])]


def test_one_with_an_x_value_of_its_own() -> None:
    logger = MemoryLogger()
    with loop_of(logger) as loop:
        loop.log("h", jaxlog.Histogram.of(jnp.full(2, 0.5), edges=EDGES), step=7)
    assert histograms(logger) == [("h", 7, [0, 2, 0, 0])]
    assert logger.rows == [(7, {"h/mean": 0.5})]


def test_callbacks_find_the_mean_under_every_name_of_the_key() -> None:
    loop = loop_of(MemoryLogger())
    train(loop, on_step=True, on_epoch=True)
    assert loop.callback_metrics == {
        "h": 1.5, "h_epoch": 1.5, "h_epoch/mean": 1.5, "h_step": 2.5, "h_step/mean": 2.5,
    }  # fmt: skip
    assert loop.logged_metrics.keys() == {"h_epoch/mean", "h_step/mean"}
