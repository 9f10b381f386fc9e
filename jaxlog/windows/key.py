"""`Key`: one logged name with what decides its tags outside: forks, loaders, lanes, histograms."""

from __future__ import annotations

from typing import Any, NamedTuple

from jaxlog.logs import KeySpec, Options

__all__ = ["Key", "holds_buckets", "key_of", "loader_suffix"]


class Key(NamedTuple):
    """One logged name and what becomes of it.

    The parts of a tag are fields and are joined here only. A lane is never part of a tag: a tag
    that ends in the name of a lane may be the user's own.

    Attributes:
        name: as given to `log`.
        options: as given to `log`.
        loader: what its evaluation loader appends, or `""`.
        lane: the lane that logged it; None for a value of all lanes.
        is_histogram: whether it is a metric that counts into buckets. The histogram has the tag,
            and the scalar of the metric (its mean) has `tag/mean`: TensorBoard's default data
            server shows neither where one tag carries both.
    """

    name: str
    options: Options
    loader: str = ""
    lane: str | None = None
    is_histogram: bool = False

    @property
    def bare(self) -> str:
        """The name in `callback_metrics` that does not say whether it is of a step or an epoch."""
        return f"{self.name}{self.loader}"

    @property
    def step_label(self) -> str:
        """The tag of what steps log: forked into `name_step` if there is an epoch value too."""
        return f"{self.name}_step{self.loader}" if self.options.on_epoch else self.bare

    @property
    def epoch_label(self) -> str:
        """The tag of what epochs log: forked into `name_epoch` if there are step values too."""
        return f"{self.name}_epoch{self.loader}" if self.options.on_step else self.bare

    @property
    def step_tag(self) -> str:
        """The tag of per-step scalars."""
        return f"{self.step_label}/mean" if self.is_histogram else self.step_label

    @property
    def epoch_tag(self) -> str:
        """The tag of epoch scalars."""
        return f"{self.epoch_label}/mean" if self.is_histogram else self.epoch_label

    @property
    def tags(self) -> set[str]:
        """Every tag that the key takes, in the mappings or at the loggers."""
        of_steps = {self.step_tag, self.step_label} if self.options.on_step else set()
        of_epochs = {self.epoch_tag, self.epoch_label} if self.options.on_epoch else set()
        return {self.bare} | of_steps | of_epochs

    def in_mapping(self, tag: str) -> str:
        """The name of one of its tags in the mappings, which hold every lane's values."""
        return tag if self.lane is None else f"{tag}/{self.lane}"


def key_of(spec: KeySpec, loader: str, lane: str | None = None) -> Key:
    """The key of a schema's spec."""
    suffix = loader if spec.options.add_dataloader_idx else ""
    # The node data of a metric's tree structure begins with its class.
    metric = None if spec.metric is None else spec.metric.node_data()[0]
    return Key(spec.name, spec.options, suffix, lane, holds_buckets(metric))


def loader_suffix(index: int, label: str | None, count: int) -> str:
    """What several loaders append: `/dataloader_idx_i`, or `/label` when they have names."""
    if count < 2:
        return ""
    return f"/dataloader_idx_{index}" if label is None else f"/{label}"


def holds_buckets(metric: Any) -> bool:
    """Whether a logged value, or the class of one, is a metric that counts into buckets."""
    return callable(getattr(metric, "buckets", None))
