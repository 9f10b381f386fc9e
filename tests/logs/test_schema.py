"""The schema: what two calls of a name need together, and which calls contradict each other."""

from __future__ import annotations

import dataclasses
import itertools
import re
from typing import Any

import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxlog.errors import SchemaError
from jaxlog.logs import (
    Field,
    KeySpec,
    LogCall,
    Options,
    Schema,
    normalize_call,
    scalar_fields,
    spec_of,
)
from jaxlog.metrics import Accuracy, Max, Mean, Metric, state

OPTIONS = Options(hook="training_step", on_step=True, on_epoch=False)
METRICS: list[Any] = [
    Mean.of(jnp.ones(2)),
    Max.of(jnp.ones(2)),
    Accuracy.of(predictions=jnp.ones(2, jnp.int32), labels=jnp.ones(2, jnp.int32)),
]


def scalar(
    name: str = "v",
    dtype: str = "float32",
    *,
    fx: str = "mean",
    weighted: bool = False,
    masked: bool = False,
    repeated: bool = False,
    optional: bool = False,
    **options: Any,
) -> KeySpec:
    """The spec of one call."""
    given = dataclasses.replace(OPTIONS, reduce_fx=fx, **options)
    weighted = weighted and fx == "mean"
    call = LogCall(name, given, dtype, weighted=weighted, masked=masked, constant=False)
    return spec_of(call, repeated=repeated, optional=optional)


def metric(which: int = 0, name: str = "v", *, optional: bool = False, **options: Any) -> KeySpec:
    given = dataclasses.replace(OPTIONS, **options)
    return spec_of(
        normalize_call(name, METRICS[which], given).call, repeated=False, optional=optional
    )


def roles_of(spec: KeySpec) -> dict[str, str]:
    return {field.name: field.dtype for field in spec.fields}


# ---- what a call needs ----------------------------------------------------------------------

# Written out from the table in the module: reduce_fx, weighted, repeated, optional -> state.
NEEDED = {
    ("mean", False, False, False): ["raw"],
    ("mean", False, False, True): ["raw", "units"],
    ("mean", False, True, False): ["total", "units"],
    ("mean", False, True, True): ["total", "units"],
    ("mean", True, False, False): ["raw", "weight"],
    ("mean", True, False, True): ["raw", "weight"],
    ("mean", True, True, False): ["wtotal", "weight"],
    ("mean", True, True, True): ["wtotal", "weight"],
    **{
        (fx, False, repeated, optional): [fx, "units"] if optional else [fx]
        for fx in ("sum", "min", "max")
        for repeated in (False, True)
        for optional in (False, True)
    },
}


@pytest.mark.parametrize("dtype", ["float32", "int32", "uint32", "int64", "float64"])
def test_the_fields_of_a_call(dtype: str) -> None:
    wide = "float64" if dtype.endswith("64") else "float32"
    fixed = {"units": "int32", "weight": wide, "total": wide, "wtotal": wide}
    for (fx, weighted, repeated, optional), names in NEEDED.items():
        spec = scalar(dtype=dtype, fx=fx, weighted=weighted, repeated=repeated, optional=optional)
        assert roles_of(spec) == {name: fixed.get(name, dtype) for name in names}
        assert list(roles_of(spec)) == names
        assert spec.columns == spec.fields


def test_a_masked_call_is_optional() -> None:
    for fx in ("mean", "sum", "min", "max"):
        assert scalar(fx=fx, masked=True) == scalar(fx=fx, optional=True)


def test_the_columns_of_a_metric() -> None:
    both: dict[str, Any] = {"on_step": True, "on_epoch": True}
    assert [field.name for field in metric(**both).columns] == ["value"]
    assert [field.name for field in metric(**both, optional=True).columns] == ["value", "units"]
    assert metric(on_step=False, on_epoch=True).columns == ()
    assert Schema((metric(on_step=False, on_epoch=True),)).words == 0


def test_words_count_wide_columns_twice() -> None:
    specs = (scalar("a"), scalar("b", "int64", optional=True), scalar("c", "float64", fx="max"))
    assert [Schema(specs[:n]).words for n in range(4)] == [0, 1, 4, 6]


@pytest.mark.parametrize(
    ("name", "reduction"),
    [("units", "sum"), ("wtotal", "sum"), ("sum", "sum"), ("min", "min"), ("max", "max")],
)
def test_how_a_field_reduces(name: str, reduction: str) -> None:
    assert Field(name, "int32").reduction.name == reduction


def test_weighs_by_batch() -> None:
    mixed = scalar(weighted=True).join(scalar())
    assert [e.weighs_by_batch for e in (scalar(), scalar(repeated=True), mixed)] == [True] * 3
    others = (scalar(weighted=True), scalar(fx="sum"), metric())
    assert [e.weighs_by_batch for e in others] == [False] * 3


