"""Steps that change nnx objects in place, and what is logged under nnx's transforms."""

from __future__ import annotations

import functools
import itertools
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from jax.sharding import Mesh, NamedSharding, PartitionSpec

import jaxlog
from jaxlog.interop.nnx import log_sown
from tests.counting import counted_compiles
from tests.interop.test_linen import Layer as LinenLayer
from tests.interop.test_linen import check, expected, log_all
from tests.interop.test_linen import scanned as scanned_linen
from tests.loop.rig import loop_of

Array = jax.Array
WIDTH, LAYERS = 3, 4
X = np.asarray([[0.5, 1.5, -2.0], [1.0, 0.25, 3.0]], np.float32)
BATCHES = [X, X + 1, X - 2, 0.5 * X]


class Calls(nnx.Variable):
    """How often a module was called."""


class Net(nnx.Module):
    """A model with parameters, running statistics, random numbers and a counter."""

    def __init__(self, rngs: nnx.Rngs) -> None:
        self.norm = nnx.BatchNorm(WIDTH, rngs=rngs)
        self.drop = nnx.Dropout(0.5, rngs=rngs)
        self.last = nnx.Linear(WIDTH, 1, rngs=rngs)
        self.calls = Calls(jnp.int32(0))

    def __call__(self, x: Array) -> Array:
        self.calls[...] += 1
        hidden = self.drop(self.norm(x))
        jaxlog.log("hidden", hidden.mean())
        return self.last(hidden)


def made() -> tuple[Net, nnx.Optimizer]:
    net = Net(nnx.Rngs(0))
    return net, nnx.Optimizer(net, optax.sgd(0.1, momentum=0.9), wrt=nnx.Param)


def train_step(net: Net, optimizer: nnx.Optimizer, batch: Array) -> Array:
    def loss_fn(net: Net) -> Array:
        loss = (net(batch) ** 2).mean()
        jaxlog.log("inner", loss)
        return loss

    loss, gradients = nnx.value_and_grad(loss_fn)(net)
    optimizer.update(net, gradients)
    jaxlog.log("loss", loss)
    return loss


def values(*objects: Any) -> list[np.ndarray]:
    """Every array in the objects, random keys as their data."""
    leaves = jax.tree.leaves(nnx.state(list(objects)))
    keys = [jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key) for leaf in leaves]
    return [
        np.asarray(jax.random.key_data(leaf) if key else leaf)
        for leaf, key in zip(leaves, keys, strict=True)
    ]


def assert_same(got: list[np.ndarray], wanted: list[np.ndarray]) -> None:
    for a, b in zip(got, wanted, strict=True):
        np.testing.assert_array_equal(a, b)


@functools.cache
def under_nnx_jit() -> tuple[list[float], list[np.ndarray]]:
    """The losses, and the objects after the last step, without jaxlog."""
    net, optimizer = made()
    step = nnx.jit(train_step)
    return [float(step(net, optimizer, x)) for x in BATCHES], values(net, optimizer)


# ---- steps of a loop ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "jitted"),
    [
        pytest.param({}, False, id="plain"),
        pytest.param({}, True, id="decorated"),
        pytest.param({"transform": nnx.jit}, False, id="nnx.jit"),
        pytest.param({"donate_argnums": (0, 1)}, True, id="donated"),
        pytest.param({"donate_argnames": ("net", "optimizer")}, False, id="donated by name"),
    ],
)
def test_a_step_changes_objects_as_under_nnx_jit(options: dict[str, Any], jitted: bool) -> None:
    losses, wanted = under_nnx_jit()
    net, optimizer = made()
    parameter = net.last.kernel
    before = parameter[...]
    loop, rows = loop_of()
    traces = []

    def counted(net: Net, optimizer: nnx.Optimizer, batch: Array) -> Array:
        traces.append(batch)
        return train_step(net, optimizer, batch)

    step = loop.training_step(nnx.jit(counted) if jitted else counted, **options)
    with loop, counted_compiles() as compiles:
        returned = [step(net, optimizer, x) for x in loop.train(BATCHES)]
        loop.flush()
        assert len(compiles) == 1
    assert len(traces) == 1
    assert_same(values(net, optimizer), wanted)
    assert net.last.kernel is parameter
    assert before.is_deleted() == any("donate" in name for name in options)
    assert int(net.calls[...]) == len(BATCHES)
    assert [float(loss) for loss in returned] == losses
    assert rows.of("loss") == rows.of("inner") == list(enumerate(losses))
    assert len(rows.of("hidden")) == len(BATCHES)


