"""`capture`: makes a function that logs a pure function of its logs.

`Captured` has two halves, which `jaxlog.steps` uses one by one: `trace` finds the program of the
function and what it logs, `run` adds that program to the program being traced, with the state of
what it logs as an extra result.
"""

from __future__ import annotations

import functools
import inspect
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Generic, NamedTuple, ParamSpec, TypeVar, overload

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from jaxlog.errors import LogArgumentError, SchemaError
from jaxlog.logs import Logs, Schema, StepState, find_hook, resolve_flags
from jaxlog.tracing.context import capturing
from jaxlog.tracing.interpreter import Interpreter
from jaxlog.tracing.libraries import Call, as_pure_call
from jaxlog.tracing.placement import place, placement_of
from jaxlog.tracing.programs import LogIndex
from jaxlog.tracing.sites import schema_of

__all__ = ["Captured", "SchemaMismatchError", "capture"]

P = ParamSpec("P")
R = TypeVar("R")


class SchemaMismatchError(SchemaError):
    """The function logs something for which the logs it was given have no room.

    Attributes:
        needed: the schema of what it logs.
    """

    def __init__(self, message: str, needed: Schema) -> None:
        """An error that carries the schema which the logs must be grown to hold."""
        super().__init__(message)
        self.needed = needed


class _Traced(NamedTuple):
    """A function traced for certain arguments.

    Attributes:
        jaxpr: its program, with log equations.
        log_index: which equations of the program log.
        out_tree: tree structure of its result.
        schema: what it logs.
        arrays: the arrays among the arguments, the operands of the program.
        key: what the program depends on: structure, static leaves, types of the arrays.
        call: the call as one of pytrees; None in a `_Traced` that is kept for a second call.
    """

    jaxpr: Any
    log_index: LogIndex
    out_tree: Any
    schema: Schema
    arrays: Sequence[Any]
    key: Any
    call: Call | None


def capture(
    fn: Callable[P, R],
    *,
    hook: str = "training_step",
    rows: int = 64,
) -> Captured[P, R]:
    """`fn` as a pure function of its logs: `captured(logs, *args, **kwargs) -> (logs, out)`.

    What `fn` logs is a part of the returned logs, at whatever depth and under whatever transform it
    is logged. The result can be jitted, scanned, vmapped and donated like any other function.
    `captured.init(*args, **kwargs)` makes the first logs by abstract tracing; it compiles and runs
    nothing.

    Means weigh a step by its batch size: the leading dimension of the first array in the keyword
    argument `batch`, else in the last argument that holds an array with axes.

    Args:
        fn: the function; arrays in its arguments are traced, every other leaf is static.
        hook: the hook whose defaults its log calls take.
        rows: number of latest steps whose values are kept one by one.

    Raises:
        HookError: there is no such hook, or nothing can be logged in it.
        LogArgumentError: `fn` is not callable.

    Example:
        >>> import jax, jaxlog
        >>> def step(params, batch):
        ...     def loss_fn(params):
        ...         loss = ((batch @ params) ** 2).mean()
        ...         jaxlog.log("loss", loss)
        ...         return loss
        ...     return params - 0.1 * jax.grad(loss_fn)(params)
        >>> captured = jaxlog.capture(step)
        >>> params, batch = jax.numpy.ones(2), jax.numpy.eye(2)
        >>> logs = captured.init(params, batch)
        >>> train = jax.jit(captured, donate_argnums=0)
        >>> for _ in range(3):
        ...     logs, params = train(logs, params, batch)
        >>> [round(float(loss), 3) for loss in logs.history()["loss"]]
        [1.0, 0.81, 0.656]
    """
    return Captured(fn, hook=hook, rows=rows)


