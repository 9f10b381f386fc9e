"""HOST: the loop around the user's steps: its face, its driver, its hooks, the way to the loggers.

Concept
-------
The user writes the loops; jaxlog only hands out what they iterate over::

    with loop:
        for epoch in loop.epochs(2):
            for batch in loop.train(batches):
                state = train_step(state, batch)

Each iterator is a generator of the `Driver`. Control comes to jaxlog between two iterations and
nowhere else, so everything that the loop does, it does there: open and end phases, call hooks,
count, start copies, take in what has arrived.

`Loop` is only the face. It is composed of:

- `Driver` (`driver.py`): counters, phases and batches, over the open scopes of `scopes.py`, a state
  machine.
- `Dispatcher` (`dispatch.py`): which callbacks listen to which hook.
- `HostLog` (`host_log.py`): `loop.log` and its siblings, checked and sent to the batch, the phase
  or the queue that they belong to.
- `Fetcher` (`fetch.py`): one queue from the device to the loggers, read one window late.
- `ProgressValues` (`progress_values.py`): what a bar may show without waiting.
- `checkpoint.py`: the state as plain data, saved and loaded side by side.

The way of one value
--------------------
`jaxlog.log("loss", x)` in a step that logs nothing else makes one column of 32-bit words on the
device. After three steps with `Loop(window_steps=3)` the `Stage` of training holds this window:

1. `Driver._batches` ends the third batch; `Stage.should_fetch` says that the window is full.
2. `Stage.take_window` takes a `Segment` from the step function: the ring buffer, int32 of shape
   `(3, 1)`, which is no longer donated. The step goes on with a fresh one.
3. `Fetcher.push` starts the copy to the host and returns. Nothing waits.
4. Three steps later the next window is pushed, and `Fetcher.process(keep=1)` reads the first:
   `numpy.asarray` of an array that has long arrived.
5. `Phase.ingest` (in `jaxlog.windows`) turns it into a `Table`, adds to the epoch's reductions,
   brings the mappings up to date and returns a `Block` of the rows that are written:
   `Block(tags=("loss", "epoch"), steps=[0, 1, 2], ...)`.
6. The fetcher hands the block to every logger.

Sharp edges
-----------
- With several processes, taking a window may be a collective. Whatever decides to take one has to
  decide the same on every process: the number of batches, never a clock or a reader.
- A generator that is closed early (`break`, `return`, an error) is told so by `GeneratorExit`, and
  an exception raised in answer goes nowhere. So the driver only marks the scope as LEFT; its hooks
  run with the loop's next move, or never if an error is leaving the `with` block.
- Hooks may read the loop, and reading fetches, which may end scopes that were left, which runs
  hooks. A scope that is ENDING holds up those around it, so that hooks never run in between.
- A window is not cut inside a group of `accumulate_grad_batches`, whose batches share one row,
  unless the user reads in the middle of it; then the row is carried over to the next window.
- What the host logs is copied at once: the next step may take a device array by donation, and the
  caller may write to a numpy array.
"""

from jaxlog.loop.cost import Cost
from jaxlog.loop.dispatch import Dispatcher
from jaxlog.loop.fetch import Fetcher
from jaxlog.loop.loop import Loop
from jaxlog.loop.progress_values import ProgressValues

__all__ = ["Cost", "Dispatcher", "Fetcher", "Loop", "ProgressValues"]
