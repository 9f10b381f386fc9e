"""The background writer: what it writes when, and that it never hides a failure or hangs."""

from __future__ import annotations

import gc
import os
import threading
import traceback
from collections.abc import Sequence

import pytest

from jaxlog.errors import LoggerError, WriteError
from jaxlog.storage import BackgroundWriter, Secrets, SpooledError, StoreAwayError

TIMEOUT = 30  # seconds a test waits before it fails; nothing here takes one


class FakeSink:
    """Keeps what it is given in memory; fails and waits as it is told."""

    path = "fake://run"

    def __init__(self) -> None:
        self.min_interval_secs = 0.0
        self.retry_secs: float | None = None
        self.taken: list = []
        self.saved: list = []
        self.flushes = 0
        self.closed = 0
        self.write_error: BaseException | None = None
        self.flush_error: BaseException | None = None
        self.gate = threading.Event()
        self.gate.set()
        self.entered = threading.Event()
        self.flushed = threading.Semaphore(0)

    def write(self, items: Sequence) -> None:
        self.entered.set()
        assert self.gate.wait(TIMEOUT)
        if self.write_error is not None:
            raise self.write_error
        self.taken.extend(items)

    def flush(self) -> None:
        self.flushes += 1
        try:
            if self.flush_error is not None:
                raise self.flush_error
            self.saved.extend(self.taken)
            self.taken = []
        finally:
            self.flushed.release()

    def close(self) -> None:
        self.closed += 1
        self.flush()

    def wait_for_flush(self) -> None:
        assert self.flushed.acquire(timeout=TIMEOUT)


class FakeTime:
    """The writer's clock and its way to sleep: time passes only in `advance`.

    A sleeping thread wakes when it is notified, or when `advance` reaches the end of its sleep;
    never by real time. So a notification that is missing leaves it asleep for ever.
    """

    def __init__(self) -> None:
        self.now = 100.0
        self._changed = threading.Condition()
        self._sleeps_in: threading.Condition | None = None
        self._until = 0.0
        self.sleeps = 0

    def __call__(self) -> float:
        return self.now

    def wait(self, condition: threading.Condition, secs: float) -> None:
        with self._changed:
            self._sleeps_in, self._until = condition, self.now + secs
            self.sleeps += 1
            self._changed.notify_all()
        condition.wait()
        with self._changed:
            self._sleeps_in = None

    def asleep_for(self, after: int = 0) -> float:
        """Waits until the thread sleeps; the seconds until it looks by itself.

        Args:
            after: the number of sleeps it had begun before, where it was asleep and must have been
                notified since: a thread that was notified has not left its old sleep yet.
        """

        def asleep() -> bool:
            return self._sleeps_in is not None and self.sleeps > after

        with self._changed:
            assert self._changed.wait_for(asleep, TIMEOUT), "it was not notified"
            return self._until - self.now

    def advance(self, secs: float) -> None:
        """Lets time pass for the thread, which must be asleep."""
        self.asleep_for()
        with self._changed:
            self.now += secs
            condition, due = self._sleeps_in, self.now >= self._until
        if due and condition is not None:
            with condition:
                condition.notify_all()


@pytest.fixture
def sink():
    return FakeSink()


@pytest.fixture
def fake_time():
    return FakeTime()


@pytest.fixture
def make(sink):
    made = []

    def make(time: FakeTime | None = None, **options) -> BackgroundWriter:
        if time is not None:
            options |= {"clock": time, "wait": time.wait}
        made.append(BackgroundWriter(sink, **options))
        return made[-1]

    yield make
    sink.gate.set()
    sink.write_error = sink.flush_error = None
    for writer in made:
        try:
            writer.close(TIMEOUT)
        except LoggerError:
            continue


def test_max_queue_rows_are_written_without_being_asked(sink, make) -> None:
    writer = make(max_queue=3)
    for item in "ab":
        writer.write(item)
    assert sink.flushes == 0
    writer.write("c")
    sink.wait_for_flush()
    assert sink.saved == ["a", "b", "c"]


