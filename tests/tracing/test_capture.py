"""`capture`: one pure program, compiled once, that keeps all of the function but its logs."""

from __future__ import annotations

import functools
import inspect
from typing import Any

import jax
import jax.extend
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from jaxlog import capture, hook, log
from jaxlog.errors import CaptureError, HookError, LogArgumentError, SchemaError
from jaxlog.logs import Logs
from jaxlog.tracing import SchemaMismatchError
from tests.counting import counted_compiles

X = jnp.arange(4, dtype=jnp.float32)


def logging_step(x: Any) -> Any:
    """Returns `x + 1` and logs its mean."""
    log("v", x.mean())
    return x + 1


def logged(fn: Any, *args: Any, **kwargs: Any) -> dict[str, list[float]]:
    """What one compiled step of `fn` logs."""
    captured = capture(fn)
    logs, _ = jax.jit(captured)(captured.init(*args, **kwargs), *args, **kwargs)
    return {name: values.tolist() for name, values in logs.history().items()}


def mesh() -> Mesh:
    return Mesh(np.array(jax.devices()[:8]), ("d",))


def split() -> NamedSharding:
    return NamedSharding(mesh(), PartitionSpec("d"))


# ---- compiling ------------------------------------------------------------------------------


@pytest.mark.parametrize("sharded", [False, True])
def test_init_compiles_and_runs_nothing(sharded: bool) -> None:
    ran: list[int] = []

    def step(x):
        jax.debug.callback(lambda: ran.append(1))
        inner = jax.jit(logging_step)
        return lax.scan(lambda carry, v: (carry, inner(v * x)), 0.0, x)

    x = jax.device_put(np.arange(8, dtype=np.float32), split() if sharded else None)
    captured = capture(step)
    with counted_compiles() as compiles:
        logs = captured.init(x)
        jax.block_until_ready(logs)
    jax.effects_barrier()
    assert (compiles, ran) == ([], [])
    with counted_compiles() as compiles:
        jax.block_until_ready(jax.jit(captured)(logs, x))
    jax.effects_barrier()
    assert (len(compiles), ran) == (1, [1])


PLACES = {
    "default": lambda: None,
    "committed": lambda: jax.devices()[3],
    "split over a mesh": split,
    "replicated": lambda: NamedSharding(mesh(), PartitionSpec()),
    "one of a mesh": lambda: NamedSharding(Mesh(jax.devices()[:1], ("d",)), PartitionSpec()),
}


@pytest.mark.parametrize("where", PLACES)
@pytest.mark.parametrize("donate", [(), (0,), (0, 1)])
def test_many_steps_compile_once(where: str, donate: tuple[int, ...]) -> None:
    x = jax.device_put(np.arange(8, dtype=np.float32), PLACES[where]())
    captured = capture(logging_step)
    step = jax.jit(captured, donate_argnums=donate)
    logs = captured.init(x)
    with counted_compiles() as compiles:
        for _ in range(4):
            logs, x = step(logs, x)
    assert len(compiles) == 1
    assert logs.history()["v"].tolist() == [3.5, 4.5, 5.5, 6.5]


def test_arguments_of_which_only_one_is_committed_compile_once() -> None:
    state = jax.device_put(np.float32(1), jax.devices()[2])

    def step(state, batch):
        log("v", state * batch.mean())
        return state + 1

    captured = capture(step)
    logs, compiled = captured.init(state, np.arange(4.0)), jax.jit(captured, donate_argnums=(0, 1))
    with counted_compiles() as compiles:
        for _ in range(3):
            logs, state = compiled(logs, state, np.arange(4.0))
    assert len(compiles) == 1
    assert logs.history()["v"].tolist() == [1.5, 3.0, 4.5]


