"""What linen modules log and sow, under linen's transforms and in init, against numpy."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxlog
from jaxlog.interop.linen import log_sown
from tests.loop.rig import loop_of

Array = jax.Array
WIDTH, LAYERS = 3, 4


class Count(jaxlog.Metric):
    """How often it was logged: what a mean would hide."""

    calls: Array = jaxlog.state(0, reduce="sum")

    @classmethod
    def of(cls, calls: Any) -> Count:
        return cls(calls=jnp.asarray(calls, jnp.int32))

    def compute(self) -> Array:
        return self.calls


def log_all(name: str, value: Array) -> None:
    """A value, and how often it was logged."""
    jaxlog.log(name, value)
    # Of the value: what is the same in every iteration JAX moves out of a differentiated scan.
    jaxlog.log(f"{name}_count", Count.of(1.0 + 0.0 * value))


def expected(**values: Any) -> dict[str, Any]:
    """What `log_all` of these values leaves."""
    found = {}
    for name, logged in values.items():
        flat = np.asarray(logged, np.float64).reshape(-1)
        found |= {name: flat.mean(), f"{name}_count": flat.size}
    return found


class Layer(nn.Module):
    """Scales what it gets by a weight, and logs the weight and its input."""

    @nn.compact
    def __call__(self, x: Array, _: Any = None) -> tuple[Array, None]:
        weight = self.param("weight", nn.initializers.normal(1.0), (WIDTH,))
        shared = self.variable("shared", "constant", lambda: jnp.float32(7.0))
        log_all("weight", weight[0])
        log_all("input", x.mean())
        log_all("shared", shared.value)
        jax.jit(log_all, static_argnums=0)("nested", 2.0 * shared.value + x.sum())
        return x * weight, None


def scanned(layer: Any, **options: Any) -> Any:
    return nn.scan(
        layer,
        variable_axes={"params": 0},
        variable_broadcast="shared",
        split_rngs={"params": True},
        length=LAYERS,
        **options,
    )


class ByFunction(nn.Module):
    """nn.scan over a function that logs before it calls any module."""

    @nn.compact
    def __call__(self, x: Array, _: Any = None) -> tuple[Array, None]:
        def body(layer: Layer, x: Array, _: Any) -> Any:
            log_all("outside", x.max())
            jax.lax.cond(x.max() > 0, lambda: log_all("branch", x.min()), lambda: None)
            return layer(x)

        return scanned(body)(Layer(), x, None)


MODELS: dict[str, Callable[[], Any]] = {
    "layer": Layer,
    "jit": nn.jit(Layer),
    "remat": nn.remat(Layer),
    "scan": scanned(Layer),
    "scan unchecked": scanned(Layer, check_constancy_invariants=False),
    "scan(remat)": scanned(nn.remat(Layer)),
    "remat(scan)": nn.remat(scanned(Layer)),
    "scan(jit)": scanned(nn.jit(Layer)),
    "jit(scan(remat(jit)))": nn.jit(scanned(nn.remat(nn.jit(Layer)))),
    "function": ByFunction,
}
X = np.asarray([[0.5, 1.5, -2.0], [1.0, 0.25, 3.0]], np.float32)


def oracle(variables: Any, x: np.ndarray, model: str) -> dict[str, float]:
    """The layers one after the other, in numpy."""
    weights = np.concatenate(
        [np.reshape(leaf, (-1, WIDTH)) for leaf in jax.tree.leaves(variables["params"])]
    )
    inputs, sums, largest, smallest = [], [], [], []
    for weight in weights:
        inputs.append(x.mean())
        sums.append(14.0 + x.sum())
        largest.append(x.max())
        smallest.append(x.min())
        x = x * weight
    logged = {
        "weight": weights[:, 0], "input": inputs, "shared": [7.0] * len(weights), "nested": sums
    }  # fmt: skip
    if model == "function":
        logged["outside"] = largest
        branch = [low for low, high in zip(smallest, largest, strict=True) if high > 0]
        return expected(**logged) | expected(branch=branch)
    return expected(**logged)


def check(got: Any, wanted: dict[str, Any]) -> None:
    assert set(got) == set(wanted)
    for name, value in wanted.items():
        np.testing.assert_allclose(got[name], value, rtol=2e-5, err_msg=name)


def variables_of(model: str) -> tuple[nn.Module, Any]:
    """A model and its variables; without its look at the loop, nn.scan cannot make shared ones."""
    made = MODELS["scan" if model == "scan unchecked" else model]()
    return MODELS[model](), made.init(jax.random.key(0), X)


CASES = [*((model, True) for model in MODELS), *((m, False) for m in ("scan", "function"))]


@pytest.mark.parametrize(("model", "gradient"), CASES)
def test_each_value_counts_once(model: str, gradient: bool) -> None:
    module, variables = variables_of(model)

    def step(params: Any, x: Array) -> Any:
        def loss(params: Any) -> Array:
            return (module.apply({**variables, "params": params}, x)[0] ** 2).sum()

        return jax.grad(loss)(params) if gradient else loss(params)

    captured = jaxlog.capture(step)
    logs = captured.init(variables["params"], X)
    logs, _ = jax.jit(captured)(logs, variables["params"], X)
    got, wanted = logs.compute(), oracle(variables, X, model)
    if gradient and ("scan" in model or model == "function"):
        # Documented: JAX moves such a value out of a scan that is differentiated, and its log too.
        del got["shared_count"], wanted["shared_count"]
    check(got, wanted)


@pytest.mark.parametrize("model", ["jit", "scan(jit)", "function"])
def test_a_model_applied_twice_counts_twice(model: str) -> None:
    module, variables = variables_of(model)

    def step(x: Any) -> None:
        module.apply(variables, x)
        module.apply(variables, x + 1)

    captured = jaxlog.capture(step)
    logs, _ = captured(captured.init(X), X)
    first, second = (oracle(variables, x, model) for x in (X, X + 1))
    got = logs.compute()
    assert got["input_count"] == 2 * first["input_count"]
    for name in ("input", "nested", "shared"):
        np.testing.assert_allclose(got[name], (first[name] + second[name]) / 2, rtol=2e-5)


def test_vmap_logs_every_lane() -> None:
    mapped = nn.vmap(
        Layer, variable_axes={"params": 0, "shared": None}, split_rngs={"params": True}, in_axes=0
    )
    module = mapped()
    x = np.stack([X, X + 1, X - 2])
    variables = module.init(jax.random.key(0), x)
    captured = jaxlog.capture(lambda x: module.apply(variables, x)[0].sum())
    logs, _ = jax.jit(captured)(captured.init(x), x)
    weights = np.asarray(variables["params"]["weight"])
    assert weights.shape == (3, WIDTH)
    wanted = expected(weight=weights[:, 0], input=x.mean((1, 2)), nested=14 + x.sum((1, 2)))
    got = logs.compute()
    # What no lane changes is logged once, as outside of vmap.
    assert [got.pop(name) for name in expected(shared=7.0)] == [7.0, 1]
    check(got, wanted)


def test_while_and_cond_log_what_runs() -> None:
    class Growing(nn.Module):
        @nn.compact
        def __call__(self, x: Array) -> Array:
            layer = Layer()
            layer(x)  # a variable is made outside of the loop

            def body(layer: Layer, x: Array) -> Array:
                log_all("body", x.sum())
                return x + 1

            going: Any = lambda _, x: x.sum() < 20  # noqa: E731
            x = nn.while_loop(going, body, layer, x)
            return nn.cond(x.sum() > 0, lambda m, x: m(x)[0], lambda _, x: x, layer, x)

    module = Growing()
    variables = module.init(jax.random.key(0), X)
    captured = jaxlog.capture(lambda x: module.apply(variables, x))
    logs, _ = jax.jit(captured)(captured.init(X), X)
    sums = [X.sum() + 6 * i for i in range(3)]
    assert sums[-1] + 6 >= 20
    got = logs.compute()
    check({name: got[name] for name in expected(body=0)}, expected(body=sums))
    assert got["input_count"] == 2
    np.testing.assert_allclose(got["input"], X.mean() + 1.5, rtol=1e-5)


# ---- init -------------------------------------------------------------------------------------


INITS: dict[str, Callable[[nn.Module], Any]] = {
    "init": lambda module: module.init(jax.random.key(0), X),
    "jit": lambda module: jax.jit(module.init)(jax.random.key(0), X),
    "shape": lambda module: jax.eval_shape(module.init, jax.random.key(0), X),
    "output": lambda module: module.init_with_output(jax.random.key(0), X)[1],
    "lazy": lambda module: module.lazy_init(jax.random.key(0), jax.ShapeDtypeStruct(X.shape, "f4")),
    "function": lambda module: nn.init(lambda m: m(X), module)(jax.random.key(0)),
}


@pytest.mark.parametrize("model", ["layer", "jit", "scan(remat)", "scan(jit)"])
@pytest.mark.parametrize("init", INITS)
def test_init_records_nothing(init: str, model: str) -> None:
    module = MODELS[model]()
    captured = jaxlog.capture(lambda: INITS[init](module))
    assert not len(captured.init().schema)


@pytest.mark.parametrize("model", ["jit", "scan(jit)", "function"])
def test_init_and_apply_in_one_step(model: str) -> None:
    module = MODELS[model]()

    def step(x: Any) -> Any:
        module.apply(module.init(jax.random.key(0), x), x)
        return module.init(jax.random.key(0), x)

    captured = jaxlog.capture(step)
    logs, variables = captured(captured.init(X), X)
    check(logs.compute(), oracle(variables, X, model))


def test_a_collection_made_by_apply_is_no_init() -> None:
    class Running(nn.Module):
        @nn.compact
        def __call__(self, x: Array) -> Array:
            mean = self.variable("stats", "mean", lambda: jnp.float32(0))
            mean.value += x.mean()
            jaxlog.log("mean", mean.value)
            return x

    captured = jaxlog.capture(lambda x: Running().apply({}, x, mutable=["stats"])[1])
    logs, stats = captured(captured.init(X), X)
    assert logs.compute() == {"mean": stats["stats"]["mean"]}


# ---- effects that are not ours ------------------------------------------------------------------


def test_other_effects_in_a_scan_pass_or_are_explained() -> None:
    class Printing(nn.Module):
        @nn.compact
        def __call__(self, x: Array, _: Any = None) -> tuple[Array, None]:
            jax.debug.callback(lambda _: None, x)
            jaxlog.log("x", x.mean())
            return x, None

    def captured_scan(**options: Any) -> jaxlog.Logs:
        module = nn.scan(Printing, length=2, **options)()
        return jaxlog.capture(lambda x: module.apply({}, x)).init(X)

    assert len(captured_scan(check_constancy_invariants=False).schema) == 1
    try:
        said = str(captured_scan())
    except jaxlog.CaptureError as error:  # later versions of flax take no effect there
        said = str(error)
    assert said == "Logs(x)" or "check_constancy_invariants=False" in said


def test_an_error_of_the_model_stays_what_it_is() -> None:
    def step(x: Array) -> None:
        raise ValueError("mine")

    with pytest.raises(ValueError, match="mine") as caught:
        jaxlog.capture(step).init(X)
    assert caught.type is ValueError


def test_outside_of_capture_flax_compiles_what_it_did() -> None:
    def program(layer: Any) -> str:
        module = scanned(layer)()
        variables = scanned(Silent)().init(jax.random.key(0), X)
        return jax.jit(lambda x: module.apply(variables, x)[0]).lower(X).as_text()

    class Silent(nn.Module):
        @nn.compact
        def __call__(self, x: Array, _: Any = None) -> tuple[Array, None]:
            return x * self.param("weight", nn.initializers.ones, (WIDTH,)), None

    class Speaking(Silent):
        @nn.compact
        def __call__(self, x: Array, _: Any = None) -> tuple[Array, None]:
            log_all("x", x.mean())
            return x * self.param("weight", nn.initializers.ones, (WIDTH,)), None

    assert "mean" not in program(Speaking)
    assert program(Speaking).count("stablehlo.reduce") == program(Silent).count("stablehlo.reduce")


# ---- sow ----------------------------------------------------------------------------------------


class Sowing(nn.Module):
    """Sows twice, once as a sum, and a metric."""

    @nn.compact
    def __call__(self, x: Array, _: Any = None) -> tuple[Array, None]:
        self.sow("intermediates", "mean", x.mean())
        self.sow("intermediates", "mean", x.mean() + 1)
        self.sow("losses", "l2", (x**2).sum(), reduce_fn=jnp.add, init_fn=lambda: jnp.float32(0))
        self.sow("metrics", "mean", jaxlog.Mean.of(x))
        return x + 1, None


class Deep(nn.Module):
    """Two blocks in a module with a name."""

    @nn.compact
    def __call__(self, x: Array) -> Array:
        for i in range(2):
            x, _ = Sowing(name=f"layer_{i}")(x)
        return x


class Model(nn.Module):
    """What sows stands two modules deep."""

    @nn.compact
    def __call__(self, x: Array) -> Array:
        return Deep(name="encoder")(x)


def sown(module: nn.Module, *args: Any, collection: str, **options: Any) -> dict[str, float]:
    def step(x: Array) -> None:
        _, variables = module.apply({}, x, mutable=[collection])
        log_sown(variables, *args, **options)

    captured = jaxlog.capture(step)
    return jax.jit(captured)(captured.init(X), X)[0].compute()


def test_sown_values_have_the_path_of_their_module() -> None:
    m = X.mean()
    check(
        sown(Model(), collection="intermediates"),
        {"encoder/layer_0/mean": m + 0.5, "encoder/layer_1/mean": m + 1.5},
    )
    check(
        sown(Model(), "losses", collection="losses", prefix="loss/", reduce_fx="sum"),
        {
            "loss/encoder/layer_0/l2": (X**2).sum(),
            "loss/encoder/layer_1/l2": ((X + 1) ** 2).sum(),
        },
    )
    check(
        sown(Model(), "metrics", collection="metrics"),
        {"encoder/layer_0/mean": m, "encoder/layer_1/mean": m + 1},
    )


def test_layers_of_a_scan_are_reduced_as_asked() -> None:
    module = nn.scan(Sowing, variable_axes={"intermediates": 0}, length=LAYERS)()
    with pytest.raises(jaxlog.LogArgumentError, match=r"'mean' is an array of shape \(4,\)"):
        sown(module, collection="intermediates")
    means = X.mean() + np.arange(LAYERS)
    check(sown(module, collection="intermediates", reduce=jnp.mean), {"mean": means.mean() + 0.5})
    check(
        sown(module, collection="intermediates", reduce=jnp.max, reduce_fx="max"),
        {"mean": means.max() + 1},
    )


@pytest.mark.parametrize("variables", [{"params": {}}, {}, 3])
def test_a_collection_that_is_not_there(variables: Any) -> None:
    with pytest.raises(jaxlog.LogArgumentError, match="mutable="):
        log_sown(variables)


# ---- in a loop ----------------------------------------------------------------------------------


def test_a_loop_logs_what_modules_log() -> None:
    module, variables = variables_of("scan(remat)")
    loop, rows = loop_of()

    @loop.training_step
    def train_step(params: Any, x: Array) -> Any:
        def loss(params: Any) -> Array:
            return module.apply({**variables, "params": params}, x)[0].sum()

        return jax.tree.map(lambda p, g: p - 0.1 * g, params, jax.grad(loss)(params))

    @loop.validation_step
    def eval_step(params: Any, x: Array) -> None:
        module.apply({**variables, "params": params}, x)

    params, wanted = variables["params"], []
    with loop:
        for x in loop.train([X, X + 1]):
            wanted.append(oracle({"params": params}, x, "scan"))
            params = train_step(params, x)
        for x in loop.validate([X]):
            eval_step(params, x)
        metrics = dict(loop.callback_metrics)
    for name in ("weight", "input"):
        logged = rows.of(name)[:2]
        np.testing.assert_allclose(
            [value for _, value in logged], [step[name] for step in wanted], rtol=2e-5
        )
    last = oracle({"params": params}, X, "scan")
    np.testing.assert_allclose(metrics["input"], last["input"], rtol=2e-5)
