"""A hint for users: how to start TensorBoard so that it follows a live run on an object store.

TensorBoard reads abfs:// and, without boto3, s3:// through fsspec, whose clients cache directory
listings. It then shows the files of its first listing for ever, unless that cache is switched off.
"""

from __future__ import annotations

import importlib.util
import json
import logging

from jaxlog.storage.secrets import safe_url
from jaxlog.storage.uploads import Uploads

__all__ = ["log_tensorboard_hint", "tensorboard_command"]

# Protocols that TensorBoard reads through fsspec, by the name of fsspec's environment variable.
_LISTING_CACHED = {"s3": "S3", "s3a": "S3A", "abfs": "ABFS", "abfss": "ABFSS", "az": "AZ"}
_said: set[str] = set()


def tensorboard_command(url: str) -> str | None:
    """The command for a TensorBoard that follows a live run; None if the plain command does.

    Example:
        >>> print(tensorboard_command("abfs://bucket/logs"))
        FSSPEC_ABFS='{"use_listings_cache": false}' tensorboard --logdir abfs://bucket/logs
        >>> tensorboard_command("/tmp/logs") is None
        True
    """
    protocol = url.partition("://")[0] if "://" in url else ""
    if protocol not in _LISTING_CACHED:
        return None
    if protocol == "s3" and importlib.util.find_spec("boto3") is not None:
        return None
    option = json.dumps({"use_listings_cache": False})
    return f"FSSPEC_{_LISTING_CACHED[protocol]}='{option}' tensorboard --logdir {safe_url(url)}"


def log_tensorboard_hint(uploads: Uploads, save_dir: str) -> None:
    """Logs that command as a warning, once per protocol and process.

    Example:
        >>> log_tensorboard_hint(Uploads("memory://logs"), "memory://logs")
    """
    command = None if uploads.is_local else tensorboard_command(save_dir)
    protocol = save_dir.partition("://")[0]
    if command is not None and protocol not in _said:
        _said.add(protocol)
        logging.getLogger("jaxlog").warning(
            "a plain TensorBoard on %s:// shows nothing new of a live run, for it keeps its first "
            "listing; start it by: %s", protocol, command,
        )  # fmt: skip
