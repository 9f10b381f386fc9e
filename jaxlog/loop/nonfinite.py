"""NaN and infinity among logged values: counted, reported once, and dealt with by policy."""

from __future__ import annotations

import dataclasses
import logging

import numpy as np

from jaxlog.errors import NonFiniteError
from jaxlog.loop.names import Key

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
    """Looks through fetched values, so that no step waits for it.

    Attributes:
        found: by name, what was not finite.
    """

    def __init__(self, policy: str) -> None:
        """A watch with the loop's policy: `"keep"`, `"skip"` or `"raise"`."""
        self.found: dict[str, NonFinite] = {}
        self._policy = policy
        self._error: NonFiniteError | None = None

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
        known = self.found.get(key.bare)
        if known is None:
            self._report(key, float(values[bad[0]]), first)
        else:
            first = known.first_step
        self.found[key.bare] = NonFinite((known.count if known else 0) + len(bad), first)
        return finite if self._policy_of(key) == "skip" else np.ones(len(values), bool)

    def _policy_of(self, key: Key) -> str:
        return key.options.nan_policy or self._policy

    def _report(self, key: Key, value: float, step: int) -> None:
        message = (
            f"{key.bare!r} became {value} at step {step} (hook {key.options.hook!r}); "
            f"jax.config.update('jax_debug_nans', True) finds the operation"
        )
        if self._policy_of(key) == "raise":
            self._error = self._error or NonFiniteError(message)
        else:
            _LOG.warning("%s", message)

    def check(self) -> None:
        """Raises what the policy `"raise"` has to say, once.

        Raises:
            NonFiniteError: a value was not finite; what was logged with it has been written.
        """
        error, self._error = self._error, None
        if error is not None:
            raise error
