"""The tags of a key: forks, loaders, histograms and lanes are joined in one place."""

from __future__ import annotations

import pytest

import jaxlog
from jaxlog.logs import Options
from jaxlog.windows import Key, holds_buckets, loader_suffix


def key(*, on_step: bool, on_epoch: bool, **parts: object) -> Key:
    return Key("x", Options("training_step", on_step, on_epoch), **parts)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("flags", "parts", "tags"),
    [
        ((True, False), {}, ("x", "x")),
        ((False, True), {}, ("x", "x")),
        ((True, True), {}, ("x_step", "x_epoch")),
        ((True, True), {"loader": "/b"}, ("x_step/b", "x_epoch/b")),
        ((True, True), {"is_histogram": True}, ("x_step/mean", "x_epoch/mean")),
        ((True, True), {"lane": "slow"}, ("x_step", "x_epoch")),
    ],
)
def test_tags(flags, parts, tags) -> None:
    one = key(on_step=flags[0], on_epoch=flags[1], **parts)
    of_step, of_epoch = flags
    assert (one.step_tag if of_step else one.epoch_tag) == tags[0]
    assert (one.epoch_tag if of_epoch else one.step_tag) == tags[1]


def test_a_lane_is_shown_in_mappings_only() -> None:
    one = key(on_step=True, on_epoch=False, lane="slow")
    assert (one.step_tag, one.in_mapping(one.step_tag)) == ("x", "x/slow")


def test_a_key_takes_the_tags_of_its_histogram_too() -> None:
    one = key(on_step=False, on_epoch=True, is_histogram=True)
    assert one.tags == {"x", "x/mean"}


def test_loader_suffix() -> None:
    assert loader_suffix(0, None, 1) == ""
    assert loader_suffix(1, None, 2) == "/dataloader_idx_1"
    assert loader_suffix(1, "clean", 2) == "/clean"


def test_what_counts_into_buckets() -> None:
    assert holds_buckets(jaxlog.Histogram)
    assert not holds_buckets(jaxlog.Mean)
