"""Event files: how fast they are written and read, and what logging costs the loop that logs.

    python benchmarks/storage.py            # everything; some minutes
    python benchmarks/storage.py write      # one part: write, caller, loop, remote, read

Rivals run in the same process, their repeats interleaved with ours, and figures are medians, so
that a noisy machine hits all alike. Needs tensorboardX and tensorboard; torch and, for `remote`,
s3fs and moto are left out where they are not installed. The table of a full run replaces the one in
benchmarks/README.md.
"""

from __future__ import annotations

import importlib.util
import pathlib
import platform
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

import jaxlog
from jaxlog.storage import Block

REPEATS = 5
HERE = pathlib.Path(__file__).parent
Row = tuple[str, str, str, str]  # what, ours, theirs, wanted


@contextmanager
def folder() -> Iterator[str]:
    path = tempfile.mkdtemp()
    try:
        yield path
    finally:
        shutil.rmtree(path)


def tags_of(count: int) -> tuple[str, ...]:
    return tuple(f"metric_{n:03}" for n in range(count))


def size_of(path: str) -> int:
    return sum(file.stat().st_size for file in pathlib.Path(path).rglob("*") if file.is_file())


# ---- writing ------------------------------------------------------------------------------------


def add_scalar(writer_class: Any) -> Callable[[str, int, int], None]:
    def write(path: str, tags: int, steps: int) -> None:
        names = tags_of(tags)
        with writer_class(path) as writer:
            for step in range(steps):
                for name in names:
                    writer.add_scalar(name, step * 0.5, step)

    return write


def log_metrics(path: str, tags: int, steps: int) -> None:
    names = tags_of(tags)
    with jaxlog.TensorBoardLogger(path, "", "") as logger:
        for step in range(steps):
            logger.log_metrics(dict.fromkeys(names, step * 0.5), step)


def write_blocks(path: str, tags: int, steps: int, rows: int = 500) -> None:
    """As the loop hands them over: all tags, many steps, float64."""
    names, times = tags_of(tags), np.full(rows, time.time())
    values = np.random.default_rng(0).random((rows, tags))
    with jaxlog.TensorBoardLogger(path, "", "") as logger:
        for start in range(0, steps, rows):
            logger.write_block(Block(names, np.arange(start, start + rows), times, values))


def writers() -> dict[str, tuple[Callable[[str, int, int], None], int]]:
    """Each with the scalars it writes in one repeat: about as long as the others need."""
    import tensorboardX

    found: dict[str, Any] = {"tensorboardX": (add_scalar(tensorboardX.SummaryWriter), 20_000)}
    if importlib.util.find_spec("torch") is not None:
        from torch.utils.tensorboard import SummaryWriter

        found["torch"] = (add_scalar(SummaryWriter), 20_000)
    found["log_metrics"] = (log_metrics, 2_000_000)
    found["blocks"] = (write_blocks, 10_000_000)
    return found


