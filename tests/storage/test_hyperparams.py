"""Hyperparameters as YAML that reads back, and as TensorBoard's messages."""

from __future__ import annotations

import argparse
import importlib
import json
import math
from typing import Any

import pytest

from jaxlog.storage import (
    Hyperparams,
    HyperparamsFile,
    Uploads,
    flat_params,
    open_filesystem,
    read_whole,
    session_end,
    session_start,
)

# Made at import by protobuf, so their classes are unknown to a type checker.
event_pb2: Any = importlib.import_module("tensorboard.compat.proto.event_pb2")
plugin_data_pb2: Any = importlib.import_module("tensorboard.plugins.hparams.plugin_data_pb2")


def data_of(record: bytes) -> Any:
    value = event_pb2.Event.FromString(record[12:-4]).summary.value[0]
    assert value.metadata.plugin_data.plugin_name == "hparams"
    return plugin_data_pb2.HParamsPluginData.FromString(value.metadata.plugin_data.content)


def test_any_shape_of_params_becomes_flat() -> None:
    params = argparse.Namespace(lr=0.1, layers=[1, 2], opt={"b": {"c": None}}, empty={}, on=True)
    assert flat_params(params) == {
        "lr": 0.1, "layers": "[1, 2]", "opt/b/c": "None", "empty": "{}", "on": True,
    }  # fmt: skip


def test_the_page_gets_parameters_and_metrics() -> None:
    records = session_start(Hyperparams({"lr": 0.5, "name": "x", "on": True}, ("val_loss",), 2.0))
    first = 16 + int.from_bytes(records[:8], "little")
    experiment, start = data_of(records[:first]), data_of(records[first:])
    assert [info.name for info in experiment.experiment.hparam_infos] == ["lr", "name", "on"]
    assert experiment.experiment.metric_infos[0].name.tag == "val_loss"
    assert start.session_start_info.hparams["lr"].number_value == 0.5
    assert start.session_start_info.hparams["name"].string_value == "x"


@pytest.mark.parametrize(("status", "number"), [("success", 1), ("failed", 2), ("other", 2)])
def test_the_page_is_told_how_a_run_ended(status, number) -> None:
    end = data_of(session_end(status, 12.0)).session_end_info
    assert (end.status, end.end_time_secs) == (number, 12.0)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (True, "true"), (3, "3"), (0.1, "0.1"), (1e-20, "1.0e-20"), (1.5e300, "1.5e+300"),
        (math.inf, ".inf"), (-math.inf, "-.inf"), (math.nan, ".nan"), ("adam", "adam"),
        ("yes", '"yes"'), ("None", "None"), ("null", '"null"'), ("a: b", '"a: b"'),
        ("", '""'), ("1", '"1"'), ("é\n#", '"é\\n#"'), ("conv-net", "conv-net"),
    ],
)  # fmt: skip
def test_values_are_yaml(memory_url, value, text) -> None:
    file = HyperparamsFile(Uploads(memory_url))
    file.take({"key": value})
    file.flush()
    written = read_whole(*open_filesystem(f"{memory_url}/hparams.yaml")).decode()
    assert written == f"key: {text}\n"
    if text.startswith('"'):
        assert json.loads(text) == value


def test_later_params_join_the_earlier(place) -> None:
    file = HyperparamsFile(Uploads(place))
    for params in ({"a": 1, "b": 2}, {"b": 3, "c/d": 4}):
        file.take(params)
        file.flush()
    written = read_whole(*open_filesystem(f"{place}/hparams.yaml")).decode()
    assert written == "a: 1\nb: 3\nc/d: 4\n"


def test_nothing_is_written_without_params(place) -> None:
    HyperparamsFile(Uploads(place)).flush()
    filesystem, path = open_filesystem(f"{place}/hparams.yaml")
    assert not filesystem.exists(path)