def test_arguments_by_name() -> None:
    losses, wanted = under_nnx_jit()
    net, optimizer = made()
    loop, rows = loop_of()
    step = loop.training_step(train_step)
    with loop:
        for x in loop.train(BATCHES):
            step(batch=x, optimizer=optimizer, net=net)
    assert_same(values(net, optimizer), wanted)
    assert rows.of("loss") == list(enumerate(losses))


def test_objects_deep_in_arguments_and_results() -> None:
    loop, _ = loop_of()

    @loop.training_step
    def step(state: dict[str, Any], batch: Array) -> dict[str, Any]:
        train_step(state["net"], state["optimizer"], batch)
        return {**state, "batches": state["batches"] + 1, "other": nnx.Param(batch.sum())}

    net, optimizer = made()
    state: dict[str, Any] = {"net": net, "optimizer": optimizer, "batches": 0}
    with loop:
        for x in loop.train(BATCHES):
            state = step({k: v for k, v in state.items() if k != "other"}, x)
    # An object that came in comes out as itself; a new one is a new one.
    assert state["net"] is net
    assert state["optimizer"] is optimizer
    assert state["batches"] == len(BATCHES)
    assert float(state["other"][...]) == BATCHES[-1].sum()
    assert_same(values(net, optimizer), under_nnx_jit()[1])


def test_a_parameter_of_two_arguments_stays_one() -> None:
    class Tied(nnx.Module):
        def __init__(self, weight: nnx.Param) -> None:
            self.weight = weight

    weight = nnx.Param(jnp.ones(()))
    encoder, decoder = Tied(weight), Tied(weight)
    loop, rows = loop_of()

    @loop.training_step
    def step(encoder: Tied, decoder: Tied, batch: Array) -> None:
        encoder.weight[...] += 1.0
        decoder.weight[...] *= 2.0
        jaxlog.log("weight", encoder.weight[...])

    with loop:
        for x in loop.train(BATCHES[:2]):
            step(encoder, decoder, x)
    assert rows.of("weight") == [(0, 4.0), (1, 10.0)]
    assert encoder.weight is decoder.weight is weight
    assert float(weight[...]) == 10.0


def test_a_structure_that_changes_compiles_again_once() -> None:
    class Growing(nnx.Module):
        mode = "less"

        def __init__(self) -> None:
            self.total = nnx.Variable(jnp.zeros(()))

        def __call__(self, x: Array) -> None:
            self.total[...] += x.sum()
            if not hasattr(self, "last"):
                self.last = nnx.Variable(x)
            self.last[...] = x

    model = Growing()
    loop, rows = loop_of()

    @loop.training_step
    def step(model: Growing, batch: Array) -> None:
        model(batch)
        jaxlog.log("total", model.total[...])
        if model.mode == "more":
            jaxlog.log("more", model.last[...].mean())

    with loop, counted_compiles() as compiles:
        for i, x in enumerate(loop.train(BATCHES)):
            model.mode = "more" if i == 3 else "less"
            step(model, x)
            assert len(compiles) == [1, 2, 2, 3][i]  # with `last`, and with another mode
    np.testing.assert_array_equal(model.last[...], BATCHES[-1])
    np.testing.assert_allclose(
        [value for _, value in rows.of("total")], np.cumsum([x.sum() for x in BATCHES]), rtol=1e-6
    )
    assert [step for step, _ in rows.of("more")] == [3]


