"""How state leave each higher-order primitive: one rule each.

Loops carry them, branches return the union with neutral elements for the missing, shard_map gives
one set a shard, and everything that runs its jaxpr once returns them. Rules build on public JAX
functions where those say the same thing; where parameters must survive to the letter (remat) the
primitive itself is bound again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.sharding import PartitionSpec

from jaxlog.compat import opened, replicated, scan_sizes, unspecified_sharding, without_consts
from jaxlog.errors import CaptureError
from jaxlog.logs.accumulator_state import fold_axes
from jaxlog.tracing.interpreter import Interpreter, Results, Rule, Shards
from jaxlog.tracing.shards import contributing
from jaxlog.tracing.sites import shard_axes_of

__all__ = ["RULES"]


def _jit(interpreter: Interpreter, eqn: Any, args: Sequence[Any]) -> Results:
    def build(jaxpr: Any) -> Any:
        def run(should_write: Any, *args: Any) -> Results:
            with interpreter.knowing(should_write):
                return interpreter.run(jaxpr, args)

        run.__name__ = run.__qualname__ = eqn.params["name"]
        free = unspecified_sharding()
        shardings = {}
        if any(s is not free for s in eqn.params["in_shardings"]):
            shardings["in_shardings"] = (free, *eqn.params["in_shardings"])
        if any(s is not free for s in eqn.params["out_shardings"]):
            shardings["out_shardings"] = (list(eqn.params["out_shardings"]), free)
        return jax.jit(
            run, inline=eqn.params["inline"], keep_unused=eqn.params["keep_unused"], **shardings
        )

    return interpreter.jitted(eqn, build)(interpreter.should_write, *args)


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


def _while(interpreter: Interpreter, eqn: Any, args: Sequence[Any]) -> Results:
    params = eqn.params
    in_cond, in_body = params["cond_nconsts"], params["body_nconsts"]
    cond_consts, body_consts = args[:in_cond], args[in_cond : in_cond + in_body]
    names = interpreter.names(params["body_jaxpr"])

    def going(carry: Sequence[Any]) -> Any:
        return interpreter.run(params["cond_jaxpr"], [*cond_consts, *carry])[0][0]

    # Under vmap the verdict has an axis: the loop runs until the last lane is done, and the others
    # keep what they had. lax.while_loop takes one verdict, so both are written out here.
    def proceed(carried: Any) -> Any:
        verdict = going(carried[0])
        return verdict.any() if verdict.ndim else verdict

    def body(carried: Any) -> Any:
        carry, state = carried
        outs, logged = interpreter.run(params["body_jaxpr"], [*body_consts, *carry])
        if opened(params["cond_jaxpr"])[0].outvars[0].aval.ndim:
            verdict = going(carry)
            outs = [_where(verdict, new, old) for new, old in zip(outs, carry, strict=True)]
        return outs, interpreter.merge(state, logged)

    start = (list(args[in_cond + in_body :]), interpreter.neutral(names))
    return lax.while_loop(proceed, body, start)


def _where(verdict: Any, new: Any, old: Any) -> Any:
    """`new` in the lanes that go on; the verdict's axes are the first of each operand."""
    return lax.select(lax.broadcast_in_dim(verdict, new.shape, range(verdict.ndim)), new, old)


def _cond(interpreter: Interpreter, eqn: Any, args: Sequence[Any]) -> Results:
    branches = eqn.params["branches"]
    missing = interpreter.neutral(interpreter.names(*branches))

    def branch(jaxpr: Any) -> Any:
        def run(*operands: Any) -> Results:
            outs, state = interpreter.run(jaxpr, operands)
            return outs, missing | state

        return run

    index, *operands = args
    interpreter.note_varying(list(missing), index)
    return lax.switch(index, [branch(jaxpr) for jaxpr in branches], *operands)


def _remat(interpreter: Interpreter, eqn: Any, args: Sequence[Any]) -> Results:
    # jax.checkpoint would forget that the equation was differentiated, and with it the barrier
    # that keeps XLA from undoing the rematerialisation.
    def run(*args: Any) -> Results:
        return interpreter.run(eqn.params["jaxpr"], args)

    closed, shape = jax.make_jaxpr(run, return_shape=True)(*args)
    jaxpr, consts = without_consts(closed)
    flat = eqn.primitive.bind(*consts, *args, **{**eqn.params, "jaxpr": jaxpr})
    return jax.tree.unflatten(jax.tree.structure(shape), flat)


def _custom(interpreter: Interpreter, eqn: Any, args: Sequence[Any]) -> Results:
    jaxpr = eqn.params["call_jaxpr"]

    @jax.custom_jvp
    def run(*args: Any) -> Results:
        return interpreter.run(jaxpr, args)

    @run.defjvp
    def refuse(primals: Any, tangents: Any) -> Any:
        # Differentiating the primal here would give gradients that the user's rule overrides.
        del primals, tangents
        names = interpreter.names(jaxpr)
        raise CaptureError(
            f"a captured function is differentiated from outside, through a "
            f"{eqn.primitive.name} that logs {names[0]!r}; capture the function that takes the "
            f"gradient: jaxlog.capture(lambda *args: jax.grad(f)(*args))"
        )

    return run(*args)


def _call(interpreter: Interpreter, eqn: Any, args: Sequence[Any]) -> Results:
    return interpreter.run(eqn.params["call_jaxpr"], args)


def _shard_map(interpreter: Interpreter, eqn: Any, args: Sequence[Any]) -> Results:
    params, shard_axes, specs = eqn.params, shard_axes_of(eqn), interpreter.specs
    mesh, axes = shard_axes.mesh, shard_axes.axes
    shards = Shards({axis: mesh.shape[axis] for axis in axes}, params["check_vma"])

    def run(should_write: Any, *args: Any) -> Results:
        with interpreter.sharded(shards), interpreter.knowing(should_write):
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
    kept = {name for name in state if interpreter.keeps(name)}
    whole = replicated({name: one for name, one in state.items() if name not in kept}, mesh)
    folded = {name: fold_axes(specs[name], one, 1) for name, one in whole.items()}
    return outs, {name: state[name] if name in kept else folded[name] for name in state}


RULES: Mapping[str, Rule] = {
    "jit": _jit,
    "pjit": _jit,
    "scan": _scan,
    "while": _while,
    "cond": _cond,
    "remat2": _remat,
    "checkpoint": _remat,
    "custom_jvp_call": _custom,
    "custom_vjp_call": _custom,
    "shard_map": _shard_map,
    "closed_call": _call,
    "eval_jaxpr": _call,
    "core_call": _call,
}
