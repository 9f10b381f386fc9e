"""The last values of all tags as lines of text, each with a sparkline."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping

import numpy as np
import numpy.typing as npt

__all__ = ["overview", "sparkline"]

_BARS = "▁▂▃▄▅▆▇█"


def sparkline(values: npt.ArrayLike, width: int) -> str:
    """A line of bars, each the mean of a section of `values`; one without a finite value is a gap.

    Args:
        values: float [n].
        width: largest number of characters.

    Example:
        >>> sparkline([0, 1, 2, 3, float("nan"), 7], 10)
        '▁▂▃▄ █'
        >>> sparkline([3, 3, 3, 3], 2)
        '▄▄'
    """
    values = np.asarray(values, np.float64)
    count = min(max(width, 1), len(values))
    means = []
    for part in np.array_split(values, count) if count else ():
        finite = part[np.isfinite(part)]
        # Divide before summing, because the sum may overflow.
        means.append((finite / len(finite)).sum() if len(finite) else np.nan)
    bars = np.array(means)
    there = bars[np.isfinite(bars)]
    if not len(there):
        return " " * count
    low, high = there.min() / 2, there.max() / 2  # the difference of halves cannot overflow
    scale = (len(_BARS) - 1e-9) / (high - low) if high > low else 0.0
    return "".join(
        " " if not np.isfinite(bar)
        else _BARS[int((bar / 2 - low) * scale)] if scale else _BARS[3]
        for bar in means
    )  # fmt: skip


def overview(table: Mapping[str, np.ndarray], width: int) -> Iterator[str]:
    """Lines of text for a table of `read_scalars(..., backend="numpy")`.

    Example:
        >>> table = {"run": ["a", "a"], "tag": ["loss", "loss"], "step": [0, 9], "value": [2, 1]}
        >>> for line in overview({name: np.array(v) for name, v in table.items()}, 10):
        ...     print(line.rstrip())
        run  tag   step  last  least  most  points  course
        a    loss     9     1      1     2       2  █▁
    """
    rows: list[tuple[str, ...]] = [
        ("run", "tag", "step", "last", "least", "most", "points", "course")
    ]
    run, tag, step, value = (table[name] for name in ("run", "tag", "step", "value"))
    changes = (run[1:] != run[:-1]) | (tag[1:] != tag[:-1])
    bounds = [0, *(np.flatnonzero(changes) + 1).tolist(), len(run)] if len(run) else []
    for start, stop in itertools.pairwise(bounds):
        values = np.asarray(value[start:stop], np.float64)
        finite = values[np.isfinite(values)]
        least, most = (finite.min(), finite.max()) if len(finite) else (np.nan, np.nan)
        numbers = [f"{number:.6g}" for number in (values[-1], least, most)]
        last = str(step[stop - 1])
        course = sparkline(values, width)
        rows.append((str(run[start]), str(tag[start]), last, *numbers, str(len(values)), course))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = [
            cell.ljust(width) if number in {0, 1, 7} else cell.rjust(width)
            for number, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        yield "  ".join(cells)