def test_evaluation_weighs_by_the_batch_and_not_by_a_parameter() -> None:
    net, _ = made()
    net.eval()
    loop, _ = loop_of()
    totals = []

    def evaluate(net: Net, batch: Array) -> None:
        jaxlog.log("mean", batch.mean())
        jaxlog.log("output", net(batch).sum(), reduce_fx="sum")

    validate, test = loop.validation_step(evaluate), loop.test_step(evaluate)
    batches = [X, X[:1], np.concatenate([X, X, X])]
    with loop:
        for phase, step in ((loop.validate, validate), (loop.test, test)):
            for x in phase(batches):
                step(net, x)
            totals.append(dict(loop.callback_metrics))
    wanted = np.average([x.mean() for x in batches], weights=[len(x) for x in batches])
    outputs = sum(float(net(jnp.asarray(x)).sum()) for x in batches)
    for total in totals:
        np.testing.assert_allclose(total["mean"], wanted, rtol=1e-6)
        np.testing.assert_allclose(total["output"], outputs, rtol=1e-5)
    assert int(net.calls[...]) == 9


def test_gradients_that_are_accumulated() -> None:
    net, _ = made()
    optimizer = nnx.Optimizer(
        net, optax.MultiSteps(optax.sgd(0.1), 2).gradient_transformation(), wrt=nnx.Param
    )
    loop, rows = loop_of(accumulate_grad_batches=2)
    step = loop.training_step(train_step)
    kernels = [np.asarray(net.last.kernel[...])]
    with loop:
        for x in loop.train(BATCHES):
            step(net, optimizer, x)
            kernels.append(np.asarray(net.last.kernel[...]))
    changed = [not np.array_equal(a, b) for a, b in itertools.pairwise(kernels)]
    assert changed == [False, True, False, True]
    assert loop.global_step == 2
    assert [step for step, _ in rows.of("loss")] == [0, 1]


def test_metrics_of_nnx_count_on() -> None:
    metrics = nnx.MultiMetric(mean=nnx.metrics.Average("x"), shard_axes=nnx.metrics.Welford("x"))
    loop, rows = loop_of()

    @loop.training_step
    def step(metrics: nnx.MultiMetric, batch: Array) -> None:
        metrics.update(x=batch)
        computed = metrics.compute()
        jaxlog.log_dict({"mean": computed["mean"], "shard_axes": computed["shard_axes"].mean})

    with loop:
        for x in loop.train(BATCHES):
            step(metrics, x)
    running = [np.mean(BATCHES[: i + 1]) for i in range(len(BATCHES))]
    for name in ("mean", "shard_axes"):
        np.testing.assert_allclose([value for _, value in rows.of(name)], running, rtol=1e-5)
    np.testing.assert_allclose(metrics.compute()["mean"], running[-1], rtol=1e-5)


def test_who_splits_by_hand_passes_pytrees() -> None:
    net, _ = made()
    graphdef, state = nnx.split(net)
    loop, _ = loop_of()

    @loop.training_step
    def step(state: nnx.State, batch: Array) -> nnx.State:
        net = nnx.merge(graphdef, state)
        net(batch)
        return nnx.state(net)

    calls = []
    with loop:
        for x in loop.train(BATCHES[:2]):
            after: Any = step(state, x)
            calls.append([int(values(nnx.merge(graphdef, s))[0]) for s in (state, after)])
            assert isinstance(after, nnx.State)
    assert calls == [[0, 1], [0, 1]]  # nothing is changed in place


