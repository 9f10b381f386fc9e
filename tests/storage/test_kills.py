"""Processes that are killed, told to end, or fork: what was flushed is there, and all of it reads.

A child prints the step it has flushed up to; after reading some line of that its parent kills it.
Which moment that hits depends on the machine, and what is asserted holds for all of them.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
import threading

import pytest

import jaxlog
from jaxlog.reading import read_scalars

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs a POSIX system")

# jaxlog/__init__.py brings jax, which these processes need not wait for.
HEAD = """
import importlib.util, json, os, sys, types
package = types.ModuleType("jaxlog")
package.__path__ = [sys.argv[1]]
sys.modules["jaxlog"] = package
from jaxlog.loggers import TensorBoardLogger
url, options = sys.argv[2], json.loads(sys.argv[3])
def say(word):
    sys.stdout.write(f"{word}\\n")
    sys.stdout.flush()
"""


def steps_of(url: str, options: dict | None = None) -> list[int]:
    table = read_scalars(url, tags="a", storage_options=options, backend="numpy")
    return table["step"].tolist()


# Forks one session after another: to start an interpreter costs more than all that one does. No
# filesystem is made before the fork, so each child has clients and threads of its own.
DRIVER = """
import random, signal, threading, warnings
warnings.simplefilter("ignore")
from jaxlog.storage import event_sink  # warms the imports up
if options:
    import s3fs

def session(number):
    logger = TensorBoardLogger(url, "", f"run_{number}", max_queue=7, storage_options=options)
    for step in range(10**9):
        logger.log_metrics({"a": step, "b": -step}, step)
        if step % 20 == 19:
            logger.flush()
            os.write(1, f"{step}\\n".encode())

draw = random.Random(5)
for number in range(int(sys.argv[4])):
    read_end, write_end = os.pipe()
    child = os.fork()
    if child == 0:
        os.dup2(write_end, 1)
        os.close(read_end)
        session(number)
    os.close(write_end)
    with os.fdopen(read_end) as lines:
        flushed = [lines.readline() for _ in range(draw.randint(1, 20))]
        # Waits for nothing: it moves the kill off the moment of a line.
        threading.Event().wait(draw.uniform(0, 0.01))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        flushed += lines.readlines()
    say([line for line in flushed if line.endswith("\\n")][-1].strip())
"""


def kill(times: int, url: str, options: dict) -> None:
    arguments = [jaxlog.__path__[0], url, json.dumps(options), str(times)]
    command = [sys.executable, "-c", HEAD + DRIVER, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert (done.returncode, done.stderr.count("Error")) == (0, 0), done.stderr
    flushed = [int(line) for line in done.stdout.split()]
    assert len(flushed) == times
    for number, last in enumerate(flushed):
        steps = steps_of(f"{url}/run_{number}", options)
        assert steps == list(range(len(steps)))  # whole, in order, and nothing twice
        assert last < len(steps)


@pytest.mark.slow
def test_fifty_kills_on_a_disk_lose_nothing_flushed(tmp_path) -> None:
    kill(50, str(tmp_path), {})


@pytest.mark.slow
def test_twenty_kills_on_s3_lose_nothing_flushed(s3) -> None:
    kill(20, s3.url(), s3.options)


LOGS = """
import logging
logging.basicConfig(format="%(message)s")
logger = TensorBoardLogger(
    url, "", "run", max_queue=10_000, storage_options=options, **json.loads(sys.argv[4])
)
for step in range(100):
    logger.log_metrics({"a": step}, step)
