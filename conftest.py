"""The clock of tests, doctests and the code on pages: no `Loop` in them reads the real time."""

from __future__ import annotations

import itertools

import pytest


@pytest.fixture(autouse=True)
def _test_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """Gives every `Loop` a clock that moves by a microsecond a call.

    With the real one a machine that stalls for `window_secs` cuts a window in two, and a test that
    counts windows or copies fails.
    """
    import jaxlog  # noqa: PLC0415 - after tests/conftest.py has set what jax reads at import

    microseconds = itertools.count()
    defaults = jaxlog.Loop.__init__.__kwdefaults__
    monkeypatch.setitem(defaults, "clock", lambda: 1.7e9 + 1e-6 * next(microseconds))
