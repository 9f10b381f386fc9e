"""All code of jaxlog that depends on the version of JAX, or on private names of it.

Works from jax 0.8.0 to 0.12. Each function says what differs, and from which version on.
"""

from __future__ import annotations

import contextlib
import contextvars
import functools
import inspect
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.extend.core
from jax.core import eval_jaxpr
from jax.extend import source_info_util

_ON_HOST: contextvars.ContextVar[bool] = contextvars.ContextVar("jaxlog_on_host", default=False)


def on_host_float64() -> bool:
    """Whether this code runs inside `host_float64`, unlike under a user's own x64 mode."""
    return _ON_HOST.get()


@contextlib.contextmanager
def host_float64() -> Iterator[None]:
    """JAX operations inside run with 64-bit types on the CPU of this process.

    `jax.experimental.enable_x64` warns from 0.8.0 on and is gone later; `jax.enable_x64` exists
    from 0.8.0. Where the CPU backend is switched off (`JAX_PLATFORMS=cuda`), the default device
    stays.

    Example:
        >>> with host_float64():
        ...     jax.numpy.ones(()).dtype
        dtype('float64')
    """
    with contextlib.ExitStack() as stack:
        stack.enter_context(jax.enable_x64(True))
        try:
            cpu = jax.local_devices(backend="cpu")[0]
        except RuntimeError:
            cpu = None
        if cpu is not None:
            stack.enter_context(jax.default_device(cpu))
        token = _ON_HOST.set(True)
        stack.callback(_ON_HOST.reset, token)
        yield


class KeyValueStore:
    """The key-value store of the coordinator of a `jax.distributed` run."""

    def __init__(self, client: Any) -> None:
        """Wraps JAX's client of the coordination service."""
        self._client = client

    def set(self, key: str, value: str) -> None:
        """Sets a key for all processes; a key can be set once."""
        self._client.key_value_set(key, value)

    def get(self, key: str, timeout_secs: float) -> str | None:
        """The value of a key, waiting until it is set; None after `timeout_secs`."""
        try:
            return self._client.blocking_key_value_get(key, int(1000 * timeout_secs))
        except jax.errors.JaxRuntimeError as error:
            if "DEADLINE_EXCEEDED" in str(error):
                return None
            raise


def key_value_store() -> KeyValueStore | None:
    """The store of this run; None if `jax.distributed` is not initialized."""
    # The client has no public name. multihost_utils would need a collective, which hangs if another
    # process runs a different program; the store is used to find that out.
    from jax._src import distributed  # noqa: PLC0415 - its one use

    client = distributed.global_state.client
    return None if client is None else KeyValueStore(client)


def debug_effect_type() -> type:
    """The type of the effect of `jax.debug.callback`.

    JAX keeps this effect and its subclasses through partial evaluation, control flow, remat and
    custom derivatives. The type has no public name, so it is taken from a traced program.
    """

    def probe(x: jax.Array) -> None:
        jax.debug.callback(lambda _: None, x)

    (effect,) = jax.make_jaxpr(probe)(0.0).effects
    return type(effect)


def opened(jaxpr: Any) -> tuple[Any, Sequence[Any]]:
    """`(jaxpr, consts)` of an open or a closed jaxpr; from jax 0.12 on the two are one class."""
    return getattr(jaxpr, "jaxpr", jaxpr), getattr(jaxpr, "consts", ())


def without_consts(closed: Any) -> tuple[Any, list[Any]]:
    """A closed jaxpr as an open one that takes its constants as its first inputs."""
    jaxpr, consts = opened(closed)
    if not consts:
        return jaxpr, []
    return jaxpr.replace(constvars=[], invars=[*jaxpr.constvars, *jaxpr.invars]), list(consts)


def evaluate(jaxpr: Any, operands: Sequence[Any]) -> list[Any]:
    """The results of an open jaxpr without constants."""
    return eval_jaxpr(jaxpr, (), *operands)


def is_jaxpr(x: Any) -> bool:
    """Whether `x` is an open or a closed jaxpr."""
    return isinstance(x, (jax.extend.core.Jaxpr, jax.extend.core.ClosedJaxpr))


