"""`ScanStep`: many steps in one program, a scan whose every iteration is a step of the loop."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxlog.errors import LogArgumentError
from jaxlog.logs import Recording, Schema
from jaxlog.steps.shifted_arguments import shifted_numbers
from jaxlog.steps.stage import Stage
from jaxlog.tracing import Captured
from jaxlog.windows import Segment

__all__ = ["ScanStep"]


class ScanStep:
    """Called as `run(carry, xs)`; made by `loop.training_step(fn, scan=True)`.

    The ring buffer is as long as the scan, and is handed over after the call.

    Attributes:
        schema: what an iteration logs, as far as it is known.
        last_rows: None; a bar has the values with the window.
        is_mapped: False; the leading axis of `xs` is one of steps.
    """

    is_mapped = False
    last_rows = None

    def __init__(
        self, stage: Stage, fn: Callable[..., Any], hook: str, kwargs: Mapping[str, Any]
    ) -> None:
        """See `Loop.training_step`."""
        self._captured = Captured(fn, hook=hook)
        functools.update_wrapper(self, fn, updated=())
        self._stage = stage
        shifted = dict(kwargs)
        if (donated := shifted.get("donate_argnums")) is not None:
            numbers = (donated,) if isinstance(donated, int) else donated
            shifted["donate_argnums"] = shifted_numbers(numbers)
        self._compiled = jax.jit(self._run, **shifted)
        self._was_traced = False
        self.schema = Schema()

    def __call__(self, carry: Any, xs: Any) -> tuple[Any, Any]:
        """`lax.scan(fn, carry, xs)`, with a row for every iteration.

        Raises:
            HookError: no phase of this stage is running.
            LogArgumentError: `xs` holds no array, or arrays of different lengths.
        """
        stage = self._stage
        length, size = _extent(xs)
        first = stage.begin_steps(self, length, size)
        carry, ys, recording = self._compiled(stage.should_write_from(first), carry, xs)
        if recording.schema != self.schema:
            self.schema = recording.schema
            stage.register_schema(self.schema)
        for spec in self.schema:
            if spec.weighs_by_batch and spec.options.on_epoch:
                stage.require_size(spec.name)
        if len(self.schema):
            batches = list(range(first, first + length))
            stage.add_segment(Segment(self.schema, (recording.whole, None), batches))
        stage.outputs = ys
        if self._was_traced:
            self._was_traced = False
            stage.exclude_compile_time()
        return carry, ys

    def take(self) -> None:
        """Nothing: every call has handed over its own."""

    def _run(self, should_write: Any, carry: Any, xs: Any) -> tuple[Any, Any, Recording]:
        self._was_traced = True
        one = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape[1:], x.dtype), xs)
        # Traced once for the schema, which the carry of the scan has to have from the start.
        schema = self._captured.trace((carry, one), {}).schema

        def body(carried: tuple[Recording, Any], x: tuple[Any, Any]) -> Any:
            recording, carry = carried
            traced = self._captured.trace((carry, x[1]), {})
            state, (carry, y) = self._captured.run(schema, traced, should_write=x[0])
            return (recording.push(state)[0], carry), y

        start = jax.tree.map(jnp.asarray, Recording.empty(schema, max(len(should_write), 1)))
        (recording, carry), ys = lax.scan(body, (start, carry), (should_write, xs))
        return carry, ys, recording


def _extent(xs: Any) -> tuple[int, float]:
    """`(iterations, examples in each)`."""
    shapes = [np.shape(x) for x in jax.tree.leaves(xs)]
    lengths = {shape[0] for shape in shapes if shape}
    if len(lengths) != 1 or not all(shapes):
        raise LogArgumentError(
            f"run(carry, xs) of a step with scan=True: arrays in xs have one leading dimension, "
            f"the number of steps, but got shapes {shapes}; stack the batches: "
            f"jax.tree.map(lambda *x: jnp.stack(x), *batches)"
        )
    return lengths.pop(), float(shapes[0][1]) if len(shapes[0]) > 1 else 1.0
