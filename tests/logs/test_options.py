"""The options of a log call: one declaration, shown everywhere, and a misspelt one is explained."""

from __future__ import annotations

import dataclasses
import inspect
import re
import typing
from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import pytest

import jaxlog
from jaxlog.logs import CALL_ARGUMENTS, HOOKS, NAN_POLICIES, LogOptions, Options, check_options

FUNCTIONS: dict[str, Callable[..., Any]] = {
    "log": jaxlog.log,
    "log_dict": jaxlog.log_dict,
    "log_gradient": jaxlog.log_gradient,
    "logs.log": jaxlog.Logs.log,
    "loop.log": jaxlog.Loop.log,
}
HOOK = HOOKS["training_step"]
NAMES = set(LogOptions.__annotations__)


def keywords(function: Callable[..., Any]) -> dict[str, inspect.Parameter]:
    parameters = inspect.signature(function).parameters
    return {k: p for k, p in parameters.items() if p.kind is p.KEYWORD_ONLY}


# ---- one declaration ------------------------------------------------------------------------


def test_the_typed_dict_and_the_dataclass_agree() -> None:
    fields = {field.name for field in dataclasses.fields(Options)}
    assert fields - NAMES == {"hook"}
    assert fields >= NAMES


def test_the_defaults_are_those_of_an_empty_call() -> None:
    assert check_options("v", HOOK, {}) == Options("training_step", on_step=True, on_epoch=False)


def test_each_option_is_documented_in_log_and_nothing_else_is() -> None:
    doc = inspect.getdoc(jaxlog.log) or ""
    arguments = doc.partition("Args:\n")[2].partition("\n\n")[0]
    documented = re.findall(r"^    (\*{0,2}\w+): ", arguments, flags=re.MULTILINE)
    assert sorted(documented) == sorted({*NAMES, "name", "value", *CALL_ARGUMENTS["log"]})


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_signature_shows_each_option_with_its_default(name: str) -> None:
    shown = keywords(FUNCTIONS[name])
    assert set(shown) == NAMES | set(CALL_ARGUMENTS[name])
    defaults = {field.name: field.default for field in dataclasses.fields(Options)}
    for option in NAMES:
        default = defaults[option]
        assert shown[option].default is (None if default is dataclasses.MISSING else default)
        assert shown[option].annotation == LogOptions.__annotations__[option].__forward_arg__


def test_a_bound_method_shows_them_too() -> None:
    assert list(inspect.signature(jaxlog.Logs().log).parameters)[:2] == ["name", "value"]


def test_the_finite_sets_are_literals() -> None:
    hints = typing.get_type_hints(LogOptions)
    policies, none = typing.get_args(hints["nan_policy"])
    assert (typing.get_args(policies), none) == (NAN_POLICIES, type(None))
    reductions, _ = typing.get_args(hints["reduce_fx"])
    for reduction in typing.get_args(reductions):
        check_options("v", HOOK, {"reduce_fx": reduction})


# ---- what does not exist --------------------------------------------------------------------


def _loop_log(**options: Any) -> None:
    with jaxlog.Loop([], progress_bar=False) as loop:
        for _ in loop.train([0]):
            loop.log("v", 1.0, **options)


CALLS: dict[str, Callable[..., Any]] = {
    "log": lambda **options: jaxlog.log("v", 1.0, **options),
    "log_dict": lambda **options: jaxlog.log_dict({"v": 1.0}, **options),
    "log_gradient": lambda **options: jaxlog.log_gradient("v", jnp.ones(2), **options),
    "logs.log": lambda **options: jaxlog.Logs().log("v", 1.0, **options),
    "loop.log": _loop_log,
}

UNKNOWN = [
    ("on_epok", True, "on_epok=True): no such option; did you mean on_epoch?"),
    ("progbar", True, "progbar=True): no such option; did you mean prog_bar?"),
    ("reduce", "sum", "reduce='sum'): no such option; did you mean reduce_fx?"),
    ("batchsize", 3, "batchsize=3): no such option; did you mean batch_size?"),
    ("metric_attribute", None, "metric_attribute=None): no such option; there are prog_bar, "),
    ("name_", jnp.ones(2), "name_=...): no such option"),
    ("hook", "setup", "hook='setup'): no such option"),
    ("function", "log", "function='log'): no such option"),
    ("options", {}, "options=...): no such option"),
]


@pytest.mark.parametrize("function", CALLS)
@pytest.mark.parametrize(("option", "given", "message"), UNKNOWN)
def test_a_misspelt_option(function: str, option: str, given: Any, message: str) -> None:
    keys = "mapping" if function == "log_dict" else "'v'"
    with pytest.raises(jaxlog.LogArgumentError) as caught:
        CALLS[function](**{option: given})
    assert str(caught.value).startswith(f"{function}({keys}, ..., {message}")


def test_an_empty_mapping_refuses_it_too() -> None:
    with pytest.raises(jaxlog.LogArgumentError, match="did you mean on_epoch"):
        jaxlog.log_dict({}, on_epok=True)  # pyright: ignore[reportCallIssue]


@pytest.mark.parametrize(
    ("function", "option", "message"),
    [
        ("log", "step", "log has no step; only loop.log takes it"),
        ("logs.log", "step", "logs.log has no step; only loop.log takes it"),
        ("loop.log", "mask", "a value logged on the host is one number"),
        ("log_gradient", "mask", "a norm has no mask; mask what flows into it"),
    ],
)
def test_an_argument_of_another_function(function: str, option: str, message: str) -> None:
    with pytest.raises(jaxlog.LogArgumentError) as caught:
        CALLS[function](**{option: True})
    assert message in str(caught.value)


# ---- the cache ------------------------------------------------------------------------------


def test_the_same_call_gives_the_same_object() -> None:
    given = {"on_epoch": True, "reduce_fx": max}
    assert check_options("v", HOOK, given) is check_options("v", HOOK, dict(given))


@pytest.mark.parametrize("option", ["prog_bar", "on_epoch", "sync_dist"])
def test_what_equals_an_accepted_option_is_still_refused(option: str) -> None:
    check_options("v", HOOK, {option: True})
    with pytest.raises(jaxlog.LogArgumentError, match=f"{option}=1"):
        check_options("v", HOOK, {option: 1})


def test_two_hooks_do_not_share_options() -> None:
    flags = [
        (options.on_step, options.on_epoch)
        for options in (check_options("v", HOOKS[h], {}) for h in ("training_step", "test_step"))
    ]
    assert flags == [(True, False), (False, True)]


def test_an_unhashable_option_works_without_the_cache() -> None:
    options = check_options("v", HOOK, {"sync_dist_group": [[0, 1], [2, 3]]})
    assert options.sync_dist_group == ((0, 1), (2, 3))