def test_a_block_counts_its_rows(sink, make) -> None:
    make(max_queue=10).write("block", rows=10, scalars=20)
    sink.wait_for_flush()
    assert sink.saved == ["block"]


def test_after_flush_secs_fewer_rows_are_written(sink, make, fake_time) -> None:
    writer = make(fake_time, max_queue=100, flush_secs=120)
    writer.write("a")
    fake_time.advance(119)
    assert fake_time.asleep_for() == pytest.approx(1)
    assert sink.flushes == 0
    fake_time.advance(1)
    sink.wait_for_flush()
    assert sink.saved == ["a"]


def test_an_idle_thread_looks_before_a_new_row_is_due(sink, make, fake_time) -> None:
    writer = make(fake_time, max_queue=100, flush_secs=120)
    writer.write("a")
    writer.flush(TIMEOUT)
    sink.wait_for_flush()
    fake_time.advance(1)
    writer.write("b")
    assert fake_time.asleep_for() <= 120
    fake_time.advance(119)  # the thread wakes by itself, and goes on sleeping until "b" is due
    assert fake_time.asleep_for(after=fake_time.sleeps - 1) <= 1
    assert sink.flushes == 1
    fake_time.advance(1)
    sink.wait_for_flush()
    assert sink.saved == ["a", "b"]


@pytest.mark.parametrize("flush_secs", [0.01, 0.5])
def test_a_first_row_wakes_a_thread_that_would_look_too_late(
    sink, make, fake_time, flush_secs
) -> None:
    writer = make(fake_time, max_queue=100, flush_secs=flush_secs)
    writer.write("a")
    writer.flush(TIMEOUT)
    sink.wait_for_flush()
    assert fake_time.asleep_for() == pytest.approx(1)
    sleeps = fake_time.sleeps
    writer.write("b")
    assert fake_time.asleep_for(after=sleeps) == pytest.approx(flush_secs)
    fake_time.advance(flush_secs)
    sink.wait_for_flush()
    assert sink.saved == ["a", "b"]


def test_flush_secs_may_be_infinite(sink, make) -> None:
    writer = make(max_queue=100, flush_secs=float("inf"))
    writer.write("a")
    writer.flush(TIMEOUT)
    writer.write("b")
    writer.flush(TIMEOUT)
    assert sink.saved == ["a", "b"]


def test_remote_writes_keep_their_distance(sink, make, fake_time) -> None:
    sink.min_interval_secs = 5.0
    writer = make(fake_time, max_queue=1)
    writer.write("a")
    sink.wait_for_flush()
    writer.flush(TIMEOUT)  # whoever asks need not wait
    sink.wait_for_flush()
    fake_time.asleep_for()
    sleeps = fake_time.sleeps
    writer.write("b")
    assert fake_time.asleep_for(after=sleeps) == pytest.approx(5)
    fake_time.advance(5)
    sink.wait_for_flush()
    assert sink.saved == ["a", "b"]


# The law of waiting rows: the interleavings of rows with the thread, one by one. Time stands still
# but for `advance`, so that a notification that is missing is a test that fails.

GATHER_SECS = 0.1


def hold_a_write(sink, writer, rows: int) -> None:
    """Has the thread stop inside `sink.write` with so many rows, which must be due at once."""
    sink.gate.clear()
    sink.entered.clear()
    for row in range(rows):
        writer.write(row)
    assert sink.entered.wait(TIMEOUT)


def let_it_finish(sink) -> None:
    sink.gate.set()
    sink.wait_for_flush()


def test_rows_that_come_while_it_writes_are_written_next(sink, make, fake_time) -> None:
    writer = make(fake_time, max_queue=3)
    hold_a_write(sink, writer, rows=3)
    for row in range(3, 6):
        writer.write(row)
    let_it_finish(sink)
    assert sink.saved == [0, 1, 2]
    assert fake_time.asleep_for() == pytest.approx(GATHER_SECS)
    fake_time.advance(GATHER_SECS)
    sink.wait_for_flush()
    assert sink.saved == list(range(6))


