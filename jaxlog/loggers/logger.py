"""`Logger`: the interface of loggers, with a default for everything except `log_metrics`."""

from __future__ import annotations

from collections.abc import Mapping
from types import TracebackType
from typing import Any, Self, SupportsIndex

import numpy as np
import numpy.typing as npt

from jaxlog.errors import LoggerError
from jaxlog.storage import Block

__all__ = ["NUMBERS", "Logger", "checked_metrics", "checked_step"]

# If all values of a dict have one of these types, the log call does not check or convert them; the
# writer's thread does, for many rows at once.
NUMBERS = frozenset({bool, int, float, np.float64, np.float32, np.int64, np.int32, np.bool_})


class Logger:
    """Takes metrics and puts them somewhere; a subclass defines `log_metrics` and no more.

    Every other method has a default, which says what happens where a logger does not define it.
    Plain objects that have `log_metrics` are loggers too, see `jaxlog.loggers.adapt`.

    Example:
        >>> class Printer(Logger):
        ...     def log_metrics(self, metrics, step=None):
        ...         print(step, metrics)
        >>> with Printer() as logger:
        ...     logger.write_block(Block.row({"loss": 0.5}, step=3))
        3 {'loss': 0.5}
    """

    @property
    def name(self) -> str:
        """The experiment's name."""
        return ""

    @property
    def version(self) -> int | str:
        """The run's version within the experiment."""
        return ""

    @property
    def save_dir(self) -> str | None:
        """The directory of all experiments; None if the logger keeps no files."""
        return None

    @property
    def log_dir(self) -> str | None:
        """The directory of this run; None if the logger keeps no files."""
        return self.save_dir

    @property
    def pending(self) -> int:
        """Number of scalars that were logged and are not on storage yet; 0 if that is unknown."""
        return 0

    def log_metrics(self, metrics: Mapping[str, Any], step: int | None = None) -> None:
        """Records the values at `step`; None for the step after the last.

        Raises:
            LoggerError: a value is not a number.
        """
        raise NotImplementedError(f"{type(self).__name__} must define log_metrics(metrics, step)")

    def write_block(self, block: Block) -> None:
        """Records the rows of `block`, in order; by default one `log_metrics` a row.

        Args:
            block: rows of scalars; without lanes, when the loop calls this.
        """
        for step, _, metrics in block.rows():
            self.log_metrics(metrics, step)

    def for_lane(self, lane: str) -> Logger | None:  # noqa: ARG002  for those that have lanes
        """A logger for one lane of `Loop(lanes=...)`, which the loop then closes too.

        Args:
            lane: the lane's name, without "/".

        Returns:
            The lane's logger, which gets tags as they were logged. None, the default, for a logger
            that keeps one run: it gets all lanes in one row, under the tags `tag/lane`.
        """
        return None

    def log_hyperparams(self, params: object, metrics: Mapping[str, Any] | None = None) -> None:
        """Records the hyperparameters of the run; by default they are dropped."""

    def log_histogram(
        self,
        tag: str,
        values: npt.ArrayLike,
        step: int | None = None,
        *,
        edges: npt.ArrayLike | None = None,
    ) -> None:
        """Records a histogram; by default it is dropped.

        Args:
            tag: the name.
            values: real numbers of any shape. With `edges`, the counts, one more than edges.
            step: at least 0; None for the step after the last.
            edges: increasing bucket edges of counts below the first edge, between edges, and above
                the last edge.
        """

    def log_image(
        self,
        tag: str,
        image: npt.ArrayLike,
        step: int | None = None,
        *,
        dataformats: str | None = None,
    ) -> None:
        """Records a picture; by default it is dropped.

        Args:
            tag: the name.
            image: uint8 from 0 to 255 or float from 0 to 1; [H, W], [H, W, C] or [N, H, W, C]
                with 1, 3 or 4 channels.
            step: at least 0; None for the step after the last.
            dataformats: the order of the axes if it is another, such as "CHW".
        """

    def log_text(self, tag: str, text: str, step: int | None = None) -> None:
        """Records text, shown as Markdown; by default it is dropped."""

    def log_audio(
        self, tag: str, samples: npt.ArrayLike, step: int | None = None, *, sample_rate: int
    ) -> None:
        """Records sound; by default it is dropped.

        Args:
            tag: the name.
            samples: float from -1 to 1; [frames] or [frames, channels] with 1 or 2 channels.
            step: at least 0; None for the step after the last.
            sample_rate: frames a second.
        """

    def flush(self) -> None:
        """Returns when everything logged so far is on storage."""

    def finalize(self, status: str) -> None:  # noqa: ARG002  for those that record it
        """Closes, and records how the run ended: "success" or "failed"."""
        self.close()

    def close(self) -> None:
        """Flushes and ends the log; a second call does nothing."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.finalize("success" if kind is None else "failed")


def checked_metrics(metrics: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """A copy of `metrics` whose values are numbers, with `prefix` before each tag.

    Args:
        metrics: numbers, 0-d arrays and anything with `__float__`, by tag.
        prefix: put before each tag, joined by "-".

    Raises:
        LoggerError: a tag is not a string, or a value is not a single number.

    Example:
        >>> checked_metrics({"loss": np.array(0.5)}, "train")
        {'train-loss': 0.5}
    """
    # Sets of types instead of a loop over values, because every log call in a training runs this.
    if set(map(type, metrics)) - {str}:
        wrong = next(tag for tag in metrics if not isinstance(tag, str))
        raise LoggerError(f"a tag is a string, but got {wrong!r} of type {type(wrong).__name__}")
    copy = {f"{prefix}-{tag}": metrics[tag] for tag in metrics} if prefix else dict(metrics)
    if set(map(type, copy.values())) <= NUMBERS:
        return copy
    return {tag: _number(tag, value) for tag, value in copy.items()}


def checked_step(step: SupportsIndex | None, default: int) -> int:
    """`step` as an int, `default` for None.

    Raises:
        LoggerError: it is not an integer, is negative, or does not fit into 63 bits.

    Example:
        >>> checked_step(None, 3), checked_step(np.int64(7), 3)
        (3, 7)
    """
    if step is None:
        return default
    try:
        number = step.__index__()
    except (AttributeError, TypeError) as error:
        raise LoggerError(f"step must be an integer, but got {step!r}; write step=int(...)") from (
            error
        )
    if not 0 <= number < 1 << 63:
        raise LoggerError(f"a step must be between 0 and 2**63 - 1, but got {number}")
    return number


def _number(tag: str, value: Any) -> Any:
    kind = type(value).__name__
    shape = getattr(value, "shape", ())
    if shape != ():
        raise LoggerError(
            f"{tag!r} must be one number, but got {kind} of shape {tuple(shape)}; "
            f"log its mean, or one tag an element"
        )
    if isinstance(value, str | bytes | bytearray) or not hasattr(value, "__float__"):
        raise LoggerError(
            f"{tag!r} must be a number, but got {value!r} of type {kind}; "
            f"text belongs in log_hyperparams"
        )
    try:
        return float(value)
    except OverflowError:
        return float("inf") if value > 0 else float("-inf")
    except (TypeError, ValueError) as error:
        raise LoggerError(f"{tag!r} got {kind}, which is no number: {error}") from error