def test_optional_adds_a_count_once() -> None:
    assert scalar().optional() == scalar(optional=True)
    assert scalar().optional().optional() == scalar().optional()
    assert scalar(weighted=True).optional() == scalar(weighted=True)
    assert roles_of(metric().optional()) == {"units": "int32"}


def test_options_say_what_follows_from_them() -> None:
    both = dataclasses.replace(OPTIONS, on_epoch=True)
    assert (OPTIONS.forks, both.forks) == (False, True)
    synced = dataclasses.replace(OPTIONS, sync_dist=True)
    alone = dataclasses.replace(synced, rank_zero_only=True)
    assert (OPTIONS.syncs, synced.syncs, alone.syncs) == (False, True, False)
    assert synced.differences(dataclasses.replace(both, logger=False)) == [
        "on_epoch", "logger", "sync_dist",
    ]  # fmt: skip


# ---- joining --------------------------------------------------------------------------------

DTYPES = ("float32", "int32", "uint32", "int64", "float64")


def specs_of(fx: str) -> st.SearchStrategy[KeySpec]:
    flags = st.fixed_dictionaries(
        {flag: st.booleans() for flag in ("weighted", "masked", "repeated", "optional")}
    )
    return st.builds(
        lambda dtype, options: scalar(dtype=dtype, fx=fx, **options), st.sampled_from(DTYPES), flags
    )


TRIPLES = st.sampled_from(["mean", "sum", "min", "max"]).flatmap(
    lambda fx: st.tuples(*[specs_of(fx)] * 3)
)


@hypothesis.given(TRIPLES)
@hypothesis.settings(max_examples=200)
def test_join_is_a_least_upper_bound(triple: tuple[KeySpec, KeySpec, KeySpec]) -> None:
    a, b, c = triple
    assert a.join(a) == a
    assert a.join(b) == b.join(a)
    assert a.join(b).join(c) == a.join(b.join(c))
    assert a.join(b).join(a) == a.join(b)  # there is room for what went in
    assert a.join(b).optional().join(b) == a.join(b).optional()


@hypothesis.given(TRIPLES)
@hypothesis.settings(max_examples=100)
def test_joined_fields_hold_both(triple: tuple[KeySpec, KeySpec, KeySpec]) -> None:
    a, b, _ = triple
    joined = a.join(b)
    dtypes = {field.dtype for spec in (a, b) for field in spec.fields if field.name != "units"}
    for field in joined.fields:
        assert (
            field.words == 2 or not any(d.endswith("64") for d in dtypes) or field.name == "units"
        )
    counted = {"units", "weight"} & {field.name for e in (a, b) for field in e.fields}
    assert {field.name for field in joined.fields} >= counted


JOINS: dict[str, tuple[KeySpec, KeySpec, dict[str, str]]] = {
    "one dtype": (scalar(dtype="int32"), scalar(dtype="int32"), {"raw": "int32"}),
    "two dtypes": (scalar(dtype="int32"), scalar(), {"raw": "float32"}),
    "a wide one": (scalar(fx="sum", dtype="int64"), scalar(fx="sum"), {"sum": "float64"}),
    "sometimes": (scalar(), scalar(masked=True), {"raw": "float32", "units": "int32"}),
    "once and often": (
        scalar(dtype="int32"),
        scalar(dtype="int32", repeated=True),
        {"total": "float32", "units": "int32"},
    ),
    "weighted once and often": (
        scalar(weighted=True),
        scalar(weighted=True, repeated=True),
        {"wtotal": "float32", "weight": "float32"},
    ),
    "by batch and weighted": (
        scalar(),
        scalar(weighted=True),
        {"total": "float32", "units": "int32", "wtotal": "float32", "weight": "float32"},
    ),
}


@pytest.mark.parametrize("case", JOINS)
def test_join(case: str) -> None:
    a, b, fields = JOINS[case]
    assert roles_of(a.join(b)) == roles_of(b.join(a)) == fields


def test_a_metric_joins_its_like() -> None:
    assert metric().join(metric()) == metric()
    assert metric().join(metric(optional=True)) == metric(optional=True)
    assert metric(optional=True).join(metric()) == metric(optional=True)


def test_schemas_join_in_order_and_what_only_one_has_becomes_optional() -> None:
    left, right = Schema((scalar("a"), scalar("b"))), Schema((scalar("c"), scalar("b", "int32")))
    joined = left.join(right)
    assert joined == Schema((scalar("a", optional=True), scalar("b"), scalar("c", optional=True)))
    assert joined.join(left) == joined.join(right) == joined
    assert Schema().join(Schema()) == Schema()
    assert joined.join(Schema()) == Schema(tuple(spec.optional() for spec in joined))


def test_a_schema_grows_without_changing() -> None:
    empty = Schema()
    one = empty.with_spec(scalar("a"))
    two = one.with_spec(scalar("b"))
    assert ([e.name for e in empty], [e.name for e in one], [e.name for e in two]) == (
        [],
        ["a"],
        ["a", "b"],
    )
    assert two.with_spec(scalar("a", repeated=True)) == Schema(
        (scalar("a", repeated=True), scalar("b"))
    )
    assert (len(two), two.find("b"), two.find("c")) == (2, scalar("b"), None)


