"""`CSVFile`: one table of metrics as text, appended to on a disk, put whole anywhere else."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from jaxlog.storage.block import Block, Row, blocks_of
from jaxlog.storage.filesystem import (
    append_whole,
    is_local,
    open_filesystem,
    read_whole,
    write_whole,
)
from jaxlog.storage.hyperparams import Hyperparams, HyperparamsFile

__all__ = ["CSVFile"]

_SECS_PER_BYTE = 1e-7  # uploads of the whole table get rarer as it grows


class CSVFile:
    """A `step` column, then the tags sorted; one line a row, absent cells empty.

    A tag that was not seen before adds a column, for which the file is written anew. A table that
    is there already is continued.

    Args:
        url: local path or URL of the file.
        hyperparams: where `hparams.yaml` goes; None for nowhere.
        storage_options: passed to the filesystem.

    Example:
        >>> table = CSVFile("memory://csv_file/metrics.csv")
        >>> table.write([Row({"loss": 0.5}, 0, 0.0), Row({"accuracy": 1.0}, 1, 0.0)])
        >>> table.flush()
        >>> filesystem, path = open_filesystem("memory://csv_file/metrics.csv")
        >>> print(filesystem.cat_file(path).decode())
        step,accuracy,loss
        0,,0.5
        1,1,
        <BLANKLINE>
    """

    def __init__(
        self,
        url: str,
        hyperparams: HyperparamsFile | None = None,
        *,
        storage_options: Mapping[str, Any] | None = None,
    ) -> None:
        self._filesystem, self._path = open_filesystem(url, storage_options)
        self._is_local = is_local(self._filesystem)
        self._url = url
        self._hyperparams = hyperparams
        self._header: list[str] | None = None  # None until a table already there was looked for
        self._saved = b""  # where not local: all that is on storage
        self._waiting: list[tuple[int, dict[str, float]]] = []

    @property
    def path(self) -> str:
        """The file, as it was named."""
        return self._url

    @property
    def min_interval_secs(self) -> float:
        """Least time between two uploads that nobody waits for."""
        return 0.0 if self._is_local else max(1.0, len(self._saved) * _SECS_PER_BYTE)

    def write(self, items: Sequence[Block | Row | Hyperparams]) -> None:
        """Takes items in order; they are on storage after the next `flush`."""
        for block in blocks_of(item for item in items if isinstance(item, Block | Row)):
            self._waiting.extend((step, row) for step, _, row in block.rows())
        for item in items:
            if isinstance(item, Hyperparams) and self._hyperparams is not None:
                self._hyperparams.take(item.params)

    def flush(self) -> None:
        """Puts everything taken on storage; what fails is kept for the next time."""
        if self._waiting:
            self._save()
            self._waiting = []
        if self._hyperparams is not None:
            self._hyperparams.flush()

    def close(self) -> None:
        """Flushes; the file is open only while it is written."""
        self.flush()

    def _save(self) -> None:
        if self._header is None:
            self._header, self._saved = self._continued()
        tags = {tag for _, row in self._waiting for tag in row}
        header = ["step", *sorted(tags.union(self._header) - {"step"})]
        if header == self._header and self._is_local:
            with Path(self._path).open("ab", buffering=0) as file:
                append_whole(file, _text(self._cells(header)))
            return
        if header == self._header:
            text = self._saved + _text(self._cells(header))
        else:
            on_disk = self._is_local and self._header
            old = _rows(Path(self._path).read_bytes() if on_disk else self._saved)
            text = _text([header, *_moved(old, header), *self._cells(header)])
        write_whole(self._filesystem, self._path, text)
        # Only now: a write that failed has changed nothing, and can be tried again.
        self._header = header
        if not self._is_local:
            self._saved = text

    def _cells(self, header: Sequence[str]) -> Iterable[list[str]]:
        for step, row in self._waiting:
            yield [str(step), *(_cell(row[tag]) if tag in row else "" for tag in header[1:])]

    def _continued(self) -> tuple[list[str], bytes]:
        """Header and content of the table that an earlier session left; none for a fresh one."""
        try:
            text = read_whole(self._filesystem, self._path)
        except FileNotFoundError:
            return [], b""
        # A session that was killed may have left half a line, which would swallow the next.
        whole = text[: text.rfind(b"\n") + 1]
        if whole != text:
            write_whole(self._filesystem, self._path, whole)
        header = next(iter(_rows(whole)), [])
        return header, b"" if self._is_local else whole


def _moved(table: list[list[str]], header: Sequence[str]) -> Iterable[list[str]]:
    """The rows of a table, below another header."""
    for row in table[1:]:
        cells = dict(zip(table[0], row, strict=False))
        yield [cells.get(name, "") for name in header]


def _rows(text: bytes) -> list[list[str]]:
    return list(csv.reader(io.StringIO(text.decode(), newline="")))


def _text(rows: Iterable[Sequence[str]]) -> bytes:
    out = io.StringIO(newline="")
    csv.writer(out, lineterminator="\n").writerows(rows)
    return out.getvalue().encode("utf-8", errors="backslashreplace")


def _cell(value: float) -> str:
    """The shortest text that reads back as `value`; a whole number has no point."""
    return repr(value).removesuffix(".0")
