"""The state of a loop as plain data: `state_of` saves it, `load` and `restore` take it back."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any

from jaxlog.errors import LoopError
from jaxlog.logs import Options
from jaxlog.steps import Stage
from jaxlog.windows import Accumulator, Key, Phase

__all__ = ["Counters", "counters_in", "restore", "state_of"]

FORMAT = 2


@dataclasses.dataclass(frozen=True)
class Counters:
    """Where a loop is in its run.

    Attributes:
        global_step: training batches finished.
        current_epoch: epochs finished.
        evaluation_batches: by stage, batches seen by each loader over all phases.
    """

    global_step: int
    current_epoch: int
    evaluation_batches: Mapping[str, Mapping[int, int]]


def state_of(
    global_step: int, current_epoch: int, train: Stage, evaluation: Iterable[Stage]
) -> dict[str, Any]:
    """What `counters_in` and `restore` take back.

    Inside a batch whose step has run, that batch counts: its values are in the accumulators. Once
    the training data of an epoch has run out, that epoch counts too, and the next one begins anew.
    """
    phase = train.phase
    is_over = phase is not None and phase.is_complete
    # A finished epoch is in the files already; its successor begins with nothing.
    accumulators = [] if phase is None or is_over else phase.reductions.items()
    return {
        "format": FORMAT,
        "global_step": global_step + (train.in_batch and train.calls > 0),
        "current_epoch": current_epoch + is_over,
        "evaluation_batches": {stage.name: dict(stage.counts) for stage in evaluation},
        "training_accumulators": [
            {
                "name": key.name,
                "loader": key.loader,
                "lane": key.lane,
                "is_histogram": key.is_histogram,
                "options": dataclasses.asdict(key.options),
                "numerator": accumulator.numerator,
                "denominator": accumulator.denominator,
                "metric": accumulator.metric,
                "is_empty": accumulator.is_empty,
            }
            for key, accumulator in accumulators
        ],
    }


def counters_in(state: Mapping[str, Any]) -> Counters:
    """The counters of a saved state.

    Raises:
        LoopError: `state` is something else.
    """
    missing = {"global_step", "current_epoch", "evaluation_batches"} - set(state)
    if missing or state.get("format") != FORMAT:
        raise LoopError(
            f"loop.load_state_dict(state): lacks {sorted(missing)} or is of another format "
            f"than {FORMAT}; pass what loop.state_dict() gave"
        )
    counts = {
        stage: {int(index): int(count) for index, count in batches.items()}
        for stage, batches in state["evaluation_batches"].items()
    }
    return Counters(int(state["global_step"]), int(state["current_epoch"]), counts)


def restore(phase: Phase, state: Mapping[str, Any]) -> None:
    """Gives a training phase the reductions it had when the state was taken."""
    for saved in state["training_accumulators"]:
        options = Options(**saved["options"])
        key = Key(saved["name"], options, saved["loader"], saved["lane"], saved["is_histogram"])
        accumulator = Accumulator(
            options, saved["numerator"], saved["denominator"], saved["metric"], saved["is_empty"]
        )
        phase.reductions.put(key, accumulator)
