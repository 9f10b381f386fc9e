"""`CompiledStep`: a user's step function captured and compiled, its recording threaded inside."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Generic, ParamSpec, TypeVar

import jax
import numpy as np

from jaxlog.errors import LogArgumentError
from jaxlog.logs import Recording, Schema
from jaxlog.steps.agreement import check_same_schema
from jaxlog.steps.gather import gathered
from jaxlog.steps.shifted_arguments import (
    parameters_of,
    shifted_for_jit,
    shifted_for_pmap,
    signature_with_recording,
    take_lane_axes,
    unwrapped,
)
from jaxlog.steps.stage import Stage
from jaxlog.tracing import (
    Captured,
    SchemaMismatchError,
    place_recording,
    placement_of,
    transform_for,
)
from jaxlog.windows import Segment

__all__ = ["CompiledStep"]

P = ParamSpec("P")
R = TypeVar("R")

_ids = itertools.count()
# The recording among the arguments of the compiled function: `Recording.arrays` in a dict keyed by
# the version of the schema. As a pytree node the schema itself would be hashed and compared by jit
# at every call.
_Arrays = dict[str, tuple[Any, ...]]


class CompiledStep(Generic[P, R]):
    """Called like the user's function; made by `loop.training_step` and its siblings.

    Attributes:
        schema: what the step logs, as far as it is known.
        last_rows: the packed rows of the latest call, for bars; None if no bar shows any.
    """

    __name__: str
    __wrapped__: Callable[P, R]

    def __init__(
        self,
        stage: Stage,
        fn: Callable[P, R],
        hook: str,
        transform: Callable[..., Any],
        transform_kwargs: Mapping[str, Any],
    ) -> None:
        """See `Loop.training_step`."""
        self._captured = Captured(fn, hook=hook)
        functools.update_wrapper(self, fn, updated=())
        self._fn = fn
        self._stage = stage
        self._transform, self._kwargs = unwrapped(transform, transform_kwargs)
        self._is_pmapped = self._transform is jax.pmap
        self._num_lanes = len(stage.settings.lanes)
        self._lane_axes = take_lane_axes(self._kwargs, self._transform) if self._num_lanes else None
        self._id = next(_ids)  # the same on every process: each makes its steps in one order
        self._growths = 0
        self._compiled: Any = None
        self._recording: _Arrays | None = None
        self._placement: Any = None
        self._batches: list[int] = []
        self._weighed: str | None = None
        self._was_traced = False
        self.schema = Schema()
        self.last_rows: Any = None

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Runs the step in the running phase; what it logs belongs to the current batch.

        Raises:
            HookError: no phase of this step's stage is running.
            SchemaError: a key is logged with other options than elsewhere in the stage.
        """
        stage = self._stage
        batch = stage.begin_call(self)
        if self._num_lanes and kwargs:
            raise LogArgumentError(
                f"keyword arguments {sorted(kwargs)} to a step of Loop(lanes=...): jax.vmap knows "
                f"axes of positional ones only; pass them by position"
            )
        # Made at the first call, since the placement of the arguments decides that of the logs.
        if self._recording is None:
            self._begin(args, kwargs)
        try:
            run = self._compiled(self._with_should_write(), *args, **kwargs)
        except SchemaMismatchError as mismatch:
            # At the first call, and whenever another trace of the step logs something new.
            self._grow(mismatch.needed)
            run = self._compiled(self._with_should_write(), *args, **kwargs)
        self._recording, self.last_rows, out = run
        if self._num_lanes or (self._is_pmapped and jax.process_count() > 1):
            self.last_rows = None  # not yet what will be shown: bars have it with the window
        self._batches.append(batch)
        stage.outputs = out
        if self._weighed is not None:
            stage.require_size(self._weighed)
        if self._was_traced:
            self._was_traced = False
            stage.exclude_compile_time()
        # The ring buffer is full. With several calls a batch that happens within a window.
        if len(self._batches) == stage.settings.window_steps:
            stage.add_segment(self.take())
        return out

    def lower(self, *args: P.args, **kwargs: P.kwargs) -> Any:
        """The step's program for these arguments, lowered, as `jax.jit(fn).lower` gives it.

        For `.compile()`, `.as_text()` and `.cost_analysis()`; it runs nothing and needs no phase.
        """
        if self._recording is None:
            self._begin(args, kwargs)
        try:
            return self._compiled.lower(self._with_should_write(should_write=True), *args, **kwargs)
        except SchemaMismatchError as mismatch:
            self._grow(mismatch.needed)
            return self._compiled.lower(self._with_should_write(should_write=True), *args, **kwargs)

    # ---- the compiled function ------------------------------------------------------------------

    def _begin(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
        """Prepares the first call."""
        self._transform = transform_for(self._transform, self._fn, (args, kwargs))
        self._compiled = self._compile(len(args))
        self._placement = placement_of(jax.tree.leaves((args, kwargs)))
        self._recording = self._fresh()

    def _with_should_write(self, *, should_write: bool | None = None) -> _Arrays:
        """The recording, told whether this step is written if a lazy value asks for that.

        Args:
            should_write: whether it is; None asks the stage.
        """
        assert self._recording is not None  # made before the first call
        if not self.schema.lazy:
            return self._recording
        is_written = np.asarray(self._stage.should_write if should_write is None else should_write)
        here = (self._num_devices_here,) if self._is_pmapped else ()
        ((version, arrays),) = self._recording.items()
        return {version: (*arrays[:-1], np.broadcast_to(is_written, here))}

    def _compile(self, count: int) -> Any:
        """The step with its recording in front, compiled for calls with `count` arguments."""

        def run(arrays: _Arrays, *args: Any, **kwargs: Any) -> Any:
            # Runs while JAX traces, and only then: so a call knows afterwards that it compiled.
            self._was_traced = True
            ((version, of_recording),) = arrays.items()
            schema = self.schema
            recording = Recording(schema, *of_recording)
            traced = self._captured.trace(
                args, kwargs, keep_shards=not self._num_lanes, mapped=self._is_pmapped
            )
            state, out = self._captured.run(schema, traced, should_write=recording.should_write)
            recording, rows = recording.push(state)
            # Only a bar asks for the row of one step, and each result costs the caller time.
            return {version: recording.arrays}, rows if schema.has_bar else None, out

        if self._lane_axes is not None:
            run = _over_lanes(run, *self._lane_axes)
        run.__name__ = run.__qualname__ = getattr(self, "__name__", "step")
        parameters = parameters_of(self._fn)
        if parameters is not None:
            run.__signature__ = signature_with_recording(parameters)
        if self._is_pmapped:
            shifted = shifted_for_pmap(self._kwargs, count)
        else:
            shifted = shifted_for_jit(self._kwargs, parameters or [], count)
        return self._transform(run, **shifted)

    @property
    def is_mapped(self) -> bool:
        """Whether batches have an axis of devices or of lanes in front of their examples."""
        if self._lane_axes is not None:
            axes, _ = self._lane_axes
            return (axes[-1] if isinstance(axes, (tuple, list)) else axes) == 0
        return self._is_pmapped

    @functools.cached_property
    def _devices(self) -> Sequence[Any]:
        """Those of pmap, of all processes."""
        return self._kwargs.get("devices") or jax.devices()

    @property
    def _num_devices_here(self) -> int:
        """How many of pmap's devices are this process's."""
        return sum(device.process_index == jax.process_index() for device in self._devices)

    # ---- the recording --------------------------------------------------------------------------

    def _fresh(self) -> _Arrays:
        """An empty recording, placed where the step will return it."""
        recording = Recording.empty(self.schema, self._stage.settings.window_steps)
        copies = self._num_lanes or (self._num_devices_here if self._is_pmapped else 0)
        if copies:  # each lane or device keeps its own; the host reduces or separates them
            recording = jax.tree.map(
                lambda x: np.broadcast_to(x, (copies, *np.shape(x))), recording
            )
        # pmap places arrays by itself, one slice a device.
        if not self._is_pmapped:
            recording = place_recording(recording, self._placement)
        return {f"schema {self._growths}": recording.arrays}

    def _grow(self, needed: Schema) -> None:
        """Makes room for what a new trace of the step logs."""
        schema = self.schema.join(needed) if len(self.schema) else needed
        # The version names the recording among the arguments; a new name makes jit trace anew.
        self._growths += 1
        check_same_schema(f"jaxlog/{self._id}/{self._growths}", schema)
        self._stage.register_schema(schema)
        # Rows of the old schema cannot stay in a buffer of the new one.
        if self._batches:
            self._stage.add_segment(self.take())
        self.schema = schema
        self._recording = self._fresh()
        weighed = [s.name for s in schema if s.weighs_by_batch and s.options.on_epoch]
        self._weighed = weighed[0] if weighed else None

    def take(self) -> Segment | None:
        """What was logged since the last `take`; the step goes on with a fresh recording.

        With several processes this is a collective: each calls it at the same step.
        """
        if self._recording is None or not self._batches:
            return None
        ((_, unsharded, shards, _),), batches = self._recording.values(), self._batches
        self._recording, self._batches = self._fresh(), []
        if not len(self.schema):
            return None
        devices = self._devices if self._is_pmapped else None
        parts = (gathered(unsharded, devices), gathered(shards))
        return Segment(self.schema, parts, batches, has_lanes=bool(self._num_lanes))


def _over_lanes(run: Callable[..., Any], in_axes: Any, out_axes: Any) -> Callable[..., Any]:
    """`run`, which is for one lane, over all; whether a step is written is the same for all."""

    def mapped(arrays: _Arrays, *args: Any) -> Any:
        ((version, (*each, should_write)),) = arrays.items()

        def one(each: Any, *args: Any) -> Any:
            after, rows, out = run({version: (*each, should_write)}, *args)
            return list(after[version][:-1]), rows, out

        own = tuple(in_axes) if isinstance(in_axes, (tuple, list)) else (in_axes,) * len(args)
        lanes = jax.vmap(one, in_axes=(0, *own), out_axes=(0, 0, out_axes))
        each, rows, out = lanes(each, *args)
        return {version: (*each, should_write)}, rows, out

    return mapped
