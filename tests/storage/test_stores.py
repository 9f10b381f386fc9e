"""Object stores through their real clients: what is written, read, and asked of them."""

from __future__ import annotations

import traceback

import pytest

from jaxlog.errors import LoggerError, WriteError
from jaxlog.loggers import CSVLogger, TensorBoardLogger
from jaxlog.reading import read_scalars
from jaxlog.storage import open_filesystem, read_whole


def rows(url: str, options) -> list[tuple]:
    table = read_scalars(url, storage_options=options, backend="numpy")
    return list(
        zip(*(table[name].tolist() for name in ("run", "tag", "step", "value")), strict=True)
    )


def names(url: str, options) -> list[str]:
    filesystem, path = open_filesystem(url, options)
    filesystem.invalidate_cache()
    return sorted(name.removeprefix(path).strip("/") for name in filesystem.find(path))


def test_what_is_logged_is_read_back(store) -> None:
    url = store.url()
    for version in range(2):
        with TensorBoardLogger(url, "mnist", storage_options=store.options) as logger:
            for step in range(30):
                logger.log_metrics({"loss": step / 2, "größe/x y": -step}, step)
            logger.log_hyperparams({"lr": 0.1})
        assert logger.version == version
        lr = read_whole(*open_filesystem(f"{logger.log_dir}/hparams.yaml", store.options))
        assert lr == b"lr: 0.1\n"
    assert rows(url, store.options) == [
        (f"mnist/version_{version}", tag, step, value * step)
        for version in range(2)
        for tag, value in (("größe/x y", -1), ("loss", 0.5))
        for step in range(30)
    ]


def test_every_flush_is_seen_at_once(store) -> None:
    url = store.url()
    with TensorBoardLogger(url, "", "", storage_options=store.options) as logger:
        for step in range(4):
            logger.log_metrics({"a": step}, step)
            logger.flush()
            assert [row[2] for row in rows(url, store.options)] == list(range(step + 1))
    assert len(names(url, store.options)) == 1


def test_a_session_that_resumes_adds_files_and_takes_back(store) -> None:
    url = store.url()
    for start, steps in ((None, range(10)), (5, range(5, 8))):
        options = {"start_step": start, "storage_options": store.options}
        with TensorBoardLogger(url, "", "", **options) as logger:
            for step in steps:
                logger.log_metrics({"a": step}, step)
    assert len(names(url, store.options)) == 2
    assert [row[2] for row in rows(url, store.options)] == list(range(8))


def test_segments_are_put_whole_and_follow_each_other(store) -> None:
    url = store.url()
    logger = TensorBoardLogger(url, "", "", storage_options=store.options)
    logger.log_metrics({"a": 0}, 0)
    logger.flush()
    logger._writer()._sink._events._segment_bytes = 500  # type: ignore[attr-defined]
    for step in range(1, 60):
        logger.log_metrics({"a": step}, step)
        logger.flush()
    logger.close()
    found = names(url, store.options)
    assert len(found) > 3
    assert [name[-6:] for name in found] == [f"{number:06d}" for number in range(len(found))]
    assert [row[2] for row in rows(url, store.options)] == list(range(60))


def test_a_table_is_continued(store) -> None:
    url = store.url()
    for step in range(2):
        with CSVLogger(url, "", "", storage_options=store.options) as logger:
            logger.log_metrics({"a": step, f"b{step}": 1.0}, step)
    table = read_whole(*open_filesystem(f"{url}/metrics.csv", store.options))
    assert table == b"step,a,b0,b1\n0,0,1,\n1,1,,1\n"


def test_a_bucket_that_is_not_there_is_an_error_and_not_made(store) -> None:
    logger = TensorBoardLogger(
        f"{store.protocol}://nosuch/run", "", "", storage_options=store.options
    )
    logger.log_metrics({"a": 1.0}, 0)
    with pytest.raises(WriteError, match=r"could not write to \w+://nosuch/run"):
        logger.close()
    assert logger._writer().pending == 1
    with pytest.raises(LoggerError, match="closed"):
        logger.log_metrics({"a": 1.0}, 1)


def test_a_flush_is_one_request_however_many_came_before(s3) -> None:
    logger = TensorBoardLogger(s3.url(), "", "", storage_options=s3.options)
    logger.log_metrics({f"tag_{n:02}": 0.0 for n in range(10)}, 0)
    logger.flush()
    s3.requests.clear()
    for step in range(1, 101):
        logger.log_metrics({f"tag_{n:02}": step for n in range(10)}, step)
        logger.flush()
    assert [request.method for request in s3.requests] == ["PUT"] * 100
    logger.close()


def test_no_flush_carries_more_than_a_segment(s3) -> None:
    from jaxlog.storage import EventFile, Uploads

    events = EventFile(Uploads(s3.url(), s3.options))
    delta = 40_000
    for _ in range(80):  # 3.2 MB in 80 flushes
        events.append(b"x" * delta)
        events.flush()
    puts = [request for request in s3.requests if request.method == "PUT"]
    assert len(puts) == 80
    assert max(request.size for request in puts) <= (1 << 20) + 2 * delta
    assert max(request.size for request in puts[60:]) <= (1 << 20) + 2 * delta


def test_an_answer_of_403_is_an_error_without_credentials(s3) -> None:
    logger = TensorBoardLogger(s3.url(), "", "", storage_options=s3.options)
    logger.log_metrics({"a": 1.0}, 0)
    s3.status = "403 Forbidden"
    with pytest.raises(WriteError, match="PermissionError") as info:
        logger.flush()
    assert s3.options["secret"] not in "".join(traceback.format_exception(info.value))
    s3.status = None
    logger.close()
    assert logger._writer().pending == 0


def test_a_store_that_is_away_and_comes_back(s3, tmp_path) -> None:
    url = s3.url()
    logger = TensorBoardLogger(
        url, "", "", storage_options=s3.options, spool_secs=0, spool_dir=tmp_path
    )
    for step in range(6):
        s3.status = "503 Slow Down" if 2 <= step < 4 else None
        logger.log_metrics({"a": step}, step)
        logger.flush()
    logger.close()
    assert [row[2] for row in rows(url, s3.options)] == list(range(6))
    assert list(tmp_path.iterdir()) == []


def test_a_store_that_is_away_for_good(s3, tmp_path) -> None:
    from jaxlog.storage import upload_spool

    url = s3.url()
    logger = TensorBoardLogger(url, "", "", storage_options=s3.options, spool_dir=tmp_path)
    logger.log_metrics({"a": 1.0}, 0)
    s3.status = "500 Internal Server Error"
    with pytest.raises(WriteError, match=r"does not answer .*jaxlog upload"):
        logger.close()
    [folder] = tmp_path.iterdir()
    [table] = [read_scalars(folder, backend="numpy")]
    assert table["value"].tolist() == [1.0]
    s3.status = None
    assert upload_spool(folder, s3.options) == 1
    assert rows(url, s3.options) == [(".", "a", 0, 1.0)]


def test_a_store_that_is_away_when_a_version_is_looked_for(s3) -> None:
    logger = TensorBoardLogger(s3.url(), storage_options=s3.options)
    s3.status = "503 Slow Down"
    with pytest.raises(WriteError, match=r"could not list .*jaxlog_logs.*write version=0"):
        logger.log_metrics({"a": 1.0}, 0)
    s3.status = None
    logger.log_metrics({"a": 1.0}, 0)
    logger.close()
    assert logger.version == 0