class Captured(Generic[P, R]):
    """A function whose logs are an argument and a result; made by `capture`.

    `captured(logs, *args, **kwargs)` returns the logs after the step and what the function returns.
    Every transform of JAX takes it like a function: its signature is that of the function with the
    logs in front, and `donate_argnums=0` donates the logs.

    Example:
        >>> import jax, jaxlog
        >>> def step(x: jax.Array) -> jax.Array:
        ...     jaxlog.log("norm", jax.numpy.linalg.norm(x))
        ...     return x / 2
        >>> captured: jaxlog.Captured = jaxlog.capture(step)
        >>> logs = captured.init(jax.ShapeDtypeStruct((2,), "float32"))
        >>> logs, out = jax.jit(captured)(logs, jax.numpy.array([3.0, 4.0]))
        >>> print(logs.compute()["norm"], out)
        5.0 [1.5 2. ]
    """

    def __init__(self, fn: Callable[P, R], *, hook: str = "training_step", rows: int = 64) -> None:
        """See `capture`."""
        if not callable(fn):
            raise LogArgumentError(
                f"capture({fn!r}): takes a function; write capture(step), not capture(step(...))"
            )
        resolve_flags("anything", find_hook(hook), on_step=None, on_epoch=None)
        functools.update_wrapper(self, fn, updated=())
        self.__signature__ = _with_logs(fn)
        self._fn = fn
        self._hook = hook
        self._rows = rows
        self._mismatched: _Traced | None = None

    @overload
    def init(self, *args: P.args, **kwargs: P.kwargs) -> Logs: ...

    @overload  # with jax.ShapeDtypeStruct in place of arrays
    def init(self, *args: Any, **kwargs: Any) -> Logs: ...

    def init(self, *args: Any, **kwargs: Any) -> Logs:
        """The logs before the first step, for arguments of these shapes; compiles and runs nothing.

        They are placed where the step will return them: replicated over the devices of sharded
        arguments.

        Args:
            *args: as for the function; arrays may be `jax.ShapeDtypeStruct`.
            **kwargs: likewise.

        Raises:
            SchemaError: two calls disagree about a key.
            CaptureError: a log inside a primitive that capture has no rule for.
        """
        schema = self.trace(args, kwargs).schema
        logs = Logs.empty(schema, rows=self._rows, explicit=False)
        return place(logs, placement_of(jax.tree.leaves((args, kwargs))))

    def __call__(self, logs: Logs, /, *args: P.args, **kwargs: P.kwargs) -> tuple[Logs, R]:
        """`(logs after the step, what the function returns)`.

        Raises:
            SchemaError: the function logs other keys than the logs have room for.
            LogArgumentError: the first argument is not a `Logs`.
        """
        if not isinstance(logs, Logs):
            raise LogArgumentError(
                f"captured({type(logs).__name__}, ...): the first argument is the logs; write "
                f"logs, out = captured(logs, *args), with logs = captured.init(*args) at first"
            )
        traced = self.trace(args, kwargs)
        batch_size = 1.0 if traced.call is None else _leading(*traced.call.batch)
        state, out = self.run(logs.schema, traced)
        return logs.push(state, batch_size=batch_size), out

    def trace(
        self,
        args: Sequence[Any],
        kwargs: Mapping[str, Any],
        *,
        keep_shards: bool = False,
        mapped: bool = False,
    ) -> _Traced:
        """The function's program for these arguments, and what it logs.

        Args:
            args: positional arguments.
            kwargs: keyword arguments.
            keep_shards: whether the shards of a shard_map keep their state apart.
            mapped: whether each of several devices runs the function (`jax.pmap`).
        """
        call = as_pure_call(self._fn, args, kwargs)
        leaves, in_tree = jax.tree.flatten((tuple(call.args), dict(call.kwargs)))
        dynamic = [_is_array(leaf) for leaf in leaves]
        static = [
            None if is_array else leaf for is_array, leaf in zip(dynamic, leaves, strict=True)
        ]

        def flat(*arrays: Any) -> Any:
            rest = iter(arrays)
            merged = [next(rest) if d else s for d, s in zip(dynamic, static, strict=True)]
            args, kwargs = jax.tree.unflatten(in_tree, merged)
            return call.fn(*args, **kwargs)

        arrays = [leaf for is_array, leaf in zip(dynamic, leaves, strict=True) if is_array]
        key = (in_tree, static, [_aval(array) for array in arrays])
        if (traced := self._mismatched) is not None:
            self._mismatched = None
            if _same(traced.key, key):
                return traced._replace(arrays=arrays, call=call)
        with capturing(self._hook) as names:
            jaxpr, shape = jax.make_jaxpr(flat, return_shape=True)(*arrays)
        index = LogIndex()
        schema = schema_of(jaxpr, index, keep_shards=keep_shards, mapped=mapped)
        _warn_of_dropped(names - {spec.name for spec in schema})
        return _Traced(jaxpr, index, jax.tree.structure(shape), schema, arrays, key, call)

    def run(
        self, schema: Schema, traced: _Traced, *, should_write: Any = None
    ) -> tuple[StepState, Any]:
        """`(what the step logs, what the function returns)`.

        Args:
            schema: what the logs have room for.
            traced: what `trace` returned.
            should_write: whether the step is written, bool, shape (); None for always.

        Raises:
            SchemaMismatchError: the program logs something else.
        """
        try:
            _check_room(schema, traced.schema)
        except SchemaMismatchError:
            # The caller grows the logs and calls again with the same arguments. Keep the program
            # for that call, so that the function is not traced twice, unless it holds tracers of
            # the trace that this error ends.
            if not any(isinstance(const, Tracer) for const in traced.jaxpr.consts):
                self._mismatched = traced._replace(arrays=(), call=None)
            raise
        interpreter = Interpreter(schema, traced.log_index, should_write)
        outs, state = interpreter.run(traced.jaxpr, traced.arrays)
        out = jax.tree.unflatten(traced.out_tree, outs)
        return state, out if traced.call is None else traced.call.close(out)