def test_the_last_of_max_queue_may_come_after_the_write(sink, make, fake_time) -> None:
    writer = make(fake_time, max_queue=3)
    hold_a_write(sink, writer, rows=3)
    writer.write(3)
    writer.write(4)
    let_it_finish(sink)
    assert fake_time.asleep_for() == pytest.approx(120)  # since row 3 came
    sleeps = fake_time.sleeps
    writer.write(5)
    assert fake_time.asleep_for(after=sleeps) == pytest.approx(GATHER_SECS)
    fake_time.advance(GATHER_SECS)
    sink.wait_for_flush()
    assert sink.saved == list(range(6))


def test_fewer_rows_that_came_while_it_wrote_wait_flush_secs_from_then(
    sink, make, fake_time
) -> None:
    writer = make(fake_time, max_queue=3)
    hold_a_write(sink, writer, rows=3)
    writer.write(3)
    fake_time.now += 50  # the write takes as long
    let_it_finish(sink)
    assert fake_time.asleep_for() == pytest.approx(70)


def test_rows_that_come_while_it_flushes_are_written_next(sink, make, fake_time) -> None:
    writer = make(fake_time, max_queue=3)
    entered, gate, flush = threading.Event(), threading.Event(), sink.flush

    def held_flush() -> None:
        entered.set()
        assert gate.wait(TIMEOUT)
        flush()

    sink.flush = held_flush
    for row in range(3):
        writer.write(row)
    assert entered.wait(TIMEOUT)
    for row in range(3, 6):
        writer.write(row)
    gate.set()
    sink.wait_for_flush()
    assert fake_time.asleep_for() == pytest.approx(GATHER_SECS)
    fake_time.advance(GATHER_SECS)
    sink.wait_for_flush()
    assert sink.saved == list(range(6))


def test_rows_that_come_while_somebody_flushes_are_written_next(sink, make, fake_time) -> None:
    writer = make(fake_time, max_queue=3)
    sink.gate.clear()
    writer.write(0)
    flushing = threading.Thread(target=writer.flush)
    flushing.start()
    assert sink.entered.wait(TIMEOUT)
    for row in range(1, 4):
        writer.write(row)
    let_it_finish(sink)
    flushing.join(TIMEOUT)
    assert fake_time.asleep_for() == pytest.approx(GATHER_SECS)
    fake_time.advance(GATHER_SECS)
    sink.wait_for_flush()
    assert sink.saved == list(range(4))


@pytest.mark.parametrize("flush_secs", [0.05, 0.5, 120.0])
def test_a_short_flush_secs_does_not_hide_max_queue(sink, make, fake_time, flush_secs) -> None:
    writer = make(fake_time, max_queue=3, flush_secs=flush_secs)
    hold_a_write(sink, writer, rows=3)
    for row in range(3, 7):
        writer.write(row)
    let_it_finish(sink)
    assert fake_time.asleep_for() == pytest.approx(min(GATHER_SECS, flush_secs))
    fake_time.advance(GATHER_SECS)
    sink.wait_for_flush()
    assert sink.saved == list(range(7))


@pytest.mark.parametrize("during", ["the failed write", "the wait"])
def test_rows_that_come_while_the_store_is_away_are_written_when_it_is_back(
    sink, make, fake_time, during
) -> None:
    writer = make(fake_time, max_queue=3)
    away(sink, retry_secs=5)
    hold_a_write(sink, writer, rows=3)
    if during == "the failed write":
        for row in range(3, 6):
            writer.write(row)
    let_it_finish(sink)
    assert fake_time.asleep_for() == pytest.approx(5)
    if during == "the wait":
        for row in range(3, 6):
            writer.write(row)
    back(sink)
    fake_time.advance(5)
    sink.wait_for_flush()  # first what the sink holds, then the queue
    assert sink.saved == [0, 1, 2]
    assert fake_time.asleep_for() == pytest.approx(GATHER_SECS)
    fake_time.advance(GATHER_SECS)
    sink.wait_for_flush()
    assert sink.saved == list(range(6))


