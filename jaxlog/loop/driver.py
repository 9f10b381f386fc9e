"""`Driver`: the loop as a state machine: epochs, phases and batches, from first hook to last.

The user's `for` statements drive it: each iterator of the loop is a generator here. What is open is
in `scopes.py`. Every move of the loop begins with `run_deferred`, which ends the scopes that the
user has left.
"""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeVar

import jax

from jaxlog.errors import LoopError
from jaxlog.loop import checkpoint
from jaxlog.loop.dispatch import Dispatcher
from jaxlog.loop.fetch import Fetcher, PhaseEnd
from jaxlog.loop.loaders import Loader
from jaxlog.loop.scopes import LoopState, Scope, ScopeKind, Scopes, ScopeState
from jaxlog.steps import Stage
from jaxlog.windows import Phase, Settings, loader_suffix

__all__ = ["Driver"]

T = TypeVar("T")
_STAGES = ("train", "validate", "test")
_PREFIX = {"train": "on_train", "validate": "on_validation", "test": "on_test"}


class Driver:
    """Counters and open scopes, and the moves between them.

    Attributes:
        settings: the loop's options.
        stages: training, validation and test by name.
        state: whether the loop can be used.
        global_step: training batches finished.
        current_epoch: epochs finished; inside an epoch, its number.
        num_epochs: how many epochs `epochs` was asked for; None outside.
        epochs_done: how many of those are finished.
        should_stop: set by callbacks: no further epoch begins.
        loader: the loader being read, None outside of phases.
        dataloader_idx: its index.
    """

    def __init__(self, settings: Settings, fetcher: Fetcher, dispatcher: Dispatcher) -> None:
        """A loop before its first epoch."""
        self.settings = settings
        self.stages = {name: Stage(name, settings) for name in _STAGES}
        self.state = LoopState.OPEN
        self.global_step = 0
        self.current_epoch = 0
        self.num_epochs: int | None = None
        self.epochs_done = 0
        self.should_stop = False
        self.loader: Loader[Any] | None = None
        self.dataloader_idx = 0
        self._fetcher = fetcher
        self._dispatcher = dispatcher
        self._is_alone = jax.process_count() == 1
        self._train = self.stages["train"]
        self._scopes = Scopes()
        self._resumed: Mapping[str, Any] | None = None

    # ---- what is open ---------------------------------------------------------------------------

    @property
    def running(self) -> Stage | None:
        """The stage of the innermost phase whose iterator runs."""
        return self._scopes.running

    @property
    def training_batch(self) -> Stage | None:
        """The training stage, if the innermost phase is its and a batch of it is running."""
        return self._train if self.running is self._train and self._train.in_batch else None

    @property
    def sanity_checking(self) -> bool:
        """Whether validation runs whose values are not kept."""
        return self._scopes.in_sanity_check

    def _check_open(self) -> None:
        if self.state is LoopState.CLOSED:
            raise LoopError("the loop is closed; make a new one (its loggers are closed too)")

    def _check_not_running(self, stage: Stage) -> None:
        self._check_open()
        if self._scopes.is_running(stage):
            raise LoopError(
                f"loop.{stage.name}(...) inside a loop.{stage.name}(...) that still runs; "
                f"finish the first, or leave it with break"
            )

    # ---- epochs ---------------------------------------------------------------------------------

    def epochs(self, count: int) -> Iterator[int]:
        """Yields the number of each epoch; opens and closes training around it."""
        self._check_open()
        self.run_deferred()
        if (running := self.running) is not None:
            raise LoopError(
                f"loop.epochs(...) inside a loop.{running.name}(...) that still runs; "
                f"finish that first, or leave it with break"
            )
        self._end_implicit_fit()
        if self._scopes.fit is not None:
            raise LoopError("loop.epochs(...) inside another loop.epochs(...): one at a time")
        fit = self._begin_fit(ScopeKind.EPOCHS, num_epochs=count)
        try:
            self.should_stop = False
            for done in range(count):
                self.epochs_done = done
                yield self.current_epoch
                self._check_open()
                # The body of the user's loop has run; phases that it left by break end now.
                self.run_deferred()
                self._end_epoch(trained=False)
                if self.should_stop:
                    break
        except GeneratorExit:
            self._scopes.leave(fit)
            raise
        except BaseException:
            self._scopes.remove(fit)
            raise
        finally:
            self.num_epochs = None
        self._end_fit(fit)

    def _begin_fit(self, kind: ScopeKind, *, num_epochs: int | None = None) -> Scope:
        fit = self._scopes.open(kind)
        self.num_epochs = num_epochs
        try:
            self._dispatcher.dispatch("on_fit_start")
            self._open_phase(self._train)
            self._dispatcher.dispatch("on_train_start")
        except BaseException:
            self._scopes.remove(fit)
            self.num_epochs = None
            raise
        return fit

    def _end_fit(self, fit: Scope) -> None:
        if self.state is not LoopState.OPEN:
            return
        self._end_epoch(trained=True)
        fit.state = ScopeState.ENDING
        try:
            self._train.phase = None
            self._warn_if_nothing_written()
            self._dispatcher.dispatch("on_train_end")
            self._dispatcher.dispatch("on_fit_end")
        finally:
            self._scopes.remove(fit)

    def _end_implicit_fit(self) -> None:
        """Ends what a `train` outside of `epochs` began."""
        fit = self._scopes.fit
        if fit is None or fit.kind is not ScopeKind.IMPLICIT_FIT or self.running is not None:
            return
        if fit.state is ScopeState.OPEN:
            self._end_fit(fit)

    def _end_epoch(self, *, trained: bool) -> None:
        """Ends the training epoch: its last hook and its row.

        Args:
            trained: whether to do so only if it has trained; else an epoch without training counts
                too, though no training hook runs for it.
        """
        phase = self._train.phase
        if self.state is LoopState.CLOSED or phase is None:
            return
        if phase.end is None:
            if not trained:
                self.current_epoch += 1
                phase.epoch = self.current_epoch
            return
        # Validation ran inside the epoch: its row comes before that of training, as in Lightning.
        self.finalize("validate")
        self.finalize("test")
        self._dispatcher.dispatch("on_train_epoch_end")
        self.finalize("train")
        self.current_epoch += 1
        if self._scopes.in_fit:
            self._open_phase(self._train)

    def _warn_if_nothing_written(self) -> None:
        every = self.settings.log_every_n_steps
        is_short = self._train.writes_steps and 0 < self.global_step < every
        if is_short and self._fetcher.has_loggers:
            warnings.warn(
                f"training ended after {self.global_step} steps, before the first row at "
                f"log_every_n_steps={every}: no value per step was written; write "
                f"Loop(log_every_n_steps={self.global_step}) or less to see them",
                stacklevel=3,
            )

    # ---- phases ---------------------------------------------------------------------------------

    def train(self, loader: Loader[T]) -> Iterator[T]:
        """Yields training batches."""
        self.run_deferred()
        stage = self._train
        self._check_not_running(stage)
        if not self._scopes.in_fit:
            self._begin_fit(ScopeKind.IMPLICIT_FIT)
        fit, phase = self._scopes.fit, stage.phase
        if fit is not None and fit.kind is ScopeKind.IMPLICIT_FIT:
            self._end_epoch(trained=True)
            phase = stage.phase
        assert phase is not None  # a fit opens one
        is_first = phase.end is None  # else a second pass inside one epoch adds to the first
        phase.end, phase.is_complete = None, False
        with self._running(stage):
            self.loader = loader
            if is_first:
                self._dispatcher.dispatch("on_train_epoch_start")
            stage.open_loader(phase, "")
            yield from self._batches(stage, loader, 0)
            # Not reached if the loop is left by break: the epoch may then go on with another pass.
            phase.is_complete = True

    def evaluate(self, name: str, loaders: Sequence[Loader[T]]) -> Iterator[T]:
        """Yields the batches of one evaluation loader after the other."""
        self.run_deferred()
        stage = self.stages[name]
        self._check_not_running(stage)
        if name == "test":
            self._end_implicit_fit()
        # What training has logged so far comes first: rows are written in the order of their steps.
        self._fetch_open()
        self.finalize(name)
        if name == "test" and self._scopes.fit is None:
            self.sync()
            self._fetcher.latest.clear()
        prefix = _PREFIX[name]
        phase = self._open_phase(stage)
        with self._running(stage):
            self._dispatch_evaluation(f"{prefix}_start")
            self._dispatch_evaluation(f"{prefix}_epoch_start")
            for index, loader in enumerate(loaders):
                stage.open_loader(phase, loader_suffix(index, loader.label, len(loaders)))
                yield from self._batches(stage, loader, index)
                self.fetch(stage)

    def sanity_check(self, loaders: Sequence[Loader[T]]) -> Iterator[T]:
        """As `evaluate("validate", ...)`, but nothing that it logs is kept."""
        self.run_deferred()
        if self.running is not None:
            raise LoopError("loop.sanity_check(...) inside a phase; call it before training")
        check = self._scopes.open(ScopeKind.SANITY_CHECK)
        try:
            self._dispatcher.dispatch("on_sanity_check_start")
            yield from self.evaluate("validate", loaders)
        except GeneratorExit:
            self._scopes.leave(check)
            raise
        except BaseException:
            self._scopes.remove(check)
            raise
        self._end_sanity_check(check)

    def _end_sanity_check(self, check: Scope) -> None:
        self.finalize("validate")
        self._scopes.remove(check)
        self._dispatcher.dispatch("on_sanity_check_end")

    def _open_phase(self, stage: Stage) -> Phase:
        stage.phase = Phase(
            stage.name,
            self.current_epoch,
            self.settings,
            self._fetcher.watch,
            is_silent=self.sanity_checking,
        )
        if self._resumed is not None and stage is self._train:
            checkpoint.restore(stage.phase, self._resumed)
            self._resumed = None
        return stage.phase

    @contextlib.contextmanager
    def _running(self, stage: Stage) -> Iterator[None]:
        """The scope of a phase; its last hooks run unless an error leaves it."""
        scope = self._scopes.open(ScopeKind.PHASE, stage)
        try:
            yield
        except GeneratorExit:
            if self.state is not LoopState.CLOSED:
                # Do nothing here that could raise: an exception out of a closing generator is lost.
                scope.end = self._end_of(stage)
                self._scopes.leave(scope)
                self.loader = None
            raise
        except BaseException:
            if self.state is not LoopState.CLOSED:
                self._scopes.remove(scope)
                self.loader = None
                _phase_of(stage).end = self._end_of(stage)
                self.fetch(stage)
            raise
        scope.end = self._end_of(stage)
        self._end_phase(scope)

    def _end_phase(self, scope: Scope) -> None:
        stage = scope.stage
        assert stage is not None and scope.end is not None  # noqa: PT018 - a phase, and it ended
        try:
            try:
                self.fetch(stage)
            finally:
                self.loader = None
                _phase_of(stage).end = scope.end
                scope.state = ScopeState.ENDING
            if stage is not self._train:
                self._dispatch_evaluation(f"{_PREFIX[stage.name]}_epoch_end")
                self._dispatch_evaluation(f"{_PREFIX[stage.name]}_end")
        finally:
            self._scopes.remove(scope)

    def _dispatch_evaluation(self, hook: str, *args: Any) -> None:
        """Calls an evaluation hook; in a sanity check there is nothing for callbacks to see."""
        if not self.sanity_checking:
            self._dispatcher.dispatch(hook, *args)

    def run_deferred(self) -> None:
        """Ends, with their hooks, the scopes that were left; the innermost first.

        Hooks read the loop, which calls this again.
        """
        if not self._scopes.may_have_left or self.state is LoopState.INTERRUPTED:
            return
        while (scope := self._scopes.next_left()) is not None:
            if scope.kind is ScopeKind.PHASE:
                self._end_phase(scope)
            elif scope.kind is ScopeKind.SANITY_CHECK:
                self._end_sanity_check(scope)
            else:
                scope.state = ScopeState.OPEN  # its last epoch ends inside it; hooks may read
                try:
                    self._end_fit(scope)
                finally:
                    self._scopes.remove(scope)

    # ---- batches --------------------------------------------------------------------------------

    def _batches(self, stage: Stage, loader: Loader[T], index: int) -> Iterator[T]:
        self.loader, self.dataloader_idx = loader, index
        prefix = _PREFIX[stage.name]
        is_training = stage is self._train
        which = () if is_training else (index,)
        dispatch = self._dispatcher.dispatch if is_training else self._dispatch_evaluation
        # Asked once: most runs have no listener for batches, and then none is called for each.
        has_start = self._dispatcher.has_listeners(f"{prefix}_batch_start")
        has_end = self._dispatcher.has_listeners(f"{prefix}_batch_end")
        validation = self.stages["validate"]
        for batch_idx, batch in enumerate(loader.batches):
            if is_training and validation.phase is not None:
                self.finalize("validate")
            stage.begin_batch(
                self.global_step if is_training else stage.counts.get(index, 0), batch
            )
            try:
                if has_start:
                    dispatch(f"{prefix}_batch_start", batch, batch_idx, *which)
                yield batch
                self._check_open()
                self.run_deferred()
                self.loader, self.dataloader_idx = loader, index
                stage.calls += 1  # the user's loop came round, so the batch counts
                if has_end:
                    dispatch(f"{prefix}_batch_end", stage.outputs, batch, batch_idx, *which)
            finally:
                if self.state is not LoopState.CLOSED:
                    self._end_batch(stage, index)
            self._fetch_if_due(stage)

    def _end_batch(self, stage: Stage, index: int) -> None:
        if stage.calls and stage is self._train:
            stage.group += 1
            if stage.group == self.settings.accumulate_grad_batches:
                stage.group = 0
                self.global_step += stage.span
        elif stage.calls and not self.sanity_checking:
            stage.counts[index] = stage.counts.get(index, 0) + stage.span
        stage.end_batch()

    def _end_of(self, stage: Stage) -> tuple[int, float]:
        """The step and wall time at which a phase ends now."""
        if stage.group:  # the data ran out before the group of batches was full
            stage.group = 0
            self.global_step += 1
        return self.last_finished_step, self.settings.clock()

    @property
    def last_finished_step(self) -> int:
        """The x value of epoch values: the last step that ran; outside of a fit the next one."""
        if not self._scopes.in_fit:
            return self.global_step
        stage = self._train
        # Inside a batch whose step has run, that step is the last; the counter still names it.
        is_running = (stage.in_batch and stage.calls > 0) or stage.group > 0
        return max(self.global_step - (0 if is_running else 1), 0)

    # ---- fetching -------------------------------------------------------------------------------

    def fetch(self, stage: Stage) -> None:
        """Starts fetching what a stage has logged; takes in what was fetched before."""
        if self._queue_window(stage):
            self._fetcher.process(keep=1)

    def _queue_window(self, stage: Stage) -> bool:
        if stage.window is None or not len(stage.window):
            return False
        window = stage.take_window()
        if window is None:
            return False
        self._fetcher.push(window)
        return True

    def _fetch_if_due(self, stage: Stage) -> None:
        # Do not cut the window inside an accumulation group: its batches share one row.
        if stage.group:
            return
        # Several processes fetch at the same steps, since a fetch may be a collective, and their
        # clocks differ.
        if stage.should_fetch(by_age=self._is_alone):
            self.fetch(stage)

    def _fetch_open(self) -> None:
        """Queues what open phases have logged, so that rows are written in order of their steps."""
        for _, stage in self._scopes.unended():
            self.fetch(stage)

    def finalize(self, name: str) -> None:
        """Queues the epoch row of a phase that has ended; a phase is finalized once."""
        stage = self.stages[name]
        phase = stage.phase
        if phase is not None and phase.end is not None:
            stage.phase = None
            self._fetcher.push(PhaseEnd(phase))

    def sync(self, *, reading: bool = False) -> None:
        """Takes in everything logged so far and brings the mappings up to date.

        Args:
            reading: whether this only serves a read. With several processes one of them may read
                alone, so windows that are not full stay: fetching one may be a collective.
        """
        self.run_deferred()
        if not reading or self._is_alone:
            self._fetch_open()
        self._fetcher.process()
        for stage in self.stages.values():
            if stage.phase is not None and stage.phase.end is not None:
                stage.phase.publish(self._fetcher.latest)

    # ---- the end, and resuming ------------------------------------------------------------------

    def flush(self) -> None:
        """Hands everything logged to the loggers; outside of phases also finished epochs' rows."""
        self.sync()
        if self.running is None:
            for name in ("validate", "test"):
                self.finalize(name)

    def finish(self) -> None:
        """Ends what is open: with hooks what was left, or trained outside of `epochs`."""
        try:
            self.run_deferred()
            self._end_implicit_fit()
        finally:
            self._abandon()
            self.state = LoopState.CLOSED

    def _abandon(self) -> None:
        """Ends every phase as it is, without hooks: what was logged is kept."""
        for scope, stage in reversed(list(self._scopes.unended())):
            if stage.in_batch:
                self._end_batch(stage, self.dataloader_idx)
            self._queue_window(stage)
            _phase_of(stage).end = scope.end or self._end_of(stage)
        self._scopes.clear()
        for name in ("validate", "test", "train"):
            self.finalize(name)

    def state_dict(self) -> dict[str, Any]:
        """The state of the loop as plain data."""
        self.sync()
        evaluation = (self.stages[name] for name in ("validate", "test"))
        return checkpoint.state_of(self.global_step, self.current_epoch, self._train, evaluation)

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Goes on from a state.

        Raises:
            LoopError: `state` is not of `state_dict`, or a phase is open.
        """
        self.run_deferred()
        if self._scopes:
            raise LoopError("loop.load_state_dict(...) inside a phase; load before loop.epochs")
        counters = checkpoint.counters_in(state)
        self.global_step = counters.global_step
        self.current_epoch = counters.current_epoch
        for name, counts in counters.evaluation_batches.items():
            self.stages[name].counts = dict(counts)
        self._resumed = state


def _phase_of(stage: Stage) -> Phase:
    assert stage.phase is not None  # opened before batches are handed out
    return stage.phase
