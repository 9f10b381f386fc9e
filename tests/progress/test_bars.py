"""Progress bars: what is drawn where, when, and by whom."""

from __future__ import annotations

import io
import re
import subprocess
import sys
import types
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np
import pytest
from rich.console import Console

import jaxlog
from jaxlog.errors import LogArgumentError, MissingDependencyError
from jaxlog.progress import bar as bar_module
from tests.loop.rig import batches, loop_of

KINDS = ["tqdm", "rich"]
CLASSES: dict[str, Any] = {"tqdm": jaxlog.TqdmProgressBar, "rich": jaxlog.RichProgressBar}
CODES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


class Screen(io.StringIO):
    """A stream that says it is a terminal, or that it is none."""

    def __init__(self, *, terminal: bool) -> None:
        super().__init__()
        self._terminal = terminal

    def isatty(self) -> bool:
        return self._terminal

    @property
    def text(self) -> str:
        """All that was ever drawn, without colours and moves."""
        return CODES.sub("", self.getvalue())

    @property
    def lines(self) -> list[str]:
        return [line.strip() for line in re.split(r"[\r\n]+", self.text) if line.strip()]


def bar_on(screen: Screen, kind: str, cls: Any = None, **options: Any) -> Any:
    cls = cls or CLASSES[kind]
    if kind == "tqdm":
        return cls(file=screen, **options)
    # On a terminal that can be written over, whatever this test runs in.
    console = Console(file=screen, force_terminal=screen.isatty(), width=200, color_system=None,
                      _environ={"TERM": "xterm"})  # fmt: skip
    return cls(console=console, **options)


def train_step(batch: Any) -> None:
    jaxlog.log("loss", batch.mean(), prog_bar=True, on_epoch=True)
    jaxlog.log("unseen", batch.mean())


def eval_step(batch: Any) -> None:
    jaxlog.log("val", batch.mean(), prog_bar=True)


def run(bar: Any, *, epochs: int = 2, loader: Any = None, validation: Any = None) -> jaxlog.Loop:
    loop, _ = loop_of(progress_bar=bar)
    train, evaluate = loop.training_step(train_step), loop.validation_step(eval_step)
    with loop:
        for _ in loop.epochs(epochs):
            for batch in loop.train(batches(1, 2, 3) if loader is None else loader()):
                train(batch)
                jax.block_until_ready(train.last_rows)
            if validation is not None:
                for batch in loop.validate(validation):
                    evaluate(batch)
    return loop


# ---- in a terminal ------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_an_epoch_is_a_bar_that_stays(kind: str) -> None:
    screen = Screen(terminal=True)
    run(bar_on(screen, kind, refresh_secs=0))
    for epoch in ("Epoch 0/1", "Epoch 1/1"):
        drawn = [line for line in screen.lines if epoch in line]
        assert "3/3" in drawn[-1]
        assert re.search(r"loss_step[= ]3", drawn[-1])
        assert re.search(r"loss_epoch[= ]2", drawn[-1])
        assert any("1/3" in line for line in drawn)
    assert "unseen" not in screen.text


@pytest.mark.parametrize("kind", KINDS)
def test_without_a_length_there_is_no_total(kind: str) -> None:
    screen = Screen(terminal=True)
    run(bar_on(screen, kind, refresh_secs=0), epochs=1, loader=lambda: iter(batches(1, 2)))
    last = [line for line in screen.lines if "Epoch 0/0" in line][-1]
    assert ("2/?" if kind == "rich" else "2batch") in last


class Stream(list):
    """A loader of unknown length: Python's `for` takes it, `len` raises."""

    def __len__(self) -> int:
        raise TypeError("the length of this stream is not known")

    def __bool__(self) -> bool:
        return True


@pytest.mark.parametrize("kind", KINDS)
def test_a_length_that_raises_is_an_unknown_one(kind: str) -> None:
    screen = Screen(terminal=True)
    run(
        bar_on(screen, kind, refresh_secs=0),
        epochs=1,
        loader=lambda: Stream(batches(1, 2)),
        validation=Stream(batches(4)),
    )
    last = [line for line in screen.lines if "Epoch 0/0" in line][-1]
    assert ("2/?" if kind == "rich" else "2batch") in last


@pytest.mark.parametrize("kind", KINDS)
def test_validation_is_a_bar_below_the_epochs(kind: str) -> None:
    screen = Screen(terminal=True)
    run(bar_on(screen, kind, refresh_secs=0), epochs=1, validation=batches(4, 4))
    below = [line for line in screen.lines if "Validation" in line]
    assert any("1/2" in line for line in below)
    assert "2/2" in below[-1]
    assert not any("loss" in line for line in below)
    assert re.search(r"val[= ]4", [line for line in screen.lines if "Epoch 0/0" in line][-1])


@pytest.mark.parametrize("kind", KINDS)
def test_each_loader_has_a_bar(kind: str) -> None:
    screen = Screen(terminal=True)
    run(bar_on(screen, kind, refresh_secs=0), epochs=1, validation=[batches(4, 4), batches(5)])
    assert any("Validation 1" in line and "1/1" in line for line in screen.lines)
    assert any("Validation" in line and "2/2" in line for line in screen.lines)