def test_donation_takes_every_buffer_of_the_logs() -> None:
    captured = capture(logging_step)
    logs = captured.init(X)
    first = jax.jit(captured, donate_argnums=0)(logs, X)[0]
    assert all(leaf.is_deleted() for leaf in jax.tree.leaves(logs))
    assert not any(leaf.is_deleted() for leaf in jax.tree.leaves(first))
    assert first.history()["v"].tolist() == [1.5]


def test_init_takes_shapes_alone() -> None:
    captured = capture(logging_step)
    abstract = captured.init(jax.ShapeDtypeStruct((4,), jnp.float32))
    concrete = captured.init(X)
    assert jax.tree.structure(abstract) == jax.tree.structure(concrete)
    for a, b in zip(jax.tree.leaves(abstract), jax.tree.leaves(concrete), strict=True):
        assert (a.shape, a.dtype, a.weak_type) == (b.shape, b.dtype, b.weak_type)
        np.testing.assert_array_equal(a, b)


def test_a_step_keeps_the_types_of_its_logs() -> None:
    captured = capture(logging_step)
    logs = captured.init(X)
    after = jax.eval_shape(captured, logs, X)[0]
    assert jax.tree.structure(after) == jax.tree.structure(logs)
    for old, new in zip(jax.tree.leaves(logs), jax.tree.leaves(after), strict=True):
        assert (old.shape, old.dtype, old.weak_type) == (new.shape, new.dtype, new.weak_type)


def test_no_log_effect_is_left() -> None:
    def step(x):
        inner = jax.jit(logging_step)
        body = jax.checkpoint(lambda carry, v: (carry, inner(v * x).sum()))
        return jax.grad(lambda x: lax.scan(body, 0.0, x)[1].sum())(x)

    captured = capture(step)
    assert not jax.make_jaxpr(captured)(captured.init(X), X).effects


def test_other_effects_stay() -> None:
    seen: list[float] = []

    def body(carry, v):
        jax.debug.callback(lambda v: seen.append(float(v)), v, ordered=True)
        log("v", v)
        return carry, v

    assert logged(lambda x: lax.scan(body, 0.0, x), X) == {"v": [1.5]}
    jax.effects_barrier()
    assert seen == [0.0, 1.0, 2.0, 3.0]


# ---- what goes in and out -------------------------------------------------------------------


def test_leaves_that_are_no_arrays_are_static() -> None:
    def step(x, mode, flags, *, scale=1.0, nothing=None, name="v"):
        assert nothing is None
        value = x.mean() if mode == "mean" else x.sum()
        if flags["double"] is True:
            value = 2 * value
        log(name, value * scale)
        return {"x": x, "nothing": nothing}

    args, kwargs = (X, "mean", {"double": True}), {"scale": 10.0, "name": "w"}
    captured = capture(step)
    logs, out = captured(captured.init(*args, **kwargs), *args, **kwargs)
    assert logs.history()["w"].tolist() == [30.0]
    assert out["nothing"] is None
    np.testing.assert_array_equal(out["x"], X)


def test_static_arguments_of_jit() -> None:
    def step(x, mode, *, flag):
        log(mode, x.mean() if flag else x.sum())

    captured = capture(step)
    by_name = jax.jit(captured, static_argnames=("mode", "flag"))
    by_number = jax.jit(captured, static_argnums=2, static_argnames="flag")
    logs = captured.init(X, "a", flag=False)
    logs, _ = by_name(logs, X, "a", flag=False)
    logs, _ = by_name(logs, X, mode="a", flag=False)
    logs, _ = by_number(logs, X, "a", flag=False)
    assert logs.history()["a"].tolist() == [6.0, 6.0, 6.0]


def test_donation_by_name() -> None:
    captured = capture(logging_step)
    x = X + 0
    logs, _ = jax.jit(captured, donate_argnames="x")(captured.init(x), x)
    assert x.is_deleted()
    assert not logs.ring_buffer.rows.is_deleted()


def test_signature_has_the_logs_in_front() -> None:
    assert str(inspect.signature(capture(lambda logs, x=1: logs))) == "(_logs, /, logs, x=1)"
    assert list(inspect.signature(capture(dict)).parameters) == ["logs", "args", "kwargs"]


