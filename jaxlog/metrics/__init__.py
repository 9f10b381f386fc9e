"""Metric states: `empty`, `of`, `update`, `merge`, `compute`. Pure; no time, threads or files.

::

    declaration.py      state(): shape, dtype and reduction of a field, its neutral element
    array_namespace.py  numpy on the host, jax.numpy before the fetch
    reductions.py       merge two states, fold mapped axes, fold a mesh
    construction.py     a subclass becomes a frozen dataclass pytree; leaves are checked and cast
    metric.py           Metric, the base
    arguments.py        checks on what of() is given
    accumulators.py     the dtype that a sum, an extremum or a last value is kept in
    buckets.py          counting into buckets
    foreign.py          metrics of other libraries
    mean.py, ...        the metrics that ship, an idea a file
"""

from jaxlog.metrics.accuracy import Accuracy
from jaxlog.metrics.auroc import AUROC
from jaxlog.metrics.confusion_matrix import ConfusionMatrix
from jaxlog.metrics.declaration import state
from jaxlog.metrics.extrema import Max, Min
from jaxlog.metrics.histogram import Histogram
from jaxlog.metrics.last import Last
from jaxlog.metrics.mean import Mean
from jaxlog.metrics.metric import Metric
from jaxlog.metrics.quantiles import Quantiles
from jaxlog.metrics.sum import Sum
from jaxlog.metrics.variance import Variance

__all__ = [
    "AUROC",
    "Accuracy",
    "ConfusionMatrix",
    "Histogram",
    "Last",
    "Max",
    "Mean",
    "Metric",
    "Min",
    "Quantiles",
    "Sum",
    "Variance",
    "state",
]
