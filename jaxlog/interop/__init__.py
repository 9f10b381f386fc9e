"""One file an optional dependency, and Flax: what they need to work with `jaxlog`.

Flax is imported with a program that uses it, not with `jaxlog`.
"""

from __future__ import annotations

from jaxlog.tracing import libraries

__all__: list[str] = []


def _linen() -> libraries.Library:
    from jaxlog.interop.linen import Linen  # noqa: PLC0415 - once the program has imported flax

    return Linen()


def _nnx() -> libraries.Library:
    from jaxlog.interop.nnx import NNX  # noqa: PLC0415 - once the program has imported flax

    return NNX()


libraries.add("flax.linen", _linen)
libraries.add("flax.nnx", _nnx)