def test_numpy_arguments_and_scalars_are_traced() -> None:
    def step(x, n):
        assert isinstance(x, jax.Array)
        assert isinstance(n, jax.Array)
        log("v", x.sum() * n)

    assert logged(step, np.arange(4.0), np.float32(2)) == {"v": [12.0]}


def test_a_function_that_returns_nothing() -> None:
    captured = capture(lambda x: log("v", x.sum()))
    logs, out = jax.jit(captured)(captured.init(X), X)
    assert out is None
    assert logs.history()["v"].tolist() == [6.0]


def test_a_function_that_logs_nothing() -> None:
    captured = capture(lambda x: x + 1)
    logs, out = jax.jit(captured)(captured.init(X), X)
    assert (logs.compute(), logs.history()) == ({}, {})
    assert int(logs.ring_buffer.steps) == 1
    np.testing.assert_array_equal(out, X + 1)


@pytest.mark.parametrize("array", [np.arange(4.0, dtype=np.float32), X])
def test_closed_over_arrays(array: Any) -> None:
    def step(x):
        log("v", (x * array).sum())
        return lax.scan(lambda carry, v: (carry + v @ array, log("w", v @ array)), 0.0, x)[0]

    x = jnp.outer(X, X)
    assert logged(step, x) == {"v": [float((x * array).sum())], "w": [float((x @ array).mean())]}


def test_closed_over_tracers() -> None:
    def outer(logs, x):
        doubled = 2 * x
        inner = capture(lambda y: log("v", (doubled * y).sum()))
        return inner(logs, x)[0]

    logs = capture(lambda y: log("v", y.sum())).init(X)
    assert jax.jit(outer)(logs, X).history()["v"].tolist() == [28.0]


def test_capture_inside_capture_keeps_each_its_own() -> None:
    inner = capture(logging_step)

    def step(inner_logs, x):
        log("outer", x.max())
        inner_logs, out = inner(inner_logs, x)
        log("sum", out.sum())
        return inner_logs

    captured, inner_logs = capture(step), inner.init(X)
    logs = captured.init(inner_logs, X)
    compiled = jax.jit(captured, donate_argnums=(0, 1))
    for i in range(2):
        logs, inner_logs = compiled(logs, inner_logs, X + i)
    assert {k: v.tolist() for k, v in logs.history().items()} == {"outer": [3, 4], "sum": [10, 14]}
    assert {k: v.tolist() for k, v in inner_logs.history().items()} == {"v": [1.5, 2.5]}


def test_capture_of_a_jitted_function_is_one_program() -> None:
    jitted = jax.jit(logging_step, donate_argnums=0)
    captured = capture(jitted)
    x, logs = X + 0, captured.init(X)
    compiled = jax.jit(captured)
    with counted_compiles() as compiles:
        logs, out = compiled(logs, x)
        logs, out = compiled(logs, out)
    assert len(compiles) == 1
    assert logs.history()["v"].tolist() == [1.5, 2.5]
    np.testing.assert_array_equal(x, X)  # what the inner jit donates, the outer program keeps


def test_without_jit() -> None:
    captured = capture(logging_step)
    logs, out = captured(captured.init(X), X)
    logs, out = captured(logs, out)
    assert logs.history()["v"].tolist() == [1.5, 2.5]


def test_a_captured_function_in_scan() -> None:
    captured = capture(logging_step)

    @jax.jit
    def epoch(logs, x):
        return lax.scan(lambda state, _: (captured(*state), None), (logs, x), length=5)[0]

    logs, _ = epoch(captured.init(X), X)
    assert logs.history()["v"].tolist() == [1.5, 2.5, 3.5, 4.5, 5.5]
    assert float(logs.compute()["v"]) == 3.5


