"""Storage: records of event files, files over fsspec, and the thread that writes them.

A logger hands `Row`s and `Block`s to a `BackgroundWriter`, which hands them to a `Sink`: an
`EventSink` (`records` encodes them, `EventFile` splits them into files) or a `CSVFile`. Both put
bytes somewhere through `Uploads`, which keeps what an unreachable store did not take.
"""

from __future__ import annotations

from jaxlog.storage.block import Block, Row, Rows, blocks_of
from jaxlog.storage.csv_file import CSVFile
from jaxlog.storage.event_sink import EventSink
from jaxlog.storage.exit import close_at_sigterm
from jaxlog.storage.files import EventFile
from jaxlog.storage.filesystem import (
    is_in_memory,
    is_local,
    join_url,
    open_filesystem,
    parent_of,
    plain_url,
    read_whole,
    write_whole,
)
from jaxlog.storage.framing import (
    FOOTER_BYTES,
    HEADER_BYTES,
    frame,
    mask_crc32c,
    masked_crc32c,
)
from jaxlog.storage.hyperparams import (
    Hyperparams,
    HyperparamsFile,
    flat_params,
    session_end,
    session_start,
)
from jaxlog.storage.pending import Pending
from jaxlog.storage.records import (
    file_version_record,
    scalar_records,
    session_start_record,
    summary_record,
)
from jaxlog.storage.retry import Backoff, StoreAwayError, is_transient
from jaxlog.storage.secrets import Secrets, safe_url
from jaxlog.storage.sink import Sink
from jaxlog.storage.summaries import Summary
from jaxlog.storage.tensorboard_hint import log_tensorboard_hint, tensorboard_command
from jaxlog.storage.uploads import SpooledError, Uploads, upload_spool
from jaxlog.storage.versions import RunDirectory
from jaxlog.storage.writer import BackgroundWriter, OnFull

__all__ = [
    "FOOTER_BYTES",
    "HEADER_BYTES",
    "BackgroundWriter",
    "Backoff",
    "Block",
    "CSVFile",
    "EventFile",
    "EventSink",
    "Hyperparams",
    "HyperparamsFile",
    "OnFull",
    "Pending",
    "Row",
    "Rows",
    "RunDirectory",
    "Secrets",
    "Sink",
    "SpooledError",
    "StoreAwayError",
    "Summary",
    "Uploads",
    "blocks_of",
    "close_at_sigterm",
    "file_version_record",
    "flat_params",
    "frame",
    "is_in_memory",
    "is_local",
    "is_transient",
    "join_url",
    "log_tensorboard_hint",
    "mask_crc32c",
    "masked_crc32c",
    "open_filesystem",
    "parent_of",
    "plain_url",
    "read_whole",
    "safe_url",
    "scalar_records",
    "session_end",
    "session_start",
    "session_start_record",
    "summary_record",
    "tensorboard_command",
    "upload_spool",
    "write_whole",
]
