"""The queue in front of the writer's thread: what goes in comes out, in order, and is counted."""

from __future__ import annotations

from typing import Any

import hypothesis
import hypothesis.strategies as st

from jaxlog.storage import Block, Pending, Row, Rows, blocks_of

NAMES = (("a",), ("a", "b"), ())


def made(kinds: list[int]) -> list[Any]:
    """A block for kind 3, else a row of the names of that number."""
    items: list[Any] = []
    for step, kind in enumerate(kinds):
        if kind < len(NAMES):
            values = tuple(10.0 * step + n for n in range(len(NAMES[kind])))
            items.append(Row(NAMES[kind], values, step, float(step)))
        else:
            items.append(Block.row({"a": 0.5, "b": 1.5}, step, float(step)))
    return items


def added(items: list[Any], most: int = 10**6) -> Pending:
    pending = Pending(most)
    for item in items:
        pending.add(item, 1, len(item.tags))
    return pending


def rows_of(items: list[Any]) -> list[Any]:
    return [row for block in blocks_of(items) for row in block.rows()]


@hypothesis.given(st.lists(st.integers(0, 3), max_size=200))
def test_what_goes_in_comes_out(kinds) -> None:
    items = made(kinds)
    pending = added(items)
    assert (pending.rows, pending.scalars) == (len(items), sum(len(item.tags) for item in items))
    taken = pending.take()
    assert rows_of(taken) == rows_of(items)
    assert pending.held == (pending.rows, pending.scalars)
    pending.saved(*pending.held)
    assert (pending.rows, pending.scalars, pending.take()) == (0, 0, [])


def test_rows_of_the_same_names_wait_in_few_objects() -> None:
    taken = added(made([0] * 1000)).take()
    assert len(taken) < 20
    assert all(isinstance(item, Rows) for item in taken)


def test_what_was_taken_takes_no_more() -> None:
    first, second = made([0, 0])
    pending = added([first])
    (taken,) = pending.take()
    pending.add(second, 1, 1)
    assert taken.steps == [0]
    assert rows_of(pending.take()) == [(1, 1.0, {"a": 10.0})]


@hypothesis.given(st.lists(st.integers(0, 3), max_size=200), st.integers(0, 300))
def test_the_oldest_are_dropped_and_counted(kinds, room) -> None:
    items = made(kinds)
    pending = added(items, most=300)
    scalars = pending.scalars
    pending.drop_for(room)
    left = rows_of(pending.take())
    assert left == rows_of(items)[len(items) - len(left) :]
    assert pending.rows == len(left)
    assert pending.scalars == sum(len(row) for _, _, row in left) == scalars - pending.dropped
    assert not pending.is_full_for(room)