def test_a_row_after_an_absence_of_the_store_waits_flush_secs_from_its_own_time(
    sink, make, fake_time
) -> None:
    writer = make(fake_time, max_queue=3)
    away(sink, retry_secs=5)
    for row in range(3):
        writer.write(row)
    sink.wait_for_flush()
    back(sink)
    fake_time.advance(5)
    sink.wait_for_flush()
    fake_time.advance(50)
    sleeps = fake_time.sleeps
    writer.write(3)
    fake_time.advance(70)  # the idle thread looks by itself
    assert fake_time.asleep_for(after=sleeps) == pytest.approx(50)
    assert sink.flushes == 2


def test_after_an_error_was_raised_what_was_kept_is_tried_again(sink, make, fake_time) -> None:
    writer = make(fake_time, max_queue=3)
    sink.flush_error = OSError("no room")
    hold_a_write(sink, writer, rows=3)
    writer.write(3)  # the error is not there yet
    let_it_finish(sink)
    assert fake_time.asleep_for() > GATHER_SECS  # the caller hears of it first
    sink.flush_error = None
    sleeps = fake_time.sleeps
    with pytest.raises(WriteError, match="no room"):
        writer.write(4)
    assert fake_time.asleep_for(after=sleeps) == pytest.approx(GATHER_SECS)
    fake_time.advance(GATHER_SECS)
    sink.wait_for_flush()
    assert sink.saved == [0, 1, 2, 3]


def test_an_error_in_the_background_is_raised_while_rows_keep_coming(sink, make, fake_time) -> None:
    writer = make(fake_time, max_queue=3)
    hold_a_write(sink, writer, rows=3)
    for row in range(3, 6):
        writer.write(row)
    let_it_finish(sink)
    sink.flush_error = OSError("no room")
    fake_time.advance(GATHER_SECS)
    sink.wait_for_flush()
    fake_time.asleep_for()
    with pytest.raises(WriteError, match="no room"):
        writer.write(6)


def test_a_queue_that_drops_still_reaches_max_queue(sink, make, fake_time) -> None:
    writer = make(fake_time, max_queue=3, max_pending_scalars=5, on_full="drop_oldest")
    hold_a_write(sink, writer, rows=3)
    for row in range(3, 9):
        writer.write(row)
    let_it_finish(sink)
    assert fake_time.asleep_for() > GATHER_SECS  # two rows are left, fewer than max_queue
    sleeps = fake_time.sleeps
    writer.write(9)
    assert fake_time.asleep_for(after=sleeps) == pytest.approx(GATHER_SECS)
    fake_time.advance(GATHER_SECS)
    sink.wait_for_flush()
    assert sink.saved == [0, 1, 2, 7, 8, 9]


def test_flush_is_a_barrier(sink, make) -> None:
    writer = make(max_queue=1000)
    for item in range(50):
        writer.write(item)
        if item % 10 == 0:
            writer.flush(TIMEOUT)
            assert sink.saved == list(range(item + 1))
            assert writer.pending == 0


def test_flush_waits_for_a_write_that_is_under_way(sink, make) -> None:
    writer = make(max_queue=1)
    sink.gate.clear()
    writer.write("a")
    assert sink.entered.wait(TIMEOUT)
    writer.write("b")
    with pytest.raises(WriteError, match=r"flush did not finish within 0.01 s; 2 scalars"):
        writer.flush(0.01)
    sink.gate.set()
    writer.flush(TIMEOUT)
    assert sink.saved == ["a", "b"]


def test_flush_with_nothing_written_does_nothing(sink, make) -> None:
    make().flush()
    assert sink.flushes == 0


@pytest.mark.parametrize("at", ["write", "flush", "close"])
def test_an_error_is_raised_at_the_next_call(sink, make, fake_time, at) -> None:
    writer = make(fake_time, max_queue=1)
    sink.flush_error = OSError("disk on fire")
    writer.write("a", scalars=7)
    sink.wait_for_flush()
    fake_time.asleep_for()
    call = {"write": lambda: writer.write("b"), "flush": writer.flush, "close": writer.close}[at]
    with pytest.raises(
        WriteError, match=r"fake://run .*disk on fire.*7 scalars were accepted"
    ) as info:
        call()
    assert info.value.__cause__ is sink.flush_error
    assert writer.closed == (at == "close")


