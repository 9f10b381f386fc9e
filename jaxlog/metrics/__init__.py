"""Metric states: `empty`, `of`, `update`, `merge`, `compute`. Pure; no time, threads or files.

::

    declaration.py      state(): shape, dtype and reduction of a field, its neutral element
    array_namespace.py  numpy on the host, jax.numpy before the fetch
    reductions.py       merge two states, fold mapped axes, fold a mesh
    construction.py     a subclass becomes a frozen dataclass pytree; leaves are checked and cast
    metric.py           Metric, the base
    arguments.py        checks on what of() is given
    accumulators.py     the dtype that a sum, an extremum or a last value is kept in
    mean.py, ...        the metrics that ship, an idea a file
"""

from jaxlog.metrics.accuracy import Accuracy
from jaxlog.metrics.declaration import state
from jaxlog.metrics.extrema import Max, Min
from jaxlog.metrics.last import Last
from jaxlog.metrics.mean import Mean
from jaxlog.metrics.metric import Metric
from jaxlog.metrics.sum import Sum

__all__ = ["Accuracy", "Last", "Max", "Mean", "Metric", "Min", "Sum", "state"]
