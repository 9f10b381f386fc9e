"""The command `jaxlog`, as its arguments and its output."""

from __future__ import annotations

import json
import math
import subprocess
import sys
import types

import numpy as np
import pytest

from jaxlog.command_line import main, sparkline
from jaxlog.loggers import TensorBoardLogger
from jaxlog.storage import write_whole


@pytest.fixture
def url(tmp_path) -> str:
    with TensorBoardLogger(tmp_path, "", 0) as logger:
        for step in range(20):
            logger.log_metrics({"loss": 20.0 - step}, step)
            logger.log_metrics({"val/acc": math.nan if step % 2 else step / 32}, step)
    with TensorBoardLogger(tmp_path, "", "empty_of_numbers") as logger:
        logger.log_metrics({"bad": math.inf}, 3)
    return str(tmp_path)


def test_show_has_a_line_a_tag(url, capsys) -> None:
    assert main(["show", url, "--width", "8"]) == 0
    lines = [line.rstrip() for line in capsys.readouterr().out.splitlines()]
    assert lines == [
        "run               tag      step  last  least    most  points  course",
        "empty_of_numbers  bad         3   inf    nan     nan       1",
        "version_0         loss       19     1      1      20      20  █▇▆▄▃▂▁▁",
        "version_0         val/acc    19   nan      0  0.5625      20  ▁▂▃▅▆▇██",
    ]


def test_show_takes_patterns(url, capsys) -> None:
    assert main(["show", url, "--runs", "version*", "--tags", "l*", "x"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2
    assert main(["show", url, "--tags", "none"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 1


@pytest.mark.parametrize(
    ("values", "line"),
    [
        ([], ""), ([math.nan], " "), ([1.0], "▄"), ([0, 1], "▁█"), ([1e308, -1e308], "█▁"),
        ([1.7e308] * 4, "▄▄▄"), ([math.inf, 1, 2], " ▁█"), ([5e-324, 0], "▄▄"),
    ],
)  # fmt: skip
def test_a_course_is_drawn_from_anything(values, line) -> None:
    assert sparkline(values, 3) == line


def test_tail_prints_the_latest_first_and_then_what_comes(url, capsys, monkeypatch) -> None:
    looks = []

    def sleep(seconds: float) -> None:
        looks.append(seconds)
        if len(looks) == 1:
            with TensorBoardLogger(url, "", "later") as logger:
                logger.log_metrics({"loss": 0.125}, 7)
        if len(looks) == 3:
            raise KeyboardInterrupt

    module = sys.modules["jaxlog.command_line.main"]  # its name is the function's too
    monkeypatch.setattr(module, "time", types.SimpleNamespace(sleep=sleep))
    assert main(["tail", url, "-n", "2", "--poll", "0.5", "--tags", "loss"]) == 130
    assert capsys.readouterr().out.splitlines() == [
        "version_0  loss  step 18  2", "version_0  loss  step 19  1", "later  loss  step 7  0.125",
    ]  # fmt: skip
    assert looks == [0.5] * 3


@pytest.mark.parametrize("lines", [0, 3, 1000])
def test_tail_may_end_at_once(url, capsys, lines) -> None:
    assert main(["tail", url, "-n", str(lines), "--idle", "0"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == min(lines, 41)


def test_export_to_csv(url, capsys) -> None:
    assert main(["export", url, "--to", "csv", "--tags", "bad"]) == 0
    head, row = capsys.readouterr().out.splitlines()
    assert head == "run,tag,step,wall_time,value"
    assert row.split(",")[:3] == ["empty_of_numbers", "bad", "3"]
    assert row.endswith(",inf")


def test_export_to_json_lines_is_strict_json(url, capsys) -> None:
    def refuse(word: str) -> None:
        raise ValueError(word)

    assert main(["export", url, "--to", "jsonl", "--pivot"]) == 0
    lines = capsys.readouterr().out.splitlines()
    rows = [json.loads(line, parse_constant=refuse) for line in lines]
    assert rows[0] == {
        "run": "empty_of_numbers", "step": 3, "bad": "Infinity", "loss": "NaN", "val/acc": "NaN",
    }  # fmt: skip
    assert rows[1]["loss"] == 20.0
    assert len(rows) == 21


def test_export_to_parquet_reads_back(url, capsys, memory_url) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    assert main(["export", url, "--to", "parquet"]) == 1
    assert "name a file: --output" in capsys.readouterr().err
    target = f"{url}/table.parquet"
    assert main(["export", url, "--to", "parquet", "-o", target]) == 0
    assert capsys.readouterr().err == f"41 rows in {target}\n"
    table = parquet.read_table(target).to_pydict()
    assert table["value"][0] == math.inf
    assert set(table["tag"]) == {"bad", "loss", "val/acc"}
    assert main(["export", url, "--to", "csv", "-o", f"{memory_url}/a.csv"]) == 0


def test_parquet_without_pyarrow_says_what_to_install(url, capsys, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    assert main(["export", url, "--to", "parquet", "-o", f"{url}/a"]) == 1
    assert 'pip install "jaxlog[parquet]"' in capsys.readouterr().err


def test_upload_empties_a_spool(tmp_path, capsys) -> None:
    import fsspec

    folder = tmp_path / "memory-0123456789ab"
    write_whole(fsspec.filesystem("file"), str(folder / "main-upload" / "file"), b"abc")
    assert main(["upload", str(folder)]) == 0
    assert capsys.readouterr().out == "1 files uploaded\n"
    assert fsspec.filesystem("memory").cat_file("/main-upload/file") == b"abc"
    assert main(["upload", str(folder)]) == 1
    assert "nothing found" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["show", "export"])
def test_nothing_there_is_an_error(tmp_path, capsys, command) -> None:
    more = ["--to", "csv"] if command == "export" else []
    assert main([command, str(tmp_path), *more]) == 1
    assert "jaxlog: no event file at or below" in capsys.readouterr().err


def test_options_of_the_filesystem_are_json(url, capsys) -> None:
    assert main(["show", url, "--storage-options", '{"auto_mkdir": false}']) == 0
    with pytest.raises(SystemExit):
        main(["show", url, "--storage-options", "no json"])
    assert "invalid loads value" in capsys.readouterr().err


def test_it_is_a_module_and_a_closed_pipe_is_no_error(url) -> None:
    command = f"{sys.executable} -m jaxlog export {url} --to csv | head -n 1"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=True)
    assert done.stdout == "run,tag,step,wall_time,value\n"
    assert done.stderr == ""


def test_a_large_table_is_drawn_by_means(capsys) -> None:
    line = sparkline(np.sin(np.linspace(0, 6.28, 10_000)), 20)
    assert len(line) == 20
    assert line.index("█") < line.index("▁")
