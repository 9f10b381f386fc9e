"""NaN and infinity among logged values: counted, reported once, and dealt with by policy."""

from __future__ import annotations

import dataclasses
import logging

import numpy as np

from jaxlog.errors import NonFiniteError
from jaxlog.windows.decode import Decoded
from jaxlog.windows.key import Key

__all__ = ["NonFinite", "NonFiniteWatch"]

_LOG = logging.getLogger("jaxlog")


@dataclasses.dataclass(frozen=True)
class NonFinite:
    """How often a key was NaN or infinite.

    Attributes:
        count: in how many steps.
        first_step: the first of them.

    Example:
        >>> import jaxlog
        >>> loop = jaxlog.Loop(logger=False, progress_bar=False, nan_policy="skip")
        >>> with loop:
        ...     for x in loop.train([1.0, float("nan")]):
        ...         loop.log("loss", x)
        >>> loop.nonfinite["loss"]
        NonFinite(count=1, first_step=1)
    """

    count: int
    first_step: int


class NonFiniteWatch:
    """Looks through values that were fetched anyway, so no step waits for the check.

    Attributes:
        found: by name, what was not finite.
    """

    def __init__(self, policy: str) -> None:
        """A watch with the loop's policy: `"keep"`, `"skip"` or `"raise"`."""
        self.found: dict[str, NonFinite] = {}
        self._policy = policy
        self._error: NonFiniteError | None = None

    def check(self, decoded: Decoded, steps: np.ndarray) -> None:
        """Counts the values that are not finite; under the policy "skip", marks them absent.

        Args:
            decoded: what the calls of a step function logged.
            steps: the x value of each call, shape `(n,)`.
        """
        table = decoded.table
        for group, column, _ in decoded.groups:
            if not column.has_steps:  # the table's NaN stands for no value at all
                continue
            present, values = table.present[:, group.at], table.values[:, group.at]
            suspect = present & ~np.isfinite(values)
            if not suspect.any():
                continue
            # Per key only from here on: nearly always no value is suspect.
            for i in group.places[suspect.any(axis=0)].tolist():
                kept = table.present[:, i].copy()
                stays = self.keep(table.columns.keys[i], table.values[kept, i], steps[kept])
                table.present[kept, i] = stays

    def keep(self, key: Key, values: np.ndarray, steps: np.ndarray) -> np.ndarray:
        """Which values stay: bool, shape `(n,)`.

        Args:
            key: what was logged.
            values: shape `(n,)`.
            steps: their x values, shape `(n,)`.
        """
        if values.dtype.kind != "f" or np.isfinite(values).all():
            return np.ones(len(values), bool)
        finite = np.isfinite(values)
        bad = np.flatnonzero(~finite)
        first = int(steps[bad[0]])
        name = key.in_mapping(key.bare)
        known = self.found.get(name)
        if known is None:
            self._report(key, float(values[bad[0]]), first)
        else:
            first = known.first_step
        self.found[name] = NonFinite((known.count if known else 0) + len(bad), first)
        return finite if self._policy_of(key) == "skip" else np.ones(len(values), bool)

    def _policy_of(self, key: Key) -> str:
        return key.options.nan_policy or self._policy

    def _report(self, key: Key, value: float, step: int) -> None:
        name, hook = key.in_mapping(key.bare), key.options.hook
        message = (
            f"{name!r} became {value} at step {step} (hook {hook!r}); "
            f"jax.config.update('jax_debug_nans', True) finds the operation"
        )
        if self._policy_of(key) == "raise":
            self._error = self._error or NonFiniteError(message)
        else:
            _LOG.warning("%s", message)

    def raise_found(self) -> None:
        """Raises, once, for a value that was not finite under the policy `"raise"`.

        Raises:
            NonFiniteError: a value was not finite; what was logged with it has been written.
        """
        error, self._error = self._error, None
        if error is not None:
            raise error