def test_placed_arguments_stay_where_they_are() -> None:
    mesh = Mesh(np.array(jax.devices()[:2]), ("data",))
    whole, rows_of = (NamedSharding(mesh, PartitionSpec(*spec)) for spec in ((), ("data",)))
    losses, wanted = under_nnx_jit()
    objects = made()
    for one in objects:
        nnx.update(one, jax.device_put(nnx.state(one), whole))
    loop, rows = loop_of()
    step = loop.training_step(
        train_step, in_shardings=(whole, whole, rows_of), out_shardings=whole, donate_argnums=(0, 1)
    )
    batches = [jax.device_put(x, rows_of) for x in BATCHES]
    with loop, counted_compiles() as compiles:
        for x in loop.train(batches):
            assert step(*objects, x).sharding == whole
        loop.flush()
        assert len(compiles) == 1
    assert objects[0].last.kernel[...].sharding == whole
    np.testing.assert_allclose([value for _, value in rows.of("loss")], losses, rtol=1e-5)
    for a, b in zip(values(*objects), wanted, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5)


def run_once(step: Any, phase: Any, *objects: Any) -> None:
    for x in phase(BATCHES):
        step(*objects, x)


def test_a_method_of_an_object_is_an_error() -> None:
    net, _ = made()
    loop, _ = loop_of()
    step = loop.validation_step(net.__call__)
    with loop, pytest.raises(jaxlog.LogArgumentError, match=r"loop\.training_step\(Net.__call__\)"):
        run_once(step, loop.validate)


def test_pmap_of_objects_is_an_error() -> None:
    loop, _ = loop_of()
    step = loop.training_step(train_step, transform=jax.pmap)
    with loop, pytest.raises(jaxlog.LogArgumentError, match=r"nnx\.split\(model\)"):
        run_once(step, loop.train, *made())


# ---- capture ------------------------------------------------------------------------------------


def test_a_captured_function_changes_its_arguments() -> None:
    losses, wanted = under_nnx_jit()
    net, optimizer = made()
    captured = jaxlog.capture(train_step)
    logs = captured.init(net, optimizer, X)
    assert int(net.calls[...]) == 0  # init runs nothing
    step = nnx.jit(captured)
    for x in BATCHES:
        logs, _ = step(logs, net, optimizer, x)
    assert_same(values(net, optimizer), wanted)
    np.testing.assert_array_equal(logs.history()["loss"], losses)
    np.testing.assert_allclose(logs.compute()["loss"], np.mean(losses), rtol=1e-5)


def test_eagerly_too() -> None:
    calls = Calls(jnp.int32(0))

    def step(calls: Calls, *, by: int, x: Any) -> Calls:
        calls[...] += by
        jaxlog.log("calls", calls[...] + x)
        return calls

    captured = jaxlog.capture(step)
    logs = captured.init(calls, by=2, x=np.int32(1))
    for _ in range(3):
        logs, out = captured(logs, calls, by=2, x=np.int32(1))
        assert out is calls
    assert int(calls[...]) == 6
    assert list(logs.history()["calls"]) == [3, 5, 7]


def test_the_batch_may_stand_before_the_model() -> None:
    captured = jaxlog.capture(lambda batch, net: jaxlog.log("mean", batch.mean()))
    net, _ = made()
    logs = captured.init(X, net)
    batches = [X, X[:1] + 3]
    for x in batches:
        logs, _ = captured(logs, x, net)
    wanted = np.average([x.mean() for x in batches], weights=[2, 1])
    np.testing.assert_allclose(logs.compute()["mean"], wanted, rtol=1e-6)


# ---- nnx's transforms ---------------------------------------------------------------------------


class Layer(nnx.Module):
    """Scales what it gets, counts its calls, and logs its weight and input."""

    def __init__(self, rngs: nnx.Rngs) -> None:
        self.weight = nnx.Param(jax.random.normal(rngs.params(), (WIDTH,)))
        self.calls = Calls(jnp.int32(0))

    def __call__(self, x: Array) -> Array:
        self.calls[...] += 1
        log_all("weight", self.weight[...][0])
        jax.jit(log_all, static_argnums=0)("input", x.mean())
        return x * self.weight[...]


@nnx.vmap(in_axes=0, out_axes=0)
def layers_of(key: Array) -> Layer:
    return Layer(nnx.Rngs(key))


