"""What was logged, as Lightning's three mappings."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping

import numpy as np

from jaxlog.loop.names import Key

__all__ = ["Results"]


class Results:
    """The latest value of everything, by name.

    What a window brings is kept as arrays until somebody looks: a run that nobody watches makes no
    dict of a thousand names.
    """

    def __init__(self) -> None:
        """Nothing yet."""
        self._callback: dict[str, float] = {}
        self._logged: dict[str, float] = {}
        self._progress_bar: dict[str, float] = {}
        self._late: list[_Late] = []

    @property
    def callback(self) -> dict[str, float]:
        """Everything logged, also under its bare name; for callbacks and user code."""
        self._settle()
        return self._callback

    @property
    def logged(self) -> dict[str, float]:
        """What loggers got."""
        self._settle()
        return self._logged

    @property
    def progress_bar(self) -> dict[str, float]:
        """What was logged with `prog_bar=True`."""
        self._settle()
        return self._progress_bar

    def clear(self) -> None:
        """Forgets everything, as a test phase of its own does at its start."""
        for mapping in (self.callback, self.logged, self.progress_bar):
            mapping.clear()

    def set_steps(self, keys: Mapping[str, Key], values: np.ndarray, *, training: bool) -> None:
        """Takes in the latest per-step values; in evaluation they are not for callbacks.

        Args:
            keys: tag to key.
            values: float64, shape `(len(keys),)`.
            training: whether they are of training steps.
        """
        self._add(_Late(tuple(keys), values, tuple(keys.values()), is_training=training))

    def set_logged(self, tags: Iterable[str], values: np.ndarray) -> None:
        """Takes in the latest values that were handed to loggers, shape `(len(tags),)`."""
        self._add(_Late(tuple(tags), values))

    def _add(self, late: _Late) -> None:
        # The same names again make the last ones but one old news.
        self._late = [one for one in self._late if not late.replaces(one)]
        self._late.append(late)
        if len(self._late) > _MOST_LATE:
            self._settle()

    def _settle(self) -> None:
        waiting, self._late = self._late, []
        for late in waiting:
            values = late.values.tolist()
            if late.keys is None:
                self._logged.update(zip(late.tags, values, strict=True))
                continue
            for tag, key, value in zip(late.tags, late.keys, values, strict=True):
                if late.is_training:
                    self._callback[key.bare] = self._callback[tag] = value
                if key.options.prog_bar:
                    self._progress_bar[tag] = value

    def set_epoch(self, key: Key, value: float) -> None:
        """Takes in a reduction over an epoch."""
        self.callback[key.bare] = self.callback[key.epoch_tag] = value
        if key.options.logger:
            self.logged[key.epoch_tag] = value
        if key.options.prog_bar:
            self.progress_bar[key.epoch_tag] = value


_MOST_LATE = 8


@dataclasses.dataclass(frozen=True)
class _Late:
    """Values that no mapping holds yet: of keys' steps, or, without keys, of what loggers got."""

    tags: tuple[str, ...]
    values: np.ndarray
    keys: tuple[Key, ...] | None = None
    is_training: bool = False

    def replaces(self, other: _Late) -> bool:
        """Whether nothing of `other` is left to see after this."""
        alike = (self.keys is None) == (other.keys is None) and self.tags == other.tags
        return alike and self.is_training == other.is_training and self.keys == other.keys
