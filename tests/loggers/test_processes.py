"""What survives when a process is killed, ends without close, or forks."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap

import pytest

from jaxlog.reading import read_scalars

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs a POSIX system")

# jaxlog/__init__.py brings jax, which these processes need not wait for.
HEAD = """
import importlib.util, os, sys, types
package = types.ModuleType("jaxlog")
package.__path__ = [sys.argv[2]]
sys.modules["jaxlog"] = package
from jaxlog.loggers import TensorBoardLogger
from jaxlog.errors import LoggerError
logger = TensorBoardLogger(sys.argv[1], "", 0, max_queue=10_000)
for step in range(1000):
    logger.log_metrics({"a": step, "b": -step}, step)
"""


def run(body: str, directory: str) -> subprocess.CompletedProcess[str]:
    import jaxlog

    script = HEAD + textwrap.dedent(body)
    arguments = [sys.executable, "-c", script, directory, jaxlog.__path__[0]]
    return subprocess.run(arguments, capture_output=True, text=True, timeout=120, check=False)


def steps_of(directory: str) -> list[int]:
    return read_scalars(directory, tags="a", backend="numpy")["step"].tolist()


def test_sigkill_after_flush_loses_nothing_flushed(tmp_path) -> None:
    body = """
        import signal
        logger.flush()
        logger.log_metrics({"a": 1.0}, 5000)
        os.kill(os.getpid(), signal.SIGKILL)
    """
    assert run(body, str(tmp_path)).returncode == -signal.SIGKILL
    assert steps_of(str(tmp_path))[:1000] == list(range(1000))


@pytest.mark.parametrize("end", ["pass", "del logger", "raise SystemExit(0)"])
def test_what_nobody_closed_is_written_at_exit(tmp_path, end) -> None:
    done = run(end, str(tmp_path))
    assert (done.returncode, done.stderr) == (0, "")
    assert steps_of(str(tmp_path)) == list(range(1000))


def test_a_failure_at_exit_is_said(tmp_path) -> None:
    (tmp_path / "version_0").write_text("in the way")
    done = run("", str(tmp_path))
    assert "could not write to" in done.stderr
    assert "2000 scalars were accepted but not written" in done.stderr


def test_a_forked_child_is_told_and_the_parent_goes_on(tmp_path) -> None:
    body = """
        import warnings
        logger.flush()
        warnings.simplefilter("ignore")  # Python's own about fork and threads, the point of this
        child = os.fork()
        if child == 0:
            try:
                logger.log_metrics({"a": -1.0}, 1)
            except LoggerError as error:
                sys.stdout.write(str(error))
            logger.close()
            sys.stdout.flush()
            os._exit(7)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
        logger.log_metrics({"a": 1.0}, 1000)
        logger.close()
    """
    done = run(body, str(tmp_path))
    assert (done.returncode, done.stderr) == (0, "")
    assert "make a logger in the child" in done.stdout
    assert steps_of(str(tmp_path)) == list(range(1001))


def test_a_child_that_ends_normally_writes_nothing(tmp_path) -> None:
    body = """
        import warnings
        warnings.simplefilter("ignore")
        child = os.fork()  # rows wait in the queue, which the child has a copy of
        if child == 0:
            raise SystemExit(0)  # runs the exit hooks
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    """
    done = run(body, str(tmp_path))
    assert (done.returncode, done.stderr) == (0, "")
    assert steps_of(str(tmp_path)) == list(range(1000))
