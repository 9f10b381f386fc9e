"""Accuracy against scikit-learn, and what it says to shapes and dtypes that do not fit."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.metrics import accuracy_score, top_k_accuracy_score

from jaxlog.errors import LogArgumentError
from jaxlog.metrics import Accuracy

RNG = np.random.default_rng(0)
LOGITS = RNG.normal(size=(40, 5)).astype(np.float32)
LABELS = RNG.integers(0, 5, 40).astype(np.int32)


def number(metric):
    return float(jax.jit(lambda m: m.compute())(metric))


def test_matches_scikit_learn():
    want = accuracy_score(LABELS, LOGITS.argmax(-1))
    got = Accuracy.of(logits=LOGITS, labels=LABELS)
    assert (got.correct.dtype, got.total.dtype) == (jnp.int32, jnp.int32)
    assert number(got) == pytest.approx(want, rel=1e-6)
    classes = LOGITS.argmax(-1)
    assert number(Accuracy.of(predictions=classes, labels=LABELS)) == pytest.approx(want, rel=1e-6)


@pytest.mark.parametrize("top_k", [2, 3, 4])
def test_top_k_matches_scikit_learn(top_k):
    want = top_k_accuracy_score(LABELS, LOGITS, k=top_k, labels=range(5))
    got = Accuracy.of(logits=LOGITS, labels=LABELS, top_k=top_k)
    assert number(got) == pytest.approx(want, rel=1e-6)


def test_mask_and_ignore_index_match_scikit_learn_weights():
    mask = RNG.random(40) < 0.5
    kept = mask & (LABELS != 3)
    want = accuracy_score(LABELS, LOGITS.argmax(-1), sample_weight=kept.astype(float))
    got = Accuracy.of(logits=LOGITS, labels=LABELS, mask=mask, ignore_index=3)
    assert number(got) == pytest.approx(want, rel=1e-6)
    assert int(got.total) == kept.sum()


def test_sequences_and_a_mask_over_examples():
    logits, labels = LOGITS.reshape(8, 5, 5), LABELS.reshape(8, 5)
    got = Accuracy.of(logits=logits, labels=labels, mask=jnp.arange(8) < 4)
    assert number(got) == pytest.approx(accuracy_score(LABELS[:20], LOGITS[:20].argmax(-1)))


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_half_precision_logits(dtype):
    logits = jnp.eye(3).astype(dtype)
    assert number(Accuracy.of(logits=logits, labels=jnp.arange(3))) == 1.0


def test_binary_predictions_and_small_integer_labels():
    got = Accuracy.of(predictions=jnp.array([True, False]), labels=np.array([1, 1], np.uint8))
    assert number(got) == 0.5


def test_nothing_seen_is_nan():
    assert np.isnan(number(Accuracy.empty()))
    assert np.isnan(Accuracy.empty().host_compute())


def test_update_is_merge_of():
    updated = Accuracy.empty().update(logits=LOGITS[:20], labels=LABELS[:20])
    updated = updated.update(logits=LOGITS[20:], labels=LABELS[20:])
    assert repr(updated) == repr(Accuracy.of(logits=LOGITS, labels=LABELS))


BAD = {
    "one-hot float labels": (
        {"logits": LOGITS, "labels": np.eye(5, dtype=np.float32)[LABELS]},
        r"labels has dtype float32 and shape \(40, 5\).*one-hot.*labels=labels.argmax\(-1\)",
    ),
    "one-hot integer labels": (
        {"logits": LOGITS, "labels": np.eye(5, dtype=np.int32)[LABELS]},
        r"logits has shape \(40, 5\) and labels has shape \(40, 5\).*one-hot.*argmax",
    ),
    "other batch": (
        {"logits": LOGITS, "labels": LABELS[:7]},
        r"labels has shape \(7,\).*\(40,\).*same batch",
    ),
    "labels with an axis too many": (
        {"logits": LOGITS, "labels": LABELS[:, None]},
        r"labels=labels\[..., 0\]",
    ),
    "integer logits": (
        {"logits": LABELS, "labels": LABELS},
        r"logits has dtype int32.*predictions=logits",
    ),
    "binary logit": (
        {"logits": LOGITS[:, :1], "labels": LABELS},
        r"single class.*predictions=logits\[..., 0\] > 0",
    ),
    "scalar logits": ({"logits": LOGITS[0, 0], "labels": LABELS[0]}, r"shape \(\)"),
    "float predictions": (
        {"predictions": LOGITS, "labels": LABELS},
        r"predictions has dtype float32.*logits=predictions",
    ),
    "other predictions": (
        {"predictions": LABELS[:3], "labels": LABELS},
        r"predictions has shape \(3,\)",
    ),
    "top_k of predictions": (
        {"predictions": LABELS, "labels": LABELS, "top_k": 2},
        r"top_k=2 needs the scores",
    ),
    "top_k out of range": (
        {"logits": LOGITS, "labels": LABELS, "top_k": 6},
        r"top_k=6.*from 1 to 5",
    ),
    "neither": ({"labels": LABELS}, r"neither of logits and predictions"),
    "both": ({"logits": LOGITS, "predictions": LABELS, "labels": LABELS}, r"got both"),
    "float mask": (
        {"logits": LOGITS, "labels": LABELS, "mask": np.ones(40, np.float32)},
        r"mask has dtype float32.*mask=mask > 0",
    ),
    "mask of other shape": (
        {"logits": LOGITS, "labels": LABELS, "mask": np.ones(5, bool)},
        r"mask has shape \(5,\).*labels has shape \(40,\)",
    ),
    "no array": ({"logits": "seven", "labels": LABELS}, r"logits got str"),
}


@pytest.mark.parametrize(("arguments", "message"), BAD.values(), ids=BAD.keys())
def test_bad_arguments_say_what_to_write(arguments, message):
    with pytest.raises(LogArgumentError, match=rf"Accuracy.of: .*{message}"):
        Accuracy.of(**arguments)


def test_errors_come_at_trace_time():
    with pytest.raises(LogArgumentError, match="labels"):
        jax.eval_shape(lambda x, y: Accuracy.of(logits=x, labels=y), LOGITS, LABELS[:3])
