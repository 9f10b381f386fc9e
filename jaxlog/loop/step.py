"""A user's step function inside a loop: captured, compiled, its logs threaded out of sight."""

from __future__ import annotations

import functools
import inspect
import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import jax
import numpy as np
from jax.sharding import PartitionSpec

from jaxlog.compat import unspecified_sharding
from jaxlog.errors import LogArgumentError
from jaxlog.logs import Schema
from jaxlog.logs.recording import Recording
from jaxlog.loop.devices import gathered
from jaxlog.loop.processes import check_same_schema
from jaxlog.loop.window import Segment
from jaxlog.tracing.capture import Captured, SchemaMismatchError
from jaxlog.tracing.libraries import transform_for
from jaxlog.tracing.placement import place_recording, placement_of

if TYPE_CHECKING:
    from jaxlog.loop.recorder import Recorder

__all__ = ["LoopStep"]

_ids = itertools.count()
# What stands for the recording among the arguments: `Recording.arrays`, under a name that changes
# with the schema. The schema itself would have to be shown to be the same at every call.
_Arrays = dict[str, tuple[Any, ...]]


class LoopStep:
    """Called like the user's function; made by `loop.training_step` and its siblings."""

    def __init__(
        self,
        recorder: Recorder,
        fn: Callable[..., Any],
        hook: str,
        transform: Callable[..., Any],
        transform_kwargs: Mapping[str, Any],
    ) -> None:
        """See `Loop.training_step`."""
        self._captured = Captured(fn, hook=hook)
        functools.update_wrapper(self, fn, updated=())
        self._fn = fn
        self._recorder = recorder
        self._transform, self._kwargs = _unwrapped(transform, transform_kwargs)
        self._mapped = self._transform is jax.pmap
        self._lanes = len(recorder.lanes)
        self._lane_axes = _lane_axes(self._kwargs, self._transform) if self._lanes else None
        self._id = next(_ids)  # the same on every process: they make their steps in one order
        self._growths = 0
        self._compiled: Any = None
        self._schema = Schema()
        self._recording: _Arrays | None = None
        self._placement: Any = None
        self._batches: list[int] = []
        self._weighed: str | None = None
        self.last_rows: Any = None

    @property
    def schema(self) -> Schema:
        """What the step logs, as far as it is known."""
        return self._schema

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Runs the step in the running phase; what it logs belongs to the current batch.

        Raises:
            HookError: no phase of this step's stage is running.
            SchemaError: a key is logged with other options than elsewhere in the stage.
        """
        recorder = self._recorder
        batch = recorder.begin_call(self)
        if self._lanes and kwargs:
            raise LogArgumentError(
                f"keyword arguments {sorted(kwargs)} to a step of Loop(lanes=...): jax.vmap knows "
                f"axes of positional ones only; pass them by position"
            )
        if self._recording is None:
            self._begin(args, kwargs)
        try:
            run = self._compiled(self._told(), *args, **kwargs)
        except SchemaMismatchError as mismatch:
            # At the first call, and whenever another trace of the step logs something new.
            self._grow(mismatch.needed)
            run = self._compiled(self._told(), *args, **kwargs)
        self._recording, self.last_rows, out = run
        if self._lanes or (self._mapped and jax.process_count() > 1):
            self.last_rows = None  # not yet what will be shown: bars have it with the window
        self._batches.append(batch)
        recorder.outputs = out
        if self._weighed is not None:
            recorder.require_size(self._weighed)
        if len(self._batches) == recorder.rows:
            recorder.add_segment(self.take())
        return out

    def _begin(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
        """Makes ready for the first call."""
        self._transform = transform_for(self._transform, self._fn, (args, kwargs))
        self._compiled = self._compile(len(args))
        self._placement = placement_of(jax.tree.leaves((args, kwargs)))
        self._recording = self._fresh()

    def _told(self) -> _Arrays:
        """The recording, which knows whether this step is written if the step asks for it."""
        assert self._recording is not None  # made before the first call
        if not self._schema.lazy:
            return self._recording
        should_write = np.asarray(self._recorder.should_write)
        here = (self._count_here,) if self._mapped else ()
        ((version, arrays),) = self._recording.items()
        return {version: (*arrays[:-1], np.broadcast_to(should_write, here))}

    def _compile(self, count: int) -> Any:
        """The step with its recording in front, compiled for calls with `count` arguments."""

        def run(told: _Arrays, *args: Any, **kwargs: Any) -> Any:
            ((version, arrays),) = told.items()
            schema = self._schema
            recording = Recording(schema, *arrays)
            traced = self._captured.trace(
                args, kwargs, keep_shards=not self._lanes, mapped=self._mapped
            )
            state, out = self._captured.run(schema, traced, should_write=recording.should_write)
            recording, rows = recording.push(state)
            # Only a bar asks for the row of one step, and each result costs the caller time.
            return {version: recording.arrays}, rows if schema.has_bar else None, out

        if self._lane_axes is not None:
            run = _over_lanes(run, *self._lane_axes)
        run.__name__ = run.__qualname__ = getattr(self, "__name__", "step")
        parameters = _parameters(self._fn)
        if parameters is not None:
            # By it jit finds an argument that is called by position and was named in
            # static_argnames, and the other way round.
            first = inspect.Parameter("__logs", inspect.Parameter.POSITIONAL_ONLY)
            run.__signature__ = inspect.Signature([first, *parameters])
        shift = _shifted_for_pmap if self._mapped else _shifted
        return self._transform(run, **shift(self._kwargs, parameters or [], count))

    @property
    def is_mapped(self) -> bool:
        """Whether batches have an axis of devices or of lanes in front of their examples."""
        if self._lane_axes is not None:
            axes, _ = self._lane_axes
            return (axes[-1] if isinstance(axes, (tuple, list)) else axes) == 0
        return self._mapped

    @functools.cached_property
    def _devices(self) -> Sequence[Any]:
        """Those of pmap, of all processes."""
        return self._kwargs.get("devices") or jax.devices()

    @property
    def _count_here(self) -> int:
        """How many of pmap's devices are this process's."""
        return sum(device.process_index == jax.process_index() for device in self._devices)

    def _fresh(self) -> _Arrays:
        recording = Recording.empty(self._schema, self._recorder.rows)
        if self._lanes:
            recording = jax.tree.map(
                lambda x: np.broadcast_to(x, (self._lanes, *np.shape(x))), recording
            )
        if not self._mapped:
            recording = place_recording(recording, self._placement)
        else:  # Each device keeps its own recording; the host reduces them.
            recording = jax.tree.map(
                lambda x: np.broadcast_to(x, (self._count_here, *np.shape(x))), recording
            )
        return {f"schema {self._growths}": recording.arrays}

    def _grow(self, needed: Schema) -> None:
        schema = self.schema.join(needed) if len(self.schema) else needed
        self._growths += 1
        check_same_schema(f"jaxlog/{self._id}/{self._growths}", schema)
        for spec in schema:
            is_metric = spec.metric is not None
            self._recorder.register(spec.name, spec.options, is_metric=is_metric)
        if self._batches:
            self._recorder.add_segment(self.take())
        self._schema = schema
        self._recording = self._fresh()
        weighed = [e.name for e in schema if e.weighs_by_batch and e.options.on_epoch]
        self._weighed = weighed[0] if weighed else None

    def take(self) -> Segment | None:
        """What was logged since the last `take`; the step goes on with a fresh recording."""
        if self._recording is None or not self._batches:
            return None
        ((_, whole, shards, _),), batches = self._recording.values(), self._batches
        self._recording, self._batches = self._fresh(), []
        if not len(self._schema):
            return None
        devices = self._devices if self._mapped else None
        parts = (gathered(whole, devices), gathered(shards))
        return Segment(self._schema, parts, batches, has_lanes=bool(self._lanes))


def _lane_axes(kwargs: dict[str, Any], transform: Any) -> tuple[Any, Any]:
    """Takes `vmap`'s arguments, of the step's own, out of those of `jit`."""
    if transform is not jax.jit:
        raise LogArgumentError(
            f"Loop(lanes=...) with transform={transform!r}: lanes are mapped by jax.vmap and "
            f"compiled by jax.jit; leave transform= out, and say in_axes= and out_axes= here"
        )
    return kwargs.pop("in_axes", 0), kwargs.pop("out_axes", 0)


def _over_lanes(run: Callable[..., Any], in_axes: Any, out_axes: Any) -> Callable[..., Any]:
    """`run`, for one lane, for all of them; whether the step is written is the same for all."""

    def mapped(told: _Arrays, *args: Any) -> Any:
        ((version, (*each, should_write)),) = told.items()

        def one(each: Any, *args: Any) -> Any:
            after, rows, out = run({version: (*each, should_write)}, *args)
            return list(after[version][:-1]), rows, out

        own = tuple(in_axes) if isinstance(in_axes, (tuple, list)) else (in_axes,) * len(args)
        lanes = jax.vmap(one, in_axes=(0, *own), out_axes=(0, 0, out_axes))
        each, rows, out = lanes(each, *args)
        return {version: (*each, should_write)}, rows, out

    return mapped


def _parameters(fn: Callable[..., Any]) -> list[inspect.Parameter] | None:
    """The arguments that `fn` takes; None where Python cannot tell."""
    try:
        return list(inspect.signature(fn).parameters.values())
    except (TypeError, ValueError):
        return None


def _shifted(
    kwargs: Mapping[str, Any], parameters: Sequence[inspect.Parameter], count: int
) -> dict[str, Any]:
    """jit's arguments for a function that takes the logs first.

    Args:
        kwargs: what the user said of the step's own arguments.
        parameters: the step's own arguments.
        count: how many positional arguments the step takes.
    """
    shifted = dict(kwargs)
    static = _numbers(kwargs, "static_argnums")
    if static:
        shifted["static_argnums"] = _after_logs(static)
    donated = _numbers(kwargs, "donate_argnums")
    names = kwargs.get("donate_argnames") or ()
    names = {names} if isinstance(names, str) else set(names)
    # jit finds the one from the other only where one is given, and the logs' number always is.
    found = [i for i, parameter in enumerate(parameters) if parameter.name in names]
    named = [p for p in parameters if p.kind is inspect.Parameter.POSITIONAL_OR_KEYWORD]
    names |= {parameters[i].name for i in donated if i < len(parameters) and parameters[i] in named}
    shifted["donate_argnums"] = (0, *_after_logs(sorted({*donated, *found})))
    if names:
        shifted["donate_argnames"] = tuple(sorted(names))
    return shifted | _shardings(kwargs, parameters, count)


def _unwrapped(
    transform: Callable[..., Any], kwargs: Mapping[str, Any]
) -> tuple[Callable[..., Any], dict[str, Any]]:
    """A `functools.partial` of a transform as the transform and its arguments."""
    if isinstance(transform, functools.partial) and not transform.args:
        return _unwrapped(transform.func, {**transform.keywords, **kwargs})
    return transform, dict(kwargs)


def _shifted_for_pmap(
    kwargs: Mapping[str, Any], parameters: Sequence[inspect.Parameter], count: int
) -> dict[str, Any]:
    """pmap's arguments for a function that takes the logs first, one set a device."""
    del parameters
    shifted = dict(kwargs)
    static = _numbers(kwargs, "static_broadcasted_argnums")
    shifted["static_broadcasted_argnums"] = _after_logs(static)
    shifted["donate_argnums"] = (0, *_after_logs(_numbers(kwargs, "donate_argnums")))
    axes = kwargs.get("in_axes", 0)
    shifted["in_axes"] = (0, *(axes if isinstance(axes, (tuple, list)) else (axes,) * count))
    shifted["out_axes"] = (0, 0, kwargs.get("out_axes", 0))
    return shifted


