"""`CSVFile`: one table of metrics as text.

On a local disk new lines are appended. Anywhere else the whole table is uploaded at each flush,
because remote filesystems cannot append: s3fs downloads the file first, gcsfs truncates it.
"""

from __future__ import annotations

import csv
import io
import uuid
from collections.abc import Iterable, Sequence
from pathlib import Path

from jaxlog.storage.block import Block, Row, Rows, blocks_of
from jaxlog.storage.filesystem import append_whole, join_url
from jaxlog.storage.hyperparams import Hyperparams, HyperparamsFile
from jaxlog.storage.retry import StoreAwayError
from jaxlog.storage.uploads import Uploads

__all__ = ["CSVFile"]

_NAME = "metrics.csv"
_SECS_PER_BYTE = 1e-7  # 10 MB of table: one upload a second at most, then less often


class CSVFile:
    """A `step` column, then one column a tag, sorted; one line a row, absent cells empty.

    A new tag adds a column, for which the whole file is rewritten. A table that an earlier session
    left is continued.

    Args:
        uploads: the run's directory.

    Example:
        >>> uploads = Uploads("memory://csv_file")
        >>> table = CSVFile(uploads)
        >>> table.write([Row.of({"loss": 0.5}, 0, 0.0), Row.of({"accuracy": 1.0}, 1, 0.0)])
        >>> table.flush()
        >>> print(uploads.filesystem.cat_file("/csv_file/metrics.csv").decode())
        step,accuracy,loss
        0,,0.5
        1,1,
        <BLANKLINE>
    """

    def __init__(self, uploads: Uploads) -> None:
        self._uploads = uploads
        self._path = f"{uploads.root.rstrip('/')}/{_NAME}"
        self._is_local = uploads.is_local
        self._hyperparams = HyperparamsFile(uploads)
        self._header: list[str] | None = None  # None until the table of an earlier session is read
        self._saved = b""  # the content on storage, if that is not a local disk
        self._waiting: list[tuple[int, dict[str, float]]] = []

    @property
    def path(self) -> str:
        """Path or URL of the table."""
        return join_url(self._uploads.url, _NAME)

    @property
    def min_interval_secs(self) -> float:
        """Least time between two uploads that no caller waits for."""
        return 0.0 if self._is_local else max(1.0, len(self._saved) * _SECS_PER_BYTE)

    @property
    def retry_secs(self) -> float | None:
        """Seconds until the next attempt at the store; None if no data waits for it."""
        return self._uploads.retry_secs

    def write(self, items: Sequence[Block | Row | Rows | Hyperparams]) -> None:
        """Takes items in order; they are on storage after the next `flush`."""
        for block in blocks_of(item for item in items if isinstance(item, Block | Row | Rows)):
            self._waiting.extend((step, row) for step, _, row in block.rows())
        for item in items:
            if isinstance(item, Hyperparams):
                self._hyperparams.take(item.params)

    def flush(self) -> None:
        """Puts everything taken on storage; data that fails is kept for the next flush."""
        self._uploads.send()
        if self._waiting:
            self._save()
            self._waiting = []
        self._hyperparams.flush()

    def close(self) -> None:
        """Flushes; there is no file to close, as it is open only during a write."""
        with self._uploads.last_chance():
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
        self._uploads.put(self._path, text)
        # Change the state only after the write: a write that failed is repeated from the old state.
        self._header = header
        if not self._is_local:
            self._saved = text

    def _cells(self, header: Sequence[str]) -> Iterable[list[str]]:
        for step, row in self._waiting:
            yield [str(step), *(_cell(row[tag]) if tag in row else "" for tag in header[1:])]

    def _continued(self) -> tuple[list[str], bytes]:
        """Header and content of the table that an earlier session left; empty without one."""
        try:
            text = self._uploads.read(self._path)
        except FileNotFoundError:
            return [], b""
        except StoreAwayError:
            if not self._uploads.spooling:
                raise
            # It is unknown whether the store has a table, so a later upload of this one from the
            # spool must not replace it: use another name.
            self._path = self._path.replace(_NAME, f"metrics-{uuid.uuid4().hex[:8]}.csv")
            return [], b""
        # A killed session may have left half a line; the next line would be appended to it.
        whole = text[: text.rfind(b"\n") + 1]
        if whole != text:
            self._uploads.put(self._path, whole)
        header = next(iter(_rows(whole)), [])
        return header, b"" if self._is_local else whole


def _moved(table: list[list[str]], header: Sequence[str]) -> Iterable[list[str]]:
    """The rows of a table, rearranged for another header."""
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
    """The shortest text that reads back as `value`; an integer has no decimal point."""
    return repr(value).removesuffix(".0")
