"""The options of a log call: what they are, their defaults, and the check of what a caller gave.

An option is declared in this file and used by its consumer; nothing else lists the options. To add
one, give it a line in `LogOptions` (its type and its documentation), a field in `Options` (its
default) and, unless it is a switch (a bool with a default), a check in `_resolved`.

`log`, `log_dict`, `log_gradient`, `Logs.log` and `Loop.log` end in `**options: Unpack[LogOptions]`,
so type checkers know the names, and `takes_options` shows each of them to `help` and to notebooks.
The keyword arguments that belong to one call and not to its key (`batch_size`, `mask`, `step`) are
ordinary parameters of these functions; `CALL_ARGUMENTS` says which function has which.
"""

from __future__ import annotations

import builtins
import dataclasses
import difflib
import functools
import inspect
import textwrap
import typing
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any, Literal, TypedDict, TypeVar

import jax.numpy as jnp
import numpy as np

from jaxlog.errors import LogArgumentError
from jaxlog.logs.hooks import HOOKS, Hook, resolve_flags
from jaxlog.logs.reduce import REDUCTIONS, Reduction

__all__ = [
    "CALL_ARGUMENTS",
    "NAN_POLICIES",
    "LogOptions",
    "NanPolicy",
    "Options",
    "check_names",
    "check_options",
    "takes_options",
]

NanPolicy = Literal["keep", "skip", "raise"]

NAN_POLICIES: tuple[str, ...] = typing.get_args(NanPolicy)


class LogOptions(TypedDict, total=False):
    """The options that hold for a logged key; each may be left out.

    Example:
        >>> from typing import Unpack
        >>> import jaxlog
        >>> def log_loss(value, **options: Unpack[jaxlog.LogOptions]):
        ...     jaxlog.log("loss", value, **{"prog_bar": True, **options})
        >>> log_loss(0.5, on_epoch=True)

    Attributes:
        prog_bar: show it in the progress bar.
        logger: write it to the loggers.
        on_step: keep the value of every step. Default: by hook, True in a training step.
        on_epoch: reduce it over the epoch. Default: by hook, True in an evaluation step. With
            both, the names fork into `name_step` and `name_epoch`.
        reduce_fx: `"mean"` (weighted by batch size; `"avg"` is the same), `"sum"`, `"min"`,
            `"max"`, or `jnp.mean/sum/min/max`.
        enable_graph: accepted for compatibility with Lightning. A logged value never carries a
            gradient, and never stops one.
        sync_dist: reduce over devices that hold different values.
        sync_dist_group: mesh axis name, a tuple of them, or `axis_index_groups`.
        add_dataloader_idx: with several evaluation loaders, append `/dataloader_idx_i`.
        rank_zero_only: take the value of process 0 and never synchronise.
        nan_policy: what a `Loop` does with a NaN or infinite value: `"keep"` it, `"skip"` the
            step, or `"raise"` once the value has arrived. Default: as the loop says.
    """

    prog_bar: bool
    logger: bool
    on_step: bool | None
    on_epoch: bool | None
    reduce_fx: Literal["mean", "avg", "sum", "min", "max"] | Callable[..., Any]
    enable_graph: bool
    sync_dist: bool
    sync_dist_group: str | Sequence[str | int | Sequence[str | int]] | None
    add_dataloader_idx: bool
    rank_zero_only: bool
    nan_policy: NanPolicy | None


@dataclasses.dataclass(frozen=True)
class Options:
    """The options of a key after the check: defaults filled in, hashable.

    Two calls with one name must agree on every one of them. `on_step` and `on_epoch` have no
    default here because the hook decides it.
    """

    hook: str
    on_step: bool
    on_epoch: bool
    prog_bar: bool = False
    logger: bool = True
    reduce_fx: str = "mean"
    enable_graph: bool = False
    sync_dist: bool = False
    sync_dist_group: Any = None
    add_dataloader_idx: bool = True
    rank_zero_only: bool = False
    nan_policy: str | None = None

    @property
    def reduction(self) -> Reduction:
        """The row of the table of reductions that `reduce_fx` names."""
        return REDUCTIONS[self.reduce_fx]

    @property
    def syncs(self) -> bool:
        """Whether values that differ between shards are reduced."""
        return self.sync_dist and not self.rank_zero_only

    @property
    def forks(self) -> bool:
        """Whether the name forks into `name_step` and `name_epoch`."""
        return self.on_step and self.on_epoch

    def differences(self, other: Options) -> list[str]:
        """The names of the options in which two calls differ."""
        fields = (field.name for field in dataclasses.fields(self))
        return [name for name in fields if getattr(self, name) != getattr(other, name)]