def bind_equation(eqn: Any, args: Sequence[Any]) -> Sequence[Any]:
    """Binds an equation with its parameters; `get_bind_params` returns one dict from jax 0.9 on."""
    bind_params = eqn.primitive.get_bind_params(eqn.params)
    if isinstance(bind_params, tuple):
        functions, params = bind_params
        results = eqn.primitive.bind(*functions, *args, **params)
    else:
        results = eqn.primitive.bind(*args, **bind_params)
    return results if eqn.primitive.multiple_results else [results]


@contextlib.contextmanager
def equation_context(eqn: Any) -> Iterator[None]:
    """Equations bound inside get the line, name stack, mesh and compute type of `eqn`."""
    stack = source_info_util.current_name_stack() + eqn.source_info.name_stack
    with (
        source_info_util.user_context(eqn.source_info.traceback, name_stack=stack),
        eqn.ctx.manager,
    ):
        yield


def equation_repeater() -> Callable[[Any, Sequence[Any]], Sequence[Any]]:
    """A function `(equation, operands) -> results` that adds equations to the current trace as is.

    While JAX stages a program (under jit, or in the body of a loop), the equation is copied:
    its parameters, avals, line, name stack and context are those of the first trace. Binding it
    instead evaluates its shapes once more, and traces the functions of custom_jvp_call and
    custom_vjp_call once more. For 5000 equations that took 1.6 times the time of tracing and
    lowering the plain program; copied, it takes 1.2.

    An equation is bound where there is nothing to copy into (eager evaluation, and the traces of
    grad and vmap), where it has effects (an effect may name an input by its position), where an
    operand has another type than in the first trace, and where it is part of hijax, such as
    `lax.custom_root` from jax 0.12 on: binding marks the program as one to be lowered to plain JAX.
    """
    trace = _staging_trace()
    stack = source_info_util.current_name_stack()

    def repeat(eqn: Any, operands: Sequence[Any]) -> Sequence[Any]:
        results = None
        if trace is not None and not eqn.effects and not _is_high(eqn):
            results = _copied(trace, eqn, operands, stack)
        if results is not None:
            return results
        with equation_context(eqn):
            return bind_equation(eqn, operands)

    return repeat


def _is_high(eqn: Any) -> bool:
    """Whether hijax replaces the equation, or one inside it, before the program is compiled."""
    programs = (opened(param)[0] for param in eqn.params.values())
    return eqn.primitive.is_high(*(x.aval for x in eqn.invars), **eqn.params) or any(
        is_jaxpr(program) and program.is_high for program in programs
    )


def _copied(trace: Any, eqn: Any, operands: Sequence[Any], stack: Any) -> Sequence[Any] | None:
    tracers = [trace.to_jaxpr_tracer(x, eqn.source_info) for x in operands]
    for tracer, var in zip(tracers, eqn.invars, strict=True):
        if tracer.aval is not var.aval and tracer.aval != var.aval:
            return None
    source_info = eqn.source_info.replace(name_stack=stack + eqn.source_info.name_stack)
    avals = [var.aval for var in eqn.outvars]
    # `jax.jit(..., inline=True)` copies equations in this way, but gives all of them one line.
    return trace.emit_eqn(
        tracers, avals, eqn.primitive, eqn.params, eqn.effects, source_info, eqn.ctx
    )


def _staging_trace() -> Any | None:
    """The current trace if equations can be copied into it, else None."""
    # The current trace has no public name.
    from jax._src import core  # noqa: PLC0415 - its one use

    trace = getattr(getattr(core, "trace_ctx", None), "trace", None)
    return trace if _stages_equations(type(trace)) else None


@functools.cache
def _stages_equations(kind: type) -> bool:
    """Whether traces of this type have the `emit_eqn` of jax 0.8 to 0.12.

    It is not public. Should a later version change it, equations are bound, which is only slower.
    """
    emit = getattr(kind, "emit_eqn", None)
    expected = "self, in_tracers, out_avals, primitive, params, effects, source_info, ctx"
    return emit is not None and ", ".join(inspect.signature(emit).parameters) == expected


# In messages and profiles, the line of an equation is the user's line that called jaxlog.
source_info_util.register_exclusion(__file__.rsplit("compat", 1)[0])