def _warn_of_dropped(names: set[str]) -> None:
    if names:
        warnings.warn(
            f"{sorted(names)} {'are' if len(names) > 1 else 'is'} logged in code that the step's "
            f"program does not hold, and will not be recorded: a function that was only traced "
            f"(eval_shape), the primal of a custom derivative under grad, or, in a scan under "
            f"grad, a cond or switch that returns nothing and decides the same in every iteration "
            f"(JAX drops it); log it outside, or with mask= in place of the branch",
            stacklevel=4,
        )


def _check_room(schema: Schema, needed: Schema) -> None:
    if schema.join(needed) == schema:
        return
    have, want = {e.name: e for e in schema}, {e.name: e for e in needed}
    new = [name for name in want if name not in have]
    gone = [name for name in have if name not in want and have[name] != have[name].optional()]
    other = [name for name in want if name in have and have[name].join(want[name]) != have[name]]
    differences = [
        f"{text} {', '.join(map(repr, names))}"
        for text, names in (
            ("now logs", new),
            ("no longer logs", gone),
            ("logs with another dtype, weighting or number of calls", other),
        )
        if names
    ]
    raise SchemaMismatchError(
        f"the logs given to this captured function do not fit it: it {' and '.join(differences)}; "
        f"start from logs = captured.init(*args) with the arguments it is called with",
        needed,
    )


def _aval(array: Any) -> Any:
    return jax.typeof(array) if not isinstance(array, jax.ShapeDtypeStruct) else array


def _same(a: Any, b: Any) -> bool:
    try:
        return bool(a == b)
    except Exception:  # noqa: BLE001 - a static leaf's own ==, such as a numpy comparison
        return False


def _is_array(leaf: Any) -> bool:
    return isinstance(leaf, (jax.Array, np.ndarray, np.generic, jax.ShapeDtypeStruct))


def _leading(args: Sequence[Any], kwargs: Mapping[str, Any]) -> float:
    """The batch size: the leading dimension of the first array in the batch.

    The batch is the keyword argument `batch`, else the last argument that holds an array with axes.
    """
    named = [kwargs["batch"]] if "batch" in kwargs else []
    for arg in [*named, *reversed(args), *reversed(list(kwargs.values()))]:
        for leaf in jax.tree.leaves(arg):
            if _is_array(leaf) and jnp.ndim(leaf) > 0:
                return float(jnp.shape(leaf)[0])
    return 1.0


def _with_logs(fn: Callable[..., Any]) -> inspect.Signature | None:
    """The signature of `fn` with the logs in front.

    `jax.jit` reads it to resolve `static_argnames` and `donate_argnames`. None where Python knows
    no signature of `fn`; `jax.jit` then reads that of `Captured.__call__`.
    """
    try:
        signature = inspect.signature(fn)
    except (TypeError, ValueError):
        return None
    name = "logs"
    while name in signature.parameters:
        name = f"_{name}"
    logs = inspect.Parameter(name, inspect.Parameter.POSITIONAL_ONLY)
    return signature.replace(
        parameters=[logs, *signature.parameters.values()],
        return_annotation=inspect.Signature.empty,
    )
