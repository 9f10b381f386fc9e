"""Every case that the real Lightning ran comes out event for event and mapping for mapping."""

from __future__ import annotations

import pathlib
from typing import Any

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import jaxlog
from tests.golden.cases import CASES, run_case

MAPPINGS = ("callback_metrics", "logged_metrics", "progress_bar_metrics")


def read_events(log_dir: str) -> list[list[Any]]:
    """`[tag, step, value]` of every scalar, sorted by tag and step, as the golden file has them."""
    accumulator = EventAccumulator(log_dir, size_guidance={"scalars": 0})
    accumulator.Reload()
    return sorted(
        [tag, event.step, event.value]
        for tag in accumulator.Tags()["scalars"]
        for event in accumulator.Scalars(tag)
    )


@pytest.mark.parametrize("window_steps", [1, 3, 64])
@pytest.mark.parametrize("case", CASES, ids=lambda case: case["case"])
def test_golden(case: dict[str, Any], window_steps: int, tmp_path: pathlib.Path) -> None:
    logger = jaxlog.TensorBoardLogger(str(tmp_path))
    runs = run_case(case, logger, window_steps=window_steps)
    loop = next(runs)
    for mapping in MAPPINGS:
        assert dict(getattr(loop, mapping)) == pytest.approx(case[mapping], rel=1e-6), mapping
    for after_test in runs:
        assert dict(after_test.callback_metrics) == pytest.approx(
            case["callback_metrics_after_test"], rel=1e-6
        )
    events = read_events(logger.log_dir)
    expected = sorted(case["events"])
    assert [event[:2] for event in events] == [event[:2] for event in expected]
    assert [event[2] for event in events] == pytest.approx(
        [event[2] for event in expected], rel=1e-6
    )