def where_logged(eqn: Any) -> str:
    """File and line of the user's code that made the equation."""
    return source_info_util.summarize(eqn.source_info)


def scan_sizes(params: Mapping[str, Any]) -> tuple[int, int]:
    """`(constants, carries)` among the inputs of a scan; jax 0.12 keeps them as flat trees."""
    if "num_carry" in params:
        return params["num_consts"], params["num_carry"]
    consts, carry, _ = params["ft_in"].unpack()
    return len(list(consts)), len(list(carry))


@functools.cache
def unspecified_sharding() -> Any:
    """The entry of jit's `in_shardings` and `out_shardings` that leaves the choice to JAX.

    It has no public name, so it is taken from a traced program.
    """
    (eqn,) = jax.make_jaxpr(jax.jit(lambda x: x + 1))(0.0).eqns
    return eqn.params["out_shardings"][0]


def traced_for(x: Any) -> str | None:
    """What the trace of a tracer is for (`"jit"`, `"scan"`, ...); None if JAX does not say."""
    frame = getattr(getattr(x, "_trace", None), "frame", None)
    return getattr(getattr(frame, "debug_info", None), "traced_for", None)


def varying_axes(x: Any) -> frozenset[str]:
    """The manual mesh axes over which a value is known to differ; empty with `check_vma=False`.

    The set is `aval.vma` in jax 0.8.0, and `aval.manual_axis_type.varying` in 0.10.2 and later.
    """
    aval = jax.typeof(x)
    kind = getattr(aval, "manual_axis_type", None)
    return frozenset(getattr(kind, "varying", None) or getattr(aval, "vma", None) or ())


def is_checked(axis: str) -> bool:
    """Whether the shard_map around this code has `check_vma=True`."""
    return axis in varying_axes(jax.lax.axis_index(axis))


def to_varying(x: Any, axes: Sequence[str]) -> Any:
    """`x` typed as varying over the mesh axes, as the carry of a loop in shard_map must be.

    `pvary` of jax 0.8.0 was replaced by `pcast`.
    """
    missing = tuple(axis for axis in axes if axis not in varying_axes(x))
    if not missing:
        return x
    if hasattr(jax.lax, "pcast"):
        return jax.lax.pcast(x, missing, to="varying")
    return getattr(jax.lax, "pvary")(x, missing)  # noqa: B009 - newer stubs know no such name


def replicated(tree: Any, mesh: Any) -> Any:
    """The arrays replicated over the mesh if it has explicit axes, else as they are."""
    explicit = any(kind == jax.sharding.AxisType.Explicit for kind in mesh.axis_types)
    if not explicit:
        return tree
    whole = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec())
    return jax.sharding.reshard(tree, whole)


def beside(x: Any, other: Any) -> Any:
    """`x`, replicated over the mesh in the type of `other`.

    On meshes with explicit axes some operations refuse two operands of which only one has a mesh in
    its type.
    """
    mesh = jax.typeof(other).sharding.mesh
    if mesh.empty or jax.typeof(x).sharding.mesh == mesh:
        return x
    return replicated(x, mesh)


def broadcast_to_shards(tree: Any, mesh: Any, axes: tuple[str, ...]) -> Any:
    """The arrays with a new leading axis, one element a shard, sharded over the mesh axes."""
    size = math.prod(mesh.shape[axis] for axis in axes)
    spec = jax.sharding.PartitionSpec(axes)

    def one(x: Any) -> Any:
        return jax.numpy.broadcast_to(x, (size, *jax.numpy.shape(x)))

    explicit = any(kind == jax.sharding.AxisType.Explicit for kind in mesh.axis_types)
    if not explicit:
        return jax.tree.map(one, tree)
    sharding = jax.sharding.NamedSharding(mesh, spec)
    return jax.tree.map(lambda x: jax.sharding.reshard(one(x), sharding), tree)


def manual_axes(params: Mapping[str, Any]) -> frozenset[str]:
    """The mesh axes that a shard_map equation makes manual; renamed in jax 0.9."""
    return params["newly_manual_axes" if "newly_manual_axes" in params else "manual_axes"]