def test_after_the_error_all_that_was_accepted_is_written(sink, make, fake_time) -> None:
    writer = make(fake_time, max_queue=1)
    sink.flush_error = OSError("no")
    writer.write("a")
    sink.wait_for_flush()
    fake_time.asleep_for()
    with pytest.raises(WriteError, match="kept and tried again"):
        writer.write("refused")
    sink.flush_error = None
    writer.write("b")
    writer.flush(TIMEOUT)
    assert sink.saved == ["a", "b"]
    assert writer.pending == 0


def test_the_first_error_is_the_one_that_is_raised(sink, make, fake_time) -> None:
    writer = make(fake_time, max_queue=1)
    sink.flush_error = OSError("first")
    writer.write("a")
    sink.wait_for_flush()
    fake_time.asleep_for()
    sink.flush_error = OSError("second")
    with pytest.raises(WriteError, match="first"):
        writer.flush(TIMEOUT)
    with pytest.raises(WriteError, match="second"):
        writer.flush(TIMEOUT)


def test_a_later_success_is_said(sink, make, fake_time) -> None:
    writer = make(fake_time, max_queue=1)
    sink.flush_error = OSError("no")
    writer.write("a")
    sink.wait_for_flush()
    fake_time.asleep_for()
    sink.flush_error = None
    with pytest.raises(WriteError, match="a later attempt saved everything"):
        writer.flush(TIMEOUT)
    assert sink.saved == ["a"]
    writer.flush(TIMEOUT)


def test_what_a_sink_cannot_take_is_counted_as_lost(sink, make) -> None:
    writer = make(max_queue=1000)
    sink.write_error = ValueError("cannot encode")
    writer.write("a", scalars=4)
    with pytest.raises(WriteError, match=r"cannot encode.*up to 4 scalars .* are lost"):
        writer.flush(TIMEOUT)
    assert writer.pending == 0
    sink.write_error = None
    writer.write("b")
    writer.flush(TIMEOUT)
    assert sink.saved == ["b"]


def test_close_raises_once_and_is_closed(sink, make) -> None:
    writer = make()
    sink.flush_error = OSError("no")
    writer.write("a")
    with pytest.raises(WriteError, match=r"1 scalars were accepted but not written; they are lost"):
        writer.close(TIMEOUT)
    writer.close(TIMEOUT)
    writer.flush(TIMEOUT)
    assert sink.closed == 1
    with pytest.raises(LoggerError, match="fake://run is closed"):
        writer.write("b")


def test_close_writes_what_waits(sink, make) -> None:
    writer = make(max_queue=1000)
    writer.write("a")
    writer.close(TIMEOUT)
    assert (sink.saved, sink.closed) == (["a"], 1)


def test_close_reports_an_end_that_failed(sink, make, monkeypatch) -> None:
    def close() -> None:
        raise OSError("at the end")

    monkeypatch.setattr(sink, "close", close)
    writer = make()
    writer.write("a")
    with pytest.raises(WriteError, match="at the end"):
        writer.close(TIMEOUT)


def test_close_without_writes_starts_no_thread(sink, make) -> None:
    before = threading.active_count()
    writer = make()
    writer.close()
    assert threading.active_count() == before
    assert sink.closed == 0


def test_close_that_takes_too_long_says_so(sink, make) -> None:
    writer = make(max_queue=1)
    sink.gate.clear()
    writer.write("a")
    with pytest.raises(WriteError, match=r"close did not finish within 0.01 s; 1 scalars"):
        writer.close(0.01)
    sink.gate.set()
    writer.close(TIMEOUT)
    assert sink.saved == ["a"]