"""


def end(body: str, url: str, options: dict, **more) -> subprocess.CompletedProcess[str]:
    script = HEAD + LOGS + textwrap.dedent(body)
    arguments = [jaxlog.__path__[0], url, json.dumps(options), json.dumps(more)]
    command = [sys.executable, "-c", script, *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


@pytest.mark.parametrize("kind", ["disk", "store"])
def test_what_nobody_closed_is_written_at_exit(kind, request, tmp_path) -> None:
    server = request.getfixturevalue("s3") if kind == "store" else None
    url, options = (server.url(), server.options) if server else (str(tmp_path), {})
    done = end("", url, options)
    assert (done.returncode, done.stderr.replace(WATCH.format(url), "")) == (0, "")
    assert steps_of(url, options) == list(range(100))


WATCH = (
    "a plain TensorBoard on s3:// shows nothing new of a live run, for it keeps its first listing; "
    "start it by: FSSPEC_S3='{{\"use_listings_cache\": false}}' tensorboard --logdir {}\n"
)


@pytest.mark.parametrize("kind", ["disk", "store"])
def test_sigterm_saves_and_ends_as_sigterm_does(kind, request, tmp_path) -> None:
    server = request.getfixturevalue("s3") if kind == "store" else None
    url, options = (server.url(), server.options) if server else (str(tmp_path), {})
    body = "import signal, time\nos.kill(os.getpid(), signal.SIGTERM)\ntime.sleep(100)"
    done = end(body, url, options, flush_on_sigterm=True)
    assert done.returncode == -signal.SIGTERM
    assert steps_of(url, options) == list(range(100))


def test_sigterm_calls_the_handler_that_was_there(tmp_path) -> None:
    body = """
        before = signal.getsignal(signal.SIGTERM)
        other = TensorBoardLogger(url, "", "other", flush_on_sigterm=True)
        other.log_metrics({"a": 1.0}, 0)
        assert signal.getsignal(signal.SIGTERM) is before  # one handler for all
        os.kill(os.getpid(), signal.SIGTERM)
        say("goes on")
        logger.log_metrics({"a": 1.0}, 100)
    """
    head = "import signal\nsignal.signal(signal.SIGTERM, lambda *_: say('mine'))\n"
    script = HEAD + head + LOGS + textwrap.dedent(body)
    arguments = [jaxlog.__path__[0], str(tmp_path), "{}", json.dumps({"flush_on_sigterm": True})]
    done = subprocess.run(
        [sys.executable, "-c", script, *arguments],
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout, done.stderr) == (0, "mine\ngoes on\n", "")
    assert steps_of(str(tmp_path / "run")) == list(range(101))


def test_sigterm_in_the_middle_of_a_log_call_hangs_nobody(tmp_path) -> None:
    body = """
        import signal
        writer = logger._writer()
        with writer._changed:
            os.kill(os.getpid(), signal.SIGTERM)
            say("never")
    """
    done = end(body, str(tmp_path), {}, flush_on_sigterm=True)
    assert done.returncode == -signal.SIGTERM
    assert steps_of(str(tmp_path)) == list(range(100))


def test_sigterm_is_set_by_the_main_thread_only(tmp_path) -> None:
    from jaxlog.errors import LoggerError
    from jaxlog.loggers import TensorBoardLogger

    caught: list[Exception] = []

    def log() -> None:
        try:
            TensorBoardLogger(tmp_path, flush_on_sigterm=True).log_metrics({"a": 1.0}, 0)
        except LoggerError as error:
            caught.append(error)

    thread = threading.Thread(target=log)
    thread.start()
    thread.join(30)
    assert "needs the main thread" in str(caught[0])


def test_a_forked_child_of_s3_is_told_and_the_parent_goes_on(s3) -> None:
    url = s3.url()
    body = """
        import warnings
        from jaxlog.errors import LoggerError
        warnings.simplefilter("ignore")  # Python's own about fork and threads, the point of this
        logger.flush()
        child = os.fork()
        if child == 0:
            try:
                logger.log_metrics({"a": -1.0}, 1)
            except LoggerError as error:
                say(error)
            logger.close()
            os._exit(7)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
        logger.log_metrics({"a": 1.0}, 100)
        logger.close()
    """
    done = end(body, url, s3.options)
    assert done.returncode == 0
    assert "make a logger in the child" in done.stdout
    assert steps_of(url, s3.options) == list(range(101))


def test_two_runs_in_one_second_get_two_versions(tmp_path) -> None:
    body = 'logger = TensorBoardLogger(url, "n")\nsys.stdin.readline()\n'
    body += 'logger.log_metrics({"a": 1.0}, 0)\nlogger.close()\nsay(logger.version)\n'
    script = HEAD + body
    command = [sys.executable, "-c", script, jaxlog.__path__[0], str(tmp_path), "{}"]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, **pipes) as one, subprocess.Popen(command, **pipes) as two:
        for process in (one, two):
            assert process.stdin is not None
            process.stdin.write("go\n")
            process.stdin.flush()
        versions = sorted(process.communicate(timeout=120)[0].strip() for process in (one, two))
    assert versions == ["0", "1"]
    assert len(steps_of(str(tmp_path))) == 2
