"""`HostLog`: what is logged on the host, `loop.log` and its siblings for what is not a scalar."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from jaxlog.errors import HookError, LogArgumentError
from jaxlog.logs import Hook, check_call, find_hook
from jaxlog.loop.dispatch import Dispatcher
from jaxlog.loop.driver import Driver
from jaxlog.loop.fetch import Fetcher
from jaxlog.metrics import Metric, as_metric
from jaxlog.steps import STEP_HOOKS
from jaxlog.windows import HostValue, Key, LoggerCall, ScalarAtStep, check_count, holds_buckets

__all__ = ["HostLog"]


class HostLog:
    """Brings what the host logs to the batch, the phase or the queue it belongs to."""

    def __init__(self, driver: Driver, dispatcher: Dispatcher, fetcher: Fetcher) -> None:
        """The host log of one loop."""
        self._driver = driver
        self._dispatcher = dispatcher
        self._fetcher = fetcher

    def log(self, name: str, value: Any, batch_size: Any, options: Mapping[str, Any]) -> None:
        """Logs a scalar in the running hook; see `Loop.log`."""
        _refuse_traced(f"loop.log({name!r}, ...)", value, batch_size)
        hook = self._current_hook(name)
        # Before the check, which may look at the value: what was checked is what is kept.
        value = _kept(as_metric(value))
        checked = check_call(name, value, hook, options, batch_size=batch_size, function="loop.log")
        if checked.syncs and jax.process_count() > 1:
            raise LogArgumentError(
                f"loop.log({name!r}, ..., sync_dist=True) with {jax.process_count()} processes: "
                f"the host does not reduce over processes; log it inside the step, where devices "
                f"do, or write rank_zero_only=True to log the value of process 0"
            )
        stage = self._driver.stages[str(hook.stage)]  # hooks without one forbid logging
        weight = None if batch_size is None else _kept(batch_size)
        key = Key(name, checked, is_histogram=holds_buckets(value))
        # Step hooks log into the batch, epoch hooks into the phase; both are weighed there.
        if hook.steps and stage.in_batch:
            stage.register(key, is_metric=isinstance(value, Metric))
            stage.add_host(name, checked, value, weight)
        elif not hook.steps and stage.phase is not None:
            stage.register(key, is_metric=isinstance(value, Metric))
            self._fetcher.start((value, weight))
            stage.phase.deferred.append(HostValue(name, checked, value, weight))
        else:
            raise HookError(
                f"loop.log({name!r}, ...) in {hook.name!r}, but no {hook.stage} "
                f"{'batch' if hook.steps else 'phase'} is running; log inside "
                f"loop.{hook.stage}(...), or from a Callback"
            )

    def log_at_step(self, name: str, value: Any, step: int, options: Mapping[str, Any]) -> None:
        """Logs a scalar with an x value of its own; see `Loop.log`."""
        _refuse_traced(f"loop.log({name!r}, ..., step={step})", value)
        check_count("step", step, least=0)
        given = [name for name in ("on_step", "on_epoch", "reduce_fx") if name in options]
        if given:
            raise LogArgumentError(
                f"loop.log({name!r}, ..., step={step}, {given[0]}=...): a value with an x value "
                f"of its own is written as it is; leave one of the two out"
            )
        hook = find_hook("training_step")
        checked = check_call(name, value, hook, options, function="loop.log")
        clock = self._driver.settings.clock
        self._fetcher.push(ScalarAtStep(name, checked, _kept(as_metric(value)), step, clock()))

    def call_loggers(
        self, method: str, tag: str | None, payload: Any, step: int | None, **options: Any
    ) -> None:
        """Logs something that is not a scalar, in order with the rows around it.

        Args:
            method: the logger's method that takes it.
            tag: its name; None for hyperparameters.
            payload: its value; arrays are copied, so the caller may reuse its own.
            step: its x value; None for that of the row it belongs to.
            **options: keyword arguments of the method.
        """
        values = payload.values() if tag is None and isinstance(payload, Mapping) else [payload]
        _refuse_traced(f"loop.{method}({'' if tag is None else repr(tag)}, ...)", *values)
        if self._driver.sanity_checking and tag is not None:
            return  # nothing of a sanity check is kept
        stage = self._driver.training_batch
        if step is not None:
            check_count("step", step, least=0)
        elif tag is not None:
            step = self._driver.last_finished_step if stage is None else stage.step
        # Hyperparameters are the user's own objects, not a pytree: keys may be of any type.
        kept = copy.deepcopy(payload) if tag is None else _kept(payload)
        call = LoggerCall(method, tag, kept, step, options)
        if stage is not None and tag is not None:
            stage.add_logger_call(call)  # the window sorts its rows and calls by step
        else:
            self._fetcher.push(call)

    def _current_hook(self, name: str) -> Hook:
        if self._dispatcher.current is not None:
            return find_hook(self._dispatcher.current)
        if (stage := self._driver.running) is not None:
            return find_hook(STEP_HOOKS[stage.name])
        raise HookError(
            f"loop.log({name!r}, ...) outside of any phase; log inside loop.train(...) or "
            f"loop.validate(...), or say which hook it belongs to: "
            f"with loop.hook('on_train_epoch_end'): loop.log({name!r}, ...)"
        )


def _refuse_traced(call: str, *values: Any) -> None:
    """Refuses values that have no numbers yet, because the call is inside a compiled function.

    Raises:
        LogArgumentError: one is a tracer, or a metric of tracers.
    """
    leaves = (
        leaf for x in values for leaf in (jax.tree.leaves(x) if isinstance(x, Metric) else [x])
    )
    if any(isinstance(leaf, Tracer) for leaf in leaves):
        instead = "jaxlog.log(name, value)" if call.startswith("loop.log(") else "it on the host"
        raise LogArgumentError(
            f"{call} inside a compiled function: the value is traced, and this method runs on the "
            f"host, once, when JAX traces the function; inside a step write {instead}"
            f"{'' if 'jaxlog' in instead else ', with what the step returns'}"
        )


def _kept(value: Any) -> Any:
    """`value` as it is now.

    Arrays on a device are copied there, since the next step may take them by donation; numpy
    arrays are copied, since the caller may write to them.
    """
    return jax.tree.map(_copied, value)


def _copied(leaf: Any) -> Any:
    if isinstance(leaf, jax.Array):
        return jnp.copy(leaf)
    return leaf.copy() if isinstance(leaf, np.ndarray) else leaf
