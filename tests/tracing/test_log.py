"""`log`: every option, every refusal at trace time, and no trace of it outside of capture."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from jaxlog import capture, hook, log, log_dict
from jaxlog.errors import HookError, JaxlogError, LogArgumentError, SchemaError
from jaxlog.logs import Options
from jaxlog.metrics import Accuracy, Mean, Metric, state

X = jnp.arange(1, 5, dtype=jnp.float32)


def spec_of(**options: Any) -> Any:
    """The schema spec of one call."""
    (spec,) = capture(lambda x: log("v", x.sum(), **options)).init(X).schema
    return spec


def history_of(fn: Callable[[Any], Any], x: Any = X) -> dict[str, list[float]]:
    captured = capture(fn)
    logs, _ = jax.jit(captured)(captured.init(x), x)
    return {name: values.tolist() for name, values in logs.history().items()}


# ---- options --------------------------------------------------------------------------------


def test_defaults() -> None:
    assert spec_of().options == Options(hook="training_step", on_step=True, on_epoch=False)


@pytest.mark.parametrize(
    ("option", "given"),
    [
        ("prog_bar", True),
        ("logger", False),
        ("on_epoch", True),
        ("reduce_fx", "max"),
        ("enable_graph", True),
        ("sync_dist", True),
        ("sync_dist_group", "data"),
        ("sync_dist_group", ("data", "model")),
        ("add_dataloader_idx", False),
        ("rank_zero_only", True),
        ("nan_policy", "keep"),
        ("nan_policy", "skip"),
        ("nan_policy", "raise"),
    ],
)
def test_an_option_reaches_the_schema(option: str, given: Any) -> None:
    options = spec_of(**{option: given}).options
    assert options.differences(spec_of().options) == [option]
    assert getattr(options, option) == given


@pytest.mark.parametrize("groups", [[[0, 1], [2, 3]], ([0, 1], [2, 3]), ((0, 1), (2, 3))])
def test_index_groups_become_tuples(groups: Any) -> None:
    assert spec_of(sync_dist_group=groups).options.sync_dist_group == ((0, 1), (2, 3))


def test_a_metric_takes_no_notice_of_a_batch_size_for_its_siblings() -> None:
    values = {"v": X[0], "metric": Mean.of(X)}
    assert history_of(lambda _: log_dict(values, batch_size=7)) == {"v": [1.0], "metric": [2.5]}


def test_only_on_epoch() -> None:
    options = spec_of(on_step=False, on_epoch=True).options
    assert (options.on_step, options.on_epoch, options.forks) == (False, True, False)
    assert spec_of(on_epoch=True).options.forks


@pytest.mark.parametrize(
    ("given", "reduction"),
    [
        *((name, name) for name in ("mean", "sum", "min", "max")),
        ("avg", "mean"),
        *((getattr(jnp, name), name) for name in ("mean", "sum", "min", "max")),
        *((getattr(np, name), name) for name in ("mean", "sum", "min", "max")),
        *((function, function.__name__) for function in (sum, min, max)),
    ],
)
def test_reduce_fx(given: Any, reduction: str) -> None:
    assert spec_of(reduce_fx=given).options.reduce_fx == reduction


def test_the_name_may_leave_the_appended_index_alone() -> None:
    step = capture(lambda x: log("v/dataloader_idx_0", x.sum(), add_dataloader_idx=False))
    assert [spec.name for spec in step.init(X).schema] == ["v/dataloader_idx_0"]


def test_log_returns_nothing_and_log_dict_takes_options() -> None:
    def step(x):
        assert log("a", x.sum()) is None
        assert log_dict({"b": x.min(), "c": x.max()}, on_epoch=True, prog_bar=True) is None

    captured = capture(step)
    logs, _ = captured(captured.init(X), X)
    assert {k: v.tolist() for k, v in logs.history().items()} == {"a": [10], "b": [1], "c": [4]}
    assert [e.options.forks and e.options.prog_bar for e in logs.schema] == [False, True, True]


# ---- values ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "stored", "number"),
    [
        (True, "int32", 1.0),
        (7, "int32", 7.0),
        (-(2**31), "int32", -(2.0**31)),
        (2**40, "float32", 2.0**40),
        (2.5, "float32", 2.5),
        (np.float64(2.5), "float32", 2.5),
        (np.int8(-3), "int32", -3.0),
        (np.uint32(2**32 - 1), "uint32", 2.0**32 - 1),
        (np.array([[4]], np.int16), "int32", 4.0),
        (np.bool_(1), "int32", 1.0),
        (jnp.bfloat16(1.5), "float32", 1.5),
        (jnp.float16(1.5), "float32", 1.5),
        (jnp.float8_e4m3fn(1.5), "float32", 1.5),
        (jnp.full((1, 1), 3.0), "float32", 3.0),
        (jnp.int32(2**31 - 1), "int32", 2.0**31 - 1),
        (jnp.uint8(255), "int32", 255.0),
    ],
    ids=lambda value: f"{type(value).__name__} {value}",
)
def test_a_value_keeps_its_bits(value: Any, stored: str, number: float) -> None:
    captured = capture(lambda: log("v", value))
    logs, _ = captured(captured.init())
    assert [field.dtype for field in logs.schema.specs[0].fields] == [stored]
    assert logs.history()["v"].tolist() == [number]


def test_a_value_carries_no_gradient_and_stops_none() -> None:
    def step(x):
        def loss(x):
            y = x**2
            log("v", y.sum(), enable_graph=True)
            return y.sum()

        return jax.grad(loss)(x)

    captured = capture(step)
    np.testing.assert_array_equal(captured(captured.init(X), X)[1], 2 * X)


def test_a_weight_may_be_traced_float_or_zero() -> None:
    def step(x):
        for value, weight in ((x[0], x[1]), (x[2], 2.5), (x[3], 0), (jnp.nan, 0 * x[0])):
            log("v", value, batch_size=weight)

    assert history_of(step) == {"v": [(1 * 2 + 3 * 2.5) / 4.5]}


def test_a_masked_array_weighs_by_what_it_kept() -> None:
    def step(x):
        log("v", x, mask=x > 2)  # 3, 4
        log("v", 10.0, mask=x[:1] > 0)

    assert history_of(step) == {"v": [17 / 3]}


@pytest.mark.parametrize(("fx", "expected"), [("mean", 3.5), ("sum", 7), ("min", 3), ("max", 4)])
def test_a_mask_hides_nan_from_every_reduction(fx: Any, expected: float) -> None:
    def step(x):
        hidden = jnp.where(x > 2, x, jnp.nan)
        log("v", hidden, mask=x > 2, reduce_fx=fx)

    assert history_of(step) == {"v": [expected]}


def test_a_mask_broadcasts() -> None:
    def step(x):
        log("v", jnp.outer(x, x), mask=x > 3)
        log("w", x.sum(), mask=x[:, None] > 3)

    assert history_of(step) == {"v": [10.0], "w": [10.0]}


# ---- refusals -------------------------------------------------------------------------------


class _Vector(Metric):
    values: Any = state(jnp.zeros(3), reduce="sum")

    def compute(self) -> Any:
        return self.values


def _calls(*calls: tuple[str, dict[str, Any]]) -> Callable[[Any], None]:
    def step(x):
        for name, options in calls:
            log(name, x.sum(), **options)

    return step


def _hooks(x: Any) -> None:
    log("v", x.sum())
    with hook("on_after_backward"):
        log("v", x.sum())


def _traced(option: str) -> Callable[[Any], None]:
    return lambda x: log("v", 1.0, **{option: x.sum() > 0})


REFUSED: dict[str, tuple[Callable[[Any], Any], type[JaxlogError], str]] = {
    # values
    "vector": (lambda x: log("v", x), LogArgumentError, r"'v'.*shape \(4,\).*value\.mean\(\)"),
    "empty": (lambda x: log("v", x[:0]), LogArgumentError, r"'v', value of shape \(0,\)"),
    "numpy vector": (lambda x: log("v", np.ones(2)), LogArgumentError, r"shape \(2,\).*mask="),
    "string": (lambda x: log("v", "high"), LogArgumentError, r"'v', 'high'.*type str"),
    "numpy string": (lambda x: log("v", np.array("high")), LogArgumentError, r"'v'.*dtype <U4"),
    "object": (lambda x: log("v", np.array(None)), LogArgumentError, "'v'.*dtype object"),
    "none": (lambda x: log("v", None), LogArgumentError, r"'v', None.*forget to return"),
    "list": (lambda x: log("v", [1.0]), LogArgumentError, r"'v', \[1.0\].*jnp.asarray"),
    "function": (lambda x: log("v", abs), LogArgumentError, r"'v'.*call it: log\(name, f\(x\)\)"),
    "dict": (lambda x: log("v", {"a": 1.0}), LogArgumentError, r"'v'.*jaxlog\.log_dict\(mapping\)"),
    "nested dict": (
        lambda x: log_dict({"v": {"a": 1.0}}),
        LogArgumentError,
        "'v'.*type dict.*flatten nested ones",
    ),
    "log_dict of no dict": (lambda x: log_dict(3.0), LogArgumentError, r"log_dict\(3.0\).*log\("),  # pyright: ignore[reportArgumentType]
    "complex": (lambda x: log("v", 1j * x[0]), LogArgumentError, r"complex64.*jnp\.abs"),
    "python complex": (lambda x: log("v", 1j), LogArgumentError, r"'v'.*complex.*jnp\.abs"),
    "key": (lambda x: log("v", jax.random.key(0)), LogArgumentError, "'v', <random key>.*not a"),
    "vector metric": (
        lambda x: log("v", _Vector(values=x[:3])),
        LogArgumentError,
        r"'v', _Vector.*compute\(\) has shape \(3,\)",
    ),
    # names
    "empty name": (_calls(("", {})), LogArgumentError, "name=''.*non-empty string"),
    "name of no string": (lambda x: log(3, 1.0), LogArgumentError, "name=3.*'train/loss'"),  # pyright: ignore[reportArgumentType]
    "bytes": (lambda x: log(b"v", 1.0), LogArgumentError, "name=b'v'"),  # pyright: ignore[reportArgumentType]
    "dataloader index": (
        _calls(("v/dataloader_idx_1", {})),
        LogArgumentError,
        "'v/dataloader_idx_1'.*add_dataloader_idx=False",
    ),
    # reductions, weights, masks
    "reduce_fx": (
        _calls(("v", {"reduce_fx": "median"})),
        LogArgumentError,
        "'v'.*reduce_fx='median'.*'mean', 'sum', 'min' or 'max'.*Metric",
    ),
    "reduce_fx of a function": (
        _calls(("v", {"reduce_fx": jnp.median})),
        LogArgumentError,
        "'v'.*reduce_fx=.*median.*Metric",
    ),
    "unhashable reduce_fx": (_calls(("v", {"reduce_fx": [1]})), LogArgumentError, r"=\[1\]"),
    "reduce_fx of a metric": (
        lambda x: log("v", Mean.of(x), reduce_fx="sum"),
        LogArgumentError,
        "'v'.*reduce_fx='sum'.*leave reduce_fx out",
    ),
    "mask of a metric": (
        lambda x: log("v", Mean.of(x), mask=x > 0),
        LogArgumentError,
        r"'v'.*Mean\.of\(\.\.\., mask=mask\)",
    ),
    "negative batch_size": (_calls(("v", {"batch_size": -1})), LogArgumentError, "batch_size=-1"),
    "nan batch_size": (_calls(("v", {"batch_size": np.nan})), LogArgumentError, "batch_size=nan"),
    "batch_size with axes": (lambda x: log("v", 1.0, batch_size=x), LogArgumentError, "batch_size"),
    "batch_size of string": (_calls(("v", {"batch_size": "3"})), LogArgumentError, "size='3'"),
    "numpy string as batch_size": (
        _calls(("v", {"batch_size": np.array("3")})),
        LogArgumentError,
        "size=array",
    ),
    "complex batch_size": (_calls(("v", {"batch_size": 1j})), LogArgumentError, "batch_size=1j"),
    "key as batch_size": (
        lambda x: log("v", 1.0, batch_size=jax.random.key(0)),
        LogArgumentError,
        "'v'.*batch_size=",
    ),
    "batch_size of a masked array": (
        lambda x: log("v", x, mask=x > 0, batch_size=3),
        LogArgumentError,
        "'v'.*leave batch_size out",
    ),
    "float mask": (
        lambda x: log("v", x, mask=x),
        LogArgumentError,
        "'v'.*mask of dtype float32.*mask != 0",
    ),
    "mask of another shape": (
        lambda x: log("v", x, mask=x[:3] > 0),
        LogArgumentError,
        r"'v', value of shape \(4,\), mask of shape \(3,\)",
    ),
    "mask of string": (_calls(("v", {"mask": "all"})), LogArgumentError, "'v'.*mask='all'.*bool"),
    "mask of list": (_calls(("v", {"mask": [True]})), LogArgumentError, r"'v'.*mask=\[True\]"),
    "mask of int": (_calls(("v", {"mask": 1})), LogArgumentError, "mask of dtype int.*mask != 0"),
    # flags
    "both flags": (
        _calls(("v", {"on_step": False, "on_epoch": False})),
        LogArgumentError,
        "'v'.*'training_step'.*on_step=False and on_epoch=False.*on_epoch=True",
    ),
    "no step alone": (_calls(("v", {"on_step": False})), LogArgumentError, "on_epoch=True"),
    **{
        f"traced {option}": (_traced(option), LogArgumentError, f"'v'.*{option}=")
        for option in ("prog_bar", "logger", "sync_dist", "rank_zero_only", "enable_graph")
    },
    **{
        f"traced {option}": (_traced(option), LogArgumentError, f"{option}=.*traced value cannot")
        for option in ("on_step", "on_epoch")
    },
    "traced add_dataloader_idx": (
        _traced("add_dataloader_idx"),
        LogArgumentError,
        "add_dataloader_idx=.*takes True or False",
    ),
    "flag of int": (_calls(("v", {"prog_bar": 1})), LogArgumentError, "prog_bar=1.*True or False"),
    "nan_policy": (
        _calls(("v", {"nan_policy": "drop"})),
        LogArgumentError,
        "nan_policy='drop'.*'keep', 'skip' or 'raise'",
    ),
    "unhashable nan_policy": (_calls(("v", {"nan_policy": []})), LogArgumentError, r"=\[\]"),
    "sync_dist_group": (_calls(("v", {"sync_dist_group": 3})), LogArgumentError, "group=3.*axis"),
    "unhashable sync_dist_group": (
        _calls(("v", {"sync_dist_group": [{}]})),
        LogArgumentError,
        r"sync_dist_group=\[\{\}\]",
    ),
    # keys that clash
    "other options": (
        _calls(("v", {"prog_bar": True}), ("v", {})),
        SchemaError,
        r"'v' is logged twice.*prog_bar=True and prog_bar=False.*test_log\.py:\d+.*test_log\.py",
    ),
    "other reduction": (
        _calls(("v", {"reduce_fx": "sum"}), ("v", {})),
        SchemaError,
        "reduce_fx='sum' and reduce_fx='mean'",
    ),
    "two hooks": (
        _hooks,
        SchemaError,
        "'v' is logged from two hooks, 'training_step' and 'on_after_backward'.*another name",
    ),
    "number and metric": (
        lambda x: (log("v", 1.0), log("v", Mean.of(x))),
        SchemaError,
        "'v'.*a number.*the metric.*another name",
    ),
    "two metrics": (
        lambda x: (log("v", Accuracy.of(predictions=x > 0, labels=x > 1)), log("v", Mean.of(x))),
        SchemaError,
        "'v' is logged as two different things",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
@pytest.mark.parametrize("place", ["straight", "in scan of grad"])
def test_refused_at_trace_time(case: str, place: str) -> None:
    fn, error, match = REFUSED[case]

    def loss(x):
        fn(x)
        return x.sum()

    def nested(x):
        return lax.scan(lambda carry, _: (carry, jax.grad(loss)(x)), 0.0, None, length=2)

    with pytest.raises(error, match=match):
        capture(fn if place == "straight" else nested).init(X)


@pytest.mark.parametrize("case", [name for name, row in REFUSED.items() if row[1] != SchemaError])
def test_refused_outside_of_capture_too(case: str) -> None:
    fn, error, match = REFUSED[case]
    with pytest.raises(error, match=match):
        jax.jit(fn).lower(X)


def test_a_forbidden_hook_is_refused_where_it_stands() -> None:
    def step(x):
        with hook("on_train_end"):
            log("v", x.sum())

    with pytest.raises(HookError, match=r"'v'.*'on_train_end', where nothing.*jaxlog\.hook"):
        capture(step).init(X)


# ---- outside of capture ---------------------------------------------------------------------


def _silent(*args: Any, **kwargs: Any) -> None:
    del args, kwargs


Note = Callable[..., None]


def _straight(note: Note) -> Any:
    def fn(x):
        y = jnp.sin(x).sum()
        note("v", y, prog_bar=True)
        return y * 2

    return fn


def _scan(note: Note) -> Any:
    def fn(x):
        def body(carry, v):
            carry = carry + v * v
            note("v", carry, batch_size=carry)
            return carry, v

        return lax.scan(body, jnp.float32(0), x)

    return fn


def _branches(note: Note) -> Any:
    def fn(x):
        def noted(v):
            note("v", v)
            return v + 1

        return lax.cond(x[0] > 0, noted, jnp.sin, lax.while_loop(lambda v: v < 9, noted, x[1]))

    return fn


PROGRAMS: dict[str, Callable[[Note], Any]] = {
    "straight": _straight,
    "scan": _scan,
    "branches": _branches,
    "grad": lambda note: jax.grad(_straight(note)),
    "vmap": lambda note: lambda x: jax.vmap(_straight(note))(jnp.outer(x, x)),
    "grad of scan of checkpoint": lambda note: jax.grad(
        lambda x: lax.scan(jax.checkpoint(lambda c, v: (c, _straight(note)(v * x))), 0.0, x)[
            1
        ].sum()
    ),
    "inner jit": lambda note: lambda x: jax.jit(_straight(note))(x) + jax.jit(_scan(note))(x)[0],
}


@pytest.mark.parametrize("name", PROGRAMS)
def test_outside_of_capture_the_program_is_the_same(name: str) -> None:
    texts, programs = [], []
    for note in (log, _silent):
        lowered = jax.jit(PROGRAMS[name](note)).lower(X)
        texts.append(lowered.as_text())
        programs.append(_instructions(lowered))
    assert texts[0] == texts[1]
    assert programs[0] == programs[1]


@pytest.mark.parametrize("name", PROGRAMS)
def test_outside_of_capture_the_jaxpr_is_the_same(name: str) -> None:
    ours, theirs = (jax.make_jaxpr(PROGRAMS[name](note))(X) for note in (log, _silent))
    assert not ours.effects
    assert re.sub(r"0x\w+", "", str(ours)) == re.sub(r"0x\w+", "", str(theirs))


def _instructions(lowered: Any) -> list[str]:
    """The optimised program without what says where its lines come from."""
    text = re.sub(r", (metadata=\{[^}]*\}|stack_frame_id=\d+)", "", lowered.compile().as_text())
    return [line for line in text.splitlines() if re.match(r"\s*(ROOT )?%|ENTRY", line)]


COSTLY: dict[str, Callable[[Any, Note], Any]] = {
    "value of its own": lambda x, note: note("v", jnp.linalg.norm(x @ x.T)),
    "metric": lambda x, note: note("v", Accuracy.of(logits=x, labels=jnp.zeros(4, jnp.int32))),
    "masked": lambda x, note: note("v", x, mask=x > 2),
    "masked maximum": lambda x, note: note("v", x, mask=x > 2, reduce_fx="max"),
}


@pytest.mark.parametrize("name", COSTLY)
def test_what_only_a_log_needed_is_not_computed(name: str) -> None:
    def with_note(note: Note) -> Any:
        def fn(x):
            COSTLY[name](x, note)
            return jnp.sin(x)

        return fn

    x = jnp.outer(X, X)
    ours, plain = (_instructions(jax.jit(with_note(note)).lower(x)) for note in (log, _silent))
    assert ours == plain
    assert any("sine" in line or "sin" in line for line in ours)


def test_uncaptured_log_runs_eagerly_and_under_every_mode() -> None:
    log("v", 1.0)
    log("v", X.sum())
    with jax.disable_jit():
        jax.jit(_straight(log))(X)
    assert float(jax.grad(_straight(log))(X)[0]) == pytest.approx(2 * np.cos(1.0))
    np.testing.assert_allclose(jax.vmap(_straight(log))(X[:, None]), 2 * np.sin(X), rtol=1e-6)