def stack() -> Layer:
    return layers_of(jax.random.split(jax.random.key(0), LAYERS))


def over_layers(call: Callable[[Layer, Array], Array]) -> Callable[[Layer, Array], Array]:
    def scanned(layers: Layer, x: Array) -> Any:
        return nnx.scan(call, in_axes=(0, nnx.Carry), out_axes=nnx.Carry)(layers, x)

    return scanned


def plain(layer: Layer, x: Array) -> Array:
    return layer(x)


APPLIED: dict[str, Callable[[Any, Array], Array]] = {
    "scan": over_layers(plain),
    "scan(remat)": over_layers(nnx.remat(plain)),
    "scan(jit)": over_layers(nnx.jit(plain)),
    "remat(scan)": nnx.remat(over_layers(plain)),
    "jit(scan(remat(jit)))": nnx.jit(over_layers(nnx.remat(nnx.jit(plain)))),
}


@pytest.mark.parametrize(("way", "gradient"), [("scan", False), *((way, True) for way in APPLIED)])
def test_layers_log_once_each(way: str, gradient: bool) -> None:
    layers = stack()
    weights = np.asarray(layers.weight[...])
    apply = APPLIED[way]

    def step(layers: Layer, x: Any) -> Any:
        def loss(layers: Layer) -> Array:
            return (apply(layers, x) ** 2).sum()

        return nnx.grad(loss)(layers) if gradient else loss(layers)

    captured = jaxlog.capture(step)
    logs = captured.init(layers, X)
    logs, _ = nnx.jit(captured)(logs, layers, X)
    inputs, x = [], X
    for weight in weights:
        inputs.append(x.mean())
        x = x * weight
    check(logs.compute(), expected(weight=weights[:, 0], input=inputs))
    np.testing.assert_array_equal(layers.calls[...], [1] * LAYERS)


def logged(step: Callable[..., Any], *args: Any) -> dict[str, Any]:
    captured = jaxlog.capture(step)
    return nnx.jit(captured)(captured.init(*args), *args)[0].compute()


def test_vmap_logs_every_lane() -> None:
    layers, x = stack(), np.stack([X, X + 1, X - 2, X * 2])
    got = logged(lambda layers, x: nnx.vmap(plain)(layers, x).sum(), layers, x)
    check(got, expected(weight=np.asarray(layers.weight[...])[:, 0], input=x.mean((1, 2))))
    np.testing.assert_array_equal(layers.calls[...], [1] * LAYERS)


@pytest.mark.parametrize(("sign", "calls"), [(1.0, 1), (-1.0, 2)])
def test_cond_and_switch_log_the_branch_that_runs(sign: float, calls: int) -> None:
    layer, x = Layer(nnx.Rngs(0)), np.float32(sign) * np.ones(WIDTH, np.float32)

    def twice(layer: Layer, x: Array) -> Array:
        return layer(layer(x))

    def step(layer: Layer, x: Array) -> Array:
        y = nnx.cond(x.sum() > 0, plain, twice, layer, x)
        return nnx.switch(jnp.int32(x.sum() < 0), [plain, twice], layer, x + y)

    got = logged(step, layer, x)
    assert got["input_count"] == got["weight_count"] == 2 * calls
    assert int(layer.calls[...]) == 2 * calls
    np.testing.assert_allclose(got["weight"], layer.weight[0], rtol=1e-6)


def test_loops_log_each_iteration() -> None:
    layer = Layer(nnx.Rngs(0))

    def step(layer: Layer, x: Array) -> Any:
        layer, x = nnx.fori_loop(0, 3, lambda i, state: (state[0], state[0](state[1])), (layer, x))
        return nnx.while_loop(
            lambda state: state[0].calls[...] < 5,
            lambda state: (state[0], state[0](state[1])),
            (layer, x),
        )[1]

    weight, x, inputs = np.asarray(layer.weight[...]), X, []
    got = logged(step, layer, X)
    for _ in range(5):
        inputs.append(x.mean())
        x = x * weight
    assert int(layer.calls[...]) == 5
    check(got, expected(weight=[weight[0]] * 5, input=inputs))