def test_a_full_queue_makes_the_caller_wait(sink, make) -> None:
    writer = make(max_queue=1, max_pending_scalars=10)
    sink.gate.clear()
    writer.write("a", scalars=6)
    assert sink.entered.wait(TIMEOUT)
    saved_before = []

    def write() -> None:
        writer.write("b", scalars=6)
        saved_before.extend(sink.saved)

    thread = threading.Thread(target=write)
    thread.start()
    assert writer.pending == 6
    sink.gate.set()
    thread.join(TIMEOUT)
    assert not thread.is_alive()
    assert "a" in saved_before  # it was taken only when there was room
    writer.flush(TIMEOUT)
    assert sink.saved == ["a", "b"]


def test_a_full_queue_is_written_before_it_is_due(sink, make) -> None:
    writer = make(max_queue=1000, max_pending_scalars=10)
    for item in range(20):
        writer.write(item, scalars=4)
    assert len(sink.saved) >= 17


def test_storage_that_hangs_ends_in_an_error(sink, make) -> None:
    writer = make(max_queue=1, max_pending_scalars=1, timeout_secs=0.01)
    sink.gate.clear()
    writer.write("a")
    with pytest.raises(WriteError, match=r"storage is too slow: 1 scalars wait"):
        writer.write("b")


def test_an_item_larger_than_the_queue_passes(sink, make) -> None:
    writer = make(max_pending_scalars=10)
    writer.write("large", scalars=100)
    writer.write("next", scalars=100)
    writer.flush(TIMEOUT)
    assert sink.saved == ["large", "next"]


def test_a_full_queue_raises_the_error_instead_of_waiting(sink, make) -> None:
    writer = make(max_queue=1000, max_pending_scalars=1)
    sink.flush_error = OSError("no")
    writer.write("a")
    with pytest.raises(WriteError, match="no"):
        writer.write("b")


@pytest.mark.parametrize("call", ["write", "flush", "close"])
def test_a_dead_thread_hangs_nobody(sink, make, call) -> None:
    writer = make(max_queue=1, max_pending_scalars=1)
    sink.write_error = SystemExit("killed")  # no Exception: the thread does not outlive it
    writer.write("a")
    assert writer._thread is not None
    writer._thread.join(TIMEOUT)
    with pytest.raises(WriteError, match=r"killed.*1 scalars were accepted but not written"):
        {"write": lambda: writer.write("b"), "flush": writer.flush, "close": writer.close}[call]()
    if call != "close":
        with pytest.raises(WriteError, match="its thread has ended"):
            writer.write("c")


def test_a_writer_nobody_holds_still_writes(sink, make) -> None:
    writer = BackgroundWriter(sink, max_queue=1000)
    writer.write("a")
    reference = writer._thread
    del writer
    gc.collect()
    from jaxlog.storage import exit as at_exit

    at_exit._close_all()
    assert reference is not None
    assert not reference.is_alive()
    assert sink.saved == ["a"]


def test_exit_reports_what_failed(sink, make, caplog) -> None:
    from jaxlog.storage import exit as at_exit

    writer = make()
    sink.flush_error = OSError("gone")
    writer.write("a")
    at_exit._close_all()
    assert "gone" in caplog.text
    assert "call close() before the end" in caplog.text


def test_a_forked_child_is_told(sink, make, monkeypatch) -> None:
    writer = make()
    writer.write("a")
    parent = os.getpid()
    monkeypatch.setattr(os, "getpid", lambda: parent + 1)
    with writer._changed:  # as the parent's thread may hold it at the fork
        for verb, call in (("write", lambda: writer.write("b")), ("flush", writer.flush)):
            with pytest.raises(LoggerError, match=f"cannot {verb} to fake://run here"):
                call()
        writer.close()
    monkeypatch.undo()
    writer.close(TIMEOUT)
    assert sink.saved == ["a"]