# Keyword parameters of each function besides `LogOptions`; a test compares them with signatures.
CALL_ARGUMENTS: Mapping[str, tuple[str, ...]] = {
    "log": ("batch_size", "mask"),
    "log_dict": ("batch_size", "mask"),
    "log_gradient": ("batch_size",),
    "logs.log": ("batch_size", "mask"),
    "loop.log": ("batch_size", "step"),
}
_INSTEAD = {
    ("log_gradient", "mask"): "a norm has no mask; mask what flows into it",
    ("loop.log", "mask"): "a value logged on the host is one number; apply the mask before",
}

_OPTIONS = tuple(LogOptions.__annotations__)
_DEFAULTS: dict[str, Any] = {
    field.name: None if field.default is dataclasses.MISSING else field.default
    for field in dataclasses.fields(Options)
    if field.name in _OPTIONS
}
_SWITCHES = tuple(name for name, default in _DEFAULTS.items() if isinstance(default, bool))

_REDUCTIONS = {name: name for name in REDUCTIONS} | {"avg": "mean"}
_FUNCTIONS: tuple[tuple[object, str], ...] = tuple(
    (getattr(module, name), name)
    for module in (jnp, np, builtins)
    for name in REDUCTIONS
    if hasattr(module, name)
)


def check_options(
    name: object, hook: Hook, options: Mapping[str, Any], *, function: str = "log"
) -> Options:
    """The options of a call with defaults filled in.

    The same arguments give the same object without a second check: `Loop.log` runs on the host at
    every step.

    Args:
        name: the key as given.
        hook: the hook in which the call was made.
        options: the options as given.
        function: which of `CALL_ARGUMENTS` was called.

    Raises:
        LogArgumentError: a name or an option that cannot be.
        HookError: the hook forbids the call.
    """
    try:
        return _resolved_once(name, hook.name, function, **options)
    except TypeError:  # an unhashable argument: a list of groups, or one that the check refuses
        return _resolved(name, hook.name, function, **options)


def check_names(name: object, options: Mapping[str, Any], *, function: str) -> None:
    """Refuses an option that does not exist.

    Raises:
        LogArgumentError: the message names the option and the one that was probably meant.
    """
    for option, value in options.items():
        if option not in _DEFAULTS:
            raise _no_such_option(name, option, value, function)


def _resolved(name: object, hook: str, function: str, /, **options: Any) -> Options:
    check_names(name, options, function=function)
    if not isinstance(name, str) or not name:
        raise LogArgumentError(
            f"log(name={name!r}, ...): the name must be a non-empty string, such as 'train/loss'"
        )
    given = _DEFAULTS | options
    for option in _SWITCHES:
        if not isinstance(given[option], bool):
            raise LogArgumentError(
                f"log({name!r}, ..., {option}={given[option]!r}): takes True or False; "
                f"a traced value cannot decide what becomes of a log"
            )
    if given["add_dataloader_idx"] and "/dataloader_idx_" in name:
        raise LogArgumentError(
            f"log({name!r}, ...): '/dataloader_idx_' is what jaxlog appends when there are several "
            f"loaders; leave it out of the name, or write add_dataloader_idx=False"
        )
    policy = given["nan_policy"]
    if policy is not None and policy not in NAN_POLICIES:
        raise LogArgumentError(
            f"log({name!r}, ..., nan_policy={policy!r}): takes 'keep', 'skip' or 'raise'"
        )
    given["on_step"], given["on_epoch"] = resolve_flags(
        name, HOOKS[hook], on_step=given["on_step"], on_epoch=given["on_epoch"]
    )
    given["reduce_fx"] = _reduction_name(name, given["reduce_fx"])
    given["sync_dist_group"] = _group(name, given["sync_dist_group"])
    return Options(hook=hook, **given)


