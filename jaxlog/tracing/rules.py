"""The rules: how the state of what is logged leaves each higher-order primitive.

Loops carry it, branches return the union of their names with neutral elements for the missing ones,
shard_map returns one state a shard, and everything that runs its program once returns it as further
results. Rules use public JAX functions where these rebuild the same equation. Where a parameter
would be lost on the way (remat), the primitive itself is bound again.

To support another primitive, `register` its `Rule` here. The tests list a program for each rule.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.sharding import PartitionSpec

from jaxlog.compat import (
    manual_axes,
    opened,
    replicated,
    scan_sizes,
    unspecified_sharding,
    without_consts,
)
from jaxlog.errors import CaptureError
from jaxlog.logs import ShardAxes, fold_axes
from jaxlog.tracing.interpreter import Interpreter
from jaxlog.tracing.rule import Results, Rule, register
from jaxlog.tracing.shards import Shards, contributing

__all__ = ["mesh_axes_of"]


# ---- programs that run once -----------------------------------------------------------------


def _inline(interpreter: Interpreter, eqn: Any, args: Sequence[Any]) -> Results:
    return interpreter.run(eqn.params["call_jaxpr"], args)


# An inner scan or while under partial evaluation; renamed in jax 0.12.
register(Rule(_inline), "closed_call", "eval_jaxpr")


def _jit(interpreter: Interpreter, eqn: Any, args: Sequence[Any]) -> Results:
    params = eqn.params

    def build() -> Any:
        def run(should_write: Any, *args: Any) -> Results:
            with interpreter.with_should_write(should_write):
                return interpreter.run(params["jaxpr"], args)

        run.__name__ = run.__qualname__ = params["name"]  # shown by profilers
        free = unspecified_sharding()
        shardings = {}
        if any(s is not free for s in params["in_shardings"]):
            shardings["in_shardings"] = (free, *params["in_shardings"])
        if any(s is not free for s in params["out_shardings"]):
            shardings["out_shardings"] = (list(params["out_shardings"]), free)
        return jax.jit(run, inline=params["inline"], keep_unused=params["keep_unused"], **shardings)

    jitted = interpreter.once_per_program(params["jaxpr"], build)
    return jitted(interpreter.should_write, *args)


register(Rule(_jit), "jit")


def _remat(interpreter: Interpreter, eqn: Any, args: Sequence[Any]) -> Results:
    # jax.checkpoint would lose the parameter `differentiated`, and with it the optimization barrier
    # that keeps XLA from undoing the rematerialization.
    def run(*args: Any) -> Results:
        return interpreter.run(eqn.params["jaxpr"], args)

    closed, shape = jax.make_jaxpr(run, return_shape=True)(*args)
    jaxpr, consts = without_consts(closed)
    flat = eqn.primitive.bind(*consts, *args, **{**eqn.params, "jaxpr": jaxpr})
    return jax.tree.unflatten(jax.tree.structure(shape), flat)


register(Rule(_remat), "remat2")


def _custom_derivative(interpreter: Interpreter, eqn: Any, args: Sequence[Any]) -> Results:
    program = eqn.params["call_jaxpr"]

    @jax.custom_jvp
    def run(*args: Any) -> Results:
        return interpreter.run(program, args)

    @run.defjvp
    def refuse(primals: Any, tangents: Any) -> Any:
        # Differentiating the primal here would give gradients that the user's rule overrides.
        del primals, tangents
        names = interpreter.names(program)
        raise CaptureError(
            f"a captured function is differentiated from outside, through a "
            f"{eqn.primitive.name} that logs {names[0]!r}; capture the function that takes the "
            f"gradient: jaxlog.capture(lambda *args: jax.grad(f)(*args))"
        )

    return run(*args)


register(Rule(_custom_derivative), "custom_jvp_call", "custom_vjp_call")


# ---- loops and branches ---------------------------------------------------------------------


def _scan(interpreter: Interpreter, eqn: Any, args: Sequence[Any]) -> Results:
    params = eqn.params
    num_consts, num_carry = scan_sizes(params)
    consts, carry = args[:num_consts], list(args[num_consts : num_consts + num_carry])
    names = interpreter.names(params["jaxpr"])

    def body(carried: Any, xs: Any) -> Any:
        carry, state = carried
        outs, logged = interpreter.run(params["jaxpr"], [*consts, *carry, *xs])
        return (outs[:num_carry], interpreter.merge(state, logged)), outs[num_carry:]

    (carry, state), stacked = lax.scan(
        body,
        (carry, interpreter.neutral(names)),
        list(args[num_consts + num_carry :]),
        length=params["length"],
        reverse=params["reverse"],
        unroll=params["unroll"],
    )
    return [*carry, *stacked], state


register(
    Rule(
        _scan,
        repeats=lambda eqn: eqn.params["length"] > 1,
        may_skip=lambda eqn: eqn.params["length"] == 0,
    ),
    "scan",
)


def _while(interpreter: Interpreter, eqn: Any, args: Sequence[Any]) -> Results:
    params = eqn.params
    in_cond, in_body = params["cond_nconsts"], params["body_nconsts"]
    cond_consts, body_consts = args[:in_cond], args[in_cond : in_cond + in_body]
    names = interpreter.names(params["body_jaxpr"])

    def condition(carry: Sequence[Any]) -> Any:
        return interpreter.run(params["cond_jaxpr"], [*cond_consts, *carry])[0][0]

    # Under vmap the condition is an array: the loop runs until the last lane is done, and a lane
    # that is done keeps its carry. lax.while_loop takes only a scalar condition, so both are
    # written out here.
    def any_lane(carried: Any) -> Any:
        goes_on = condition(carried[0])
        return goes_on.any() if goes_on.ndim else goes_on

    def body(carried: Any) -> Any:
        carry, state = carried
        outs, logged = interpreter.run(params["body_jaxpr"], [*body_consts, *carry])
        if opened(params["cond_jaxpr"])[0].outvars[0].aval.ndim:
            goes_on = condition(carry)
            outs = [_where(goes_on, new, old) for new, old in zip(outs, carry, strict=True)]
        return outs, interpreter.merge(state, logged)

    start = (list(args[in_cond + in_body :]), interpreter.neutral(names))
    return lax.while_loop(any_lane, body, start)


def _where(goes_on: Any, new: Any, old: Any) -> Any:
    """`new` in the lanes that go on, else `old`; the lanes are the leading axes of both."""
    return lax.select(lax.broadcast_in_dim(goes_on, new.shape, range(goes_on.ndim)), new, old)


register(
    Rule(
        _while,
        programs=lambda eqn: [eqn.params["body_jaxpr"]],
        repeats=lambda _: True,
        may_skip=lambda _: True,
        outside=(
            "the condition of a while loop, which can return nothing but its result",
            "log it in the body",
        ),
    ),
    "while",
)


def _cond(interpreter: Interpreter, eqn: Any, args: Sequence[Any]) -> Results:
    branches = eqn.params["branches"]
    missing = interpreter.neutral(interpreter.names(*branches))

    def branch(program: Any) -> Any:
        def run(*operands: Any) -> Results:
            outs, state = interpreter.run(program, operands)
            return outs, missing | state

        return run

    index, *operands = args
    # Which shards log anything depends on the index, even where the value is the same on all.
    interpreter.note_varying(list(missing), index)
    return lax.switch(index, [branch(program) for program in branches], *operands)


register(Rule(_cond, may_skip=lambda _: True), "cond")


# ---- shards ---------------------------------------------------------------------------------


def mesh_axes_of(eqn: Any) -> ShardAxes:
    """The mesh axes that a shard_map makes manual, in the order of the mesh."""
    mesh, manual = eqn.params["mesh"], manual_axes(eqn.params)
    return ShardAxes(mesh, tuple(axis for axis in mesh.axis_names if axis in manual))


def _shard_map(interpreter: Interpreter, eqn: Any, args: Sequence[Any]) -> Results:
    params, shard_axes, specs = eqn.params, mesh_axes_of(eqn), interpreter.specs
    mesh, axes = shard_axes.mesh, shard_axes.axes
    shards = Shards({axis: mesh.shape[axis] for axis in axes}, params["check_vma"])

    def run(should_write: Any, *args: Any) -> Results:
        with interpreter.sharded(shards), interpreter.with_should_write(should_write):
            outs, state = interpreter.run(params["jaxpr"], args)
        contributed = {name: contributing(specs[name], one, shards) for name, one in state.items()}
        return outs, jax.tree.map(lambda x: jnp.asarray(x)[None], contributed)

    outs, state = jax.shard_map(
        run,
        mesh=mesh,
        in_specs=(PartitionSpec(), *params["in_specs"]),
        out_specs=(list(params["out_specs"]), PartitionSpec(axes)),
        axis_names=set(axes),
        check_vma=params["check_vma"],
    )(interpreter.should_write, *args)
    kept = {name for name in state if interpreter.keeps_shards(name)}
    whole = replicated({name: one for name, one in state.items() if name not in kept}, mesh)
    folded = {name: fold_axes(specs[name], one, 1) for name, one in whole.items()}
    return outs, {name: state[name] if name in kept else folded[name] for name in state}


# jax.pmap is a shard_map with check_vma=False in every supported version.
register(
    Rule(_shard_map, shard_axes=mesh_axes_of, unchecked=lambda eqn: not eqn.params["check_vma"]),
    "shard_map",
)
