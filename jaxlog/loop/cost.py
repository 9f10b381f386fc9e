"""What logging has cost a run."""

from __future__ import annotations

import dataclasses

__all__ = ["Cost"]


@dataclasses.dataclass(frozen=True)
class Cost:
    """What logging has cost a run so far, on the thread of its loop.

    Attributes:
        fetch_secs: seconds spent waiting for values that were still on their way from the device.
        reduce_secs: seconds of work on the host: decoding, reducing, naming.
        write_secs: seconds spent handing rows to loggers, including waits for a full queue.
        windows: how many windows were fetched and taken in.
        copies: how many arrays were copied from device to host.
        bytes: how many bytes those were.
        rows: how many rows each logger was handed.
        scalars: how many values those held.
        pending: values that loggers were handed and have not stored yet, over all loggers that
            know; none of the others count.

    Example:
        >>> import jax, jaxlog
        >>> loop = jaxlog.Loop(jaxlog.MemoryLogger(), log_every_n_steps=1, progress_bar=False)
        >>> step = loop.training_step(lambda x: jaxlog.log("mean", x.mean()))
        >>> with loop:
        ...     for x in loop.train([jax.numpy.ones(3)] * 100):
        ...         step(x)
        >>> cost = loop.cost()
        >>> cost.windows, cost.copies, cost.rows, cost.pending
        (2, 2, 100, 0)
        >>> cost.blocked_secs < 1
        True
    """

    fetch_secs: float = 0.0
    reduce_secs: float = 0.0
    write_secs: float = 0.0
    windows: int = 0
    copies: int = 0
    bytes: int = 0
    rows: int = 0
    scalars: int = 0
    pending: int = 0

    @property
    def blocked_secs(self) -> float:
        """The sum of the three times, in which the loop did not train."""
        return self.fetch_secs + self.reduce_secs + self.write_secs
