"""What was logged: the schema of the keys (static) and the state that holds their values (arrays).

Read in this order::

    hooks.py            the table of hooks: what a log call means where it is made
    reduce.py           the table of reductions, and the weighted mean
    options.py          the options of a log call: declaration, defaults, check
    arguments.py        the other arguments of a log call, checked at trace time
    fields.py           the values that a key keeps of one step
    shard_axes.py       values that differ between shards, and which of them count
    schema.py           KeySpec and Schema: all that is known before anything runs
    normalize.py        a checked log call as arrays, and the key spec that it needs
    accumulator_state.py  what one step has logged of a key so far, on the device
    packing.py          many small values in one array of words, and back
    ring_buffer.py      the packed rows of the latest steps
    totals.py           running reductions over steps, on the device
    logs.py             Logs: ring buffer and totals as one pytree
    recording.py        Recording: what the step of a loop records, without totals
    columns.py          fetched rows as numpy columns, on the host
    layout.py           the same for many keys at once

A value goes from `normalize` into an accumulator state, from there into a packed row, and after the
fetch into a column. Nothing here knows of loops, files or times.
"""

from jaxlog.logs.accumulator_state import (
    AccumulatorState,
    StepState,
    contribution,
    fold_axes,
    merge,
    merge_steps,
    neutral,
)
from jaxlog.logs.arguments import check_call
from jaxlog.logs.columns import Column, decode_rows
from jaxlog.logs.fields import Field, scalar_fields
from jaxlog.logs.hooks import HOOKS, Hook, find_hook, resolve_flags
from jaxlog.logs.layout import LayoutGroup, layout_groups
from jaxlog.logs.logs import Logs
from jaxlog.logs.normalize import LogCall, Logged, normalize_call, spec_of
from jaxlog.logs.options import (
    CALL_ARGUMENTS,
    NAN_POLICIES,
    LogOptions,
    NanPolicy,
    Options,
    check_names,
    check_options,
    takes_options,
)
from jaxlog.logs.packing import offsets, pack, pack_host, unpack, unpack_host
from jaxlog.logs.recording import Part, Recording
from jaxlog.logs.reduce import REDUCTIONS, MeanTerm, Reduction, mean_terms
from jaxlog.logs.ring_buffer import (
    RingBuffer,
    blank_row,
    merge_ring_buffers,
    pack_state,
    push_row,
)
from jaxlog.logs.schema import KeySpec, LeafSpec, Schema, check_same_options
from jaxlog.logs.shard_axes import ShardAxes, contributing_devices, contributing_shards
from jaxlog.logs.totals import empty_totals, fold_step, merge_totals, total_values

__all__ = [
    "CALL_ARGUMENTS",
    "HOOKS",
    "NAN_POLICIES",
    "REDUCTIONS",
    "AccumulatorState",
    "Column",
    "Field",
    "Hook",
    "KeySpec",
    "LayoutGroup",
    "LeafSpec",
    "LogCall",
    "LogOptions",
    "Logged",
    "Logs",
    "MeanTerm",
    "NanPolicy",
    "Options",
    "Part",
    "Recording",
    "Reduction",
    "RingBuffer",
    "Schema",
    "ShardAxes",
    "StepState",
    "blank_row",
    "check_call",
    "check_names",
    "check_options",
    "check_same_options",
    "contributing_devices",
    "contributing_shards",
    "contribution",
    "decode_rows",
    "empty_totals",
    "find_hook",
    "fold_axes",
    "fold_step",
    "layout_groups",
    "mean_terms",
    "merge",
    "merge_ring_buffers",
    "merge_steps",
    "merge_totals",
    "neutral",
    "normalize_call",
    "offsets",
    "pack",
    "pack_host",
    "pack_state",
    "push_row",
    "resolve_flags",
    "scalar_fields",
    "spec_of",
    "takes_options",
    "total_values",
    "unpack",
    "unpack_host",
]
