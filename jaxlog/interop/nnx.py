"""Flax nnx: modules, optimizers and other objects that a captured function changes in place.

Capture traces a pure function. So the objects among the arguments are split into a graph definition
and a state, as by `nnx.split`, and merged again inside the function. Their changed state is a
further result, with which the caller's objects are updated. All objects of a call are split as one
graph, so a parameter that two of them share stays shared.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
from flax import nnx

from jaxlog.errors import LogArgumentError
from jaxlog.interop.sown import log_values
from jaxlog.tracing import Call, Library

__all__ = ["NNX", "log_sown"]

_TAG = "jaxlog"


def log_sown(
    state: Any,
    *,
    prefix: str = "",
    reduce: Callable[[Any], Any] | None = None,
    **options: Any,
) -> None:
    """Logs what modules have sown, each value under the path of its module: `encoder/entropy`.

    Args:
        state: the second result of `nnx.capture(model, nnx.Intermediate)(...)`; in versions of flax
            without `nnx.capture`, the result of `nnx.pop(model, nnx.Intermediate)`.
        prefix: put before every name; end it with `/` to get one group in TensorBoard.
        reduce: array -> number, such as `jnp.mean`; called for each value with axes.
        **options: as in `jaxlog.log`.

    A name that a module sows several times in a step is logged as often.

    Raises:
        LogArgumentError: `state` is not an `nnx.State`, or a value has axes and `reduce` is None.

    Example:
        >>> import jaxlog
        >>> from flax import nnx
        >>> from jaxlog.interop.nnx import log_sown
        >>> def step(sown):
        ...     log_sown(sown, prefix="activations/")
        >>> sown = nnx.State({"encoder": {"mean": nnx.Intermediate((1.0, 3.0))}})
        >>> captured = jaxlog.capture(step)
        >>> logs, _ = captured(captured.init(sown), sown)
        >>> print(logs.compute()["activations/encoder/mean"])
        2.0
    """
    if not isinstance(state, nnx.State):
        raise LogArgumentError(
            f"log_sown({type(state).__name__}): takes the state that was sown; write "
            f"out, sown = nnx.capture(model, nnx.Intermediate)(x), then log_sown(sown)"
        )
    log_values(nnx.to_pure_dict(state), prefix=prefix, reduce=reduce, options=options)


@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True)
class _Slot:
    """Replaces the object of that number in a pytree; static, so part of the tree structure."""

    number: int


def _is_object(x: Any) -> bool:
    return isinstance(x, (nnx.Pytree, nnx.Variable))


def _without_objects(tree: Any) -> tuple[Any, list[Any]]:
    """A pytree with slots for its objects, and the objects."""
    leaves, treedef = jax.tree.flatten(tree, is_leaf=_is_object)
    objects: list[Any] = []
    for i, leaf in enumerate(leaves):
        if _is_object(leaf):
            leaves[i] = _Slot(len(objects))
            objects.append(leaf)
    return jax.tree.unflatten(treedef, leaves), objects


def _with_objects(tree: Any, objects: Sequence[Any]) -> Any:
    return jax.tree.map(
        lambda x: objects[x.number] if isinstance(x, _Slot) else x,
        tree,
        is_leaf=lambda x: isinstance(x, _Slot),
    )


def _holds_objects(args: Any) -> bool:
    """Whether some argument is an object that the function may change in place.

    The variables in an `nnx.State` do not count: a user who has split a model passes pytrees.
    """
    stops = (nnx.Pytree, nnx.Variable, nnx.State)
    leaves = jax.tree.leaves(args, is_leaf=lambda x: isinstance(x, stops))
    return any(map(_is_object, leaves))


class NNX(Library):
    """What captured functions and the steps of a loop need that take nnx objects."""

    def as_pure_call(
        self, fn: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]
    ) -> Call | None:
        """The call with the state of the objects as a further argument and result."""
        if not _holds_objects((args, kwargs)):
            return None
        (rest_args, rest_kwargs), objects = _without_objects((tuple(args), dict(kwargs)))
        with nnx.update_context(_TAG):
            pure = _split(objects)

        def run(pure: Any, /, *args: Any, **kwargs: Any) -> Any:
            with nnx.update_context(_TAG):
                with nnx.merge_context(_TAG, inner=True) as context:
                    merged = context.merge(*pure)
                args, kwargs = _with_objects((args, kwargs), merged)
                out, made = _without_objects(fn(*args, **kwargs))
                return out, _split([list(merged), made])

        def close(result: Any) -> Any:
            out, pure = result
            with nnx.update_context(_TAG):
                _split(objects)  # gives the caller's objects the indices that they have in `pure`
                with nnx.merge_context(_TAG, inner=False) as context:
                    _, made = context.merge(*pure)
            return _with_objects(out, made)

        batch = _with_objects((rest_args, rest_kwargs), [None] * len(objects))
        return Call(run, (pure, *rest_args), rest_kwargs, close, batch)

    def transform_for(
        self, transform: Callable[..., Any], fn: Callable[..., Any], args: Any
    ) -> Callable[..., Any]:
        """`nnx.jit` in place of `jax.jit` for a step with nnx objects among its arguments.

        Raises:
            LogArgumentError: the step is a bound method of such an object, or pmapped.
        """
        if _is_object(getattr(fn, "__self__", None)):
            name = getattr(fn, "__qualname__", "Model.step")
            raise LogArgumentError(
                f"a step that is {name} of one object: its parameters would be constants of the "
                f"compiled step; write loop.training_step({name}) and pass the object to each call"
            )
        if not _holds_objects(args):
            return transform
        if transform is jax.pmap:
            raise LogArgumentError(
                "transform=jax.pmap with nnx objects as arguments: pmap would change copies of "
                "them; pass graphdef, state = nnx.split(model) and merge inside the step"
            )
        return nnx.jit if transform is jax.jit else transform


def _split(objects: Sequence[Any]) -> tuple[Any, Any]:
    with nnx.split_context(_TAG) as context:
        return context.split(list(objects))
