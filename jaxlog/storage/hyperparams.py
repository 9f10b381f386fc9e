"""Hyperparameters as `hparams.yaml` and as the records of TensorBoard's HParams page."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from jaxlog.storage.records import summary_record
from jaxlog.storage.uploads import Uploads

__all__ = ["Hyperparams", "HyperparamsFile", "flat_params", "session_end", "session_start"]

_STATUS = {"success": "STATUS_SUCCESS", "failed": "STATUS_FAILURE"}


@dataclass(frozen=True, slots=True)
class Hyperparams:
    """The hyperparameters of one `log_hyperparams` call.

    Attributes:
        params: flat; bools, numbers and strings.
        metrics: names of the metrics to show beside them.
        wall_time: seconds since the epoch.

    Example:
        >>> Hyperparams({"lr": 0.1}, ("val_loss",), 0.0).params
        {'lr': 0.1}
    """

    params: Mapping[str, bool | int | float | str]
    metrics: tuple[str, ...]
    wall_time: float


def flat_params(params: object) -> dict[str, bool | int | float | str]:
    """`params` flattened, keys joined by "/"; other values than bool, number and string as `str`.

    Example:
        >>> flat_params({"optimizer": {"lr": 0.1, "name": "adam"}, "layers": [64, 10]})
        {'optimizer/lr': 0.1, 'optimizer/name': 'adam', 'layers': '[64, 10]'}
    """
    if not isinstance(params, Mapping):
        params = vars(params)  # argparse.Namespace, dataclasses, SimpleNamespace
    flat: dict[str, bool | int | float | str] = {}
    for key, value in params.items():
        if isinstance(value, Mapping) and value:
            flat.update({f"{key}/{inner}": item for inner, item in flat_params(value).items()})
        else:
            flat[str(key)] = value if isinstance(value, bool | int | float | str) else str(value)
    return flat


class HyperparamsFile:
    """`hparams.yaml` of one run: all hyperparameters so far, rewritten when they change.

    Example:
        >>> uploads = Uploads("memory://hyperparams")
        >>> file = HyperparamsFile(uploads)
        >>> file.take({"lr": 0.1, "name": "adam"})
        >>> file.flush()
        >>> print(uploads.filesystem.cat_file("/hyperparams/hparams.yaml").decode())
        lr: 0.1
        name: adam
        <BLANKLINE>
    """

    def __init__(self, uploads: Uploads) -> None:
        self._uploads = uploads
        self._path = f"{uploads.root.rstrip('/')}/hparams.yaml"
        self._params: dict[str, Any] = {}
        self._changed = False

    def take(self, params: Mapping[str, Any]) -> None:
        """Adds `params`, replacing those with the same name."""
        self._params.update(params)
        self._changed = True

    def flush(self) -> None:
        """Writes the file if something has changed."""
        if self._changed:
            lines = (f"{_yaml(key)}: {_yaml(value)}\n" for key, value in self._params.items())
            self._uploads.put(self._path, "".join(lines).encode())
            self._changed = False


def session_start(hyperparams: Hyperparams) -> bytes:
    """The records that show a run and its hyperparameters on TensorBoard's HParams page.

    Example:
        >>> b"_hparams_/session_start_info" in session_start(Hyperparams({"lr": 0.1}, (), 0.0))
        True
    """
    experiment, start, _ = _summaries(hyperparams.params, hyperparams.metrics)
    now = hyperparams.wall_time
    return summary_record(experiment, 0, now) + summary_record(start, 0, now)


def session_end(status: str, wall_time: float) -> bytes:
    """The record that shows on TensorBoard's HParams page how the run ended.

    Example:
        >>> b"_hparams_/session_end_info" in session_end("failed", 0.0)
        True
    """
    # Imported here because it takes 0.14 to 0.49 s and most runs do not need it.
    from tensorboardX.proto import api_pb2, plugin_hparams_pb2, summary_pb2  # noqa: PLC0415

    api: Any = api_pb2  # Any: protobuf makes the classes at import, type checkers see none
    plugin: Any = plugin_hparams_pb2
    messages: Any = summary_pb2
    end = plugin.SessionEndInfo(
        status=api.Status.Value(_STATUS.get(status, "STATUS_FAILURE")), end_time_secs=wall_time
    )
    content = plugin.HParamsPluginData(session_end_info=end).SerializeToString()
    data = messages.SummaryMetadata.PluginData(plugin_name="hparams", content=content)
    value = messages.Summary.Value(
        tag="_hparams_/session_end_info", metadata=messages.SummaryMetadata(plugin_data=data)
    )
    return summary_record(messages.Summary(value=[value]).SerializeToString(), 0, wall_time)


def _summaries(params: Mapping[str, Any], metrics: Sequence[str]) -> list[bytes]:
    """Serialised `Summary`s: experiment, session start, session end."""
    from tensorboardX.summary import hparams  # noqa: PLC0415

    return [item.SerializeToString() for item in hparams(dict(params), dict.fromkeys(metrics, 0.0))]


def _yaml(value: Any) -> str:
    """A scalar as YAML; JSON's strings are YAML's double-quoted ones."""
    match value:
        case bool():
            return "true" if value else "false"
        case float() if not math.isfinite(value):
            return ".nan" if math.isnan(value) else f"{'-' * (value < 0)}.inf"
        case float():
            text = repr(float(value))
            # YAML 1.1 reads an exponent as part of a number only after a decimal point.
            return text if "." in text or "e" not in text else text.replace("e", ".0e")
        case int():
            return repr(int(value))
    text = str(value)
    return text if _is_plain(text) else json.dumps(text, ensure_ascii=False)


def _is_plain(text: str) -> bool:
    words = text.replace("/", "_").replace("-", "_")
    reserved = {"null", "true", "false", "yes", "no", "on", "off", "y", "n"}
    return words.isidentifier() and text.isascii() and text.lower() not in reserved
