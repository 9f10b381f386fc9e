"""`Scopes`: what of a loop is open, as a state machine.

A scope is the run of something with a beginning and an end: the training around `epochs` (the fit),
a sanity check, a phase. A scope is OPEN while its iterator runs. When the iterator is closed early,
by `break` or by an error, nobody can know yet which of the two it was, and an exception raised
there would go nowhere; so the scope becomes LEFT, and its last hooks run with the loop's next move.
An error that leaves the loop's `with` block comes before any later move, and then no such hook
runs. While the last hooks of a scope run it is ENDING.
"""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Iterator

from jaxlog.steps import Stage

__all__ = ["LoopState", "Scope", "ScopeKind", "ScopeState", "Scopes"]


class LoopState(enum.Enum):
    """Whether the loop can be used."""

    OPEN = enum.auto()
    INTERRUPTED = enum.auto()  # an error is leaving its `with` block: no more hooks run
    CLOSED = enum.auto()


class ScopeState(enum.Enum):
    """How far a scope is; see the module."""

    OPEN = enum.auto()
    LEFT = enum.auto()
    ENDING = enum.auto()


class ScopeKind(enum.Enum):
    """What a scope is the run of."""

    EPOCHS = enum.auto()  # the fit of `loop.epochs`
    IMPLICIT_FIT = enum.auto()  # the fit of a `loop.train` outside of `epochs`
    SANITY_CHECK = enum.auto()
    PHASE = enum.auto()


@dataclasses.dataclass(eq=False)
class Scope:
    """Something that is open.

    Attributes:
        kind: what it is.
        state: how far it is.
        stage: the stage of a phase.
        end: `(step, wall time)` at which a phase ended, set before its last hooks run.
    """

    kind: ScopeKind
    state: ScopeState = ScopeState.OPEN
    stage: Stage | None = None
    end: tuple[int, float] | None = None


class Scopes:
    """The scopes of a loop, the outermost first.

    Attributes:
        may_have_left: whether some scope may be LEFT; asked at every batch, without a search.
    """

    def __init__(self) -> None:
        """Nothing is open."""
        self.may_have_left = False
        self._scopes: list[Scope] = []

    def __bool__(self) -> bool:
        return bool(self._scopes)

    def open(self, kind: ScopeKind, stage: Stage | None = None) -> Scope:
        """Opens a scope: a fit around everything, anything else inside of everything.

        A fit that begins in the last hooks of another scope is inside of that one.
        """
        scope = Scope(kind, stage=stage)
        if kind in {ScopeKind.EPOCHS, ScopeKind.IMPLICIT_FIT}:
            ending = sum(one.state is ScopeState.ENDING for one in self._scopes)
            self._scopes.insert(ending, scope)
        else:
            self._scopes.append(scope)
        return scope

    def remove(self, scope: Scope) -> None:
        """Removes a scope, if it has not been removed."""
        if scope in self._scopes:
            self._scopes.remove(scope)

    def leave(self, scope: Scope) -> None:
        """Notes that the iterator of a scope was closed before its end."""
        scope.state, self.may_have_left = ScopeState.LEFT, True

    def clear(self) -> None:
        """Removes every scope."""
        self._scopes.clear()

    @property
    def fit(self) -> Scope | None:
        """The fit; None once its last hooks run, in which another may begin."""
        for scope in self._scopes:
            is_fit = scope.kind in {ScopeKind.EPOCHS, ScopeKind.IMPLICIT_FIT}
            if is_fit and scope.state is not ScopeState.ENDING:
                return scope
        return None

    @property
    def in_fit(self) -> bool:
        """Whether training has begun and its last hooks have not."""
        return self.fit is not None

    @property
    def in_sanity_check(self) -> bool:
        """Whether validation runs whose values are not kept."""
        return any(scope.kind is ScopeKind.SANITY_CHECK for scope in self._scopes)

    @property
    def running(self) -> Stage | None:
        """The stage of the innermost phase whose iterator runs."""
        for scope in reversed(self._scopes):
            if scope.kind is ScopeKind.PHASE and scope.state is ScopeState.OPEN:
                return scope.stage
        return None

    def is_running(self, stage: Stage) -> bool:
        """Whether the iterator of a phase of this stage runs."""
        return any(s.stage is stage and s.state is ScopeState.OPEN for s in self._scopes)

    def unended(self) -> Iterator[tuple[Scope, Stage]]:
        """The phases that are open or left, the outermost first."""
        for scope in tuple(self._scopes):
            if scope.stage is not None and scope.state is not ScopeState.ENDING:
                yield scope, scope.stage

    def next_left(self) -> Scope | None:
        """The innermost scope that was left and may end now; None if there is none.

        A scope that is ENDING holds up those around it, so that their hooks run after its own.
        """
        if not self.may_have_left:
            return None
        for scope in reversed(self._scopes):
            if scope.state is ScopeState.LEFT:
                return scope
            if scope.state is ScopeState.ENDING:
                return None
        self.may_have_left = False
        return None
