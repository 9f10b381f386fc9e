"""The real TensorBoard over HTTP, with both loaders, on a local disk and on S3; and tbparse."""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import re
import subprocess
import sys
import threading
import urllib.error
import urllib.parse
import urllib.request
import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from jaxlog.loggers import TensorBoardLogger
from jaxlog.storage import Block

STEPS = 300


def write(place: str, options: dict[str, Any] | None = None) -> None:
    """Two runs; the second resumes at step 5 and takes back what came after."""
    with TensorBoardLogger(place, "", "first", storage_options=options) as logger:
        steps = np.arange(STEPS)
        values = np.stack([steps / 2, -steps], axis=1)
        logger.write_block(Block(("loss", "größe/é"), steps, np.full(STEPS, 1e9), values))
        logger.log_metrics({"not finite": float("nan")}, 0)
        logger.log_histogram("h", [1, 2, 3], 0, edges=[0.0, 1.0])
        logger.log_text("note", "**text**", 0)
        logger.log_hyperparams({"lr": 0.1})
    for start, first in ((None, 0), (5, 100)):
        options_ = {"start_step": start, "storage_options": options}
        with TensorBoardLogger(place, "", "second", **options_) as logger:
            for step in range(start or 0, 8):
                logger.log_metrics({"loss": first + step}, step)


@contextlib.contextmanager
def tensorboard(logdir: str, *flags: str, **env: str) -> Iterator[str]:
    """The address of a TensorBoard of its own process."""
    command = [sys.executable, "-W", "ignore", "-m", "tensorboard.main", "--logdir", logdir]
    command += ["--host", "127.0.0.1", "--port", "0", "--reload_interval", "1", *flags]
    with subprocess.Popen(
        command, stderr=subprocess.PIPE, text=True, env={**os.environ, **env}
    ) as running:
        assert running.stderr is not None
        try:
            seen = []
            for line in running.stderr:
                seen.append(line)
                if found := re.search(r"(http://127\.0\.0\.1:\d+/)", line):
                    # Nobody may stop reading, or TensorBoard stops at a full pipe.
                    threading.Thread(target=running.stderr.read, daemon=True).start()
                    yield found[1]
                    return
            pytest.fail("".join(seen))
        finally:
            running.terminate()


def get(address: str, plugin: str, **query: str) -> Any:
    url = f"{address}data/{plugin}?{urllib.parse.urlencode(query)}"
    with urllib.request.urlopen(url, timeout=60) as answer:
        return json.load(answer)


def await_answer(address: str, plugin: str, expected: Any, read: Any, **query: str) -> None:
    """Asks until TensorBoard has loaded what is expected; it does so when it likes."""
    found: Any = None
    pause = threading.Event()
    for _ in range(600):
        try:
            found = read(get(address, plugin, **query))
        except urllib.error.HTTPError as error:  # it does not know the run or the tag yet
            found = error
        if found == expected:
            return
        pause.wait(0.1)  # another process: there is nothing to be notified by
    pytest.fail(f"{plugin} {query}: {found}, but wanted {expected}")


def scalars(address: str, run: str, tag: str, expected: list[tuple[int, float]]) -> None:
    def read(events: Any) -> list[tuple[int, float]]:
        return [(step, value) for _, step, value in events]

    await_answer(address, "plugin/scalars/scalars", expected, read, run=run, tag=tag)


def check(address: str) -> None:
    scalars(address, "first", "loss", [(step, step / 2) for step in range(STEPS)])
    scalars(address, "first", "größe/é", [(step, -step) for step in range(STEPS)])
    scalars(address, "second", "loss", [(s, s if s < 5 else 100 + s) for s in range(8)])
    first = {"run": "first", "tag": "h"}

    def counts(events: Any) -> list[list[float]]:
        return [[bucket[2] for bucket in buckets] for _, _, buckets in events]

    await_answer(address, "plugin/histograms/histograms", [[1, 2, 3]], counts, **first)

    def texts(events: Any) -> list[bool]:
        return ["<strong>text</strong>" in event["text"] for event in events]

    await_answer(address, "plugin/text/text", [True], texts, run="first", tag="note")
    request = {"colParams": [], "allowedStatuses": ["STATUS_SUCCESS"], "sliceSize": 5}

    def params(answer: Any) -> list[Any]:
        return [group["hparams"] for group in answer["sessionGroups"]]

    page = "plugin/hparams/session_groups"
    await_answer(address, page, [{"lr": 0.1}], params, request=json.dumps(request))


@pytest.mark.parametrize("load_fast", ["true", "false"])
def test_both_loaders_show_a_local_run(tmp_path, load_fast) -> None:
    write(str(tmp_path))
    with tensorboard(str(tmp_path), "--load_fast", load_fast) as address:
        check(address)


def test_a_live_run_goes_on_in_both_loaders(tmp_path) -> None:
    flags = ("--load_fast", "true"), ("--load_fast", "false")
    with TensorBoardLogger(tmp_path, "", "live") as logger, contextlib.ExitStack() as stack:
        logger.log_metrics({"loss": 0.0}, 0)
        logger.flush()
        addresses = [stack.enter_context(tensorboard(str(tmp_path), *each)) for each in flags]
        for address in addresses:
            scalars(address, "live", "loss", [(0, 0.0)])
        logger.log_metrics({"loss": 1.0}, 1)
        logger.flush()
        for address in addresses:
            scalars(address, "live", "loss", [(0, 0.0), (1, 1.0)])


def test_tensorboard_reads_a_live_run_from_s3(s3) -> None:
    url = s3.url()
    env = {
        "S3_ENDPOINT": s3.endpoint,
        "AWS_ENDPOINT_URL": s3.endpoint,
        "AWS_ACCESS_KEY_ID": s3.options["key"],
        "AWS_SECRET_ACCESS_KEY": s3.options["secret"],
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    write(url, s3.options)
    with tensorboard(url, **env) as address:
        check(address)
        with TensorBoardLogger(url, "", "later", storage_options=s3.options) as logger:
            logger.log_metrics({"loss": 1.0}, 0)
        scalars(address, "later", "loss", [(0, 1.0)])


def test_tbparse_reads_it(tmp_path) -> None:
    tbparse = importlib.import_module("tbparse")  # it has no types
    write(str(tmp_path))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what tbparse asks of the newest pandas
        table = tbparse.SummaryReader(str(tmp_path), extra_columns={"dir_name"}).scalars
    loss = table[(table.dir_name == "first") & (table.tag == "loss")]
    assert list(zip(loss.step, loss.value, strict=True)) == [(s, s / 2) for s in range(STEPS)]
    assert set(table.tag) >= {"loss", "größe/é", "not finite"}
