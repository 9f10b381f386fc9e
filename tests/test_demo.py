"""The demonstration, as a newcomer meets it, and its run as TensorBoard serves it."""

from __future__ import annotations

import json
import os
import pathlib
import subprocess
import sys
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from typing import Any

import pytest

from jaxlog import demo, read_scalars

TAGS = {
    "accuracy_epoch",
    "accuracy_step",
    "epoch",
    "grad_norm",
    "layer/units_off",
    "loss_epoch",
    "loss_step",
    "val_accuracy",
    "val_loss",
}
EPOCHS = 2
STEPS_AN_EPOCH = 23


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> tuple[pathlib.Path, str, str]:
    """The log directory, and what the demo printed and drew."""
    log_dir = tmp_path_factory.mktemp("demo")
    command = [sys.executable, "-m", "jaxlog.demo", "--log-dir", str(log_dir), "--epochs", "2"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return log_dir, done.stdout, done.stderr


def test_it_learns_and_writes_every_tag(run: tuple[pathlib.Path, str, str]) -> None:
    table = read_scalars(str(run[0]))
    assert set(table["tag"]) == TAGS
    losses = table[table["tag"] == "loss_epoch"]["value"].tolist()
    assert len(losses) == EPOCHS
    assert losses[1] < losses[0] / 2
    steps = table[table["tag"] == "loss_step"]["step"].tolist()
    assert steps == [s for s in range(EPOCHS * STEPS_AN_EPOCH) if (s + 1) % 5 == 0]


def test_it_says_where_everything_is(run: tuple[pathlib.Path, str, str]) -> None:
    log_dir, printed, drawn = run
    assert f"tensorboard --logdir {log_dir}" in printed
    assert all(tag in printed for tag in TAGS)
    picture = pathlib.Path(printed.split("curves:")[1].split()[0])
    assert picture.read_bytes().startswith(b"\x89PNG")
    # No terminal: one line an epoch instead of a bar.
    lines = [line for line in drawn.splitlines() if line.startswith("Epoch")]
    assert len(lines) == EPOCHS
    assert "loss_step=" in lines[0]


def test_without_scikit_learn_it_names_the_pip_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sklearn", None)
    with pytest.raises(ImportError, match=r'pip install "jaxlog\[demo\]"'):
        demo.load_digits()


@pytest.fixture(params=["auto", "false"])
def server(request: pytest.FixtureRequest, run: tuple[pathlib.Path, str, str]) -> Iterator[str]:
    """The address of a TensorBoard on a free loopback port, with each of its two loaders."""
    command = [sys.executable, "-m", "tensorboard.main", "--logdir", str(run[0])]
    command += ["--host", "127.0.0.1", "--port", "0", "--load_fast", request.param]
    environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment) as process:
        try:
            assert process.stderr is not None
            line = next(line for line in process.stderr if "http://" in line)
            yield "http://" + line.split("http://")[1].split("/")[0]
        finally:
            process.kill()


def ask(address: str, path: str, **query: str) -> Any:
    url = f"{address}/data/plugin/scalars/{path}?{urllib.parse.urlencode(query)}"
    try:
        with urllib.request.urlopen(url, timeout=30) as reply:
            return json.load(reply)
    except urllib.error.HTTPError as error:  # it has not loaded that far
        error.close()
        return {}


@pytest.mark.slow
def test_tensorboard_serves_the_run(server: str, run: tuple[pathlib.Path, str, str]) -> None:
    name = "digits/version_0"
    served: dict[str, Any] = {}
    series: list[Any] = []
    for _ in range(20_000):  # it loads in the background; each question takes milliseconds
        served = ask(server, "tags")
        series = ask(server, "scalars", run=name, tag="loss_epoch") if name in served else []
        if len(series) == EPOCHS:
            break
    assert set(served[name]) == TAGS
    table = read_scalars(str(run[0]))
    written = table[table["tag"] == "loss_epoch"]
    assert [point[1] for point in series] == written["step"].tolist()
    assert [point[2] for point in series] == pytest.approx(written["value"].tolist(), rel=1e-6)