# typed: True and 1 are equal, and 1 must be refused after True was accepted.
_resolved_once = functools.lru_cache(maxsize=4096, typed=True)(_resolved)


def _no_such_option(name: object, option: str, value: object, function: str) -> LogArgumentError:
    is_short = value is None or isinstance(value, (bool, int, float, str))
    keys = "mapping" if function == "log_dict" else repr(name)
    call = f"{function}({keys}, ..., {option}={repr(value) if is_short else '...'})"
    if (function, option) in _INSTEAD:
        return LogArgumentError(f"{call}: {_INSTEAD[function, option]}")
    if others := [other for other, own in CALL_ARGUMENTS.items() if option in own]:
        return LogArgumentError(
            f"{call}: {function} has no {option}; only {' and '.join(others)} "
            f"{'takes' if len(others) == 1 else 'take'} it"
        )
    known = [*_OPTIONS, *CALL_ARGUMENTS[function]]
    if near := difflib.get_close_matches(option, known, n=1):
        return LogArgumentError(f"{call}: no such option; did you mean {near[0]}?")
    return LogArgumentError(f"{call}: no such option; there are {', '.join(known)}")


def _reduction_name(name: str, reduce_fx: Any) -> str:
    if isinstance(reduce_fx, str) and reduce_fx in _REDUCTIONS:
        return _REDUCTIONS[reduce_fx]
    for function, reduction in _FUNCTIONS:
        if reduce_fx is function:
            return reduction
    raise LogArgumentError(
        f"log({name!r}, ..., reduce_fx={reduce_fx!r}): takes 'mean', 'sum', 'min' or 'max' (or "
        f"jnp.mean, jnp.sum, jnp.min, jnp.max); for anything else log a jaxlog.Metric"
    )


def _group(name: str, group: Any) -> Hashable:
    if group is None or isinstance(group, str):
        return group
    if isinstance(group, (list, tuple)):
        frozen = tuple(tuple(part) if isinstance(part, (list, tuple)) else part for part in group)
        members = [m for part in frozen for m in (part if isinstance(part, tuple) else (part,))]
        if all(isinstance(member, (str, int)) for member in members):
            return frozen
    raise LogArgumentError(
        f"log({name!r}, ..., sync_dist_group={group!r}): takes a mesh axis name, a tuple of them, "
        f"or axis_index_groups such as [[0, 1], [2, 3]]"
    )


_F = TypeVar("_F", bound=Callable[..., Any])
_DOCUMENTED_HERE = "**options: see `LogOptions`.\n"


def takes_options(function: _F) -> _F:
    """A function that ends in `**options: Unpack[LogOptions]`, with each option shown to readers.

    `inspect.signature` gives each option with its type and default, as an ordinary keyword
    parameter; the function itself stays as it is. Where the docstring says
    "**options: see `LogOptions`.", the documentation of each option takes the place of that line.
    """
    shown = inspect.signature(function)
    types = LogOptions.__annotations__  # forward references, whose text is what the class says
    own = [p for p in shown.parameters.values() if p.kind is not p.VAR_KEYWORD]
    each = [
        inspect.Parameter(
            option,
            inspect.Parameter.KEYWORD_ONLY,
            default=_DEFAULTS[option],
            annotation=types[option].__forward_arg__,
        )
        for option in _OPTIONS
    ]
    positional = [p for p in own if p.kind is not p.KEYWORD_ONLY]
    keywords = [p for p in own if p.kind is p.KEYWORD_ONLY]
    signature = shown.replace(parameters=[*positional, *each, *keywords])
    function.__signature__ = signature
    if function.__doc__ and LogOptions.__doc__:  # python -OO drops both
        section = inspect.cleandoc(LogOptions.__doc__).partition("Attributes:\n")[2]
        documented = textwrap.indent(textwrap.dedent(section), " " * 8).lstrip() + "\n"
        function.__doc__ = function.__doc__.replace(_DOCUMENTED_HERE, documented)
    return function
