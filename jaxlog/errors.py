"""Every error jaxlog raises, as one tree.

::

    JaxlogError
    ├── LogArgumentError (ValueError)      a bad name, value or option in a log call
    ├── HookError (RuntimeError)           logging where the hook does not allow it, or outside any phase
    ├── SchemaError (ValueError)           keys that clash: other options, two hooks, a key unknown to the schema
    ├── CaptureError (NotImplementedError) a log call inside something capture cannot see through
    ├── NonFiniteError (FloatingPointError) a value became NaN or infinite under nan_policy="raise"
    ├── LoopError (RuntimeError)           phases, steps or iterators of a Loop used in the wrong order
    ├── LoggerError (RuntimeError)         a logger used in the wrong way: bad argument, or after close
    │   └── WriteError (OSError)           storage refused what was written; raised at the next call, flush, close
    ├── ReadError (ValueError)             event files that cannot be read, or none where some were asked for
    └── MissingDependencyError (ImportError)  an optional package is not installed; names the pip line

Each class also derives from the builtin in parentheses, so code that knows nothing of jaxlog can
catch it. A message names the argument, what it got, the likely cause and the line to write instead.
"""

from __future__ import annotations

__all__ = [
    "CaptureError",
    "HookError",
    "JaxlogError",
    "LogArgumentError",
    "LoggerError",
    "LoopError",
    "MissingDependencyError",
    "NonFiniteError",
    "ReadError",
    "SchemaError",
    "WriteError",
]


class JaxlogError(Exception):
    """The root: catches every error that jaxlog raises on purpose."""


class LogArgumentError(JaxlogError, ValueError):
    """A log call got a name, value or option it cannot take."""


class HookError(JaxlogError, RuntimeError):
    """A log call stands in a hook that does not allow it, or in no phase at all."""


class SchemaError(JaxlogError, ValueError):
    """Two log calls, or a log call and a schema, disagree about a key."""


class CaptureError(JaxlogError, NotImplementedError):
    """A log call sits inside a primitive that capture cannot see through."""


class NonFiniteError(JaxlogError, FloatingPointError):
    """A logged value became NaN or infinite, and `nan_policy="raise"` was asked for."""


class LoopError(JaxlogError, RuntimeError):
    """A Loop's phases, steps or iterators were used in the wrong order."""


class LoggerError(JaxlogError, RuntimeError):
    """A logger was used in the wrong way, such as after its close."""


class WriteError(LoggerError, OSError):
    """Storage refused what a logger wrote; the cause is chained."""


class ReadError(JaxlogError, ValueError):
    """Event files could not be read."""


class MissingDependencyError(JaxlogError, ImportError):
    """An optional package is missing.

    Example:
        >>> raise MissingDependencyError.for_package("polars", extra="polars")
        Traceback (most recent call last):
        jaxlog.errors.MissingDependencyError: polars is not installed; run: pip install "jaxlog[polars]"
    """

    @classmethod
    def for_package(cls, package: str, *, extra: str) -> MissingDependencyError:
        """The error for a missing `package` that `pip install "jaxlog[extra]"` brings."""
        return cls(f'{package} is not installed; run: pip install "jaxlog[{extra}]"')
