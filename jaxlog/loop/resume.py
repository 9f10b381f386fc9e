"""The resume state of a loop: counters and accumulators as plain data."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from jaxlog.logs import Options
from jaxlog.loop.accumulators import Accumulator
from jaxlog.loop.phase import Phase

if TYPE_CHECKING:
    from jaxlog.loop.run import Run

__all__ = ["restore_phase", "state_of"]

FORMAT = 1


def state_of(run: Run) -> dict[str, Any]:
    """What `Run.load` and `restore_phase` take back.

    Inside a batch whose step has run, that batch counts: its values are in the accumulators. Once
    the training data of an epoch has run out, that epoch counts too, and the next one begins anew.
    """
    train = run.recorders["train"]
    phase = train.phase
    is_over = phase is not None and phase.is_complete
    accumulators = [] if phase is None or is_over else phase.accumulators.items()
    return {
        "format": FORMAT,
        "global_step": run.global_step + (train.in_batch and train.calls > 0),
        "current_epoch": run.current_epoch + is_over,
        "evaluation_batches": {
            stage: dict(run.recorders[stage].counts) for stage in ("validate", "test")
        },
        "training_accumulators": [
            {
                "name": name,
                "suffix": suffix,
                "options": dataclasses.asdict(accumulator.options),
                "numerator": accumulator.numerator,
                "denominator": accumulator.denominator,
                "metric": accumulator.metric,
                "is_empty": accumulator.is_empty,
            }
            for (name, suffix), accumulator in accumulators
        ],
    }


def restore_phase(phase: Phase, state: Mapping[str, Any]) -> None:
    """Gives a training phase the accumulators it had when the state was taken."""
    for saved in state["training_accumulators"]:
        phase.accumulators[saved["name"], saved["suffix"]] = Accumulator(
            Options(**saved["options"]),
            saved["numerator"],
            saved["denominator"],
            saved["metric"],
            saved["is_empty"],
        )