def test_a_captured_function_in_vmap() -> None:
    captured = capture(logging_step)
    models = jnp.stack([X, X + 1, X + 2])
    logs = jax.vmap(lambda _: captured.init(X))(jnp.arange(3))
    for _ in range(2):
        logs, models = jax.jit(jax.vmap(captured))(logs, models)
    np.testing.assert_array_equal(jax.vmap(lambda logs: logs.compute())(logs)["v"], [2.0, 3.0, 4.0])


def test_it_looks_like_the_function() -> None:
    assert getattr(capture(logging_step), "__name__", None) == "logging_step"
    assert capture(logging_step).__doc__ == logging_step.__doc__
    bound = functools.partial(lambda a, x: log("v", a * x), 2.0)
    assert logged(bound, jnp.float32(3)) == {"v": [6.0]}


# ---- weights --------------------------------------------------------------------------------


def _mean_of(*calls: Any) -> float:
    def step(*args: Any, **kwargs: Any) -> None:
        log("v", kwargs.get("batch", args[-1]).mean())

    captured = capture(step)
    logs = captured.init(*calls[0][0], **calls[0][1])
    for args, kwargs in calls:
        logs, _ = jax.jit(captured)(logs, *args, **kwargs)
    return float(logs.compute()["v"])


SMALL, LARGE = np.full((1, 2), 1.0, np.float32), np.full((3, 2), 5.0, np.float32)


def test_a_mean_weighs_by_the_batch() -> None:
    assert _mean_of(((SMALL,), {}), ((LARGE,), {})) == 4.0


def test_the_batch_is_the_last_argument() -> None:
    assert _mean_of(((X, SMALL), {}), ((X, LARGE), {})) == 4.0


def test_the_batch_may_come_by_name() -> None:
    assert _mean_of(((X,), {"batch": SMALL}), ((X,), {"batch": LARGE})) == 4.0


def test_arguments_without_axes_weigh_one() -> None:
    one, five = np.float32(1), np.float32(5)
    assert _mean_of(((one,), {}), ((five,), {})) == 3.0


# ---- schema ---------------------------------------------------------------------------------


def test_logs_of_another_function_do_not_fit() -> None:
    one = capture(lambda x: log("a", x.sum()))
    other = capture(lambda x: (log("b", x.sum()), log("c", x.sum())))
    with pytest.raises(SchemaError, match=r"now logs 'b', 'c' and no longer logs 'a'.*init"):
        other(one.init(X), X)


def test_another_dtype_does_not_fit() -> None:
    captured = capture(lambda x: log("v", x.sum()))
    with pytest.raises(SchemaError, match="another dtype, weighting or number of calls 'v'"):
        captured(captured.init(X.astype(jnp.int32)), X)


def test_a_mismatch_says_what_is_needed_and_traces_once() -> None:
    traces: list[int] = []

    def step(x):
        traces.append(1)
        log("v", x.sum())

    captured = capture(step)
    with pytest.raises(SchemaMismatchError) as caught:
        captured(Logs.empty(explicit=False), X)
    logs, _ = captured(Logs.empty(caught.value.needed, explicit=False), X)
    assert logs.history()["v"].tolist() == [6.0]
    assert len(traces) == 1


def test_logs_with_room_for_more_fit() -> None:
    def step(x, both):
        log("a", x.sum())
        if both:
            log("b", x.max())

    captured = capture(step)
    with_b, without = (captured.trace((X, both), {}).schema for both in (True, False))
    logs = Logs.empty(with_b.join(without), explicit=False)
    for both in (True, False, True):
        logs, _ = captured(logs, X, both)
    np.testing.assert_array_equal(logs.history()["a"], [6, 6, 6])
    np.testing.assert_array_equal(logs.history()["b"], [3, np.nan, 3])
    assert float(logs.compute()["b"]) == 3.0


def test_first_argument_that_is_no_logs() -> None:
    with pytest.raises(LogArgumentError, match=r"captured\(ArrayImpl, .*init"):
        capture(logging_step)(X)  # pyright: ignore[reportCallIssue]


