"""Wrong arguments: each raises before anything runs, and says which, why, and what to write.

`tests/tracing/test_log.py` tests what `jaxlog.log` refuses inside of a trace; this file tests the
rest, and every option with every wrong type.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxlog import capture, log
from jaxlog.errors import HookError, JaxlogError, LogArgumentError
from jaxlog.logs import HOOKS, Logs, Options, check_call, check_options, resolve_flags
from jaxlog.metrics import Mean, Metric

HOOK = HOOKS["training_step"]
SWITCHES = (
    "prog_bar", "logger", "enable_graph", "sync_dist", "add_dataloader_idx", "rank_zero_only",
)  # fmt: skip


class Stateless(Metric):
    def compute(self) -> Any:
        return jnp.float32(3)


def accepted(name: str, value: Any, hook: Any = HOOK, **call: Any) -> Options:
    """What `check_call` makes of a call."""
    weighting = {key: call.pop(key) for key in ("batch_size", "mask") if key in call}
    return check_call(name, value, hook, call, **weighting)


def refused(error: type[JaxlogError], *parts: str, **call: Any) -> None:
    """Both faces refuse the call, and the message holds each part."""
    call = {"name": "v", "value": 1.0} | call
    for face in (accepted, _traced):
        with pytest.raises(error) as caught:
            face(**call)
        for part in parts:
            assert part in str(caught.value)


def _traced(*, name: Any, value: Any, **options: Any) -> None:
    jax.eval_shape(lambda: log(name, value, **options))


# ---- names and values -----------------------------------------------------------------------


@pytest.mark.parametrize("name", ["", None, 3, b"loss", ("a", "b"), np.array("a"), [], {}])
def test_a_name_that_is_none(name: Any) -> None:
    refused(LogArgumentError, f"name={name!r}", "non-empty string, such as 'train/loss'", name=name)


@pytest.mark.parametrize("name", ["a/dataloader_idx_0", "/dataloader_idx_", "x/dataloader_idx_1/y"])
def test_a_name_that_ends_like_a_loader(name: str) -> None:
    refused(LogArgumentError, repr(name), "several loaders", "add_dataloader_idx=False", name=name)
    accepted(name, 1.0, add_dataloader_idx=False)


@pytest.mark.parametrize("name", ["a", "a/b", " ", "dataloader_idx_0", "λ", "a\nb", "a_step"])
def test_other_names_pass(name: str) -> None:
    accepted(name, 1.0)


class Thing:
    def __repr__(self) -> str:
        return "<thing>"


VALUES: dict[str, tuple[Any, tuple[str, ...]]] = {
    "none": (None, ("None", "NoneType", "forget to return")),
    "string": ("1.0", ("'1.0'", "type str", "one number")),
    "bytes": (b"1", ("b'1'", "type bytes", "one number")),
    "dict": ({"a": {"b": 1}}, ("{'a': {'b': 1}}", "type dict", "log_dict(mapping)", "flatten")),
    "list": ([1.0, 2.0], ("[1.0, 2.0]", "type list", "jnp.mean(jnp.asarray(values))")),
    "tuple": ((1.0,), ("(1.0,)", "type tuple", "each under its own name")),
    "set": ({1}, ("{1}", "type set", "one number")),
    "function": (len, ("<built-in function len>", "call it: log(name, f(x))")),
    "object": (Thing(), ("<thing>", "type Thing", "one number")),
    "metric class": (Mean, ("type", "call it")),
    "array of strings": (np.array(["a"]), ("dtype <U1", "real numbers", "float(value)")),
    "array of objects": (np.array([None]), ("dtype object", "real numbers")),
    "date": (np.datetime64("2020-01-01"), ("dtype datetime64[D]", "real numbers")),
    "complex": (1j, ("dtype complex", "real numbers", "jnp.abs(value)")),
    "complex array": (np.complex64(1j), ("dtype complex64", "jnp.abs(value)")),
    "vector": (np.ones(3), ("shape (3,)", "value.mean()", "mask=", "jaxlog.Metric")),
    "matrix": (np.ones((2, 1)), ("shape (2, 1)", "one number")),
    "nothing": (np.ones((1, 0)), ("shape (1, 0)", "one number")),
    "a huge integer": (10**400, ("int of 1329 bits", "no float", "math.log(value)")),
    "a huge negative integer": (-(2**1024), ("int of 1025 bits", "no float")),
    "stateless metric": (Stateless(), ("Stateless", "holds no array", "jaxlog.state(")),
}


@pytest.mark.parametrize("case", VALUES)
def test_a_value_that_is_no_number(case: str) -> None:
    value, parts = VALUES[case]
    refused(LogArgumentError, "log('v', ", *parts, value=value)


def test_a_random_key() -> None:
    parts = ("<random key>", "not a number", "jax.random.normal(key)")
    refused(LogArgumentError, "log('v', ", *parts, value=jax.random.key(0))


@pytest.mark.parametrize("value", [2**1023, -(2**1023), True, np.ones((1, 1, 1)), np.float16(1)])
def test_values_at_the_edge_pass(value: Any) -> None:
    accepted("v", value)


# ---- options --------------------------------------------------------------------------------


@pytest.mark.parametrize("given", [0, 1, None, "True", 1.0, np.True_, [], jnp.ones((), bool)])
@pytest.mark.parametrize("option", SWITCHES)
def test_a_switch_is_a_bool(option: str, given: Any) -> None:
    parts = (f"{option}={given!r}", "takes True or False", "traced value cannot decide")
    refused(LogArgumentError, "log('v', ", *parts, **{option: given})


@pytest.mark.parametrize("given", [0, 1, "True", 1.0, np.False_, jnp.ones((), bool)])
@pytest.mark.parametrize("option", ["on_step", "on_epoch"])
def test_a_flag_is_a_bool_or_left_out(option: str, given: Any) -> None:
    parts = (f"{option}={given!r}", "True, False or None", "traced value cannot decide")
    refused(LogArgumentError, "log('v', ", *parts, **{option: given})


@pytest.mark.parametrize("hook", [name for name, row in HOOKS.items() if row.allowed])
def test_both_flags_off(hook: str) -> None:
    match = rf"'v'.*{hook!r}.*logs nothing; write log\('v', .*on_epoch=True\), or remove"
    with pytest.raises(LogArgumentError, match=match):
        resolve_flags("v", HOOKS[hook], on_step=False, on_epoch=False)


@pytest.mark.parametrize(
    "given", ["median", "Mean", "", None, 3, jnp.median, np.std, len, ["mean"], {}, jnp.ones(())]
)
def test_an_unknown_reduction(given: Any) -> None:
    parts = (f"reduce_fx={given!r}", "'mean', 'sum', 'min' or 'max'", "jaxlog.Metric")
    refused(LogArgumentError, "log('v', ", *parts, reduce_fx=given)


@pytest.mark.parametrize("given", ["drop", "", True, 0, [], "Keep"])
def test_an_unknown_policy(given: Any) -> None:
    parts = (f"nan_policy={given!r}", "'keep', 'skip' or 'raise'")
    refused(LogArgumentError, "log('v', ", *parts, nan_policy=given)


@pytest.mark.parametrize("given", [0, 1.5, {"a"}, [1.5], [[0, "a", 1.5]], [[[0]]], b"a"])
def test_a_group_that_is_none(given: Any) -> None:
    parts = (f"sync_dist_group={given!r}", "mesh axis name", "[[0, 1], [2, 3]]")
    refused(LogArgumentError, "log('v', ", *parts, sync_dist_group=given)


WEIGHTS: dict[str, Any] = {
    "negative": -1,
    "negative float": -0.5,
    "negative numpy": np.int32(-3),
    "nan": float("nan"),
    "string": "3",
    "list": [3],
    "complex": 1j,
    "dict": {},
    "vector": np.ones(2),
    "one in a vector": np.ones(1),
    "object": np.array(None),
}


@pytest.mark.parametrize("case", WEIGHTS)
def test_a_weight_that_is_none(case: str) -> None:
    given = WEIGHTS[case]
    parts = (f"batch_size={given!r}", "one number, not negative", "leading dimension of the batch")
    refused(LogArgumentError, "log('v', ", *parts, batch_size=given)


@pytest.mark.parametrize("given", [True, False, np.True_, np.array(False)], ids=repr)
def test_a_bool_is_no_weight(given: Any) -> None:
    parts = (f"batch_size={given!r}", "number of examples", "mask=")
    refused(LogArgumentError, "log('v', ", *parts, batch_size=given)


def test_a_traced_bool_is_no_weight() -> None:
    with pytest.raises(LogArgumentError, match=r"batch_size=.*bool.*write mask="):
        jax.eval_shape(lambda x: log("v", x, batch_size=x > 0), jnp.ones(()))


@pytest.mark.parametrize("given", [0, 0.0, 3, 2.5, np.float32(2), np.uint8(7)])
def test_weights_that_pass(given: Any) -> None:
    accepted("v", 1.0, batch_size=given)


MASKS: dict[str, tuple[Any, str]] = {
    "string": ("all", "mask='all'"),
    "list": ([True, False], "mask=[True, False]"),
    "int": (1, "mask of dtype int"),
    "int array": (np.ones(2, int), "mask of dtype int64"),
    "float array": (np.ones(2, np.float32), "mask of dtype float32"),
    "other shape": (np.ones(3, bool), "shape (2,), mask of shape (3,)"),
}


@pytest.mark.parametrize("case", MASKS)
def test_a_mask_that_is_none(case: str) -> None:
    mask, part = MASKS[case]
    refused(LogArgumentError, "log('v', ", part, "mask", mask=mask, value=np.ones(2))


def test_a_mask_and_a_weight() -> None:
    call = {"value": np.ones(2), "mask": np.ones(2, bool), "batch_size": 2}
    refused(LogArgumentError, "already is its weight", "leave batch_size out", **call)
    accepted("v", 1.0, mask=True, batch_size=2)


@pytest.mark.parametrize("option", [{"mask": True}, {"reduce_fx": "max"}, {"reduce_fx": max}])
def test_what_a_metric_does_not_take(option: dict[str, Any]) -> None:
    refused(LogArgumentError, "log('v', <metric>, ", value=Mean.of(1.0), **option)


def test_a_metric_of_several_numbers() -> None:
    class Three(Mean):
        def compute(self) -> Any:
            return jnp.stack([super().compute()] * 3)

    parts = ("Three", "shape (3,)", "one number")
    refused(LogArgumentError, *parts, value=Three.of(1.0))


# ---- where it is raised ---------------------------------------------------------------------


WRONG: list[tuple[str, Callable[[Logs], Any]]] = [
    ("value of shape (2,)", lambda logs: logs.log("v", jnp.ones(2))),
    ("name=''", lambda logs: logs.log("", 1.0)),
    ("reduce_fx='median'", lambda logs: logs.log("v", 1.0, reduce_fx="median")),  # pyright: ignore[reportArgumentType]
    ("on_step=False and on_epoch=False", lambda logs: logs.log("v", 1.0, on_step=False)),
    ("batch_size=-1", lambda logs: logs.log("v", 1.0, batch_size=-1)),
    ("mask of dtype float32", lambda logs: logs.log("v", jnp.ones(2), mask=jnp.ones(2))),
]


@pytest.mark.parametrize(("part", "call"), WRONG)
@pytest.mark.parametrize("jitted", [True, False])
def test_the_explicit_style_refuses_the_same(part: str, call: Any, jitted: bool) -> None:
    with pytest.raises(LogArgumentError, match=re.escape(part)):
        (jax.jit(call) if jitted else call)(Logs.empty(rows=1))


def test_nothing_has_run_when_it_raises() -> None:
    ran: list[int] = []

    def step(x):
        jax.debug.callback(lambda: ran.append(1))
        log("v", x)

    captured = capture(step)
    for call in (lambda: captured.init(jnp.ones(2)), lambda: jax.jit(step)(jnp.ones(2))):
        with pytest.raises(LogArgumentError, match="one number"):
            call()
    jax.effects_barrier()
    assert ran == []


def test_options_come_back_complete() -> None:
    given = {"reduce_fx": jnp.max, "sync_dist_group": [["a", "b"], "c"]}
    options = check_options("v", HOOK, given)
    assert (options.reduce_fx, options.sync_dist_group) == ("max", (("a", "b"), "c"))
    assert hash(options) == hash(
        accepted("v", 1, reduce_fx="max", sync_dist_group=(("a", "b"), "c"))
    )


def test_a_hook_that_forbids_logging_says_where_to() -> None:
    with pytest.raises(HookError, match=r"'v'.*'setup', where nothing.*jaxlog\.hook"):
        accepted("v", 1.0, HOOKS["setup"])
