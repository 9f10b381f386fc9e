"""What a logged value is called outside: forks and loader suffixes, as in Lightning."""

from __future__ import annotations

from jaxlog.logs import Options

__all__ = ["epoch_tag", "loader_suffix", "step_tag"]


def step_tag(name: str, options: Options, suffix: str) -> str:
    """The tag of per-step values: forked into `name_step` where there is an epoch value too."""
    return f"{name}_step{suffix}" if options.on_epoch else f"{name}{suffix}"


def epoch_tag(name: str, options: Options, suffix: str) -> str:
    """The tag of epoch values: forked into `name_epoch` where there are per-step values too."""
    return f"{name}_epoch{suffix}" if options.on_step else f"{name}{suffix}"


def loader_suffix(loader: int, label: str | None, count: int) -> str:
    """What several loaders append: `/dataloader_idx_i`, or `/label` when they have names."""
    if count < 2:
        return ""
    return f"/dataloader_idx_{loader}" if label is None else f"/{label}"
