"""One file for each library that needs something from `jaxlog`: Flax, and optional dependencies.

`import jaxlog` does not import Flax. The files are imported once the program has imported Flax.
"""

from __future__ import annotations

from jaxlog.tracing import libraries

__all__: list[str] = []


def _linen() -> libraries.Library:
    from jaxlog.interop.linen import Linen  # noqa: PLC0415 - only after the program has imported flax

    return Linen()


def _nnx() -> libraries.Library:
    from jaxlog.interop.nnx import NNX  # noqa: PLC0415 - only after the program has imported flax

    return NNX()


libraries.add("flax.linen", _linen)
libraries.add("flax.nnx", _nnx)
