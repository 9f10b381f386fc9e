"""Where a traced program logs: a walk over its jaxpr that computes nothing.

The walk finds for each log equation whether a step may reach it more than once (a scan, a mapped
axis) or not at all (a branch, a while loop). That fixes the schema before any value is computed.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, NamedTuple

from jaxlog.compat import opened, where_logged
from jaxlog.errors import CaptureError, SchemaError
from jaxlog.logs import KeySpec, LogCall, Schema, ShardAxes, spec_of
from jaxlog.tracing.primitive import log_p
from jaxlog.tracing.programs import LogIndex, inner_programs, is_log
from jaxlog.tracing.reduced import refuse_reduced_twice
from jaxlog.tracing.rule import Rule, rule_of

__all__ = ["Site", "schema_of", "sites"]


class Site(NamedTuple):
    """One log equation and how often the program around it reaches it.

    Attributes:
        call: the static half of the log call.
        line: file and line of the user's code.
        shard_axes: the shards of the outermost shard_map around it; None outside of one.
        repeated: whether the program, or each of its shards, may reach it more than once.
        optional: whether the program may not reach it.
    """

    call: LogCall
    line: str
    shard_axes: ShardAxes | None
    repeated: bool
    optional: bool


def sites(program: Any, index: LogIndex) -> Sequence[Site]:
    """The log equations of a program, in program order, each once.

    Raises:
        CaptureError: a log inside a primitive without a rule, or in a program of an equation that
            cannot return it.
    """
    return _Walk(index).sites(program)


class _Walk:
    """Walks each inner program once: its sites are the same wherever an equation runs it."""

    def __init__(self, index: LogIndex) -> None:
        self._index = index
        self._walked: dict[int, Sequence[Site]] = {}

    def sites(self, program: Any) -> Sequence[Site]:
        jaxpr = opened(program)[0]
        if id(jaxpr) not in self._walked:
            self._walked[id(jaxpr)] = self._walk(jaxpr)
        return self._walked[id(jaxpr)]

    def _walk(self, jaxpr: Any) -> Sequence[Site]:
        found: dict[Any, Site] = {}
        for position, names in self._index.equations(jaxpr).items():
            for site in self._of_equation(jaxpr.eqns[position], names):
                # Two equations that run one program reach its logs twice. Merging their sites keeps
                # the walk linear where programs share programs that share programs.
                key = site.call, site.line, site.shard_axes
                twice = found.get(key)
                found[key] = site if twice is None else _reached_by_both(twice, site)
        return tuple(found.values())

    def _of_equation(self, eqn: Any, names: Sequence[str]) -> list[Site]:
        if is_log(eqn):
            return [_site(eqn)]
        rule = rule_of(eqn, names)
        programs = rule.programs(eqn)
        self._refuse_logs_outside(rule, eqn, programs)
        return [_through(site, rule, eqn) for program in programs for site in self.sites(program)]

    def _refuse_logs_outside(self, rule: Rule, eqn: Any, programs: Sequence[Any]) -> None:
        seen = {id(opened(program)[0]) for program in programs}
        others = [inner for inner in inner_programs(eqn) if id(opened(inner)[0]) not in seen]
        if names := self._index.names(*others):
            where, advice = rule.outside
            raise CaptureError(f"{names[0]!r} is logged in {where} ({where_logged(eqn)}); {advice}")


def _site(eqn: Any) -> Site:
    call: LogCall = eqn.params["call"]
    values = eqn.invars if eqn.primitive is log_p else eqn.params["jaxpr"].outvars
    mapped = len(values[0].aval.shape) > call.ranks[0]
    return Site(call, where_logged(eqn), None, repeated=mapped, optional=call.lazy)


def _through(site: Site, rule: Rule, eqn: Any) -> Site:
    """A site of an inner program as a site of the program that the equation is in."""
    axes, repeats = rule.shard_axes(eqn), rule.repeats(eqn)
    if axes is not None and site.shard_axes is not None:
        repeats = True  # the shards of a shard_map inside another are reduced where they are
    return site._replace(
        shard_axes=axes or site.shard_axes,
        repeated=site.repeated or repeats,
        optional=site.optional or rule.may_skip(eqn),
    )


def _reached_by_both(a: Site, b: Site) -> Site:
    return a._replace(repeated=True, optional=a.optional and b.optional)


def schema_of(
    program: Any, index: LogIndex, *, keep_shards: bool = False, mapped: bool = False
) -> Schema:
    """The schema of everything a program logs.

    Args:
        program: the traced program, a jaxpr.
        index: which of its equations log.
        keep_shards: whether the shards of a shard_map keep their state apart where they can.
        mapped: whether each of several devices runs the program.

    Raises:
        SchemaError: two calls disagree about a key, and the message names both lines; or a value
            would be reduced over devices twice.
        CaptureError: see `sites`.
    """
    found: dict[str, list[Site]] = {}
    for site in sites(program, index):
        found.setdefault(site.call.name, []).append(site)
    refuse_reduced_twice(program, index, unchecked=mapped)
    axes_found = (site.shard_axes for group in found.values() for site in group if site.shard_axes)
    # A step has room for the shards of one mesh.
    kept = next(axes_found, None) if keep_shards and not mapped else None
    specs = (_key_spec(group, kept) for group in found.values())
    outside = ShardAxes() if mapped else None
    return Schema(tuple(dataclasses.replace(e, shard_axes=e.shard_axes or outside) for e in specs))


def _key_spec(group: Sequence[Site], kept: ShardAxes | None) -> KeySpec:
    """The key spec of one name, given all its sites."""
    shard_axes = kept if all(site.shard_axes == kept for site in group) else None
    # Shards that are reduced inside the step are several calls, where sync_dist asks for all.
    together = (
        any(site.shard_axes and site.call.options.syncs for site in group) and shard_axes is None
    )
    repeated = len(group) > 1 or group[0].repeated or together
    # A key is present in every step if one of its calls is; shards that do not contribute have
    # logged nothing, so kept shards are always optional.
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