# ---- equality and hash ----------------------------------------------------------------------


def _schemas() -> list[Schema]:
    """Schemas of which each differs from every other."""
    specs = [
        scalar("a"), scalar("b"), scalar("a", "int32"), scalar("a", fx="sum"),
        scalar("a", weighted=True), scalar("a", optional=True), scalar("a", prog_bar=True),
        scalar("a", sync_dist_group=((0, 1), (2, 3))), metric(0, "a"), metric(1, "a"),
        metric(0, "a", optional=True),
    ]  # fmt: skip
    singles = [Schema((spec,)) for spec in specs]
    return [Schema(), *singles, Schema((specs[0], specs[1])), Schema((specs[1], specs[0]))]


def test_equal_schemas_hash_alike_and_others_differ() -> None:
    ours, theirs = _schemas(), _schemas()
    for (i, a), (j, b) in itertools.product(enumerate(ours), enumerate(theirs)):
        assert (a == b) == (i == j)
        assert i != j or hash(a) == hash(b)
    assert len({*ours, *theirs}) == len(ours)


def test_a_schema_keys_the_cache_of_jit() -> None:
    traced: list[Schema] = []
    fn = jax.jit(traced.append, static_argnums=0)
    for schema in [*_schemas(), *_schemas()]:
        fn(schema)
    assert traced == _schemas()


@pytest.mark.parametrize("change", ["name", "specs", "prog_bar"])
def test_frozen(change: str) -> None:
    for thing in (Schema((scalar(),)), scalar(), OPTIONS):
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(thing, change, None)


# ---- refusals -------------------------------------------------------------------------------

OTHER: dict[str, Any] = {
    "on_step": False, "on_epoch": True, "prog_bar": True, "logger": False, "enable_graph": True,
    "sync_dist": True, "sync_dist_group": "data", "add_dataloader_idx": False,
    "rank_zero_only": True, "nan_policy": "skip",
}  # fmt: skip


def test_every_option_is_tried() -> None:
    assert {field.name for field in dataclasses.fields(Options)} == {*OTHER, "hook", "reduce_fx"}


@pytest.mark.parametrize("option", OTHER)
@pytest.mark.parametrize("of", [scalar, metric])
def test_other_options_are_refused(option: str, of: Any) -> None:
    plain, changed = of(), of(**{option: OTHER[option]})
    default = getattr(OPTIONS, option)
    match = re.escape(
        f"'v' is logged twice in 'training_step' with different options "
        f"({option}={default!r} and {option}={OTHER[option]!r})"
    )
    with pytest.raises(SchemaError, match=match):
        plain.join(changed)
    with pytest.raises(SchemaError, match="another name"):
        Schema((changed,)).with_spec(plain)
    with pytest.raises(SchemaError, match=option):
        Schema((changed,)).join(Schema((plain,)))


def test_every_difference_is_named() -> None:
    changed = scalar(fx="sum", prog_bar=True, logger=False)
    match = "prog_bar=False and prog_bar=True; logger=True and .*; reduce_fx='mean' and .*'sum'"
    with pytest.raises(SchemaError, match=match):
        scalar().join(changed)


def test_two_hooks_are_refused() -> None:
    match = "'v' is logged from two hooks, 'training_step' and 'backward'.*another name"
    with pytest.raises(SchemaError, match=match):
        scalar().join(scalar(hook="backward", prog_bar=True))


@pytest.mark.parametrize(
    ("a", "b"), [(scalar(), metric()), (metric(), scalar(optional=True)), (metric(0), metric(1))]
)
def test_a_number_and_a_metric_are_refused(a: KeySpec, b: KeySpec) -> None:
    for first, second in ((a, b), (b, a)):
        with pytest.raises(SchemaError, match=r"'v' is logged as two different things.*another"):
            first.join(second)


def test_metrics_of_another_shape_or_configuration_are_refused() -> None:
    class Totals(Metric):
        size: int = 2
        values: Any = state(lambda m: jnp.zeros(m.size), reduce="sum")

    class Above(Metric):
        threshold: float = 0.5
        count: jax.Array = state(0, reduce="sum")

    for first, second in (
        (Totals.empty(), Totals.empty(size=3)),
        (Above.empty(), Above.empty(threshold=0.75)),
    ):
        a, b = (
            spec_of(normalize_call("v", m, OPTIONS).call, repeated=False, optional=False)
            for m in (first, second)
        )
        with pytest.raises(SchemaError, match="'v' is logged as two different things"):
            a.join(b)


def test_scalar_roles_follow_numpy_widths() -> None:
    for dtype in DTYPES:
        for field in scalar_fields("sum", dtype, weighting="batch", repeated=True, optional=True):
            assert field.words * 4 == np.dtype(field.dtype).itemsize