def bench_write() -> Iterator[Row]:
    wanted = {("blocks", 10): 250, ("blocks", 100): 500}
    wanted |= {("log_metrics", 10): 80, ("log_metrics", 100): 200}
    for tags in (10, 100):
        rates: dict[str, list[float]] = {name: [] for name in writers()}
        sizes: dict[str, float] = {}
        for _ in range(REPEATS):
            for name, (write, scalars) in writers().items():
                with folder() as path:
                    started = time.perf_counter()
                    write(path, tags, scalars // tags)
                    rates[name].append(scalars / (time.perf_counter() - started))
                    sizes[name] = size_of(path) / scalars
        median = {name: statistics.median(all_rates) for name, all_rates in rates.items()}
        rivals = [name for name in ("tensorboardX", "torch") if name in median]
        theirs = ", ".join(f"{name} {median[name] / 1e3:.1f}k/s" for name in rivals)
        for name in ("blocks", "log_metrics"):
            ratios = [median[name] / median[rival] for rival in rivals]
            ours = f"{median[name] / 1e6:.2f}M/s: " + ", ".join(f"{ratio:.0f}x" for ratio in ratios)
            what = "from the loop's blocks" if name == "blocks" else "through `log_metrics`"
            yield f"scalars/s {what}, {tags} tags", ours, theirs, f">= {wanted[name, tags]}x"
        least = min(sizes[rival] for rival in rivals)
        ours = f"{sizes['blocks']:.1f} B: {sizes['blocks'] / least:.2f}x"
        yield f"bytes a scalar, {tags} tags", ours, f"{least:.1f} B", "<= 0.5x"


# ---- what it costs the caller -------------------------------------------------------------------


def bench_caller() -> Iterator[Row]:
    import tensorboardX

    names, calls = tags_of(100), 400
    row = dict.fromkeys(names, 0.5)
    ours, theirs, p99 = [], [], []
    for _ in range(REPEATS):
        with folder() as path, jaxlog.TensorBoardLogger(path, "", "") as logger:
            logger.log_metrics(row, 0)
            times = []
            for step in range(1, calls):
                started = time.perf_counter()
                logger.log_metrics(row, step)
                times.append(time.perf_counter() - started)
                time.sleep(0.0005)  # a step between two calls, in which the thread writes
            ours.append(statistics.median(times))
            p99.append(float(np.quantile(times, 0.99)))
        with folder() as path, tensorboardX.SummaryWriter(path) as writer:
            times = []
            for step in range(calls // 8):
                started = time.perf_counter()
                for name in names:
                    writer.add_scalar(name, 0.5, step)
                times.append(time.perf_counter() - started)
            theirs.append(statistics.median(times))
    mine, other = statistics.median(ours), statistics.median(theirs)
    text = f"{mine * 1e6:.1f} us (p99 {statistics.median(p99) * 1e6:.0f} us): 1/{other / mine:.0f}"
    yield "caller's time a `log_metrics`, 100 tags", text, f"{other * 1e3:.2f} ms", "<= 1/200"


def spin(seconds: float) -> int:
    """Python work of a known amount, which never lets go of the interpreter by itself."""
    total = 0
    for number in range(int(seconds * spin.per_second)):  # type: ignore[attr-defined]
        total += number
    return total


def bench_loop() -> Iterator[Row]:
    spin.per_second = 1e7  # type: ignore[attr-defined]
    for _ in range(20):
        started = time.perf_counter()
        spin(0.01)
        spin.per_second *= 0.01 / (time.perf_counter() - started)  # type: ignore[attr-defined]
    row, steps, repeats = dict.fromkeys(tags_of(100), 0.5), 400, 25

    def run(log: Callable[[int], None], end: Callable[[], None]) -> tuple[float, float, np.ndarray]:
        times = np.empty(steps)
        begun, used = time.perf_counter(), time.process_time()
        for step in range(steps):
            started = time.perf_counter()
            spin(0.00075)
            log(step)
            times[step] = time.perf_counter() - started
        end()
        return time.perf_counter() - begun, time.process_time() - used, times

    ratios, tails = [], []
    with folder() as path, jaxlog.TensorBoardLogger(path, "", "") as logger:
        for repeat in range(repeats):
            first = repeat * steps
            wall, used, plain = run(lambda _: None, lambda: None)
            # What still waits is written before the clock stops.
            wall_, used_, logged = run(
                lambda n, s=first: logger.log_metrics(row, s + n), logger.flush
            )
            ratios.append((wall_ / wall - 1, used_ / used - 1))
            tails.append(np.quantile(logged, 0.999) / np.quantile(plain, 0.999))
    wall, used = np.median(ratios, axis=0)
    ours = f"{wall:.1%} of time, {used:.1%} of CPU time"
    yield "0.75 ms Python loop, 100 tags a step: slower by", ours, "-", "<= 2 %"
    yield "the same, p99.9 of a step", f"{statistics.median(tails):.2f}x", "-", "<= 1.5x"


# ---- object stores ------------------------------------------------------------------------------


def bench_remote() -> Iterator[Row]:
    if any(importlib.util.find_spec(name) is None for name in ("s3fs", "moto", "flask")):
        return
    import logging
    import threading

    import fsspec
    from moto.server import DomainDispatcherApplication, create_backend_app
    from werkzeug.serving import make_server

    logging.getLogger("werkzeug").setLevel("ERROR")
    store, requests = DomainDispatcherApplication(create_backend_app), []

    def application(environ: Any, start: Any) -> Any:
        requests.append((environ["REQUEST_METHOD"], int(environ.get("CONTENT_LENGTH") or 0)))
        return store(environ, start)

    server = make_server("127.0.0.1", 0, application, threaded=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    options = {"key": "a", "secret": "b", "endpoint_url": f"http://127.0.0.1:{server.port}"}
    fsspec.filesystem("s3", **options).mkdir("bucket")
    rng, rows, tags = np.random.default_rng(0), 40, tags_of(100)
    times = np.full(rows, time.time())
    with jaxlog.TensorBoardLogger("s3://bucket/run", "", "", storage_options=options) as logger:
        marks = []
        for flush in range(400):
            steps = np.arange(flush * rows, (flush + 1) * rows)
            logger.write_block(Block(tags, steps, times, rng.random((rows, 100))))
            logger.flush()
            marks.append(len(requests))
    puts = np.array([size for _, size in requests if size])
    each = np.diff(marks)
    early, late = puts[50:150].mean() / 2**20, puts[-100:].mean() / 2**20
    delta = (puts[1] - puts[0]) / 2**20
    server.shutdown()
    yield "requests a flush to S3, 400 flushes", f"{each.mean():.2f}, most {each.max()}", "-", "1"
    ours = f"most {puts.max() / 2**20:.2f} MiB (delta {delta:.2f})"
    yield "bytes a flush to S3", ours, "-", "<= 1 MiB + delta"
    yield "mean bytes, flushes 50-150 and the last 100", f"{early:.2f}, {late:.2f} MiB", "-", "flat"


# ---- reading ------------------------------------------------------------------------------------


def bench_read() -> Iterator[Row]:
    import tensorboardX
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    def accumulate(path: str) -> None:
        found = EventAccumulator(path, size_guidance={"scalars": 0}).Reload()
        assert found.Tags()["scalars"]

    readers: dict[str, Callable[[str], Any]] = {
        "EventAccumulator": accumulate,
        "pandas": jaxlog.read_scalars,
        "polars": lambda path: jaxlog.read_scalars(path, backend="polars"),
        "numpy": lambda path: jaxlog.read_scalars(path, backend="numpy"),
    }
    for what, tags, steps in (("jaxlog's, 100 tags", 100, 10_000), ("tensorboardX's", 10, 20_000)):
        with folder() as path:
            if what == "tensorboardX's":
                add_scalar(tensorboardX.SummaryWriter)(path, tags, steps)
            else:
                write_blocks(path, tags, steps)
            times: dict[str, list[float]] = {name: [] for name in readers}
            for _ in range(3):
                for name, read in readers.items():
                    started = time.perf_counter()
                    read(path)
                    times[name].append(time.perf_counter() - started)
        median = {name: statistics.median(all_times) for name, all_times in times.items()}
        theirs = median.pop("EventAccumulator")
        ours = ", ".join(f"{name} {theirs / secs:.0f}x" for name, secs in median.items())
        scalars = f"{tags * steps / 1e6:g}M"
        ours = f"{median['pandas']:.2f} s: {ours}"
        yield f"reading {scalars} scalars, files {what}", ours, f"{theirs:.2f} s", ">= 12x"


PARTS = {
    "write": bench_write,
    "caller": bench_caller,
    "loop": bench_loop,
    "remote": bench_remote,
    "read": bench_read,
}


def main(names: list[str]) -> None:
    lines = ["| what | jaxlog | tensorboardX, torch, tensorboard | wanted |", "|---|---|---|---|"]
    for name in names or PARTS:
        for row in PARTS[name]():
            lines.append(f"| {' | '.join(row)} |")
            print(lines[-1], flush=True)
    if names:
        return
    page = HERE / "README.md"
    begin, end = "<!-- storage.py writes from here -->\n", "<!-- to here -->"
    before, _, rest = page.read_text("utf-8").partition(begin)
    machine = f"Python {platform.python_version()}, {platform.machine()}, numpy {np.__version__}"
    table = "\n".join([f"{machine}.", "", *lines, ""])
    page.write_text(before + begin + table + end + rest.partition(end)[2], "utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
