"""Histograms, images, text and audio as TensorBoard's own reader finds them."""

from __future__ import annotations

import importlib.util
import io
import wave
from typing import Any

import hypothesis
import hypothesis.extra.numpy as hnp
import hypothesis.strategies as st
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from jaxlog.errors import LoggerError
from jaxlog.loggers import CSVLogger, MemoryLogger, TensorBoardLogger
from jaxlog.reading import read_scalars

RNG = np.random.default_rng(0)


def read(logger: TensorBoardLogger) -> EventAccumulator:
    everything = dict.fromkeys(("histograms", "images", "audio", "tensors", "scalars"), 0)
    return EventAccumulator(logger.log_dir, size_guidance=everything).Reload()


@pytest.fixture
def logger(tmp_path) -> Any:
    return TensorBoardLogger(tmp_path, "")


def test_a_histogram_of_values(logger) -> None:
    values = RNG.normal(3, 1, (40, 50)).astype(np.float32)
    values[0, :3] = np.nan, np.inf, -np.inf
    with logger:
        logger.log_histogram("Gewichte é/0", values, 7)
        logger.log_histogram("of jax", jnp.arange(4, dtype=jnp.bfloat16))
    found = read(logger)
    (event,) = found.Histograms("Gewichte é/0")
    finite = values[np.isfinite(values)].astype(np.float64)
    shown = event.histogram_value
    assert event.step == 7
    assert (shown.num, sum(shown.bucket)) == (1997, 1997)
    np.testing.assert_allclose([shown.min, shown.max], [finite.min(), finite.max()])
    np.testing.assert_allclose(shown.sum, finite.sum())
    counts, edges = np.histogram(finite, 64)
    np.testing.assert_array_equal(shown.bucket, counts)
    np.testing.assert_allclose(shown.bucket_limit, edges[1:])
    (event,) = found.Histograms("of jax")
    assert (event.step, event.histogram_value.sum) == (8, 6.0)


def test_a_histogram_of_counts(logger) -> None:
    with logger:
        logger.log_histogram("a", [1, 2, 3, 0], 0, edges=[0.0, 1.0, 2.0])
    (event,) = read(logger).Histograms("a")
    shown = event.histogram_value
    assert list(shown.bucket) == [1, 2, 3, 0]
    assert list(shown.bucket_limit) == [0, 1, 2, 3]
    # The bucket below 0 is drawn as wide as the next one; what lies above 2 is empty.
    assert (shown.min, shown.max, shown.num) == (-1, 2, 6)


@hypothesis.example(np.array([2.0**52 + 1]))  # the numbers beside it are 1 away
@hypothesis.given(hnp.arrays(np.float64, st.integers(0, 30)))
def test_no_values_crash_a_histogram(tmp_path_factory, values) -> None:
    hypothesis.assume(np.abs(values[np.isfinite(values)]).max(initial=0) < 1e150)
    with TensorBoardLogger(tmp_path_factory.mktemp("run"), "") as logger:
        logger.log_histogram("a", values, 0)
        logger.log_metrics({"after": 1.0}, 0)
    found = read(logger)
    (event,) = found.Histograms("a")
    assert event.histogram_value.num == np.isfinite(values).sum()
    assert found.Scalars("after")


def pixels(event: Any) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(event.encoded_image_string)))


@pytest.mark.parametrize(
    ("shape", "dataformats"), [((5, 7), None), ((5, 7, 1), None), ((5, 7, 3), None)]
)
def test_an_image_comes_back(logger, shape, dataformats) -> None:
    picture = RNG.integers(0, 256, shape, np.uint8)
    with logger:
        logger.log_image("a", picture, 3, dataformats=dataformats)
    (event,) = read(logger).Images("a")
    assert (event.step, event.height, event.width) == (3, 5, 7)
    expected = np.broadcast_to(picture.reshape(5, 7, -1), (5, 7, 3))
    np.testing.assert_array_equal(pixels(event), expected)


def test_layouts_and_ranges_of_images(logger) -> None:
    unit = RNG.random((5, 7, 3))
    with logger:
        logger.log_image("float", unit)
        logger.log_image("chw", unit.transpose(2, 0, 1), dataformats="CHW")
        logger.log_image("jax", jnp.asarray(unit))
        logger.log_image("beyond", unit * 3 - 1)
        logger.log_image("bool", unit[..., 0] > 0.5)
        logger.log_image("grid", RNG.random((4, 5, 7, 3)))
    found = read(logger)
    expected = (unit * 255).round()
    for tag in ("float", "chw", "jax"):
        np.testing.assert_allclose(pixels(found.Images(tag)[0]), expected, atol=1)
    beyond = (np.clip(unit * 3 - 1, 0, 1) * 255).round()
    np.testing.assert_allclose(pixels(found.Images("beyond")[0]), beyond, atol=1)
    assert set(np.unique(pixels(found.Images("bool")[0]))) == {0, 255}
    grid = pixels(found.Images("grid")[0])
    assert grid.shape[0] * grid.shape[1] >= 4 * 5 * 7


