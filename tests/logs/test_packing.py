"""Packed rows give every value back bit for bit, on the device and on the host."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator, Sequence
from typing import Any

import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxlog.logs import Field, Logs, offsets, pack, pack_host, unpack, unpack_host

Bits = tuple[str, int]  # a stored dtype, and the value as an unsigned integer of its width
NARROW, WIDE = ("float32", "int32", "uint32"), ("float64", "int64", "uint64")
NAMES = ("raw", "total", "units", "wtotal", "weight", "sum", "min", "max")

# Quiet and signalling NaNs with a payload, infinities, -0, the least subnormal.
PAYLOADS = [0x7FC00000, 0x7FC12345, 0x7F800001, 0xFFC00001, 0x7F800000, 0xFF800000, 1 << 31, 1]


def of_bits(dtype: str, bits: int) -> np.ndarray:
    """The value of that dtype with these bits, shape ()."""
    width = "u8" if dtype.endswith("64") else "u4"
    return np.array(bits, width).view(dtype)


def bits_of(value: Any) -> int:
    value = np.asarray(value)
    return int(value.view(f"u{value.itemsize}"))


def x64(dtypes: Sequence[str]) -> contextlib.AbstractContextManager[Any]:
    wide = any(dtype in WIDE for dtype in dtypes)
    return jax.enable_x64(True) if wide else contextlib.nullcontext()


@functools.cache
def compiled(dtypes: tuple[str, ...]) -> tuple[list[Field], Any, Any]:
    """`(fields, pack, unpack)` for rows of these dtypes, one program each."""
    fields = [Field(NAMES[i % len(NAMES)], dtype) for i, dtype in enumerate(dtypes)]
    return fields, jax.jit(lambda xs: pack(xs, fields)), jax.jit(lambda row: unpack(row, fields))


def check_round_trips(drawn: Sequence[Bits]) -> None:
    """`pack` and `pack_host` make the same row; `unpack` and `unpack_host` take it apart."""
    want = list(drawn)
    dtypes = tuple(dtype for dtype, _ in drawn)
    fields, packed, unpacked = compiled(dtypes)
    values = [of_bits(*bits) for bits in drawn]
    with x64(dtypes):
        row = np.asarray(packed(values))
        np.testing.assert_array_equal(row, pack_host(values, fields))
        assert (row.dtype, row.shape) == (np.int32, (sum(field.words for field in fields),))
        device = unpacked(row)
        assert [(str(value.dtype), bits_of(value)) for value in device] == want
    host = [column[1] for column in unpack_host(np.stack([0 * row, row]), fields)]
    assert [(str(value.dtype), bits_of(value)) for value in host] == want


def one(dtype: str) -> st.SearchStrategy[Bits]:
    special = PAYLOADS if dtype in NARROW else [bits << 32 for bits in PAYLOADS]
    anything = st.integers(0, 2 ** (32 if dtype in NARROW else 64) - 1)
    return st.tuples(st.just(dtype), st.one_of(st.sampled_from(special), anything))


def rows(*dtypes: str) -> st.SearchStrategy[list[Bits]]:
    return st.tuples(*map(one, dtypes)).map(list)


@hypothesis.given(rows(*NARROW, *NARROW))
@hypothesis.settings(max_examples=100)
def test_pack_and_unpack_are_inverse(drawn: list[Bits]) -> None:
    check_round_trips(drawn)


@hypothesis.given(rows("int32", *WIDE, *NARROW, *WIDE))
@hypothesis.settings(max_examples=100)
def test_pack_and_unpack_are_inverse_in_64_bits(drawn: list[Bits]) -> None:
    check_round_trips([*drawn, ("float64", 1)])


@pytest.mark.parametrize("count", [32, 33, 65])
def test_rows_longer_than_a_chunk(count: int) -> None:
    check_round_trips([("int32", 7 * i + 1) for i in range(count)])


def test_a_wide_value_may_stand_across_two_chunks() -> None:
    narrow: list[Bits] = [("int32", i) for i in range(31)]
    check_round_trips([*narrow, ("float64", bits_of(np.pi)), ("int64", 2**63 + 1), *narrow])


@pytest.mark.parametrize("bits", PAYLOADS)
def test_nan_payloads_infinities_and_signs(bits: int) -> None:
    check_round_trips([("float32", bits), ("int32", bits), ("float32", bits ^ (1 << 31))])


def test_unpack_keeps_leading_axes() -> None:
    fields = [Field("raw", "float32"), Field("sum", "int32")]
    values = np.array([[1.5, 2.5, -3.5], [0.0, np.inf, 1e-45]], np.float32)
    counts = np.array([[1, 2, 3], [2**31 - 1, -(2**31), 0]], np.int32)
    packed = np.stack([values.view(np.int32), counts], -1)
    found = unpack(jnp.asarray(packed), fields)
    np.testing.assert_array_equal(np.asarray(found[0]).view(np.int32), values.view(np.int32))
    np.testing.assert_array_equal(found[1], counts)


def test_fetched_rows_may_be_a_strided_view() -> None:
    fields = [Field("sum", "int32"), Field("raw", "float32")]
    wide = np.arange(24, dtype=np.int32).reshape(4, 6)
    first, second = unpack_host(wide[::2, 1::2], fields)
    assert first.tolist() == [1, 13]
    assert second.view(np.int32).tolist() == [3, 15]


def test_nothing_to_pack() -> None:
    assert pack([], []).shape == pack_host([], []).shape == (0,)
    assert (
        unpack(jnp.zeros((0,), jnp.int32), []) == unpack_host(np.zeros((3, 0), np.int32), []) == []
    )


def test_offsets_count_words() -> None:
    dtypes = ["int32", "float64", "float32", "uint64", "uint32"]
    assert offsets([Field("sum", dtype) for dtype in dtypes]) == [0, 1, 3, 4, 6]


# ---- through Logs: what is stored for each dtype that can be logged -------------------------


@functools.cache
def _one_step(fx: Any) -> Any:
    # A mean's numerator is a float; the greatest value keeps its own dtype.
    return jax.jit(lambda x: Logs.empty(rows=1).log("v", x, reduce_fx=fx).advance())


LOGGED: dict[str, tuple[Any, str]] = {
    "float32": (np.float32(0.1), "float32"),
    "float32 nan": (np.float32(np.nan), "float32"),
    "float32 -inf": (np.float32(-np.inf), "float32"),
    "subnormal": (np.float32(1e-45), "float32"),
    "bfloat16": (jnp.bfloat16(0.1), "float32"),
    "float16": (np.float16(65504), "float32"),
    "int32 beyond 2**24": (np.int32(2**24 + 1), "int32"),
    "least int32": (np.int32(-(2**31)), "int32"),
    "uint32 beyond 2**31": (np.uint32(2**32 - 1), "uint32"),
    "int8": (np.int8(-128), "int32"),
    "bool": (np.bool_(True), "int32"),
}
LOGGED_WIDE: dict[str, tuple[Any, str]] = {
    "int64 beyond 2**32": (np.int64(2**52 + 1), "int64"),
    "least int64": (np.int64(-(2**63)), "int64"),
    "uint64": (np.uint64(2**63), "uint64"),
    "float64": (np.float64(0.1), "float64"),
    "float64 nan": (np.float64(np.nan), "float64"),
    "float32": (np.float32(0.1), "float32"),
}


@pytest.fixture(params=[*(f"{k}" for k in LOGGED), *(f"{k} x64" for k in LOGGED_WIDE)])
def logged(request: pytest.FixtureRequest) -> Iterator[tuple[Any, str]]:
    name = request.param
    if name.endswith(" x64"):
        with jax.enable_x64(True):
            yield LOGGED_WIDE[name.removesuffix(" x64")]
    else:
        yield LOGGED[name]


def test_a_traced_value_of_any_dtype_arrives_as_it_was(logged: tuple[Any, str]) -> None:
    value, stored = logged
    logs = _one_step("max")(value)
    assert logs.schema.specs[0].fields[0].dtype == stored
    (column, _) = unpack_host(logs.ring_buffer.fetch(), logs.schema.specs[0].fields)
    assert column.dtype == stored
    np.testing.assert_array_equal(column[0], np.asarray(value).astype(stored))
    np.testing.assert_array_equal(logs.history()["v"], np.asarray(value, np.float64))


# What jnp.asarray would cut down to its lower 32 bits where x64 is off.
TOO_WIDE = [2**40, -(2**40), 2**31, np.int64(2**40), np.int64(-(2**31) - 1), np.uint64(2**63)]


@pytest.mark.parametrize("value", [*TOO_WIDE, np.array([[2**40]])], ids=str)
@pytest.mark.parametrize("fx", ["mean", "sum", "min"])
def test_a_host_integer_beyond_int32_is_rounded_not_cut(value: Any, fx: Any) -> None:
    logs = Logs.empty(rows=1).log("v", value, reduce_fx=fx).advance()
    want = float(np.asarray(value).reshape(()))
    assert logs.history()["v"].tolist() == [pytest.approx(want, rel=2**-24)]


@pytest.mark.parametrize(
    "value", [np.int64(2**31 - 1), np.int64(-(2**31)), np.uint64(5), 2**24 + 1]
)
def test_a_wide_host_integer_that_fits_stays_an_integer(value: Any) -> None:
    logs = Logs.empty(rows=1).log("v", value, reduce_fx="max").advance()
    assert logs.schema.specs[0].fields[0].dtype == "int32"
    assert logs.history()["v"].tolist() == [int(value)]


def test_a_wide_weight_is_rounded_not_cut() -> None:
    logs = Logs.empty(rows=1)
    for value, weight in ((1.0, np.int64(2**40)), (3.0, 2**40), (9.0, np.array(2**41))):
        logs = logs.log("v", value, batch_size=weight)
    assert logs.advance().history()["v"].tolist() == [5.5]


@pytest.mark.parametrize("value", [2**63 - 1, -(2**63), 2**63, np.uint64(2**64 - 1)])
def test_x64_holds_every_integer_of_64_bits(value: Any) -> None:
    with jax.enable_x64(True):
        logs = jax.jit(lambda: Logs.empty(rows=1).log("v", value, reduce_fx="max").advance())()
        (column, _) = unpack_host(logs.ring_buffer.fetch(), logs.schema.specs[0].fields)
        assert int(column[0]) == int(value)


def test_an_integer_beyond_every_dtype() -> None:
    with jax.enable_x64(True):
        logs = jax.jit(lambda: Logs.empty(rows=1).log("v", 2**100).advance())()
        assert logs.history()["v"].tolist() == [2.0**100]
    assert Logs.empty(rows=1).log("v", -(2**200)).advance().history()["v"].tolist() == [-np.inf]