def test_what_is_no_function() -> None:
    with pytest.raises(LogArgumentError, match=r"write capture\(step\), not capture\(step"):
        capture(3)  # pyright: ignore[reportArgumentType]


def test_a_hook_that_is_none() -> None:
    with pytest.raises(HookError, match=r"'training_stepp' is not a hook.*'training_step'"):
        capture(logging_step, hook="training_stepp")


def test_a_hook_that_forbids_logging() -> None:
    with pytest.raises(HookError, match="'predict_step', where nothing can be logged"):
        capture(logging_step, hook="predict_step")


@pytest.mark.parametrize("rows", [0, -1, 2.5])
def test_rows_must_be_positive(rows: Any) -> None:
    with pytest.raises(LogArgumentError, match=f"rows={rows}"):
        capture(logging_step, rows=rows).init(X)


# ---- where capture cannot look --------------------------------------------------------------


def _linear_solve(x):
    def matvec(v):
        log("residual", v.sum())
        return 2 * v

    return lax.custom_linear_solve(matvec, x, lambda _, b: b / 2)


def _reduce(x):
    def add(a, b):
        log("partial", a)
        return a + b

    return lax.reduce(x, np.float32(0), add, (0,))


def _custom_vmap(x):
    @jax.custom_batching.custom_vmap
    def run(x):
        log("v", x.sum())
        return x

    run.def_vmap(lambda size, batched, x: (x, True))
    return run(x)


@pytest.mark.parametrize(
    ("fn", "primitive", "name"),
    [
        (_linear_solve, "custom_linear_solve", "residual"),
        (_reduce, "reduce", "partial"),
        (_custom_vmap, "custom_vmap_call", "v"),
        (jax.jit(_linear_solve), "custom_linear_solve", "residual"),
        (lambda x: lax.map(lambda v: _linear_solve(x * v), x), "custom_linear_solve", "residual"),
    ],
)
def test_an_unknown_primitive_is_named(fn: Any, primitive: str, name: str) -> None:
    match = f"{name!r} is logged inside {primitive!r} .*test_capture.py:.*log it outside"
    with pytest.raises(CaptureError, match=match):
        capture(fn).init(X)


def _root(v):
    return lax.custom_root(lambda u: u * u - v - 1, v, lambda f, _: f(0.0) + 6, lambda g, y: y)


@pytest.mark.parametrize(
    "wrap",
    [
        lambda f: f,
        jax.jit,
        jax.checkpoint,
        lambda f: lambda v: lax.cond(v > 0, f, jnp.cos, v),
        lambda f: lambda v: lax.map(f, v[None])[0],
    ],
)
def test_an_unknown_primitive_without_logs_is_left_alone(wrap: Any) -> None:
    def step(x):
        out = wrap(lambda v: lax.custom_linear_solve(lambda u: 2 * u, v, lambda _, b: b / 2))(x[3])
        log("v", out)
        return wrap(_root)(x[3])

    captured = capture(step)
    logs, out = jax.jit(captured)(captured.init(X), X)
    assert (logs.history()["v"], out) == (1.5, jax.jit(step)(X))


def test_a_log_in_the_condition_of_a_while_loop() -> None:
    def verdict(v):
        log("v", v)
        return v > 1

    def step(x):
        return lax.while_loop(verdict, lambda v: v / 2, x[3])

    with pytest.raises(CaptureError, match=r"'v' is logged in the condition.*log it in the body"):
        capture(step).init(X)


def test_a_tangent_under_reverse_mode() -> None:
    @jax.custom_jvp
    def run(x):
        return jnp.sin(x)

    @run.defjvp
    def _(primals, tangents):
        log("tangent", tangents[0])
        return jnp.sin(primals[0]), tangents[0]

    assert logged(lambda x: jax.jvp(run, (x,), (x,)), jnp.float32(3)) == {"tangent": [3.0]}
    with pytest.raises(CaptureError, match="'tangent' logs a tangent, which reverse mode"):
        capture(jax.grad(run)).init(jnp.float32(3))


