"""Run directories are named as Lightning names them, and no two loggers get the same."""

from __future__ import annotations

import threading
import traceback

import pytest
from fsspec.implementations.local import LocalFileSystem
from fsspec.implementations.memory import MemoryFileSystem

from jaxlog.errors import LoggerError, WriteError
from jaxlog.storage import RunDirectory, open_filesystem, write_whole


def put(url: str) -> None:
    write_whole(*open_filesystem(f"{url}/file"), b"x")


@pytest.mark.parametrize(
    ("arguments", "end"),
    [
        (("name", 3), "/name/version_3"),
        (("name", 0), "/name/version_0"),
        (("name", "best"), "/name/best"),
        (("", 1), "/version_1"),
        ((None, 1), "/version_1"),
        (("name", 1, "sub"), "/name/version_1/sub"),
        (("name", ""), "/name"),
    ],
)
def test_directories_are_lightnings(place, arguments, end) -> None:
    assert RunDirectory(place, *arguments).log_dir == place + end


def test_the_next_version_is_one_more_than_the_highest(place) -> None:
    for folder in ("version_0", "version_7", "version_x", "other", "version_9_old"):
        put(f"{place}/name/{folder}")
    directory = RunDirectory(place, "name", None)
    assert directory.version == 8
    assert directory.version == 8
    assert directory.log_dir == f"{place}/name/version_8"


def test_the_first_version_is_0(place) -> None:
    assert RunDirectory(place, "name", None).version == 0


def test_nothing_is_made_before_the_version_is_asked_for(place) -> None:
    directory = RunDirectory(place, "name", None)
    assert (directory.name, directory.save_dir, directory.root_dir) == (
        "name",
        place,
        f"{place}/name",
    )
    filesystem, path = open_filesystem(f"{place}/name")
    assert not filesystem.exists(path)


def test_loggers_that_start_at_once_get_a_directory_each(place) -> None:
    directories = [RunDirectory(place, "name", None) for _ in range(8)]
    ready = threading.Barrier(len(directories))
    versions = []

    def take(directory: RunDirectory) -> None:
        ready.wait(10)
        versions.append(directory.version)

    threads = [threading.Thread(target=take, args=(directory,)) for directory in directories]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert sorted(versions) == list(range(8))


def test_another_process_may_take_the_number_first(tmp_path, monkeypatch) -> None:
    (tmp_path / "version_0").mkdir()
    monkeypatch.setattr(LocalFileSystem, "ls", lambda *_arguments, **_options: [])  # too early
    assert RunDirectory(tmp_path, "", None).version == 1


@pytest.mark.parametrize("version", [-1, True, 1.5, ["a"]])
def test_a_version_that_is_none_is_refused(version) -> None:
    with pytest.raises(LoggerError, match="version must be"):
        RunDirectory("logs", "name", version)


def test_a_place_that_cannot_be_listed_is_named_without_credentials(monkeypatch) -> None:
    def refuse(*_arguments, **_options) -> None:
        raise PermissionError("key verysecret is not known")

    monkeypatch.setattr(MemoryFileSystem, "ls", refuse)
    directory = RunDirectory("memory://x", "n", None, None, {"secret": "verysecret"})
    with pytest.raises(WriteError, match=r"could not list memory://x/n .*key \*\*\* is") as info:
        _ = directory.version
    assert "verysecret" not in "".join(traceback.format_exception(info.value))
