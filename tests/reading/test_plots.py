"""plot_scalars: the panels, their lines, and the file it saves."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from jaxlog.errors import MissingDependencyError, ReadError
from jaxlog.loggers import TensorBoardLogger
from jaxlog.reading import plot_scalars, read_scalars
from jaxlog.storage import open_filesystem, read_whole

TAGS = (
    "loss_step",
    "loss_epoch",
    "val_loss",
    "test_loss",
    "grad_norm",
    "epoch",
    "train/acc",
    "val/acc",
)


@pytest.fixture
def runs(memory_url) -> str:
    for run in ("one", "two"):
        with TensorBoardLogger(memory_url, run, "") as logger:
            for step in range(50):
                logger.log_metrics(dict.fromkeys(TAGS, step / 2), step)
    return memory_url


def panels(figure) -> dict[str, list[str]]:
    return {
        panel.get_title(loc="left"): [line.get_label() for line in panel.lines]
        for panel in figure.axes
    }


def test_a_panel_holds_a_metric_in_all_its_phases(runs) -> None:
    assert panels(plot_scalars(f"{runs}/one")) == {
        "acc": ["train/acc", "val/acc"],
        "grad_norm": ["grad_norm"],
        "loss": ["loss_step", "loss_epoch", "val_loss", "test_loss"],
    }


def test_several_runs_share_panels(runs) -> None:
    figure = plot_scalars(runs, tags=["val_loss", "grad_norm"])
    assert panels(figure) == {
        "grad_norm": ["one: grad_norm", "two: grad_norm"],
        "loss": ["one: val_loss", "two: val_loss"],
    }
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["one", "two"]


@pytest.mark.parametrize("backend", ["pandas", "polars", "numpy"])
def test_any_table_is_drawn(runs, backend) -> None:
    table = read_scalars(runs, backend=backend)
    assert list(panels(plot_scalars(table))) == ["acc", "grad_norm", "loss"]


def test_steps_are_faint_beside_epochs(runs) -> None:
    [panel] = plot_scalars(f"{runs}/one", tags="loss_*").axes
    step, epoch = panel.lines
    assert (step.get_alpha(), epoch.get_alpha()) == (0.35, 0.9)
    assert step.get_color() == epoch.get_color()


def test_epoch_is_drawn_when_asked_for(runs) -> None:
    assert list(panels(plot_scalars(runs, tags="epoch"))) == ["epoch"]


def test_loaders_have_panels_of_their_own() -> None:
    tags = ["val_acc/dataloader_idx_0", "val_acc/dataloader_idx_1", "acc_epoch/dataloader_idx_0"]
    table = {"run": ["."] * 3, "tag": tags, "step": [0] * 3, "value": [1.0] * 3}
    assert list(panels(plot_scalars(table))) == ["acc/dataloader_idx_0", "acc/dataloader_idx_1"]


@pytest.mark.parametrize(
    ("name", "start"),
    [("a.png", b"\x89PNG"), ("a", b"\x89PNG"), ("a.svg", b"<?xml"), ("a.pdf", b"%PDF")],
)
def test_the_figure_is_saved(runs, place, name, start) -> None:
    figure = plot_scalars(runs, tags="val_loss", path=f"{place}/{name}")
    assert read_whole(*open_filesystem(f"{place}/{name}")).startswith(start)
    assert figure._repr_png_().startswith(b"\x89PNG")  # type: ignore[attr-defined]


def test_pyplot_is_not_touched(runs, monkeypatch) -> None:
    monkeypatch.delitem(sys.modules, "matplotlib.pyplot", raising=False)
    plot_scalars(runs)
    assert "matplotlib.pyplot" not in sys.modules


def test_a_long_line_keeps_its_peaks_and_gaps() -> None:
    values = np.zeros(100_001)
    values[[77_777, 33_333, 100_000]] = 9.0, -9.0, 5.0
    values[5000:15_000] = np.nan
    table = {
        "run": np.full(len(values), "."),
        "tag": np.full(len(values), "a"),
        "step": np.arange(len(values)),
        "value": values,
    }
    [line] = plot_scalars(table).axes[0].lines
    steps, drawn = np.asarray(line.get_xdata()), np.asarray(line.get_ydata())
    assert len(drawn) <= 4100
    assert {77_777, 33_333, 100_000} <= set(steps.astype(int).tolist())
    assert (np.nanmin(drawn), np.nanmax(drawn), drawn[-1]) == (-9.0, 9.0, 5.0)
    assert np.isnan(drawn[(steps > 6000) & (steps < 14_000)]).all()


def test_infinities_leave_a_gap() -> None:
    table = {"run": ["."] * 3, "tag": ["a"] * 3, "step": [0, 1, 2], "value": [1.0, np.inf, 2.0]}
    [line] = plot_scalars(table).axes[0].lines
    assert np.isnan(np.asarray(line.get_ydata())).tolist() == [False, True, False]


def test_nothing_to_draw_is_an_error(runs) -> None:
    with pytest.raises(ReadError, match=r"nothing to draw: .* fits 'none'"):
        plot_scalars(runs, tags="none")


def test_missing_matplotlib_says_what_to_install(monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(MissingDependencyError, match=r'pip install "jaxlog\[plot\]"'):
        plot_scalars({})
