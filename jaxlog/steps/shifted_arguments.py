"""The arguments of `jax.jit` and `jax.pmap`, for a function that takes its recording in front.

A user says `donate_argnums=0` of the step's own arguments. The compiled function has the recording
before them, so every number moves by one, the recording is donated too, and whatever is given for
each argument or result (shardings, axes) gets an element for the recording.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import jax
from jax.sharding import PartitionSpec

from jaxlog.compat import unspecified_sharding
from jaxlog.errors import LogArgumentError

__all__ = [
    "parameters_of",
    "shifted_for_jit",
    "shifted_for_pmap",
    "shifted_numbers",
    "signature_with_recording",
    "take_lane_axes",
    "unwrapped",
]


def unwrapped(
    transform: Callable[..., Any], kwargs: Mapping[str, Any]
) -> tuple[Callable[..., Any], dict[str, Any]]:
    """A `functools.partial` of a transform as the transform and its arguments."""
    if isinstance(transform, functools.partial) and not transform.args:
        return unwrapped(transform.func, {**transform.keywords, **kwargs})
    return transform, dict(kwargs)


def parameters_of(fn: Callable[..., Any]) -> list[inspect.Parameter] | None:
    """The arguments that `fn` takes; None if Python cannot tell."""
    try:
        return list(inspect.signature(fn).parameters.values())
    except (TypeError, ValueError):
        return None


def signature_with_recording(parameters: Sequence[inspect.Parameter]) -> inspect.Signature:
    """The signature of a function of these parameters with the recording in front.

    By it jit finds an argument that is called by position and was named in `static_argnames`, and
    the other way round.
    """
    first = inspect.Parameter("__logs", inspect.Parameter.POSITIONAL_ONLY)
    return inspect.Signature([first, *parameters])


def take_lane_axes(kwargs: dict[str, Any], transform: Any) -> tuple[Any, Any]:
    """Takes `vmap`'s axes, of the step's own arguments and results, out of the arguments of `jit`.

    Raises:
        LogArgumentError: the transform is not `jax.jit`.
    """
    if transform is not jax.jit:
        raise LogArgumentError(
            f"Loop(lanes=...) with transform={transform!r}: lanes are mapped by jax.vmap and "
            f"compiled by jax.jit; leave transform= out, and say in_axes= and out_axes= here"
        )
    return kwargs.pop("in_axes", 0), kwargs.pop("out_axes", 0)


def shifted_for_jit(
    kwargs: Mapping[str, Any], parameters: Sequence[inspect.Parameter], count: int
) -> dict[str, Any]:
    """The arguments of `jax.jit`.

    Args:
        kwargs: what the user said of the step's own arguments.
        parameters: the step's own parameters.
        count: how many positional arguments the step is called with.
    """
    shifted = dict(kwargs)
    static = _numbers(kwargs, "static_argnums")
    if static:
        shifted["static_argnums"] = shifted_numbers(static)
    donated = _numbers(kwargs, "donate_argnums")
    names = _names(kwargs, "donate_argnames")
    # jit finds the names from the numbers, and the other way round, only if one of the two is
    # absent; the number of the recording is always given.
    found = [i for i, parameter in enumerate(parameters) if parameter.name in names]
    named = [p for p in parameters if p.kind is inspect.Parameter.POSITIONAL_OR_KEYWORD]
    names |= {parameters[i].name for i in donated if i < len(parameters) and parameters[i] in named}
    shifted["donate_argnums"] = (0, *shifted_numbers(sorted({*donated, *found})))
    if names:
        shifted["donate_argnames"] = tuple(sorted(names))
    return shifted | _shardings(kwargs, parameters, count)


def shifted_for_pmap(kwargs: Mapping[str, Any], count: int) -> dict[str, Any]:
    """The arguments of `jax.pmap`; each device has a recording.

    Args:
        kwargs: what the user said of the step's own arguments.
        count: how many positional arguments the step is called with.
    """
    shifted = dict(kwargs)
    static = _numbers(kwargs, "static_broadcasted_argnums")
    shifted["static_broadcasted_argnums"] = shifted_numbers(static)
    shifted["donate_argnums"] = (0, *shifted_numbers(_numbers(kwargs, "donate_argnums")))
    axes = kwargs.get("in_axes", 0)
    shifted["in_axes"] = (0, *(axes if isinstance(axes, (tuple, list)) else (axes,) * count))
    shifted["out_axes"] = (0, 0, kwargs.get("out_axes", 0))
    return shifted


def shifted_numbers(numbers: Iterable[int]) -> tuple[int, ...]:
    """Numbers of arguments after one more stands in front; negative ones count from the end."""
    return tuple(n + 1 if n >= 0 else n for n in numbers)


def _numbers(kwargs: Mapping[str, Any], option: str) -> tuple[int, ...]:
    given = kwargs.get(option)
    numbers = () if given is None else (given,) if isinstance(given, int) else tuple(given)
    if not all(isinstance(number, int) for number in numbers):
        raise LogArgumentError(f"{option}={given!r}: takes an int or ints")
    return numbers


def _names(kwargs: Mapping[str, Any], option: str) -> set[str]:
    given = kwargs.get(option) or ()
    return {given} if isinstance(given, str) else set(given)


def _shardings(
    kwargs: Mapping[str, Any], parameters: Sequence[inspect.Parameter], count: int
) -> dict[str, Any]:
    """What the user said of shardings; jit chooses those of the recording."""
    free = unspecified_sharding()
    shifted: dict[str, Any] = {}
    if (given := kwargs.get("in_shardings")) is not None:
        if not isinstance(given, (tuple, list)) or isinstance(given, PartitionSpec):
            names = _names(kwargs, "static_argnames")
            static = {n % count for n in _numbers(kwargs, "static_argnums")}
            static |= {i for i, p in enumerate(parameters[:count]) if p.name in names}
            given = (given,) * (count - len(static))
        shifted["in_shardings"] = (free, *given)
    if kwargs.get("out_shardings") is not None:
        shifted["out_shardings"] = (free, free, kwargs["out_shardings"])
    return shifted