# ---- differentiating through capture --------------------------------------------------------


def _through(run: Any) -> Any:
    """A step of a scalar that logs on its way through `run`."""

    def inner(v):
        log("v", v)
        return jnp.sin(v) * v

    return run(inner)


THROUGH = {
    "straight": lambda f: f,
    "jit": jax.jit,
    "scan": lambda f: lambda v: lax.scan(lambda c, u: (c, f(c * u)), v, X)[1].sum(),
    "cond": lambda f: lambda v: lax.cond(v > 1, f, jnp.cos, v),
    "checkpoint": jax.checkpoint,
    "vmap": lambda f: lambda v: jax.vmap(f)(v * X).sum(),
    "grad": jax.grad,
}


@pytest.mark.parametrize("name", THROUGH)
@pytest.mark.parametrize("derivative", [jax.grad, jax.jacfwd, jax.hessian])
def test_differentiating_a_captured_function(name: str, derivative: Any) -> None:
    fn = _through(THROUGH[name])
    captured, v = capture(fn), jnp.float32(2)
    logs = captured.init(v)
    outside = jax.jit(derivative(lambda v: captured(logs, v)[1]))(v)
    np.testing.assert_allclose(outside, derivative(fn)(v), rtol=1e-5)


def test_gradient_and_logs_at_once() -> None:
    captured = capture(lambda v: (log("v", v), v**2)[1])

    def loss(v, logs):
        logs, out = captured(logs, v)
        return out, logs

    grad, logs = jax.jit(jax.grad(loss, has_aux=True))(jnp.float32(3), captured.init(X[3]))
    assert (float(grad), logs.history()["v"].tolist()) == (6.0, [3.0])


@jax.custom_jvp
def _by_jvp(v: Any) -> Any:
    log("inside", v)
    return v * v


_by_jvp.defjvp(lambda primals, tangents: (primals[0] ** 2, 100 * tangents[0]))


@jax.custom_vjp
def _by_vjp(v: Any) -> Any:
    log("inside", v)
    return v * v


_by_vjp.defvjp(lambda v: (v * v, None), lambda _, g: (100 * g,))


@pytest.mark.parametrize("fn", [_by_jvp, _by_vjp])
def test_custom_derivatives_through_capture_are_refused_not_lost(fn: Any) -> None:
    captured, v = capture(fn), jnp.float32(3)
    logs = captured.init(v)
    match = r"differentiated from outside.*logs 'inside'.*jax\.grad\(f\)"
    with pytest.raises(CaptureError, match=match):
        jax.grad(lambda v: captured(logs, v)[1])(v)
    inside = capture(jax.grad(fn))
    assert float(inside(inside.init(v), v)[1]) == 100.0


@pytest.mark.parametrize("fn", [_by_jvp, _by_vjp])
def test_custom_derivatives_beside_logs_are_kept(fn: Any) -> None:
    def step(v):
        log("v", v)
        return jax.jit(jax.nn.relu)(v) + quiet(v)

    quiet = jax.custom_jvp(lambda v: v)
    quiet.defjvp(lambda primals, tangents: (primals[0], 100 * tangents[0]))
    captured = capture(step)
    logs = captured.init(jnp.float32(1))
    assert float(jax.grad(lambda v: captured(logs, v)[1])(jnp.float32(0))) == 100.0


# ---- what the function's own program says ---------------------------------------------------


def test_an_inner_jit_keeps_its_shardings() -> None:
    def step(x):
        return jax.jit(logging_step, in_shardings=split(), out_shardings=split())(x)

    x = jnp.arange(8, dtype=jnp.float32)
    captured = capture(step)
    logs, out = jax.jit(captured)(captured.init(x), x)
    assert out.sharding.is_equivalent_to(split(), 1)
    assert logs.history()["v"].tolist() == [3.5]