@pytest.mark.parametrize("kind", KINDS)
def test_before_validation_the_epoch_shows_where_it_stopped(kind: str) -> None:
    """However long ago it was last redrawn."""
    screen = Screen(terminal=True)
    run(bar_on(screen, kind, refresh_secs=1e9), epochs=1, validation=batches(4))
    shown = screen.text[: screen.text.index("Validation")]
    assert "3/3" in shown


@pytest.mark.parametrize("kind", KINDS)
def test_test_alone_is_a_bar_that_stays(kind: str) -> None:
    screen = Screen(terminal=True)
    loop, _ = loop_of(progress_bar=bar_on(screen, kind, refresh_secs=0))
    step = loop.test_step(eval_step)
    with loop:
        for batch in loop.test(batches(1, 2)):
            step(batch)
    last = screen.lines[-1]
    assert "Testing" in last
    assert "2/2" in last


@pytest.mark.parametrize("kind", KINDS)
def test_redraws_wait_for_their_time(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(bar_module, "time", types.SimpleNamespace(monotonic=lambda: now[0]))
    drawn = []

    class Clocked(CLASSES[kind]):
        def get_metrics(self, loop: Any) -> dict[str, Any]:
            drawn.append(now[0])
            return {}

    def loader() -> Iterator[np.ndarray]:
        for batch in batches(*range(10)):
            yield batch
            now[0] += 1.0

    run(bar_on(Screen(terminal=True), kind, Clocked, refresh_secs=3.5), epochs=1, loader=loader)
    assert drawn == [104.0, 108.0, 110.0]  # the last when the epoch is over


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("leave", [True, False])
def test_leave(kind: str, leave: bool) -> None:
    screen = Screen(terminal=True)
    run(bar_on(screen, kind, leave=leave, refresh_secs=0), epochs=1)
    ending = screen.getvalue()[-200:]
    # tqdm overwrites with blanks; rich moves up and erases.
    gone = ending.rstrip("\r").endswith("   ") or "\x1b[2K" in ending.split("Epoch")[-1]
    assert gone is not leave


@pytest.mark.parametrize("kind", KINDS)
def test_an_error_leaves_the_terminal_in_order(kind: str) -> None:
    screen = Screen(terminal=True)

    def loader() -> Iterator[np.ndarray]:
        yield from batches(1, 2)
        raise RuntimeError("user's own")

    with pytest.raises(RuntimeError, match="user's own"):
        run(bar_on(screen, kind, refresh_secs=0), loader=loader)
    assert screen.getvalue().rstrip(" ").endswith("\n" if kind == "tqdm" else "\x1b[?25h")


@pytest.mark.parametrize("kind", KINDS)
def test_a_bar_that_cannot_draw_leaves_the_terminal_in_order(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Failing(CLASSES[kind]):
        def get_metrics(self, loop: Any) -> dict[str, Any]:
            raise RuntimeError("user's own")

    screen, out = Screen(terminal=True), io.StringIO()
    monkeypatch.setattr(sys, "stdout", out)
    with pytest.raises(RuntimeError, match="user's own"):
        run(bar_on(screen, kind, Failing, refresh_secs=0), validation=batches(4))
    assert sys.stdout is out
    assert screen.getvalue().rstrip(" ").endswith("\n" if kind == "tqdm" else "\x1b[?25h")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["acc[val]", "acc[/val]", "acc\\", "acc{val}"])
def test_a_name_is_shown_as_it_is(kind: str, name: str) -> None:
    class Own(CLASSES[kind]):
        def get_metrics(self, loop: Any) -> dict[str, Any]:
            return {name: name}

    screen = Screen(terminal=True)
    run(bar_on(screen, kind, Own, refresh_secs=0), epochs=1)
    assert re.search(re.escape(name) + "[= ]" + re.escape(name), screen.lines[-1])


# ---- elsewhere ----------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_where_nothing_can_be_drawn_an_epoch_is_a_line(kind: str) -> None:
    screen = Screen(terminal=False)
    run(bar_on(screen, kind), validation=batches(4))
    assert screen.getvalue().splitlines() == [
        "Epoch 0/1: 3/3 batches, loss_step=3, val=4, loss_epoch=2",
        "Epoch 1/1: 3/3 batches, loss_step=3, val=4, loss_epoch=2",
    ]


def test_under_pytests_capture(capsys: pytest.CaptureFixture[str]) -> None:
    for bar in (True, jaxlog.RichProgressBar()):
        run(bar, epochs=1)
        said = capsys.readouterr()
        assert (said.out, said.err) == ("", "Epoch 0/0: 3/3 batches, loss_step=3, loss_epoch=2\n")


@pytest.mark.parametrize("name", ["TqdmProgressBar", "RichProgressBar"])
def test_a_pipe_is_no_terminal_where_colour_is_forced(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    run(getattr(jaxlog, name)(), epochs=1)
    assert capsys.readouterr().err == "Epoch 0/0: 3/3 batches, loss_step=3, loss_epoch=2\n"


@pytest.mark.parametrize("name", ["TqdmProgressBar", "RichProgressBar"])
def test_lines_go_to_the_stream_of_then(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    early, late = Screen(terminal=True), Screen(terminal=False)
    monkeypatch.setattr(sys, "stderr", early)
    bar = getattr(jaxlog, name)()
    monkeypatch.setattr(sys, "stderr", late)
    early.close()
    run(bar, epochs=1)
    assert late.text.startswith("Epoch 0/0: 3/3 batches")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("terminal", [True, False])
def test_only_process_0_draws(kind: str, terminal: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jax, "process_index", lambda: 1)
    screen = Screen(terminal=terminal)
    run(bar_on(screen, kind, refresh_secs=0), validation=batches(4))
    assert screen.getvalue() == ""


def test_in_a_notebook_tqdm_draws_widgets(monkeypatch: pytest.MonkeyPatch) -> None:
    shell = type("ZMQInteractiveShell", (), {})()
    monkeypatch.setitem(sys.modules, "IPython", types.SimpleNamespace(get_ipython=lambda: shell))
    made = []

    class Widget:
        n = 0

        def __init__(self, **options: Any) -> None:
            made.append(options["desc"])

        def update(self, count: int) -> None:
            self.n += count

        def set_postfix(self, values: Any, *, refresh: bool) -> None: ...
        def refresh(self) -> None: ...
        def close(self) -> None: ...

    monkeypatch.setattr("importlib.util.find_spec", lambda name: name == "ipywidgets")
    monkeypatch.setitem(sys.modules, "tqdm.notebook", types.SimpleNamespace(tqdm=Widget))
    run(jaxlog.TqdmProgressBar(file=Screen(terminal=False)), epochs=1)
    assert made == ["Epoch 0/0"]


def test_in_a_notebook_rich_draws_into_the_cell(monkeypatch: pytest.MonkeyPatch) -> None:
    shell = type("ZMQInteractiveShell", (), {})()
    monkeypatch.setitem(sys.modules, "IPython", types.SimpleNamespace(get_ipython=lambda: shell))
    assert not jaxlog.RichProgressBar().console.stderr
    monkeypatch.delitem(sys.modules, "IPython")
    assert jaxlog.RichProgressBar().console.stderr


def test_in_a_notebook_without_widgets_rich_writes_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    """It could only warn, and show nothing."""
    monkeypatch.setitem(sys.modules, "ipywidgets", None)
    screen = Screen(terminal=False)
    run(jaxlog.RichProgressBar(console=Console(file=screen, force_jupyter=True)), epochs=1)
    assert screen.text == "Epoch 0/0: 3/3 batches, loss_step=3, loss_epoch=2\n"


# ---- what it costs, and what is refused ---------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_a_bar_fetches_one_row_at_a_time_and_waits_only_at_the_end(kind: str) -> None:
    copies = []

    class Watching(CLASSES[kind]):
        def on_train_batch_end(self, loop: Any, *args: Any) -> None:
            super().on_train_batch_end(loop, *args)
            copies.append((loop.cost().copies, loop.blocked_secs))

    run(bar_on(Screen(terminal=True), kind, Watching, refresh_secs=0), epochs=1)
    assert [count for count, _ in copies] == [1, 2, 3]
    assert {blocked for _, blocked in copies} == {0.0}


def test_no_bar_imports_no_drawing() -> None:
    script = """
import sys, jaxlog
with jaxlog.Loop(False, progress_bar=False) as loop:
    for _ in loop.train([1, 2]): pass
print([name for name in ("tqdm", "rich.progress", "rich.console") if name in sys.modules])
"""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=120
    )
    assert done.stdout.splitlines()[-1] == "[]"


def test_get_metrics_is_what_is_shown() -> None:
    class Own(jaxlog.TqdmProgressBar):
        def get_metrics(self, loop: Any) -> dict[str, Any]:
            items = super().get_metrics(loop)
            items.pop("loss_step", None)
            return {**items, "lr": 0.001234, "phase": "warm"}

    screen = Screen(terminal=False)
    run(Own(file=screen), epochs=1)
    assert screen.getvalue() == ("Epoch 0/0: 3/3 batches, loss_epoch=2, lr=0.00123, phase=warm\n")


def test_the_version_of_the_logger_is_shown() -> None:
    screen = Screen(terminal=False)
    logger = jaxlog.TensorBoardLogger("memory://bars", version=7)
    loop = jaxlog.Loop(logger, progress_bar=jaxlog.TqdmProgressBar(file=screen))
    with loop:
        for _ in loop.train(batches(1)):
            pass
    assert screen.getvalue() == "Epoch 0: 1/1 batches, v_num=7\n"


@pytest.mark.parametrize("cls", [jaxlog.TqdmProgressBar, jaxlog.RichProgressBar])
def test_a_negative_time_is_refused(cls: Any) -> None:
    with pytest.raises(LogArgumentError, match=rf"{cls.__name__}\(refresh_secs=-1\)"):
        cls(refresh_secs=-1)


def test_without_rich_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "rich.console", None)
    with pytest.raises(MissingDependencyError, match=r'pip install "jaxlog\[rich\]"'):
        jaxlog.RichProgressBar()
