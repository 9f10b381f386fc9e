"""The table on storage after each flush, whatever columns come when."""

from __future__ import annotations

import csv
import io
import math

import pytest

from jaxlog.storage import (
    Block,
    CSVFile,
    Row,
    Uploads,
    csv_file,
    open_filesystem,
    read_whole,
    uploads,
    write_whole,
)


def text_of(url: str) -> str:
    return read_whole(*open_filesystem(url)).decode()


def table_of(url: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text_of(url), newline="")))


@pytest.fixture
def url(place) -> str:
    return f"{place}/run/metrics.csv"


def test_rows_are_appended(url) -> None:
    table = CSVFile(Uploads(url.rpartition("/")[0]))
    for step in range(3):
        table.write([Row.of({"b": step / 2, "a": 1.0}, step, 0.0)])
        table.flush()
    assert text_of(url) == "step,a,b\n0,1,0\n1,1,0.5\n2,1,1\n"


def test_a_new_column_moves_the_rest(url) -> None:
    table = CSVFile(Uploads(url.rpartition("/")[0]))
    table.write([Row.of({"b": 0.5}, 0, 0.0)])
    table.flush()
    table.write([Row.of({"a": 1.5}, 1, 0.0), Block.row({"c": 2.5, "b": 3.5}, 2)])
    table.flush()
    assert text_of(url) == "step,a,b,c\n0,,0.5,\n1,1.5,,\n2,,3.5,2.5\n"


def test_numbers_read_back_as_they_were(url) -> None:
    values = [0.1, 1e300, 5e-324, -0.0, math.inf, -math.inf, 1 / 3, 12345678.0]
    table = CSVFile(Uploads(url.rpartition("/")[0]))
    table.write([Row.of({"a": value}, step, 0.0) for step, value in enumerate(values)])
    table.write([Row.of({"a": math.nan}, 99, 0.0)])
    table.close()
    found = [float(row["a"]) for row in table_of(url)]
    assert found[:-1] == values
    assert math.isnan(found[-1])


def test_any_tag_is_a_column(url) -> None:
    tags = ["a,b", 'say "x"', "line\nbreak", "é", " ", "bad\ud800"]
    table = CSVFile(Uploads(url.rpartition("/")[0]))
    for tag in tags:
        table.write([Row.of({tag: 1.0}, 0, 0.0)])
        table.flush()
    assert set(table_of(url)[0]) == {"step", *tags[:-1], "bad\\ud800"}


def test_a_table_that_is_there_is_continued(url) -> None:
    for start, tag in ((0, "b"), (2, "a")):
        table = CSVFile(Uploads(url.rpartition("/")[0]))
        table.write([Row.of({tag: 1.0}, start, 0.0), Row.of({"b": 2.0}, start + 1, 0.0)])
        table.close()
    assert text_of(url) == "step,a,b\n0,,1\n1,,2\n2,1,\n3,,2\n"


def test_half_a_line_of_a_killed_session_is_dropped(url) -> None:
    write_whole(*open_filesystem(url), b"step,a\n0,1\n1,2")
    table = CSVFile(Uploads(url.rpartition("/")[0]))
    table.write([Row.of({"a": 3.0}, 2, 0.0)])
    table.close()
    assert text_of(url) == "step,a\n0,1\n2,3\n"


def test_a_table_of_lightning_is_continued(url) -> None:
    write_whole(*open_filesystem(url), b"epoch,step,loss\n0,7,1.5\n")
    table = CSVFile(Uploads(url.rpartition("/")[0]))
    table.write([Row.of({"loss": 3.0}, 8, 0.0)])
    table.close()
    assert text_of(url) == "step,epoch,loss\n7,0,1.5\n8,,3\n"


def test_an_empty_file_is_continued(url) -> None:
    write_whole(*open_filesystem(url), b"")
    table = CSVFile(Uploads(url.rpartition("/")[0]))
    table.write([Row.of({"loss": 3.0}, 8, 0.0)])
    table.close()
    assert text_of(url) == "step,loss\n8,3\n"


@pytest.mark.parametrize("row", [{"a": 2.0}, {"b": 2.0}])
def test_a_failed_write_is_tried_again(url, monkeypatch, row) -> None:
    table = CSVFile(Uploads(url.rpartition("/")[0]))
    table.write([Row.of({"a": 1.0}, 0, 0.0)])
    table.flush()
    before = text_of(url)

    def fail(*_arguments) -> None:
        raise OSError("no")

    table.write([Row.of(row, 1, 0.0)])
    with monkeypatch.context() as patch:
        patch.setattr(uploads, "write_whole", fail)
        patch.setattr(csv_file, "append_whole", fail)
        with pytest.raises(OSError, match="no"):
            table.flush()
    assert text_of(url) == before
    table.close()
    assert [line["step"] for line in table_of(url)] == ["0", "1"]


def test_uploads_get_rarer_as_the_table_grows(memory_url, tmp_path) -> None:
    table = CSVFile(Uploads(memory_url))
    assert table.min_interval_secs == 1.0
    table._saved = bytes(30_000_000)
    assert table.min_interval_secs == pytest.approx(3.0)
    assert CSVFile(Uploads(str(tmp_path))).min_interval_secs == 0.0
