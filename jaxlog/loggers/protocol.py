"""The protocols of loggers: the one required method, the optional ones, and `adapt`.

A user may pass any object with `log_metrics` as a logger. The loop works with `Logger` objects
only: `adapt` checks once which optional methods an object has and adds defaults for the others, so
that no other code has to check. Each optional method has a small protocol whose docstring says what
happens without it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Protocol

import numpy.typing as npt

from jaxlog.errors import LoggerError
from jaxlog.loggers.logger import Logger

if TYPE_CHECKING:
    from jaxlog.storage import Block

__all__ = [
    "CanClose",
    "CanFinalize",
    "CanFlush",
    "HasLanes",
    "HasPending",
    "LoggerLike",
    "TakesAudio",
    "TakesBlocks",
    "TakesHistograms",
    "TakesHyperparams",
    "TakesImages",
    "TakesText",
    "adapt",
]


class LoggerLike(Protocol):
    """The required part of a logger.

    A logger may also have any of the methods of the other protocols in this module.

    Example:
        >>> class Printer:
        ...     def log_metrics(self, metrics, step):
        ...         print(step, metrics)
        >>> logger: LoggerLike = Printer()
        >>> logger.log_metrics({"loss": 0.5}, 3)
        3 {'loss': 0.5}
    """

    def log_metrics(self, metrics: Mapping[str, float], step: int, /) -> object:
        """Records numbers by tag at `step`."""
        ...


class TakesBlocks(Protocol):
    """Takes many rows in one call. Without it: one `log_metrics` a row."""

    def write_block(self, block: Block, /) -> object:
        """Records the rows of `block`, in order."""
        ...


class TakesHyperparams(Protocol):
    """Records hyperparameters. Without it they are dropped."""

    def log_hyperparams(self, params: object, metrics: Mapping[str, Any] | None = None) -> object:
        """Records what the run was configured with, a mapping or an object with attributes."""
        ...


class TakesHistograms(Protocol):
    """Records histograms. Without it they are dropped; the loop logs their means as scalars."""

    def log_histogram(
        self, tag: str, values: npt.ArrayLike, step: int, /, *, edges: npt.ArrayLike | None = None
    ) -> object:
        """Records numbers; with `edges`, counts per bucket, as `Logger.log_histogram` has them."""
        ...


class TakesImages(Protocol):
    """Records pictures. Without it they are dropped."""

    def log_image(
        self, tag: str, image: npt.ArrayLike, step: int, /, *, dataformats: str | None = None
    ) -> object:
        """Records a picture, with axes as `Logger.log_image` has them."""
        ...


class TakesText(Protocol):
    """Records text. Without it it is dropped."""

    def log_text(self, tag: str, text: str, step: int, /) -> object:
        """Records Markdown."""
        ...


class TakesAudio(Protocol):
    """Records sound. Without it it is dropped."""

    def log_audio(
        self, tag: str, samples: npt.ArrayLike, step: int, /, *, sample_rate: int
    ) -> object:
        """Records samples from -1 to 1, as `Logger.log_audio` has them."""
        ...


class HasPending(Protocol):
    """Gives the number of scalars not on storage yet. Without it, or if it is not an int: 0."""

    @property
    def pending(self) -> int:
        """Scalars that were logged and are not on storage yet."""
        ...


class HasLanes(Protocol):
    """Keeps one run per lane. Without it one run gets all lanes, under the tags `tag/lane`."""

    def for_lane(self, lane: str, /) -> LoggerLike | None:
        """A logger for one lane; None for what happens without this method."""
        ...


class CanFlush(Protocol):
    """Puts values on storage on request. Without it nothing is called."""

    def flush(self) -> object:
        """Returns when everything logged so far is on storage."""
        ...


class CanClose(Protocol):
    """Ends the log at the end of a run. Without it nothing is called."""

    def close(self) -> object:
        """Flushes and ends the log."""
        ...


class CanFinalize(Protocol):
    """Ends the log and records how the run ended. Without it `close` is called instead."""

    def finalize(self, status: str, /) -> object:
        """Closes, and records the status, "success" or "failed"."""
        ...


# The optional methods that are called as they are. `for_lane` and `pending` need a conversion.
_METHODS = (
    "write_block",
    "log_hyperparams",
    "log_histogram",
    "log_image",
    "log_text",
    "log_audio",
    "flush",
    "close",
    "finalize",
)


def adapt(logger: LoggerLike, *, argument: str = "logger") -> Logger:
    """`logger` as a `Logger`: itself if it is one, else wrapped with defaults.

    Args:
        logger: a `Logger`, or any object with `log_metrics(metrics, step)`.
        argument: the name of the argument it was passed as, for errors.

    Returns:
        A logger with every method of `Logger`; methods that the object does not define have the
        default of `Logger`.

    Raises:
        LoggerError: it has no method `log_metrics`.

    Example:
        >>> class Printer:
        ...     def log_metrics(self, metrics, step):
        ...         print(step, metrics)
        >>> from jaxlog.storage import Block
        >>> logger = adapt(Printer())
        >>> logger.write_block(Block.row({"loss": 0.5}, step=3))
        3 {'loss': 0.5}
        >>> logger.flush(), logger.pending
        (None, 0)
    """
    _check(logger, argument)
    return logger if isinstance(logger, Logger) else _Adapted(logger)


class _Adapted(Logger):
    """A plain object with the defaults of `Logger` for the methods that it does not have."""

    def __init__(self, logger: LoggerLike) -> None:
        self._logger = logger
        for name in _METHODS:
            method = getattr(logger, name, None)
            if callable(method):
                # An attribute of the instance takes precedence over the default in Logger. The
                # defaults call each other through self (finalize calls close), so they use it too.
                setattr(self, name, method)

    @property
    def name(self) -> str:
        return getattr(self._logger, "name", "")

    @property
    def version(self) -> int | str:
        return getattr(self._logger, "version", "")

    @property
    def save_dir(self) -> str | None:
        return getattr(self._logger, "save_dir", None)

    @property
    def log_dir(self) -> str | None:
        return getattr(self._logger, "log_dir", self.save_dir)

    @property
    def pending(self) -> int:
        pending = getattr(self._logger, "pending", 0)
        return pending if isinstance(pending, int) else 0

    def log_metrics(self, metrics: Mapping[str, Any], step: int | None = None) -> None:
        if step is None:
            raise LoggerError(
                f"{type(self._logger).__name__} does not count steps; "
                f"write log_metrics(metrics, step)"
            )
        self._logger.log_metrics(metrics, step)

    def for_lane(self, lane: str) -> Logger | None:
        for_lane = getattr(self._logger, "for_lane", None)
        found: Any = for_lane(lane) if callable(for_lane) else None
        return None if found is None else adapt(found, argument=f"for_lane({lane!r})")


def _check(logger: object, argument: str) -> None:
    kind = type(logger).__name__
    if isinstance(logger, type):
        raise LoggerError(
            f"{argument} is the class {logger.__name__}, not a logger; "
            f"write {logger.__name__}(...), with parentheses"
        )
    if isinstance(logger, str):
        raise LoggerError(
            f"{argument} is the string {logger!r}, not a logger; "
            f"write TensorBoardLogger({logger!r}) to log there"
        )
    found = getattr(logger, "log_metrics", None)
    undefined = isinstance(logger, Logger) and type(logger).log_metrics is Logger.log_metrics
    if undefined or not callable(found):
        raise LoggerError(
            f"{argument} of type {kind} has no method log_metrics, so it cannot log; "
            f"define log_metrics(self, metrics, step), or pass a logger of jaxlog.loggers"
        )
