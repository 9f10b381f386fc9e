"""What the benchmarks share: interleaved repeats, ratios, and tables in README.md."""

from __future__ import annotations

import pathlib
import platform
import statistics
import time
from collections.abc import Callable, Iterable, Mapping, Sequence

__all__ = ["HERE", "interleaved", "machine", "ratio", "table", "timed", "write"]

HERE = pathlib.Path(__file__).parent


def interleaved(
    variants: Mapping[str, Callable[[], float]], repeats: int
) -> dict[str, list[float]]:
    """What each variant measures, a repeat of all after the other; the first only compiles."""
    taken: dict[str, list[float]] = {name: [] for name in variants}
    for repeat in range(repeats + 1):
        for name, measure in variants.items():
            value = measure()
            if repeat:
                taken[name].append(value)
    return taken


def ratio(times: Sequence[float], base: Sequence[float]) -> float:
    """The median over the repeats of the ratio in each: what a busy machine changes least."""
    return statistics.median(a / b for a, b in zip(times, base, strict=True))


def timed(run: Callable[[], object]) -> float:
    """Seconds that a call takes."""
    begun = time.perf_counter()
    run()
    return time.perf_counter() - begun


def machine() -> str:
    """What it ran on."""
    import os

    import jax

    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    device = jax.devices()[0]
    return (
        f"Python {platform.python_version()}, jax {jax.__version__}, {cores} cores "
        f"({platform.machine()}), {device.platform} {device.device_kind}."
    )


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table in Markdown."""
    lines = [list(head), ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def write(script: str, text: str) -> None:
    """Prints a script's part of README.md and puts it there, between its markers."""
    print(text, flush=True)
    page = HERE / "README.md"
    begin, end = f"<!-- {script} writes from here -->\n", "<!-- to here -->"
    before, found, rest = page.read_text("utf-8").partition(begin)
    if not found:
        raise SystemExit(f"README.md has no line {begin!r}")
    page.write_text(before + begin + text.rstrip() + "\n" + end + rest.partition(end)[2], "utf-8")