def test_many_threads_lose_nothing(sink, make) -> None:
    writer = make(max_queue=7, max_pending_scalars=50)

    def write(first: int) -> None:
        for item in range(first, first + 200):
            writer.write(item)

    threads = [threading.Thread(target=write, args=(n * 200,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(TIMEOUT)
    writer.flush(TIMEOUT)
    assert sorted(sink.saved) == list(range(800))
    assert writer.pending == 0


def away(sink, retry_secs: float = 5.0) -> None:
    sink.flush_error = StoreAwayError("nobody there")
    sink.retry_secs = retry_secs


def back(sink) -> None:
    sink.flush_error = sink.retry_secs = None


def test_a_store_that_is_away_is_no_error_and_is_asked_again_when_due(
    sink, make, fake_time
) -> None:
    writer = make(fake_time, max_queue=1)
    away(sink)
    writer.write("a")
    sink.wait_for_flush()
    assert fake_time.asleep_for() == pytest.approx(5)
    writer.write("b")
    assert (sink.flushes, sink.taken, writer.pending) == (1, ["a"], 2)
    back(sink)
    fake_time.advance(5)
    writer.flush(TIMEOUT)
    assert sink.saved == ["a", "b"]
    assert writer.pending == 0


def test_a_flush_waits_for_a_store_that_is_away(sink, make) -> None:
    writer = make()
    away(sink, retry_secs=1e6)
    writer.write("a")
    with pytest.raises(WriteError, match=r"flush did not finish within 0.01 s; 1 scalars"):
        writer.flush(0.01)
    sink.wait_for_flush()
    back(sink)
    writer.close(TIMEOUT)
    assert sink.saved == ["a"]


def test_what_lies_in_a_spool_is_sent_when_due_though_nothing_new_comes(
    sink, make, fake_time
) -> None:
    writer = make(fake_time)
    sink.retry_secs = 7.0
    writer.write("a")
    writer.flush(TIMEOUT)
    sink.wait_for_flush()
    assert fake_time.asleep_for() == pytest.approx(7)
    sink.retry_secs = None
    fake_time.advance(7)
    sink.wait_for_flush()
    assert sink.flushes == 2


def test_an_end_in_the_spool_is_an_error_that_loses_nothing(sink, make) -> None:
    writer = make()
    writer.write("a")
    sink.flush_error = SpooledError("it is kept in /folder")
    with pytest.raises(WriteError, match=r"^it is kept in /folder$"):
        writer.close(TIMEOUT)
    assert writer.pending == 0


def test_a_full_queue_may_drop_its_oldest(sink, make, caplog) -> None:
    notices = []

    def notice(dropped: int, after: str) -> str:
        notices.append((dropped, after))
        return f"dropped {dropped}"

    options = {"on_full": "drop_oldest", "drop_notice": notice, "max_pending_scalars": 3}
    writer = make(max_queue=1000, **options)
    sink.gate.clear()
    writer.write("held")
    with pytest.raises(WriteError, match="did not finish"):
        writer.flush(0)  # it goes on in the background
    assert sink.entered.wait(TIMEOUT)
    for item in range(6):
        writer.write(item)  # none of these waits
    assert (writer.dropped, writer.pending) == (4, 3)
    sink.gate.set()
    writer.flush(TIMEOUT)
    assert sink.saved == ["held", "dropped 4", 4, 5]
    assert notices == [(4, 4)]
    assert caplog.text.count("values are dropped") == 1
    writer.write("later")
    writer.flush(TIMEOUT)
    assert sink.saved[-1] == "later"  # said once, as nothing more was dropped


def test_while_the_store_is_away_the_queue_stays_bounded(sink, make, fake_time) -> None:
    writer = make(fake_time, on_full="drop_oldest", max_pending_scalars=10, max_queue=1)
    away(sink)
    for item in range(500):
        writer.write(item)
        if item % 7 == 0:
            fake_time.advance(5)
    assert writer.pending <= 11  # the newest is always taken
    back(sink)
    writer.close(TIMEOUT)
    assert len(sink.saved) + writer.dropped == 500
    assert sink.saved[-1] == 499


def test_an_error_shows_no_credentials(sink, make) -> None:
    writer = make(secrets=Secrets("", {"secret": "verysecret"}))
    for text, has_cause in (("key verysecret is wrong", False), ("no room", True)):
        sink.flush_error = OSError(text)
        writer.write("a")
        with pytest.raises(WriteError) as info:
            writer.flush(TIMEOUT)
        assert "verysecret" not in "".join(traceback.format_exception(info.value))
        assert (info.value.__cause__ is not None) == has_cause
    back(sink)
