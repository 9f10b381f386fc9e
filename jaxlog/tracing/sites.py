"""Where a traced program logs: a walk over its jaxpr that runs nothing.

The walk knows of each log equation whether a step may reach it more than once (a scan, a mapped
axis) or not at all (a branch, a while loop); that fixes the schema before a value is computed.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any, NamedTuple

from jaxlog.compat import manual_axes, opened, where_logged
from jaxlog.errors import CaptureError, SchemaError
from jaxlog.logs.normalize import LogCall, spec_of
from jaxlog.logs.schema import KeySpec, Schema, ShardAxes
from jaxlog.tracing.lazy import lazy_p
from jaxlog.tracing.primitive import log_p
from jaxlog.tracing.reduced import refuse_reduced_twice
from jaxlog.tracing.subjaxprs import subjaxprs

__all__ = [
    "INLINED",
    "Site",
    "logs_inside",
    "schema_of",
    "shard_axes_of",
    "sites",
]

# Primitives that run their one jaxpr exactly once.
INLINED = frozenset(
    {"jit", "pjit", "closed_call", "core_call", "eval_jaxpr", "remat2", "checkpoint"}
    | {"custom_jvp_call", "custom_vjp_call"}
)


class Site(NamedTuple):
    """One log equation and how often a step reaches it.

    Attributes:
        call: its static half.
        repeated: whether a step, or each of its shards, reaches it more than once.
        optional: whether a step may not reach it.
        shard_axes: the shards of the outermost shard_map around it, if there is one.
        line: where it stands.
    """

    call: LogCall
    repeated: bool
    optional: bool
    shard_axes: ShardAxes | None
    line: str


def logs_inside(eqn: Any) -> bool:
    """Whether the equation is a log or holds one at any depth."""
    return _is_log(eqn) or any(
        logs_inside(inner) for jaxpr in subjaxprs(eqn) for inner in opened(jaxpr)[0].eqns
    )


def _is_log(eqn: Any) -> bool:
    return eqn.primitive is log_p or eqn.primitive is lazy_p


def sites(
    jaxpr: Any,
    *,
    repeated: bool = False,
    optional: bool = False,
    shard_axes: ShardAxes | None = None,
) -> Iterator[Site]:
    """The log equations of a jaxpr, in program order.

    Args:
        jaxpr: what to walk.
        repeated: whether a step reaches it more than once.
        optional: whether a step may not reach it.
        shard_axes: the shards that run it, once each.

    Raises:
        CaptureError: a log inside a primitive that capture cannot see through.
    """
    for eqn in opened(jaxpr)[0].eqns:
        if _is_log(eqn):
            yield _site(eqn, repeated=repeated, optional=optional, shard_axes=shard_axes)
            continue
        if not logs_inside(eqn):
            continue
        kind, around = eqn.primitive.name, shard_axes
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
            # The shards of one inside another are reduced where they are.
            again, maybe, inner = shard_axes is not None, False, [eqn.params["jaxpr"]]
            around = shard_axes or shard_axes_of(eqn)
        else:
            raise _cannot_see_through(eqn)
        for part in inner:
            yield from sites(
                part,
                repeated=repeated or again,
                optional=optional or maybe,
                shard_axes=around,
            )


def shard_axes_of(eqn: Any) -> ShardAxes:
    """The shards of a shard_map."""
    mesh, manual = eqn.params["mesh"], manual_axes(eqn.params)
    return ShardAxes(mesh, tuple(axis for axis in mesh.axis_names if axis in manual))


def _site(eqn: Any, *, repeated: bool, optional: bool, shard_axes: ShardAxes | None) -> Site:
    call: LogCall = eqn.params["call"]
    values = eqn.invars if eqn.primitive is log_p else eqn.params["jaxpr"].outvars
    mapped = len(values[0].aval.shape) > call.ranks[0]
    return Site(call, repeated or mapped, optional or call.lazy, shard_axes, where_logged(eqn))


def _names_inside(jaxpr: Any) -> list[str]:
    names = []
    for eqn in opened(jaxpr)[0].eqns:
        if _is_log(eqn):
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


def schema_of(jaxpr: Any, *, keep_shards: bool = False, mapped: bool = False) -> Schema:
    """The schema of everything a jaxpr logs.

    Args:
        jaxpr: the program.
        keep_shards: whether the shards of a shard_map keep their state apart where they can.
        mapped: whether the program itself is run by each of several devices.

    Raises:
        SchemaError: two calls disagree about a key, and the message names both lines; or a value
            would be reduced over devices twice.
        CaptureError: a log inside a primitive that capture cannot see through.
    """
    refuse_reduced_twice(jaxpr, unchecked=mapped)
    found: dict[str, list[Site]] = {}
    for site in sites(jaxpr):
        found.setdefault(site.call.name, []).append(site)
    axes_found = (site.shard_axes for group in found.values() for site in group if site.shard_axes)
    # A step has room for the shards of one mesh.
    kept = next(axes_found, None) if keep_shards and not mapped else None
    specs = (_entry(group, kept) for group in found.values())
    outside = ShardAxes() if mapped else None
    return Schema(tuple(dataclasses.replace(e, shard_axes=e.shard_axes or outside) for e in specs))


def _entry(group: list[Site], kept: ShardAxes | None) -> KeySpec:
    shard_axes = kept if all(site.shard_axes == kept for site in group) else None
    # Shards that do not stay apart are several calls, where sync_dist asks for all of them.
    together = (
        any(site.shard_axes and site.call.options.syncs for site in group) and shard_axes is None
    )
    repeated = len(group) > 1 or group[0].repeated or together
    # A key is always there if one of its calls is; but shards that do not speak are not.
    absent = all(site.optional or site.call.masked for site in group)
    optional = absent or shard_axes is not None
    first = group[0]
    spec = spec_of(first.call, repeated=repeated, optional=optional)
    for site in group[1:]:
        try:
            spec = spec.join(spec_of(site.call, repeated=repeated, optional=optional))
        except SchemaError as error:
            raise SchemaError(f"{error} (at {first.line} and {site.line})") from None
    return dataclasses.replace(spec, shard_axes=shard_axes)