def _numbers(kwargs: Mapping[str, Any], option: str) -> tuple[int, ...]:
    given = kwargs.get(option)
    numbers = () if given is None else (given,) if isinstance(given, int) else tuple(given)
    if not all(isinstance(number, int) for number in numbers):
        raise LogArgumentError(f"{option}={given!r}: takes an int or ints")
    return numbers


def _after_logs(numbers: Iterable[int]) -> tuple[int, ...]:
    return tuple(n + 1 if n >= 0 else n for n in numbers)


def _shardings(
    kwargs: Mapping[str, Any], parameters: Sequence[inspect.Parameter], count: int
) -> dict[str, Any]:
    """What the user said of shardings, and that jit chooses where the logs live."""
    free = unspecified_sharding()
    shifted: dict[str, Any] = {}
    if (given := kwargs.get("in_shardings")) is not None:
        if not isinstance(given, (tuple, list)) or isinstance(given, PartitionSpec):
            names = kwargs.get("static_argnames") or ()
            names = {names} if isinstance(names, str) else set(names)
            static = {n % count for n in _numbers(kwargs, "static_argnums")}
            static |= {i for i, p in enumerate(parameters[:count]) if p.name in names}
            given = (given,) * (count - len(static))
        shifted["in_shardings"] = (free, *given)
    if kwargs.get("out_shardings") is not None:
        shifted["out_shardings"] = (free, free, kwargs["out_shardings"])
    return shifted