def test_the_gradient_of_a_part() -> None:
    layer = Layer(nnx.Rngs(0))

    def step(layer: Layer, x: Array) -> Any:
        def loss(layer: Layer) -> tuple[Array, Array]:
            y = jaxlog.log_gradient("gradient", layer(x))
            return 0.5 * (y**2).sum(), y

        part = nnx.DiffState(0, nnx.Param)
        _, gradient = nnx.value_and_grad(loss, argnums=part, has_aux=True)(layer)
        jaxlog.log("norm", jnp.linalg.norm(gradient["weight"][...]))
        return gradient

    weight = np.asarray(layer.weight[...])
    got = logged(step, layer, X)
    y = X * weight
    check(
        got,
        expected(weight=[weight[0]], input=[X.mean()])
        | {"gradient": np.linalg.norm(y), "norm": np.linalg.norm((y * X).sum(0))},
    )


def test_a_variable_is_logged_as_its_value() -> None:
    scale = nnx.Param(jnp.float32(2.5))
    assert logged(lambda scale: jaxlog.log("scale", scale), scale) == {"scale": 2.5}


def test_a_model_of_linen_inside_nnx() -> None:
    x = jnp.asarray(X)
    bridged = nnx.bridge.ToNNX(scanned_linen(LinenLayer)(), rngs=nnx.Rngs(0))
    bridged.lazy_init(x)
    got = logged(lambda bridged, x: bridged(x)[0].sum(), bridged, x)
    assert got["input_count"] == LAYERS


# ---- sow ----------------------------------------------------------------------------------------


class Sowing(nnx.Module):
    """Sows twice under one name."""

    def __call__(self, x: Array) -> Array:
        self.sow(nnx.Intermediate, "mean", x.mean())
        self.sow(nnx.Intermediate, "mean", x.mean() + 1)
        self.sow(nnx.Intermediate, "row", x[0])
        return x + 1


class Encoder(nnx.Module):
    """Two sowing layers, one with a name and one in a list."""

    def __init__(self) -> None:
        self.first = Sowing()
        self.rest = nnx.List([Sowing()])

    def __call__(self, x: Array) -> Array:
        return self.rest[0](self.first(x))


def sown_by(model: nnx.Module, x: Array) -> Any:
    """What the model sows: flax 0.12.0 has no `nnx.capture`, later ones warn without it."""
    if hasattr(nnx, "capture"):
        return nnx.capture(model, nnx.Intermediate)(x)[1]
    model(x)
    return nnx.pop(model, nnx.Intermediate)


def test_sown_values_have_the_path_of_their_module() -> None:
    loop, rows = loop_of()

    @loop.training_step
    def step(encoder: Encoder, x: Array) -> None:
        log_sown(sown_by(encoder, x), prefix="act/", reduce=jnp.max)

    encoder = Encoder()
    with loop:
        for x in loop.train([X, X + 2]):
            step(encoder, x)
    assert not jax.tree.leaves(nnx.state(encoder))
    for i, x in enumerate([X, X + 2]):
        wanted = {
            "act/first/mean": x.mean() + 0.5,
            "act/first/row": x[0].max(),
            "act/rest/0/mean": x.mean() + 1.5,
            "act/rest/0/row": x[0].max() + 1,
        }
        check({name: dict(rows.of(name))[i] for name in wanted}, wanted)


def test_what_cannot_have_been_sown() -> None:
    with pytest.raises(jaxlog.LogArgumentError, match=r"nnx\.capture\(model, nnx\.Intermediate\)"):
        log_sown(3)


def test_flax_is_not_imported_with_jaxlog() -> None:
    script = "import sys, jaxlog; sys.exit('flax' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0
