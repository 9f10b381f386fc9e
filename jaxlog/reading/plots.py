"""`plot_scalars`: one small panel per metric, drawn without pyplot's global state."""

from __future__ import annotations

import io
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from jaxlog.errors import MissingDependencyError, ReadError
from jaxlog.reading.runs import matches
from jaxlog.reading.scalars import read_scalars
from jaxlog.storage import open_filesystem, write_whole

if TYPE_CHECKING:
    import pandas as pd
    import polars as pl
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import LayoutEngine

__all__ = ["plot_scalars"]

_COLUMNS = 3  # panels side by side
_PANEL = (4.2, 2.9)  # inches
_MOST_POINTS = 4000  # per line; more cannot be distinguished at this size
_FEW, _MANY = 40, 120  # a line of at most 40 points has markers, one of more than 120 is thin
_PHASES = ("train", "val", "test")
_PHASE_NAMES = {"train": "train", "training": "train", "test": "test"} | dict.fromkeys(
    ("val", "valid", "validation", "eval"), "val"
)
_PALETTE = ("#3366cc", "#e6772e", "#2e9e6b", "#a855b5", "#c43d4f", "#5b8c9e", "#9c7a3c", "#6b6b6b")
_DASHES = {"train": "-", "val": (0, (4, 1.5)), "test": (0, (1, 1.2))}
_INK, _GRID = "#444444", "#e4e4e4"


@dataclass(frozen=True, slots=True)
class _Line:
    """One tag of one run.

    `metric` is the name of the panel: the tag without its phase and its `_step` or `_epoch`.
    """

    run: str
    tag: str
    metric: str
    phase: str
    every_step: bool
    steps: np.ndarray
    values: np.ndarray