def test_an_inner_jit_keeps_its_name_and_is_lowered_once() -> None:
    inner = jax.jit(logging_step)

    def step(x):
        return inner(inner(x))

    captured = capture(step)
    text = jax.jit(captured).lower(captured.init(X), X).as_text()
    assert text.count("func.func private @logging_step") == 1
    assert text.count("call @logging_step") == 2


def test_name_stacks_are_kept() -> None:
    def step(x):
        with jax.named_scope("forward"):
            log("v", x.sum())

            def body(carry, v):
                with jax.named_scope("attention"):
                    log("w", v)
                    return carry, jnp.sin(v)

            return lax.scan(body, 0.0, x)[1]

    captured = capture(step)
    text = str(jax.jit(captured).lower(captured.init(X), X).compile().as_text())
    assert "forward/while/body/" in text
    assert "attention/sin" in text


def test_equations_without_logs_stay_as_they_are() -> None:
    def step(x, logs=True):
        with jax.named_scope("forward"):
            y = jax.nn.relu(jnp.sin(x))
        if logs:
            log("v", x[0])

        def body(carry, v):
            with jax.named_scope("attention"):
                if logs:
                    log("w", v)
                return carry + jnp.cos(v), jnp.tanh(v)

        return lax.scan(body, jnp.float32(0), jax.jit(jnp.exp)(y))

    def described(jaxpr: Any) -> list[Any]:
        found = []
        for eqn in jaxpr.eqns:
            inner = [getattr(p, "jaxpr", p) for p in eqn.params.values() if hasattr(p, "eqns")]
            found += [line for jaxpr in inner for line in described(jaxpr)]
            where = jax.extend.source_info_util.summarize(eqn.source_info)
            if "test_capture" in where:  # jaxlog's own equations have no line of the user's
                found.append((eqn.primitive.name, where, str(eqn.source_info.name_stack)))
        return found

    captured = capture(step)
    plain = described(jax.make_jaxpr(lambda x: step(x, logs=False))(X))
    ours = described(jax.make_jaxpr(captured)(captured.init(X), X))
    assert ("sin", "forward") in {(name, stack) for name, _, stack in plain}
    assert [line for line in ours if line in plain] == plain


def test_rematerialization_is_kept() -> None:
    def step(x):
        @jax.checkpoint
        def loss(x):
            y = jnp.sin(x)
            log("v", y.sum())
            return jnp.sin(y).sum()

        return jax.grad(loss)(x)

    captured = capture(step)
    jaxpr = str(jax.make_jaxpr(captured)(captured.init(X), X))
    assert "prevent_cse=True" in jaxpr
    assert "differentiated=True" in jaxpr


def test_an_error_in_the_function_is_the_users_own() -> None:
    def step(x):
        with hook("on_before_optimizer_step"):
            log("v", x.sum())
            raise KeyError("mine")

    captured = capture(step)
    with pytest.raises(KeyError, match="mine"):
        captured.init(X)
    assert logged(logging_step, X) == {"v": [1.5]}  # nothing of the failed trace is left


# ---- what is traced and does not reach the program --------------------------------------------


def test_a_log_that_jax_drops_is_named() -> None:
    def loss(x, flag):
        def body(total, v):
            lax.cond(flag, lambda: log("lost", v), lambda: None)
            log("kept", v)
            return total + jnp.sin(v), None

        return lax.scan(body, jnp.float32(0), x)[0]

    captured = capture(jax.grad(loss))
    with pytest.warns(UserWarning, match=r"\['lost'\] is logged in code that the step's program"):
        logs = captured.init(X, True)
    assert [spec.name for spec in logs.schema] == ["kept"]


def test_a_log_that_was_only_tried_is_no_loss() -> None:
    captured = capture(lambda x: (jax.eval_shape(logging_step, x), logging_step(x))[1])
    assert [spec.name for spec in captured.init(X).schema] == ["v"]