def test_text(logger) -> None:
    with logger:
        logger.log_text("note", "**größe** 🙂", 2)
    (event,) = read(logger).Tensors("note")
    assert (event.step, event.tensor_proto.string_val[0].decode()) == (2, "**größe** 🙂")


@pytest.mark.parametrize("channels", [1, 2])
def test_audio(logger, channels) -> None:
    sound = np.sin(np.arange(800) / 9).astype(np.float32).reshape(-1, channels)
    with logger:
        logger.log_audio("tone", sound if channels > 1 else sound[:, 0], 1, sample_rate=8000)
    (event,) = read(logger).Audio("tone")
    assert (event.content_type, event.sample_rate) == ("audio/wav", 8000)
    with wave.open(io.BytesIO(event.encoded_audio_string)) as file:
        assert (file.getnchannels(), file.getframerate()) == (channels, 8000)
        samples = np.frombuffer(file.readframes(10**6), "<i2").reshape(-1, channels)
    np.testing.assert_allclose(samples / 32767, sound, atol=1e-4)


def test_what_is_logged_stands_beside_scalars_in_order(tmp_path) -> None:
    with TensorBoardLogger(tmp_path, "", prefix="run") as logger:
        array = np.zeros(3)
        logger.log_metrics({"loss": 1.0})
        logger.log_histogram("h", array)
        array[:] = 9  # the caller goes on with its own
        logger.log_metrics({"loss": 0.5})
    found = read(logger)
    assert [(e.step, e.value) for e in found.Scalars("run-loss")] == [(0, 1.0), (2, 0.5)]
    (event,) = found.Histograms("run-h")
    assert (event.step, event.histogram_value.sum) == (1, 0.0)
    assert set(read_scalars(logger.log_dir)["tag"]) == {"run-loss"}


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda x: x.log_histogram("a", "text"), "log_histogram('a'): needs numbers"),
        (lambda x: x.log_histogram("a", [1j]), "needs numbers"),
        (lambda x: x.log_histogram("a", [1.0], bins=0), "bins=0"),
        (lambda x: x.log_histogram("a", [1.0], bins="nonsense"), "bins='nonsense'"),
        (lambda x: x.log_histogram("a", [1, 2], edges=[0.0, 1.0]), "2 counts for 2 edges"),
        (lambda x: x.log_histogram("a", [1, 2, 3], edges=[1.0, 0.0]), "increase"),
        (lambda x: x.log_histogram(3, [1.0]), "a tag is a string"),
        (lambda x: x.log_image("a", np.zeros((2, 2, 5))), "1, 3 or 4 channels"),
        (lambda x: x.log_image("a", np.zeros(3)), "HW, HWC or NHWC"),
        (lambda x: x.log_image("a", np.zeros((3, 2, 2)), dataformats="HW"), "is not HW"),
        (lambda x: x.log_image("a", np.zeros((2, 2), np.int32)), "needs numbers"),
        (lambda x: x.log_image("a", np.zeros((2, 2), np.uint16)), "no known range"),
        (lambda x: x.log_text("a", 3), "text is a str"),
        (lambda x: x.log_audio("a", np.zeros((2, 3)), sample_rate=8), "1 or 2 channels"),
        (lambda x: x.log_audio("a", np.zeros(2), sample_rate=0), "frames a second"),
        (lambda x: x.log_text("a", "b", -1), "a step must be between"),
    ],
)
def test_what_cannot_be_shown_is_refused_at_the_call(logger, call, message) -> None:
    with logger:
        logger.log_metrics({"before": 1.0})
        with pytest.raises(LoggerError) as caught:
            call(logger)
        assert message in str(caught.value)
    assert read(logger).Scalars("before")


def test_without_pillow_an_image_says_what_to_install(logger, monkeypatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    with pytest.raises(LoggerError, match=r"pip install \"jaxlog\[images\]\""):
        logger.log_image("a", np.zeros((2, 2)))


def test_other_loggers_keep_or_leave_it(tmp_path) -> None:
    memory = MemoryLogger()
    with CSVLogger(tmp_path) as table:
        for one in (memory, table):
            one.log_histogram("h", [1, 2], 3)
            one.log_histogram("c", [1, 2], 3, edges=[0.0])
            one.log_image("i", np.zeros((2, 2)), 3)
            one.log_text("t", "text")
            one.log_audio("a", np.zeros(4), 3, sample_rate=8)
    assert [item[:3] for item in memory.media] == [
        ("histogram", "h", 3),
        ("histogram", "c", 3),
        ("image", "i", 3),
        ("text", "t", None),
        ("audio", "a", 3),
    ]