def plot_scalars(
    url_or_table: str
    | os.PathLike[str]
    | Mapping[str, npt.ArrayLike]
    | pd.DataFrame
    | pl.DataFrame,
    *,
    tags: str | Sequence[str] | None = None,
    path: str | os.PathLike[str] | None = None,
) -> Figure:
    """A figure with one panel per metric, and in it one line per run and phase.

    `loss_step`, `loss_epoch` and `val_loss` share a panel. Values of steps are a faint line, values
    of epochs a line with markers. Training, validation and test differ in colour, or in dashes if
    there are several runs.

    Args:
        url_or_table: a URL as for `read_scalars`, or a table that it returned.
        tags: names or shell patterns of tags; None for all except `epoch`.
        path: local path or URL to save the figure to; PNG, unless the name ends in .pdf or .svg.

    Returns:
        The matplotlib figure.

    Raises:
        ReadError: no scalar matches.
        MissingDependencyError: matplotlib is not installed.

    Example:
        >>> table = {"run": ["a", "a"], "tag": ["loss", "loss"], "step": [0, 1], "value": [2, 1]}
        >>> [panel.get_title(loc="left") for panel in plot_scalars(table).axes]
        ['loss']
    """
    figure_class, layout = _figure_class()
    table = (
        read_scalars(url_or_table, tags=tags, backend="numpy")
        if isinstance(url_or_table, str | os.PathLike)
        else url_or_table
    )
    lines = _lines(table, tags)
    if not lines:
        raise ReadError(f"nothing to draw: no scalar in the table has a tag that fits {tags!r}")
    panels: dict[str, list[_Line]] = {}
    for line in lines:
        panels.setdefault(line.metric, []).append(line)
    runs = sorted({line.run for line in lines})
    across = 2 if len(panels) == 4 else min(_COLUMNS, len(panels))  # four panels form a square
    down = -(-len(panels) // across)
    figure = figure_class(
        figsize=(_PANEL[0] * across, _PANEL[1] * down + 0.35 * (len(runs) > 1)),
        dpi=120,
        layout=layout,
        facecolor="white",
    )
    axes = figure.subplots(down, across, squeeze=False).ravel()
    for panel, (metric, members) in zip(axes, panels.items(), strict=False):
        _draw(panel, metric, members, runs)
    for panel in axes[len(panels) :]:
        panel.remove()
    if len(runs) > 1:
        _add_runs_legend(figure, runs)
    if path is not None:
        _save(figure, path)
    return figure


def _lines(table: Any, tags: str | Sequence[str] | None) -> list[_Line]:
    run, tag = (np.asarray(table[name], object) for name in ("run", "tag"))
    step, value = (np.asarray(table[name], np.float64) for name in ("step", "value"))
    chosen = [
        name
        for name in sorted(set(tag.tolist()))
        if (matches(name, tags) if tags is not None else name != "epoch")
    ]
    lines = []
    for name in chosen:
        here = tag == name
        metric, phase, every_step = _parts(name)
        for run_name in sorted(set(run[here].tolist())):
            rows = here & (run == run_name)
            thin = _thinned(step[rows], value[rows])
            lines.append(_Line(run_name, name, metric, phase, every_step, *thin))
    # In every panel: training first, and steps before epochs, which are drawn over them.
    return sorted(
        lines, key=lambda line: (line.metric, not line.every_step, _PHASES.index(line.phase))
    )


def _parts(tag: str) -> tuple[str, str, bool]:
    """Metric, phase, and whether the tag has the values of steps, judging by its name."""
    name, mark, loader = tag.partition("/dataloader_idx_")
    stem, _, last = name.rpartition("_")
    forked = last in {"step", "epoch"} and bool(stem)
    name = stem if forked else name
    for separator in ("/", "_"):
        first, found, rest = name.partition(separator)
        if found and rest and first.lower() in _PHASE_NAMES:
            return rest + mark + loader, _PHASE_NAMES[first.lower()], forked and last == "step"
    return name + mark + loader, "train", forked and last == "step"


def _thinned(steps: np.ndarray, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """At most about `_MOST_POINTS` points: the lowest and the highest of each section of a line.

    Unlike every n-th point or a mean, this keeps single spikes visible.
    """
    values = np.where(np.isfinite(values), values, np.nan)
    if len(steps) <= _MOST_POINTS:
        return steps, values
    width = -(-2 * len(steps) // _MOST_POINTS)
    complete = len(steps) // width * width  # points in sections of the full width
    sections = values[:complete].reshape(-1, width)
    gaps = np.isnan(sections)
    starts = np.arange(len(sections)) * width
    lowest = starts + np.where(gaps, np.inf, sections).argmin(1)
    highest = starts + np.where(gaps, -np.inf, sections).argmax(1)
    kept = np.concatenate([lowest, highest, np.arange(complete, len(steps))])
    kept = np.unique(kept)
    return steps[kept], values[kept]


def _draw(panel: Axes, metric: str, lines: Sequence[_Line], runs: Sequence[str]) -> None:
    several = len(runs) > 1
    phases = sorted({line.phase for line in lines}, key=_PHASES.index)
    with_epochs = {(line.run, line.phase) for line in lines if not line.every_step}
    for line in lines:
        index = runs.index(line.run) if several else _PHASES.index(line.phase)
        faint = line.every_step and (line.run, line.phase) in with_epochs
        few = len(line.steps) <= _FEW and not line.every_step
        panel.plot(
            line.steps,
            line.values,
            color=_PALETTE[index % len(_PALETTE)],
            linestyle=_DASHES[line.phase] if several else "-",
            linewidth=1.0 if faint or len(line.steps) > _MANY else 1.7,
            alpha=0.35 if faint else 0.9,
            marker="o" if few else None,
            markersize=3.2,
            label=f"{line.run}: {line.tag}" if several else line.tag,
            zorder=2 if faint else 3,
        )
    panel.set_title(metric, loc="left", fontsize=10, fontweight="bold", color=_INK)
    panel.set_xlabel("step", fontsize=8, color=_INK)
    panel.tick_params(labelsize=8, colors=_INK, length=0)
    panel.grid(visible=True, color=_GRID, linewidth=0.8)
    panel.set_axisbelow(True)
    panel.margins(x=0.02)
    panel.ticklabel_format(axis="x", style="sci", scilimits=(-4, 6))
    for side, spine in panel.spines.items():
        spine.set_visible(side == "bottom")
        spine.set_color("#bbbbbb")
    if several and len(phases) > 1:
        _add_phases_legend(panel, phases)
    elif not several and len(lines) > 1:
        panel.legend(fontsize=7.5, frameon=False, labelcolor=_INK)


def _add_phases_legend(panel: Axes, phases: Sequence[str]) -> None:
    from matplotlib.lines import Line2D  # noqa: PLC0415

    handles = [
        Line2D([], [], color=_INK, linestyle=_DASHES[phase], label=phase) for phase in phases
    ]
    panel.legend(handles=handles, fontsize=7.5, frameon=False, labelcolor=_INK)


def _add_runs_legend(figure: Figure, runs: Sequence[str]) -> None:
    from matplotlib.lines import Line2D  # noqa: PLC0415

    handles = [
        Line2D([], [], color=_PALETTE[index % len(_PALETTE)], linewidth=2, label=run)
        for index, run in enumerate(runs)
    ]
    figure.legend(
        handles=handles,
        loc="outside lower center",
        ncols=min(4, len(runs)),
        fontsize=8,
        frameon=False,
        labelcolor=_INK,
    )


def _save(figure: Figure, path: str | os.PathLike[str]) -> None:
    filesystem, place = open_filesystem(path)
    suffix = place.rpartition("/")[2].rpartition(".")[2].lower()
    out = io.BytesIO()
    figure.savefig(out, format=suffix if suffix in {"pdf", "svg"} else "png")
    write_whole(filesystem, place, out.getvalue())


def _figure_class() -> tuple[type[Figure], LayoutEngine]:
    """A class of figures, and a layout for them.

    A notebook shows a matplotlib figure only after pyplot was imported, so the class draws itself.
    """
    try:
        from matplotlib.figure import Figure  # noqa: PLC0415
        from matplotlib.layout_engine import ConstrainedLayoutEngine  # noqa: PLC0415
    except ImportError as error:
        raise MissingDependencyError.for_package("matplotlib", extra="plot") from error

    class ScalarsFigure(Figure):
        def _repr_png_(self) -> bytes:
            out = io.BytesIO()
            self.savefig(out, format="png")
            return out.getvalue()

    return ScalarsFigure, ConstrainedLayoutEngine(w_pad=0.1, h_pad=0.1)
