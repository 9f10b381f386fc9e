"""Files on their way to a store that goes away and comes back; only a clock of ours moves."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest
from fsspec.implementations.memory import MemoryFileSystem

from jaxlog.reading import read_scalars
from jaxlog.storage import (
    Backoff,
    CSVFile,
    EventSink,
    Row,
    SpooledError,
    StoreAwayError,
    Uploads,
    upload_spool,
)


class Store(MemoryFileSystem):
    """A bucket that is away while `error` is set."""

    protocol = "store"
    cachable = False
    error: Exception | None = None
    requests = 0

    @classmethod
    def _strip_protocol(cls, path):
        return MemoryFileSystem._strip_protocol(path.removeprefix("store://"))

    def pipe_file(self, path, value, mode="overwrite", **kwargs):
        Store.requests += 1
        if Store.error is not None:
            raise Store.error
        super().pipe_file(path, value, **kwargs)

    def cat_file(self, path, start=None, end=None, **kwargs):
        if Store.error is not None:
            raise Store.error
        return super().cat_file(path, start, end, **kwargs)


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


AWAY = ConnectionRefusedError("nobody there")


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def make(memory_url, monkeypatch, tmp_path, clock):
    import fsspec

    fsspec.register_implementation("store", Store, clobber=True)
    monkeypatch.setattr(Store, "error", None)
    monkeypatch.setattr(Store, "requests", 0)

    def make(**options) -> Uploads:
        url = memory_url.replace("memory://", "store:///")
        options = {"spool_dir": tmp_path / "spool", "clock": clock} | options
        return Uploads(url, backoff=Backoff(draw=lambda: 0.0), **options)

    return make


def spooled(tmp_path) -> list[Path]:
    return [path for path in (tmp_path / "spool").rglob("*") if path.is_file()]


def test_what_a_store_does_not_take_goes_there_when_it_is_back(make, clock) -> None:
    uploads = make()
    path = f"{uploads.root}/a"
    Store.error = AWAY
    for content in (b"one", b"two"):
        with pytest.raises(StoreAwayError, match="ConnectionRefusedError: nobody there"):
            uploads.put(path, content)
    assert Store.requests == 1  # the second came before the wait was over
    assert uploads.retry_secs == pytest.approx(0.5)
    Store.error = None
    clock.now += 0.5
    assert uploads.retry_secs == 0.0
    uploads.send()
    assert uploads.filesystem.cat_file(path) == b"two"
    assert (uploads.retry_secs, uploads.spool_dir) == (None, None)


def test_the_waits_double(make, clock) -> None:
    uploads = make(spool_secs=1e9)
    Store.error = AWAY
    waits = []
    for _ in range(9):
        with pytest.raises(StoreAwayError):
            uploads.put(f"{uploads.root}/a", b"")
        waits.append(uploads.retry_secs)
        clock.now += uploads.retry_secs
    assert waits == pytest.approx([0.5, 1, 2, 4, 8, 16, 30, 30, 30])


def test_after_a_stated_time_the_disk_is_used_and_said(make, clock, tmp_path, caplog) -> None:
    uploads = make(spool_secs=30)
    Store.error = AWAY
    with pytest.raises(StoreAwayError):
        uploads.put(f"{uploads.root}/a", b"one")
    clock.now += 29
    with pytest.raises(StoreAwayError):
        uploads.send()
    assert spooled(tmp_path) == []
    clock.now += 1
    uploads.send()
    [file] = spooled(tmp_path)
    assert (file.name, file.read_bytes()) == ("a", b"one")
    assert file.parent.as_posix().endswith(uploads.root)
    assert "has not answered for 30 s (ConnectionRefusedError: nobody there)" in caplog.text
    uploads.put(f"{uploads.root}/b", b"two")  # no error any more, and no request
    uploads.put(f"{uploads.root}/b", b"three")
    assert len(caplog.records) == 1
    Store.error = None
    clock.now += 60
    uploads.send()
    assert uploads.filesystem.cat_file(f"{uploads.root}/a") == b"one"
    assert uploads.filesystem.cat_file(f"{uploads.root}/b") == b"three"
    assert "is back" in caplog.text
    assert spooled(tmp_path) == []
    assert list((tmp_path / "spool").iterdir()) == []


def test_a_store_that_is_away_for_good_leaves_all_on_the_disk(make, clock, tmp_path) -> None:
    uploads = make()
    path = f"{uploads.root}/a"
    Store.error = AWAY
    with pytest.raises(StoreAwayError):
        uploads.put(path, b"one")
    requests = Store.requests

    def end() -> None:
        with uploads.last_chance():
            uploads.put(path, b"two")
            uploads.put(f"{uploads.root}/b", b"three")

    with pytest.raises(SpooledError, match="jaxlog upload") as info:
        end()
    assert Store.requests == requests + 1  # one more try for all of it
    folder = uploads.spool_dir
    assert folder is not None
    assert folder in str(info.value)
    Store.error = None
    assert upload_spool(folder) == 2
    assert uploads.filesystem.cat_file(path) == b"two"
    assert not Path(folder).exists()
    with pytest.raises(FileNotFoundError, match="is no folder"):
        upload_spool(folder)


def test_a_refusal_is_raised_at_once_and_a_later_put_may_do(make) -> None:
    uploads = make()
    Store.error = PermissionError("403")
    with pytest.raises(PermissionError):
        uploads.put(f"{uploads.root}/a", b"one")
    assert uploads.retry_secs is None
    Store.error = None
    uploads.put(f"{uploads.root}/a", b"one")


def test_a_spool_without_room_is_an_error(make, clock, tmp_path) -> None:
    (tmp_path / "file").write_text("no folder")
    uploads = make(spool_dir=tmp_path / "file", spool_secs=0)
    Store.error = AWAY
    with pytest.raises(NotADirectoryError):
        uploads.put(f"{uploads.root}/a", b"one")
    Store.error = None
    clock.now += 60
    uploads.send()
    assert uploads.filesystem.cat_file(f"{uploads.root}/a") == b"one"


def test_the_environment_names_the_spool(make, monkeypatch, tmp_path) -> None:
    monkeypatch.setenv("JAXLOG_SPOOL_DIR", str(tmp_path / "named"))
    uploads = make(spool_dir=None, spool_secs=0)
    Store.error = AWAY
    uploads.put(f"{uploads.root}/a", b"one")
    assert uploads.spool_dir is not None
    assert Path(uploads.spool_dir).parent == tmp_path / "named"
    assert Path(uploads.spool_dir).stat().st_mode & 0o777 == 0o700


def test_credentials_stay_out_of_the_reason(make, clock, caplog) -> None:
    uploads = make(storage_options={"secret": "verysecret"}, spool_secs=0)
    Store.error = ConnectionError("signed by verysecret")
    uploads.put(f"{uploads.root}/a", b"one")
    assert "signed by ***" in caplog.text
    assert "verysecret" not in caplog.text


def test_segments_go_on_while_the_store_is_away(make, clock, tmp_path) -> None:
    uploads = make(spool_secs=10)
    sink = EventSink(uploads)
    sink._events._segment_bytes = 200
    for step in range(40):
        Store.error = AWAY if 5 <= step < 30 else None
        sink.write([Row.of({"a": step}, step, step)])
        with contextlib.suppress(StoreAwayError):
            sink.flush()
        clock.now += 5
    assert spooled(tmp_path) == []
    sink.close()
    table = read_scalars(f"memory://{uploads.root}", backend="numpy")
    assert table["step"].tolist() == list(range(40))


def test_a_table_that_cannot_be_read_is_not_replaced(make, clock) -> None:
    first = make()
    first.put(f"{first.root}/metrics.csv", b"step,a\n0,1\n")
    uploads = make(spool_secs=10)
    table = CSVFile(uploads)
    table.write([Row.of({"a": 2.0}, 1, 0.0)])
    Store.error = AWAY
    with pytest.raises(StoreAwayError):
        table.flush()
    clock.now += 10
    table.flush()
    Store.error = None
    clock.now += 60
    table.close()
    names = sorted(uploads.filesystem.ls(uploads.root, detail=False))
    contents = [uploads.filesystem.cat_file(name) for name in names]
    assert contents == [b"step,a\n1,2\n", b"step,a\n0,1\n"]
