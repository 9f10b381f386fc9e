"""Tables of scalars as CSV, JSON lines or Parquet."""

from __future__ import annotations

import csv
import importlib
import io
import json
import math
import sys
from collections.abc import Mapping
from typing import Any, Literal, TypeAlias, get_args

import numpy as np

from jaxlog.errors import MissingDependencyError, ReadError
from jaxlog.storage import open_filesystem, safe_url, write_whole

__all__ = ["FORMATS", "Format", "export"]

Format: TypeAlias = Literal["csv", "parquet", "jsonl"]
FORMATS: tuple[Format, ...] = get_args(Format)


def export(
    table: Mapping[str, np.ndarray],
    to: Format,
    output: str = "-",
    storage_options: Mapping[str, Any] | None = None,
) -> None:
    """Writes the columns of `table`.

    Args:
        table: arrays of one length, by name.
        to: "csv", "parquet" or "jsonl". JSON has no NaN: there it is the string "NaN", and
            likewise "Infinity", as in the JSON of protobuf.
        output: local path or URL; "-" for the standard output, but not for Parquet.
        storage_options: passed to the filesystem of `output`.

    Raises:
        ReadError: Parquet to the standard output.
        MissingDependencyError: Parquet, and pyarrow is not installed.

    Example:
        >>> export({"step": np.arange(2), "loss": np.array([0.5, float("nan")])}, "jsonl")
        {"step": 0, "loss": 0.5}
        {"step": 1, "loss": "NaN"}
    """
    if to == "parquet" and output == "-":
        raise ReadError("Parquet is no text for a terminal; name a file: --output scalars.parquet")
    content = {"csv": _csv, "parquet": _parquet, "jsonl": _jsonl}[to](table)
    if output == "-":
        sys.stdout.write(content.decode())
        return
    write_whole(*open_filesystem(output, storage_options), content)
    print(f"{len(next(iter(table.values())))} rows in {safe_url(output)}", file=sys.stderr)


def _csv(table: Mapping[str, np.ndarray]) -> bytes:
    out = io.StringIO(newline="")
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(table)
    writer.writerows(zip(*(column.tolist() for column in table.values()), strict=True))
    return out.getvalue().encode()


def _jsonl(table: Mapping[str, np.ndarray]) -> bytes:
    columns = [column.tolist() for column in table.values()]
    lines = (
        json.dumps(dict(zip(table, map(_json, row), strict=True)), ensure_ascii=False)
        for row in zip(*columns, strict=True)
    )
    return "".join(f"{line}\n" for line in lines).encode()


def _json(value: Any) -> Any:
    if not isinstance(value, float) or math.isfinite(value):
        return value
    return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"


def _parquet(table: Mapping[str, np.ndarray]) -> bytes:
    try:
        pa = importlib.import_module("pyarrow")
        parquet = importlib.import_module("pyarrow.parquet")
    except ImportError as error:
        raise MissingDependencyError.for_package("pyarrow", extra="parquet") from error
    columns = {
        name: pa.array(column.tolist(), pa.string()) if column.dtype == object else column
        for name, column in table.items()
    }
    out = io.BytesIO()
    parquet.write_table(pa.table(columns), out)
    return out.getvalue()
