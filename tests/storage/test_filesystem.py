"""URLs, and whole files on any filesystem."""

from __future__ import annotations

from pathlib import Path

import pytest
from fsspec.implementations.memory import MemoryFileSystem

from jaxlog.errors import LoggerError, MissingDependencyError
from jaxlog.storage import join_url, open_filesystem, plain_url, read_whole, write_whole


@pytest.mark.parametrize(
    ("parts", "url"),
    [
        (("logs", "a", "b"), "logs/a/b"),
        (("logs/", "", "b"), "logs/b"),
        (("s3://bucket", "a"), "s3://bucket/a"),
        (("memory://", "a"), "memory://a"),
        (("/", "a"), "/a"),
        (("file:///tmp", "a"), "file:///tmp/a"),
    ],
)
def test_parts_are_joined(parts, url) -> None:
    assert join_url(*parts) == url


def test_a_local_path_may_name_home_and_variables(monkeypatch) -> None:
    monkeypatch.setenv("RUNS", "here")
    monkeypatch.setenv("HOME", "/home/me")
    assert plain_url("~/$RUNS/a") == "/home/me/here/a"
    assert plain_url("s3://~/$RUNS") == "s3://~/$RUNS"
    assert plain_url(Path("a")) == "a"


def test_an_unknown_protocol_says_what_to_pass() -> None:
    with pytest.raises(LoggerError, match="nosuch://a is no path and no URL that fsspec knows"):
        open_filesystem("nosuch://a")


@pytest.mark.parametrize(
    ("url", "line"),
    [
        ("s3://b/a", "jaxlog\\[s3\\]"),
        ("gs://b", "jaxlog\\[gcs\\]"),
        ("abfs://c/a", "jaxlog\\[abfs\\]"),
    ],
)
def test_a_missing_package_is_named(monkeypatch, url, line) -> None:
    def missing(*_args, **_options):
        raise ImportError("Install it")

    monkeypatch.setattr("fsspec.core.url_to_fs", missing)
    with pytest.raises(MissingDependencyError, match=line):
        open_filesystem(url)
    with pytest.raises(LoggerError, match="needs a package that is not installed: Install it"):
        open_filesystem("hf://b")


def test_storage_options_reach_the_filesystem() -> None:
    filesystem, _ = open_filesystem(
        "file:///tmp", {"auto_mkdir": True, "skip_instance_cache": True}
    )
    assert vars(filesystem)["auto_mkdir"] is True


def test_a_whole_file_replaces_the_old(place) -> None:
    filesystem, path = open_filesystem(f"{place}/deep/file")
    for content in (b"one", b"two"):
        write_whole(filesystem, path, content)
        assert read_whole(filesystem, path) == content
    assert len(filesystem.find(open_filesystem(place)[1])) == 1


def test_a_failed_whole_write_keeps_the_old_and_leaves_nothing_aside(tmp_path, monkeypatch) -> None:
    filesystem, path = open_filesystem(str(tmp_path / "file"))
    write_whole(filesystem, path, b"old")

    def full(self, data):
        raise OSError("full")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OSError, match="full"):
        write_whole(filesystem, path, b"new")
    assert [file.read_text("utf-8") for file in tmp_path.iterdir()] == ["old"]


class Strict(MemoryFileSystem):
    """Like sftp: a file needs its folder."""

    protocol = "strict"
    cachable = False

    def pipe_file(self, path, value, mode="overwrite", **kwargs):
        if not self.isdir(path.rpartition("/")[0]):
            raise FileNotFoundError(path)
        super().pipe_file(path, value, **kwargs)


def test_a_filesystem_with_folders_gets_them(memory_url) -> None:
    path = memory_url.replace("memory:/", "") + "/a/b"
    write_whole(Strict(), path, b"x")
    assert Strict().cat_file(path) == b"x"


def test_a_bucket_is_never_made(memory_url) -> None:
    class Bucket(Strict):
        protocol = ("s3", "s3a")

    path = memory_url.replace("memory:/", "") + "/a"
    with pytest.raises(FileNotFoundError):
        write_whole(Bucket(), path, b"x")
    assert not Bucket().exists(path)
