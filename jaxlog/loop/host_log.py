"""What a loop logs on the host, and the hooks it is logged from."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Mapping
from typing import Any, Unpack

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from jaxlog.errors import HookError, LogArgumentError
from jaxlog.logs import Hook, LogOptions, check_call, find_hook, takes_options
from jaxlog.loop.callbacks import overriding
from jaxlog.loop.point import Point
from jaxlog.loop.settings import check_count
from jaxlog.loop.status import Status
from jaxlog.loop.window import HostValue
from jaxlog.metrics import Metric, as_metric

__all__ = ["STEP_HOOKS", "HostLog"]

STEP_HOOKS = {"train": "training_step", "validate": "validation_step", "test": "test_step"}


class HostLog(Status):
    """The logging half of a `Loop`: `log`, and the hooks around it."""

    def __init__(self, listeners: list[Any]) -> None:
        """Calls the hooks of `listeners`, in that order."""
        self._hooks = overriding(listeners)
        self._hook: str | None = None

    @contextlib.contextmanager
    def hook(self, name: str) -> Iterator[None]:
        """`loop.log` calls inside take the defaults of the hook `name`.

        Raises:
            HookError: no such hook.
        """
        before, self._hook = self._hook, find_hook(name).name
        try:
            yield
        finally:
            self._hook = before

    @takes_options
    def log(
        self,
        name: str,
        value: Any,
        *,
        batch_size: ArrayLike | None = None,
        step: int | None = None,
        **options: Unpack[LogOptions],
    ) -> None:
        """Logs a value on the host: a number, a `jax.Array` (not waited for), or a `Metric`.

        Args:
            name: the key.
            value: shape ().
            batch_size: its weight in means; default the size of the running batch, 1 outside.
            step: an x value of its own: the value is written as it is, under its bare name, from
                anywhere, and takes part in no reduction.
            **options: as in `jaxlog.log`, with the defaults of the hook it is called in.

        Raises:
            LogArgumentError: a name, value or option that cannot be logged.
            HookError: outside of any phase, or in a hook that does not allow it.
            SchemaError: the key was logged before with other options, or from another hook.
        """
        if step is not None:
            self._log_point(name, value, step, options)
            return
        hook = self._current_hook(name)
        value = self.keep(as_metric(value))
        checked = check_call(name, value, hook, options, batch_size=batch_size, function="loop.log")
        if checked.syncs and jax.process_count() > 1:
            raise LogArgumentError(
                f"loop.log({name!r}, ..., sync_dist=True) with {jax.process_count()} processes: "
                f"the host does not reduce over processes; log it inside the step, where devices "
                f"do, or write rank_zero_only=True to log the value of process 0"
            )
        recorder = self._run.recorders[str(hook.stage)]  # hooks without one forbid logging
        weight = None if batch_size is None else self.keep(batch_size)
        if hook.steps and recorder.in_batch:
            recorder.register(name, checked, is_metric=isinstance(value, Metric))
            recorder.add_host(name, checked, value, weight)
        elif not hook.steps and recorder.phase is not None:
            recorder.register(name, checked, is_metric=isinstance(value, Metric))
            self.pipeline.drain.start((value, weight))
            recorder.phase.deferred.append(HostValue(name, checked, value, weight))
        else:
            raise HookError(
                f"loop.log({name!r}, ...) in {hook.name!r}, but no {hook.stage} "
                f"{'batch' if hook.steps else 'phase'} is running; log inside "
                f"loop.{hook.stage}(...), or from a Callback"
            )

    def _log_point(self, name: str, value: Any, step: int, options: Mapping[str, Any]) -> None:
        check_count("step", step, least=0)
        given = {"on_step", "on_epoch", "reduce_fx"} & set(options)
        if given:
            raise LogArgumentError(
                f"loop.log({name!r}, ..., step={step}, {given.pop()}=...): a value with an x value "
                f"of its own is written as it is; leave one of the two out"
            )
        hook = find_hook("training_step")
        checked = check_call(name, value, hook, options, function="loop.log")
        self.pipeline.push_point(Point(name, checked, self.keep(value), step, time.time()))

    def keep(self, value: Any) -> Any:
        """`value` as it is now: arrays on a device are copied there, and so outlive a donation."""
        return jax.tree.map(lambda x: jnp.copy(x) if isinstance(x, jax.Array) else x, value)

    def _current_hook(self, name: str) -> Hook:
        if self._hook is not None:
            return find_hook(self._hook)
        if self._run.stack:
            return find_hook(STEP_HOOKS[self._run.stack[-1].stage])
        raise HookError(
            f"loop.log({name!r}, ...) outside of any phase; log inside loop.train(...) or "
            f"loop.validate(...), or say which hook it belongs to: "
            f"with loop.hook('on_train_epoch_end'): loop.log({name!r}, ...)"
        )

    def hears(self, hook: str) -> bool:
        """Whether any callback has that hook."""
        return bool(self._hooks[hook])

    def fire(self, hook: str, *args: Any) -> None:
        """Calls a hook's methods in every callback."""
        methods = self._hooks[hook]
        if not methods:
            return
        before, self._hook = self._hook, hook if hook != "on_exception" else "teardown"
        try:
            for method in methods:
                method(self, *args)
        finally:
            self._hook = before
