"""Event files: names, headers, segments and what a failing write leaves behind."""

from __future__ import annotations

import errno
import os
import re
import uuid
from pathlib import Path

import numpy as np
import pytest
from tensorboard.backend.event_processing import event_accumulator, plugin_event_accumulator

from jaxlog.errors import LoggerError
from jaxlog.reading import parse_event, read_scalars, split_records
from jaxlog.storage import Block, EventFile, open_filesystem, read_whole, scalar_records


def records(steps, value: float = 0.0) -> bytes:
    count = len(steps)
    block = Block(("a",), np.array(steps), np.zeros(count), np.full((count, 1), value))
    return b"".join(scalar_records(block))


def contents(place: str) -> list[tuple[str, bytes]]:
    filesystem, path = open_filesystem(place)
    return [(name, read_whole(filesystem, name)) for name in sorted(filesystem.find(path))]


def steps_of(place: str) -> list[int]:
    return read_scalars(place, backend="numpy")["step"].tolist()


def see_nothing(monkeypatch, place: str) -> None:
    """Listings come out empty, as if all sessions had looked before any of them wrote."""
    filesystem, _ = open_filesystem(place)
    monkeypatch.setattr(type(filesystem), "ls", lambda *_arguments, **_options: [])


def test_a_name_sorts_by_time_and_says_who_wrote_it(place) -> None:
    events = EventFile(place, clock=lambda: 1234.9)
    events.append(records([0]))
    events.close()
    [(name, content)] = contents(place)
    pattern = r"events\.out\.tfevents\.0000001234\.[\w-]+\.\d+\.[0-9a-f]{8}\.000000"
    assert re.fullmatch(pattern, name.rpartition("/")[2])
    assert events.path.endswith(name.rpartition("/")[2])
    assert b"brain.Event:2" in content[:60]


def test_nothing_is_made_before_there_is_something_to_write(place) -> None:
    events = EventFile(f"{place}/run")
    events.flush()
    events.close()
    assert contents(place) == []


def test_flushes_add_up(place) -> None:
    events = EventFile(place)
    for step in range(5):
        events.append(records([step]))
        events.flush()
        assert events.unwritten == 0
        assert steps_of(place) == list(range(step + 1))
    assert len(contents(place)) == 1
    events.close()


def test_close_writes_what_is_left(place) -> None:
    events = EventFile(place)
    events.append(records([3]))
    events.close()
    assert steps_of(place) == [3]


def test_a_full_segment_is_followed_by_another(memory_url) -> None:
    events = EventFile(memory_url, segment_bytes=200, start_step=1)
    for step in range(100):
        events.append(records([step]))
        events.flush()
    names = [name for name, _ in contents(memory_url)]
    assert len(names) > 10
    assert [name.rpartition(".")[2] for name in names] == [f"{n:06d}" for n in range(len(names))]
    assert all(b"brain.Event:2" in content[:60] for _, content in contents(memory_url))
    assert steps_of(memory_url) == list(range(100))


def test_segments_grow_so_that_files_stay_few(memory_url) -> None:
    events = EventFile(memory_url, segment_bytes=200, grow_every=16)
    for step in range(400):
        events.append(records([step]))
        events.flush()
    sizes = [len(content) for _, content in contents(memory_url)]
    assert sizes[20] > 1.5 * sizes[0]


def test_a_local_run_is_one_file(tmp_path) -> None:
    events = EventFile(str(tmp_path), segment_bytes=100)
    for step in range(20):
        events.append(records([step]))
        events.flush()
    events.close()
    assert len(contents(str(tmp_path))) == 1


def test_a_session_start_stands_in_the_first_segment_only(memory_url) -> None:
    events = EventFile(memory_url, segment_bytes=100, start_step=10)
    for step in range(10, 20):
        events.append(records([step]))
        events.flush()
    starts = []
    for _, content in contents(memory_url):
        found = split_records(content)
        parsed = [
            parse_event(content[start : start + size])
            for start, size in zip(found.starts.tolist(), found.sizes.tolist(), strict=True)
        ]
        starts.append([event.step for event in parsed if event.is_start])
    assert starts[0] == [10, 10]
    assert len(starts) > 1
    assert not any(starts[1:])


@pytest.mark.parametrize("start_step", [None, 0])
def test_a_fresh_run_has_no_session_start(memory_url, start_step) -> None:
    events = EventFile(memory_url, start_step=start_step)
    events.append(records([0]))
    events.flush()
    [(_, content)] = contents(memory_url)
    assert len(split_records(content).starts) == 2


