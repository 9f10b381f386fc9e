"""Where a traced program logs: a walk over its jaxpr that runs nothing.

The walk knows of each log equation whether a step may reach it more than once (a scan, a mapped
axis) or not at all (a branch, a while loop); that fixes the schema before a value is computed.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

from jaxlog.compat import is_jaxpr, opened, where_logged
from jaxlog.errors import CaptureError, SchemaError
from jaxlog.logs.lowering import LogCall, entry_of
from jaxlog.logs.schema import Entry, Schema
from jaxlog.tracing.primitive import log_p

__all__ = ["INLINED", "Site", "logs_inside", "schema_of", "sites", "subjaxprs"]

# Primitives that run their one jaxpr exactly once.
INLINED = frozenset(
    {"jit", "pjit", "closed_call", "core_call", "eval_jaxpr", "remat2", "checkpoint"}
    | {"custom_jvp_call", "custom_vjp_call"}
)


class Site(NamedTuple):
    """One log equation and how often a step reaches it."""

    call: LogCall
    repeated: bool
    optional: bool
    line: str


def subjaxprs(eqn: Any) -> Iterator[Any]:
    """Every jaxpr among an equation's parameters."""
    for param in eqn.params.values():
        for candidate in param if isinstance(param, (tuple, list)) else (param,):
            if is_jaxpr(candidate):
                yield candidate


def logs_inside(eqn: Any) -> bool:
    """Whether the equation is a log or holds one at any depth."""
    if eqn.primitive is log_p:
        return True
    return any(_has_logs(jaxpr) for jaxpr in subjaxprs(eqn))


def _has_logs(jaxpr: Any) -> bool:
    return any(logs_inside(eqn) for eqn in opened(jaxpr)[0].eqns)


def sites(
    jaxpr: Any, *, repeated: bool = False, optional: bool = False, sharded: bool = False
) -> Iterator[Site]:
    """The log equations of a jaxpr, in program order.

    Args:
        jaxpr: what to walk.
        repeated: whether a step reaches it more than once.
        optional: whether a step may not reach it.
        sharded: whether it runs once a shard.

    Raises:
        CaptureError: a log inside a primitive that capture cannot see through.
    """
    for eqn in opened(jaxpr)[0].eqns:
        if eqn.primitive is log_p:
            # Shards are reduced only where sync_dist asks for it; else the first one speaks.
            several = repeated or (sharded and eqn.params["call"].options.syncs)
            yield _site(eqn, repeated=several, optional=optional)
            continue
        if not logs_inside(eqn):
            continue
        kind = eqn.primitive.name
        if kind in INLINED:
            again, maybe, inner = False, False, list(subjaxprs(eqn))
        elif kind == "scan":
            length = eqn.params["length"]
            again, maybe, inner = length > 1, length == 0, [eqn.params["jaxpr"]]
        elif kind == "while":
            _refuse_log_in_condition(eqn)
            again, maybe, inner = True, True, [eqn.params["body_jaxpr"]]
        elif kind == "cond":
            again, maybe, inner = False, True, list(eqn.params["branches"])
        elif kind == "shard_map":
            again, maybe, inner = False, False, [eqn.params["jaxpr"]]
        else:
            raise _cannot_see_through(eqn)
        for part in inner:
            yield from sites(
                part,
                repeated=repeated or again,
                optional=optional or maybe,
                sharded=sharded or kind == "shard_map",
            )


def _site(eqn: Any, *, repeated: bool, optional: bool) -> Site:
    call: LogCall = eqn.params["call"]
    mapped = len(eqn.invars[0].aval.shape) > call.ranks[0]
    return Site(call, repeated or mapped, optional, where_logged(eqn))


def _names_inside(jaxpr: Any) -> list[str]:
    names = []
    for eqn in opened(jaxpr)[0].eqns:
        if eqn.primitive is log_p:
            names.append(eqn.params["call"].name)
        for inner in subjaxprs(eqn):
            names.extend(_names_inside(inner))
    return names


def _refuse_log_in_condition(eqn: Any) -> None:
    names = _names_inside(eqn.params["cond_jaxpr"])
    if names:
        raise CaptureError(
            f"{names[0]!r} is logged in the condition of a while loop ({where_logged(eqn)}), which "
            f"can return nothing but its verdict; log it in the body"
        )


def _cannot_see_through(eqn: Any) -> CaptureError:
    names = [name for inner in subjaxprs(eqn) for name in _names_inside(inner)]
    return CaptureError(
        f"{names[0]!r} is logged inside {eqn.primitive.name!r} ({where_logged(eqn)}), which "
        f"capture cannot see through; return the value from it and log it outside"
    )


def schema_of(jaxpr: Any) -> Schema:
    """The schema of everything a jaxpr logs.

    Raises:
        SchemaError: two calls disagree about a key; the message names both lines.
        CaptureError: a log inside a primitive that capture cannot see through.
    """
    found: dict[str, list[Site]] = {}
    for site in sites(jaxpr):
        found.setdefault(site.call.name, []).append(site)
    return Schema(tuple(_entry(group) for group in found.values()))


def _entry(group: list[Site]) -> Entry:
    repeated = len(group) > 1 or group[0].repeated
    # A key is always there if one of its calls is.
    optional = all(site.optional or site.call.masked for site in group)
    first = group[0]
    entry = entry_of(first.call, repeated=repeated, optional=optional)
    for site in group[1:]:
        try:
            entry = entry.join(entry_of(site.call, repeated=repeated, optional=optional))
        except SchemaError as error:
            raise SchemaError(f"{error} (at {first.line} and {site.line})") from None
    return entry
