"""What a logged value is called outside: forks and loader suffixes, as in Lightning."""

from __future__ import annotations

from typing import NamedTuple

from jaxlog.logs import Options

__all__ = ["Key", "loader_suffix"]


class Key(NamedTuple):
    """One logged name and what becomes of it.

    Attributes:
        name: as given to `log`.
        options: as given to `log`.
        suffix: what its loader appends, or `""`.
    """

    name: str
    options: Options
    suffix: str

    @property
    def bare(self) -> str:
        """The name in `callback_metrics` that does not say whether it is of a step or an epoch."""
        return f"{self.name}{self.suffix}"

    @property
    def step_tag(self) -> str:
        """The tag of per-step values: forked into `name_step` where there is an epoch value too."""
        return f"{self.name}_step{self.suffix}" if self.options.on_epoch else self.bare

    @property
    def epoch_tag(self) -> str:
        """The tag of epoch values: forked into `name_epoch` where there are per-step values too."""
        return f"{self.name}_epoch{self.suffix}" if self.options.on_step else self.bare


def loader_suffix(loader: int, label: str | None, count: int) -> str:
    """What several loaders append: `/dataloader_idx_i`, or `/label` when they have names."""
    if count < 2:
        return ""
    return f"/dataloader_idx_{loader}" if label is None else f"/{label}"
