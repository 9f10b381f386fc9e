"""The command `jaxlog`: its arguments and its subcommands."""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import os
import sys
import time
from collections import defaultdict, deque
from collections.abc import Sequence
from typing import Any

from jaxlog.command_line.export import FORMATS, export
from jaxlog.command_line.show import overview
from jaxlog.errors import JaxlogError
from jaxlog.reading import ScalarRow, follow, read_scalars
from jaxlog.storage import upload_spool

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command and returns its exit status.

    Args:
        arguments: the arguments after the name of the command; None for those of this process.

    Example:
        >>> from jaxlog.loggers import TensorBoardLogger
        >>> with TensorBoardLogger("memory://main", "", 0) as logger:
        ...     logger.log_metrics({"loss": 0.5}, step=0)
        >>> main(["export", "memory://main", "--to", "csv", "--pivot"])
        run,step,loss
        version_0,0,0.5
        0
    """
    options = _parser().parse_args(arguments)
    try:
        options.run_command(options)
    except JaxlogError as error:
        print(f"jaxlog: {error}", file=sys.stderr)
        return 1
    except FileNotFoundError as error:
        print(f"jaxlog: nothing found: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # the reader of the pipe, such as head, has ended
        # The interpreter flushes stdout at exit, which would fail again: send that to /dev/null.
        with contextlib.suppress(OSError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("jaxlog", description="Event files in a terminal.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    show = _reading(commands, "show", "the last value of every tag, and its course", _show)
    show.add_argument("--width", type=int, default=24, help="of a course, in characters")

    tail = _reading(commands, "tail", "the latest values, and those to come", _tail)
    tail.add_argument("-n", "--lines", type=int, default=10, help="how many to begin with")
    tail.add_argument("--poll", type=float, default=1.0, metavar="SECS", help="between two looks")
    tail.add_argument(
        "--idle", type=float, metavar="SECS", help="end after so long without a new value; 0: now"
    )

    files = _reading(commands, "export", "everything into a table", _export)
    files.add_argument("--to", choices=FORMATS, required=True)
    files.add_argument("-o", "--output", default="-", help="path or URL; - for the terminal")
    files.add_argument("--pivot", action="store_true", help="a column a tag")

    upload = commands.add_parser("upload", help="put the files of a spool on the store")
    upload.add_argument("folder", help="as the warning named it")
    _storage_options(upload)
    upload.set_defaults(run_command=_upload)
    return parser


def _reading(commands: Any, name: str, text: str, run_command: Any) -> argparse.ArgumentParser:
    parser = commands.add_parser(name, help=text, description=f"{text[0].upper()}{text[1:]}.")
    parser.add_argument("url", help="a run, a tree of runs or an event file; local or any URL")
    parser.add_argument("--runs", nargs="+", help="names or shell patterns")
    parser.add_argument("--tags", nargs="+", help="names or shell patterns")
    _storage_options(parser)
    parser.set_defaults(run_command=run_command)
    return parser


def _storage_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--storage-options", type=json.loads, default={}, metavar="JSON",
        help="for the filesystem, such as '{\"anon\": true}'",
    )  # fmt: skip


def _chosen(options: argparse.Namespace) -> dict[str, Any]:
    return {
        "runs": options.runs,
        "tags": options.tags,
        "storage_options": options.storage_options,
    }


def _show(options: argparse.Namespace) -> None:
    table = read_scalars(options.url, backend="numpy", **_chosen(options))
    for line in overview(table, options.width):
        print(line)


def _tail(options: argparse.Namespace) -> None:
    # follow yields existing scalars run by run. Keep the latest of each run, and print the latest
    # of all runs when follow waits for the first time, which is when it has yielded all of them.
    there: dict[str, deque[ScalarRow]] = defaultdict(lambda: deque(maxlen=max(0, options.lines)))
    live = False

    def begin() -> None:
        nonlocal live
        if not live:
            live = True
            found = sorted(itertools.chain(*there.values()), key=lambda row: row.wall_time)
            for row in found[-options.lines :] if options.lines > 0 else ():
                _print_row(row)

    def wait(seconds: float) -> None:
        begin()
        time.sleep(seconds)

    times = {"poll_secs": options.poll, "idle_secs": options.idle, "wait": wait}
    for row in follow(options.url, **times, **_chosen(options)):
        _print_row(row) if live else there[row.run].append(row)
    begin()


def _print_row(row: ScalarRow) -> None:
    print(f"{row.run}  {row.tag}  step {row.step}  {row.value:.6g}", flush=True)


def _export(options: argparse.Namespace) -> None:
    table = read_scalars(options.url, backend="numpy", pivot=options.pivot, **_chosen(options))
    export(table, options.to, options.output, options.storage_options)


def _upload(options: argparse.Namespace) -> None:
    count = upload_spool(options.folder, options.storage_options)
    print(f"{count} files uploaded")
