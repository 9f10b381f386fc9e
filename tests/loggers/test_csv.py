"""metrics.csv, as pandas reads it."""

from __future__ import annotations

import io

import pandas as pd
import pytest

from jaxlog.errors import LoggerError, WriteError
from jaxlog.loggers import CSVLogger
from jaxlog.storage import Block, open_filesystem, read_whole


def table_of(logger: CSVLogger) -> pd.DataFrame:
    text = read_whole(*open_filesystem(f"{logger.log_dir}/metrics.csv"))
    return pd.read_csv(io.BytesIO(text))


def test_steps_and_tags_are_columns(place) -> None:
    with CSVLogger(place, "name") as logger:
        logger.log_metrics({"loss": 0.5, "epoch": 0}, 9)
        logger.write_block(Block.row({"val_loss": 0.25}, 9))
    table = table_of(logger)
    assert list(table.columns) == ["step", "epoch", "loss", "val_loss"]
    assert table["step"].tolist() == [9, 9]
    assert table["val_loss"].isna().tolist() == [True, False]
    assert logger.log_dir == f"{place}/name/version_0"


def test_every_so_many_rows_are_on_storage(place) -> None:
    logger = CSVLogger(place, flush_logs_every_n_steps=2)
    for step in range(5):
        logger.log_metrics({"a": step}, step)
    logger.flush()
    assert table_of(logger)["a"].tolist() == list(range(5))
    logger.close()


def test_prefix_and_hyperparameters(place) -> None:
    with CSVLogger(place, prefix="run") as logger:
        logger.log_metrics({"step": 1.0}, 0)
        logger.log_hyperparams({"lr": 0.1}, {"score": 2.0})
    assert list(table_of(logger).columns) == ["step", "run-score", "run-step"]
    assert read_whole(*open_filesystem(f"{logger.log_dir}/hparams.yaml")) == b"lr: 0.1\n"


@pytest.mark.parametrize("block", [False, True])
def test_a_tag_named_step_is_refused(place, block) -> None:
    with CSVLogger(place) as logger:
        log = (
            logger.log_metrics
            if not block
            else lambda row, at: logger.write_block(Block.row(row, at))
        )
        with pytest.raises(LoggerError, match="'step' is the first column"):
            log({"step": 1.0}, 0)


def test_an_interval_is_at_least_1() -> None:
    with pytest.raises(LoggerError, match="flush_logs_every_n_steps must be at least 1, but got 0"):
        CSVLogger("memory://x", flush_logs_every_n_steps=0)


def test_errors_come_the_same_way(tmp_path) -> None:
    (tmp_path / "file").write_text("no folder")
    logger = CSVLogger(tmp_path / "file", "", 0)
    logger.log_metrics({"a": 1.0}, 0)
    with pytest.raises(WriteError, match=r"metrics\.csv.*1 scalars were accepted"):
        logger.flush()
    with pytest.raises(WriteError):
        logger.close()
