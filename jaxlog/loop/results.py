"""What was logged, as Lightning's three mappings."""

from __future__ import annotations

import dataclasses

from jaxlog.loop.names import Key

__all__ = ["Results"]


@dataclasses.dataclass
class Results:
    """The latest value of everything, by name.

    Attributes:
        callback: everything logged, also under its bare name; for callbacks and user code.
        logged: what loggers got.
        progress_bar: what was logged with `prog_bar=True`.
    """

    callback: dict[str, float] = dataclasses.field(default_factory=dict)
    logged: dict[str, float] = dataclasses.field(default_factory=dict)
    progress_bar: dict[str, float] = dataclasses.field(default_factory=dict)

    def clear(self) -> None:
        """Forgets everything, as a test phase of its own does at its start."""
        for mapping in (self.callback, self.logged, self.progress_bar):
            mapping.clear()

    def set_step(self, key: Key, value: float, *, training: bool) -> None:
        """Takes in the latest per-step value; in evaluation it is not for callbacks."""
        if training:
            self.callback[key.bare] = self.callback[key.step_tag] = value
        if key.options.prog_bar:
            self.progress_bar[key.step_tag] = value

    def set_epoch(self, key: Key, value: float) -> None:
        """Takes in a reduction over an epoch."""
        self.callback[key.bare] = self.callback[key.epoch_tag] = value
        if key.options.logger:
            self.logged[key.epoch_tag] = value
        if key.options.prog_bar:
            self.progress_bar[key.epoch_tag] = value
