"""The registry of rules: one entry is enough for a primitive, and every entry is used."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.core import eval_jaxpr
from jax.extend.core import Primitive
from jax.interpreters import mlir
from jax.sharding import Mesh, PartitionSpec

import jaxlog.tracing.capture
import jaxlog.tracing.log
from jaxlog import capture, log
from jaxlog.errors import CaptureError
from jaxlog.tracing import RULES, Rule, register

X = jnp.arange(1.0, 5.0)


def history(fn: Callable[[Any], Any], x: Any = X) -> dict[str, list[float]]:
    """What one compiled step logs."""
    captured = capture(fn)
    logs, _ = jax.jit(captured)(captured.init(x), x)
    return {name: values.tolist() for name, values in logs.history().items()}


# ---- a primitive of a user's own ----------------------------------------------------------------

toy_p = Primitive("run_n_times")
toy_p.multiple_results = True


@toy_p.def_effectful_abstract_eval
def _(*avals: Any, program: Any, times: int) -> Any:
    del avals, times
    return list(program.out_avals), program.effects


def toy(fn: Callable[[Any], Any], x: Any, times: int) -> Any:
    """`fn` applied to `x` several times, by a primitive that JAX does not know."""
    return toy_p.bind(x, program=jax.make_jaxpr(fn)(x), times=times)[0]


def rebuild(interpreter: Any, eqn: Any, operands: Sequence[Any]) -> Any:
    outs, state = interpreter.run(eqn.params["program"], operands)
    for _ in range(eqn.params["times"] - 1):
        outs, more = interpreter.run(eqn.params["program"], outs)
        state = interpreter.merge(state, more)
    return outs, state


def _lower(context: Any, *operands: Any, program: Any, times: int) -> Any:
    def run(*args: Any) -> Any:
        for _ in range(times):
            args = tuple(eval_jaxpr(program.jaxpr, program.consts, *args))
        return args

    return mlir.lower_fun(run, multiple_results=True)(context, *operands)


mlir.register_lowering(toy_p, _lower)


@pytest.fixture
def _registered() -> Iterator[None]:
    register(Rule(rebuild, repeats=lambda eqn: eqn.params["times"] > 1), toy_p.name)
    yield
    del RULES[toy_p.name]


def double(v: Any) -> Any:
    log("mean", v)
    log("sum", v, reduce_fx="sum")
    return 2 * v


def step(x: Any) -> Any:
    return toy(double, x[1], 3)


@pytest.mark.usefixtures("_registered")
def test_one_entry_is_enough_for_a_primitive() -> None:
    captured = capture(step)
    logs, out = jax.jit(captured)(captured.init(X), X)
    assert float(out) == 16.0
    assert {name: values.tolist() for name, values in logs.history().items()} == {
        "mean": [pytest.approx(14 / 3)],
        "sum": [14.0],
    }


@pytest.mark.usefixtures("_registered")
def test_a_rule_holds_inside_of_other_primitives() -> None:
    found = history(lambda x: lax.map(lambda v: toy(double, v, 2), x))
    assert found["sum"] == [3 * 10.0]


def test_the_same_primitive_without_logs_needs_no_rule() -> None:
    def quiet(x: Any) -> Any:
        log("out", toy(lambda v: 2 * v, x[1], 3))

    assert history(quiet) == {"out": [16.0]}


def test_without_an_entry_the_walk_names_the_primitive() -> None:
    match = r"'mean' is logged inside 'run_n_times' .*test_rules\.py.*log it outside"
    with pytest.raises(CaptureError, match=match):
        capture(step).init(X)


def test_without_an_entry_the_interpreter_names_the_primitive() -> None:
    captured = capture(step)
    register(Rule(rebuild), toy_p.name)
    try:
        traced = captured.trace((X,), {})
    finally:
        del RULES[toy_p.name]
    with pytest.raises(CaptureError, match="'mean' is logged inside 'run_n_times'"):
        captured.run(traced.schema, traced)


# ---- the rules that ship ------------------------------------------------------------------------


def square(v: Any) -> Any:
    log("v", v)
    return v * v


@jax.custom_jvp
def by_jvp(v: Any) -> Any:
    return square(v)


by_jvp.defjvp(lambda primals, tangents: (primals[0], tangents[0]))


@jax.custom_vjp
def by_vjp(v: Any) -> Any:
    return square(v)


by_vjp.defvjp(lambda v: (v, None), lambda _, g: (g,))


def sharded(x: Any) -> Any:
    mesh, spec = Mesh(np.array(jax.devices()[:4]), ("a",)), PartitionSpec("a")
    return jax.shard_map(lambda x: square(x[0])[None], mesh=mesh, in_specs=spec, out_specs=spec)(x)


# Rule -> a program that has an equation of the primitive, and the values that it logs as "v".
PROGRAMS: dict[str, tuple[Callable[[Any], Any], list[float]]] = {
    "closed_call": (jax.grad(jax.checkpoint(lambda x: lax.map(square, x).sum())), [2.5]),
    "cond": (lambda x: lax.cond(x[0] > 0, square, jnp.sin, x[1]), [2.0]),
    "custom_jvp_call": (lambda x: by_jvp(x[1]), [2.0]),
    "custom_vjp_call": (lambda x: by_vjp(x[1]), [2.0]),
    "jit": (lambda x: jax.jit(square)(x[1]), [2.0]),
    "remat2": (lambda x: jax.checkpoint(square)(x[1]), [2.0]),
    "scan": (lambda x: lax.map(square, x), [2.5]),
    "shard_map": (sharded, [1.0]),
    "while": (lambda x: lax.while_loop(lambda v: v < 5, square, x[1]), [3.0]),
}
PROGRAMS["eval_jaxpr"] = PROGRAMS["closed_call"]
RENAMED = {"closed_call", "eval_jaxpr"}  # JAX 0.12 calls the first like the second


def test_every_rule_has_a_program() -> None:
    assert set(PROGRAMS) == set(RULES)


@pytest.mark.parametrize("primitive", PROGRAMS)
def test_the_rule_is_used(primitive: str, monkeypatch: pytest.MonkeyPatch) -> None:
    used: list[str] = []

    def spied(name: str, rule: Rule) -> Rule:
        def spy(interpreter: Any, eqn: Any, operands: Any) -> Any:
            used.append(name)
            return rule.rebuild(interpreter, eqn, operands)

        return dataclasses.replace(rule, rebuild=spy)

    for name, rule in list(RULES.items()):
        monkeypatch.setitem(RULES, name, spied(name, rule))
    program, expected = PROGRAMS[primitive]
    assert history(program)["v"] == expected
    if primitive in RENAMED:
        assert len(RENAMED & set(used)) == 1
    else:
        assert primitive in used


# ---- the cost of searching ----------------------------------------------------------------------


def test_programs_that_share_programs_are_searched_once() -> None:
    fn: Callable[[Any], Any] = square
    for _ in range(40):  # 2**40 paths lead to the log
        fn = jax.jit(lambda v, inner=fn: inner(inner(v)) / 2**0.5)

    def step(x: Any) -> Any:
        return lax.cond(x[0] > 100, fn, jnp.sin, x[0])

    assert [spec.name for spec in capture(step).init(X).schema] == ["v"]


# ---- names of modules ---------------------------------------------------------------------------


def test_modules_are_not_hidden_by_the_functions_of_their_names() -> None:
    import jaxlog.tracing.capture as capture_module
    import jaxlog.tracing.log as log_module

    for module, function in ((capture_module, jaxlog.capture), (log_module, jaxlog.log)):
        assert inspect.ismodule(module)
        assert inspect.isfunction(function)
    assert jaxlog.tracing.capture is capture_module
    assert jaxlog.tracing.log is log_module
    assert jaxlog.capture is capture_module.capture
    assert jaxlog.log is log_module.log
