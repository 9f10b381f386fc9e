"""Several processes that run one loop log the same, or all raise before they can wait forever.

Processes that trace different programs wait for each other forever, each in a collective that the
other never reaches. So before a step is first compiled they compare what it logs, over the
coordinator's key-value store, which needs no device.
"""

from __future__ import annotations

import hashlib
import json

import jax

from jaxlog.compat import key_value_store
from jaxlog.errors import SchemaError
from jaxlog.logs import Schema

__all__ = ["check_same_schema"]

TIMEOUT_SECS = 120


def check_same_schema(name: str, schema: Schema) -> None:
    """Holds all processes to one schema; does nothing with one process.

    Args:
        name: a name for this comparison, the same on all processes and never used again.
        schema: what this process logs.

    Raises:
        SchemaError: another process logs other keys, or did not come here in time; on all of them.
    """
    store = key_value_store()
    if store is None or jax.process_count() == 1:
        return
    keys = {spec.name: hashlib.sha256(repr(spec).encode()).hexdigest() for spec in schema}
    store.set(f"{name}/keys/{jax.process_index()}", json.dumps(keys))
    if jax.process_index() == 0:
        # One process compares, so that all hear the same.
        store.set(f"{name}/verdict", _verdict(name, keys))
    verdict = store.get(f"{name}/verdict", 2 * TIMEOUT_SECS)
    if verdict is None:
        verdict = "process 0 did not compile this step, or was too late"
    if verdict:
        raise SchemaError(
            f"processes do not log the same: {verdict}; every process has to run the same program: "
            f"log it on all of them, with rank_zero_only=True if one value is enough"
        )


def _verdict(name: str, mine: dict[str, str]) -> str:
    """What is wrong, or nothing."""
    store = key_value_store()
    assert store is not None  # the caller has asked
    for process in range(1, jax.process_count()):
        found = store.get(f"{name}/keys/{process}", TIMEOUT_SECS)
        if found is None:
            return f"process {process} did not compile this step within {TIMEOUT_SECS} s"
        theirs: dict[str, str] = json.loads(found)
        if only := sorted(set(theirs) - set(mine)):
            return f"process {process} logs {only}, process 0 does not"
        if only := sorted(set(mine) - set(theirs)):
            return f"process 0 logs {only}, process {process} does not"
        if other := sorted(key for key in mine if mine[key] != theirs[key]):
            return f"process {process} logs {other} with other options or dtypes than process 0"
        if list(mine) != list(theirs):
            return f"process {process} logs {list(theirs)} in another order than process 0"
    return ""
