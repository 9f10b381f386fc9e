"""`LatestValues`: what was logged, as Lightning's three mappings."""

from __future__ import annotations

import dataclasses

import numpy as np

from jaxlog.windows.key import Key
from jaxlog.windows.lane_names import means_over_lanes
from jaxlog.windows.table import Columns

__all__ = ["LatestValues"]

_MOST_PENDING = 8


class LatestValues:
    """The latest value of everything, by name.

    What a window brings is kept as arrays until a mapping is read: a run whose mappings are never
    read builds no dict of a thousand names a window.
    """

    def __init__(self, lanes: tuple[str, ...] = ()) -> None:
        """Nothing yet.

        Args:
            lanes: names of lanes; the mappings hold every lane's values and their mean.
        """
        self._lanes = lanes
        self._callback: dict[str, float] = {}
        self._logged: dict[str, float] = {}
        self._progress_bar: dict[str, float] = {}
        self._pending: list[_Update] = []

    @property
    def callback(self) -> dict[str, float]:
        """Everything logged, also under its bare name; for callbacks and user code."""
        self._apply_pending()
        return self._callback

    @property
    def logged(self) -> dict[str, float]:
        """What loggers got."""
        self._apply_pending()
        return self._logged

    @property
    def progress_bar(self) -> dict[str, float]:
        """What was logged with `prog_bar=True`."""
        self._apply_pending()
        return self._progress_bar

    def clear(self) -> None:
        """Forgets everything, as a test phase outside of `epochs` does at its start."""
        for mapping in (self.callback, self.logged, self.progress_bar):
            mapping.clear()

    def set_steps(
        self, columns: Columns, values: np.ndarray, has_any: np.ndarray, *, training: bool
    ) -> None:
        """Takes in the latest per-step values; those of evaluation are not for callbacks.

        Args:
            columns: the k keys.
            values: float64, shape `(k,)`.
            has_any: which keys have a value: bool, shape `(k,)`.
            training: whether they are of training steps.
        """
        self._add(_Update(columns, values, has_any, "training" if training else "evaluation"))

    def set_logged(self, columns: Columns, values: np.ndarray, has_any: np.ndarray) -> None:
        """Takes in the latest values that were handed to loggers; arguments as `set_steps`."""
        self._add(_Update(columns, values, has_any, "logged"))

    def set_epoch(self, values: list[tuple[Key, float]]) -> None:
        """Takes in reductions over an epoch."""
        for key, value in (*values, *means_over_lanes(values, self._lanes)):
            tag, bare = key.in_mapping(key.epoch_tag), key.in_mapping(key.bare)
            self.callback[bare] = self.callback[tag] = value
            if (
                key.is_histogram
            ):  # the name with _epoch stays, without the /mean of the scalar's tag
                self.callback[key.in_mapping(key.epoch_label)] = value
            if key.options.logger:
                self.logged[tag] = value
            if key.options.prog_bar:
                self.progress_bar[tag] = value

    def _add(self, update: _Update) -> None:
        # A newer update of the same kind and keys supersedes a pending one; keep only the newest.
        self._pending = [one for one in self._pending if not update.supersedes(one)]
        self._pending.append(update)
        if len(self._pending) > _MOST_PENDING:
            self._apply_pending()

    def _apply_pending(self) -> None:
        # In the order in which they came: a later update of other keys may set the same name.
        pending, self._pending = self._pending, []
        for update in pending:
            known = [
                (key, value)
                for key, value, has in zip(
                    update.columns.keys,
                    update.values.tolist(),
                    update.has_any.tolist(),
                    strict=True,
                )
                if has
            ]
            if update.kind == "logged":
                self._logged.update((key.in_mapping(key.step_tag), value) for key, value in known)
                continue
            for key, value in (*known, *means_over_lanes(known, self._lanes)):
                tag = key.in_mapping(key.step_tag)
                if update.kind == "training":
                    self._callback[key.in_mapping(key.bare)] = self._callback[tag] = value
                    if key.is_histogram:
                        self._callback[key.in_mapping(key.step_label)] = value
                if key.options.prog_bar:
                    self._progress_bar[tag] = value


@dataclasses.dataclass(frozen=True)
class _Update:
    """Values that no mapping holds yet.

    Attributes:
        columns: their keys.
        values: float64, shape `(k,)`.
        has_any: which are values: bool, shape `(k,)`.
        kind: `"training"`, `"evaluation"` or `"logged"`.
    """

    columns: Columns
    values: np.ndarray
    has_any: np.ndarray
    kind: str

    def supersedes(self, other: _Update) -> bool:
        """Whether every value of `other` is replaced by one of these."""
        same = self.columns is other.columns or self.columns.keys == other.columns.keys
        return self.kind == other.kind and same and bool((self.has_any >= other.has_any).all())
