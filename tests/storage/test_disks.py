"""Local disks that are full, read-only or limited: an error, no hang, nothing lost in silence."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest

import jaxlog
from jaxlog.errors import WriteError
from jaxlog.loggers import CSVLogger, TensorBoardLogger
from jaxlog.reading import read_scalars


def mounted(target: Path, options: str) -> bool:
    command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(target)]
    if shutil.which("mount") is None:
        return False
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


@pytest.fixture
def small_disk(tmp_path) -> Iterator[Path]:
    """A tmpfs of 1 MB, for root; anyone else gets the limits of the tests below."""
    place = tmp_path / "small"
    place.mkdir()
    if not mounted(place, "size=1m"):
        pytest.skip("mounting needs root")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


@pytest.mark.parametrize("kind", [TensorBoardLogger, CSVLogger])
def test_a_full_disk_is_an_error_and_room_made_saves_all(small_disk, kind) -> None:
    ballast = small_disk / "ballast"
    ballast.write_bytes(bytes(900_000))
    logger = kind(small_disk, "", "run")
    row = {f"tag_{n:03}": n / 3 for n in range(300)}
    accepted = 0

    def log() -> None:
        nonlocal accepted
        for step in range(1000):
            logger.log_metrics(row, step)
            accepted = step + 1
            if step % 10 == 9:
                logger.flush()

    with pytest.raises(WriteError, match=r"No space left on device.*are kept and tried again"):
        log()
    ballast.unlink()
    logger.close()
    if kind is TensorBoardLogger:
        table = read_scalars(small_disk / "run", tags="tag_000", backend="numpy")
        assert table["step"].tolist() == list(range(accepted))
    else:
        lines = (small_disk / "run" / "metrics.csv").read_text().splitlines()
        assert [int(line.partition(",")[0]) for line in lines[1:]] == list(range(accepted))


def test_a_disk_that_stays_full_says_how_much_is_lost(small_disk) -> None:
    (small_disk / "ballast").write_bytes(bytes(1_000_000))
    logger = TensorBoardLogger(small_disk, "", "run")
    row = {f"tag_{n:03}": n / 3 for n in range(300)}
    for step in range(9):
        logger.log_metrics(row, step)
    logger.log_metrics(dict.fromkeys(map(str, range(9000)), 0.0), 9)
    with pytest.raises(WriteError, match=r"11700 scalars were accepted but not written; they are"):
        logger.close()


def test_a_read_only_disk_is_an_error(small_disk) -> None:
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    logger = TensorBoardLogger(small_disk, "", "run")
    logger.log_metrics({"a": 1.0}, 0)
    with pytest.raises(WriteError, match="Read-only file system"):
        logger.flush()
    subprocess.run(["mount", "-o", "remount,rw", str(small_disk)], check=True)
    logger.close()
    assert read_scalars(small_disk, backend="numpy")["value"].tolist() == [1.0]


def test_a_folder_without_permission_is_an_error(tmp_path) -> None:
    if hasattr(os, "geteuid") and os.geteuid() == 0:
        pytest.skip("root may write anywhere")
    tmp_path.chmod(0o500)
    logger = TensorBoardLogger(tmp_path, "", "run")
    logger.log_metrics({"a": 1.0}, 0)
    with pytest.raises(WriteError, match="Permission denied"):
        logger.flush()
    tmp_path.chmod(0o700)
    logger.close()


@pytest.mark.skipif(sys.platform == "win32", reason="needs limits of POSIX")
def test_a_limit_on_files_is_an_error_in_any_process(tmp_path) -> None:
    """What root and everyone else can have: a file that takes no more than 20 kB."""
    body = """
        import resource, signal, sys, types
        package = types.ModuleType("jaxlog")
        package.__path__ = [sys.argv[1]]
        sys.modules["jaxlog"] = package
        from jaxlog.errors import WriteError
        from jaxlog.loggers import TensorBoardLogger
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, hard))
        logger = TensorBoardLogger(sys.argv[2], "", "run")
        step = 0
        try:
            while True:
                logger.log_metrics({f"tag_{n}": n for n in range(20)}, step)
                step += 1
                logger.flush()
        except WriteError as error:
            assert "File too large" in str(error), error
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        logger.close()
        sys.stdout.write(str(step))
    """
    command = [sys.executable, "-c", textwrap.dedent(body), jaxlog.__path__[0], str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    table = read_scalars(tmp_path, tags="tag_0", backend="numpy")
    assert table["step"].tolist() == list(range(int(done.stdout)))
    assert len(table["step"]) > 20