def test_both_loaders_of_tensorboard_forget_what_was_resumed_over(tmp_path) -> None:
    first = EventFile(str(tmp_path), clock=lambda: 100.0)
    first.append(records(range(10), 1.0))
    first.close()
    second = EventFile(str(tmp_path), start_step=5, clock=lambda: 200.0)
    second.append(records(range(5, 8), 2.0))
    second.close()
    classic = event_accumulator.EventAccumulator(str(tmp_path), size_guidance={"scalars": 0})
    assert [event.step for event in classic.Reload().Scalars("a")] == list(range(8))
    plugin = plugin_event_accumulator.EventAccumulator(str(tmp_path), size_guidance={"tensors": 0})
    assert [event.step for event in plugin.Reload().Tensors("a")] == list(range(8))
    assert steps_of(str(tmp_path)) == list(range(8))


def test_two_sessions_in_one_second_keep_all(place, monkeypatch) -> None:
    both = [EventFile(place, clock=lambda: 5.0) for _ in range(2)]
    see_nothing(monkeypatch, place)
    for number, events in enumerate(both):
        events.append(records([number]))
        events.flush()
    for events in both:
        events.close()
    monkeypatch.undo()
    assert sorted(steps_of(place)) == [0, 1]


def test_a_session_sorts_after_those_before_it(place) -> None:
    for number, now in enumerate([50.0, 50.0, 7.0]):  # the same second, then a clock set back
        events = EventFile(place, clock=lambda now=now: now)
        events.append(records([number]))
        events.close()
    assert steps_of(place) == [0, 1, 2]
    starts = [name.rpartition("/")[2].split(".")[3] for name, _ in contents(place)]
    assert starts == ["0000000050", "0000000051", "0000000052"]


def test_a_name_that_is_taken_is_never_written_over(tmp_path, monkeypatch) -> None:
    number = uuid.uuid4()
    monkeypatch.setattr("uuid.uuid4", lambda: number)  # the part of a name that is drawn
    see_nothing(monkeypatch, str(tmp_path))
    first, second = (EventFile(str(tmp_path), clock=lambda: 5.0) for _ in range(2))
    for events in (first, second):
        events.append(records([0]))
    first.close()
    with pytest.raises(FileExistsError):
        second.close()
    monkeypatch.undo()
    assert steps_of(str(tmp_path)) == [0]


def test_a_negative_start_is_refused(memory_url) -> None:
    with pytest.raises(LoggerError, match="start_step is at least 0, but got -3"):
        EventFile(memory_url, start_step=-3)


class FullDisk:
    """A file that takes `room` bytes and then has no more."""

    def __init__(self, file, room: int) -> None:
        self._file = file
        self._room = room

    def __getattr__(self, name: str):
        return getattr(self._file, name)

    def write(self, data) -> int:
        if not self._room:
            raise OSError(errno.ENOSPC, "No space left on device")
        taken = self._file.write(bytes(data)[: self._room])
        self._room -= taken
        return taken


def test_half_a_write_is_taken_back_and_tried_again(tmp_path) -> None:
    events = EventFile(str(tmp_path))
    events.append(records([0]))
    events.flush()
    local = events._local
    assert local is not None
    whole = local._file
    local._file = FullDisk(whole, 10)  # type: ignore[assignment]
    events.append(records([1]))
    with pytest.raises(OSError, match="No space left"):
        events.flush()
    [(name, content)] = contents(str(tmp_path))
    assert split_records(content).sizes.sum() + 16 * 2 == Path(name).stat().st_size
    local._file = whole
    events.append(records([2]))
    events.close()
    assert steps_of(str(tmp_path)) == [0, 1, 2]


def test_a_write_that_takes_less_goes_on(tmp_path) -> None:
    events = EventFile(str(tmp_path))
    events.append(records([0]))
    events.flush()

    class Slow(FullDisk):
        def write(self, data) -> int:
            return self._file.write(bytes(data)[:7])

    assert events._local is not None
    events._local._file = Slow(events._local._file, 0)  # type: ignore[assignment]
    events.append(records(range(1, 20)))
    events.close()
    assert steps_of(str(tmp_path)) == list(range(20))


@pytest.mark.parametrize("fsync", [False, True])
def test_fsync_is_asked_for_at_each_flush_and_for_the_name(tmp_path, monkeypatch, fsync) -> None:
    synced: list[int] = []
    monkeypatch.setattr(os, "fsync", synced.append)
    events = EventFile(str(tmp_path), fsync=fsync)
    for step in range(3):
        events.append(records([step]))
        events.flush()
    assert len(synced) == (4 if fsync else 0)
    events.close()
    assert steps_of(str(tmp_path)) == [0, 1, 2]
