"""What was logged, as Lightning's three mappings."""

from __future__ import annotations

import dataclasses

from jaxlog.logs import Options
from jaxlog.loop.names import epoch_tag, step_tag

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

    def set_step(
        self, name: str, options: Options, suffix: str, value: float, *, training: bool
    ) -> None:
        """Takes in the latest per-step value; in evaluation it is not for callbacks."""
        tag = step_tag(name, options, suffix)
        if training:
            self.callback[f"{name}{suffix}"] = self.callback[tag] = value
        if options.prog_bar:
            self.progress_bar[tag] = value

    def set_epoch(self, name: str, options: Options, suffix: str, value: float) -> None:
        """Takes in a reduction over an epoch."""
        tag = epoch_tag(name, options, suffix)
        self.callback[f"{name}{suffix}"] = self.callback[tag] = value
        if options.logger:
            self.logged[tag] = value
        if options.prog_bar:
            self.progress_bar[tag] = value
