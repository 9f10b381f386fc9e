"""Metric states: `empty`, `of`, `update`, `merge`, `compute`. Pure; no time, threads or files.

A metric is an immutable pytree of arrays whose `merge` is associative, with `empty` as its
identity. Read in this order::

    reductions.py       the table of reductions: sum, mean, min, max
    declaration.py      state(): shape, dtype and reduction of a field
    array_namespace.py  numpy on the host, jax.numpy before the fetch
    leaves.py           merge two states, fold mapped axes, fold a mesh
    construction.py     a subclass becomes a frozen dataclass pytree; leaves are checked and cast
    metric.py           Metric, the base
    inputs.py           checks on what of() is given
    accumulator_dtype.py  the dtype that a sum, an extremum or a last value is kept in
    buckets.py          counting into buckets
    foreign.py          metrics of other libraries
    mean.py, ...        the metrics that ship, one file each
"""

from jaxlog.metrics.accuracy import Accuracy
from jaxlog.metrics.array_namespace import array_namespace
from jaxlog.metrics.auroc import AUROC
from jaxlog.metrics.confusion_matrix import ConfusionMatrix
from jaxlog.metrics.declaration import state
from jaxlog.metrics.extrema import Max, Min
from jaxlog.metrics.foreign import Foreign, as_metric
from jaxlog.metrics.histogram import Histogram
from jaxlog.metrics.last import Last
from jaxlog.metrics.mean import Mean
from jaxlog.metrics.metric import Metric
from jaxlog.metrics.quantiles import Quantiles
from jaxlog.metrics.reductions import REDUCTIONS, Reduce, Reduction
from jaxlog.metrics.sum import Sum
from jaxlog.metrics.variance import Variance

__all__ = [
    "AUROC",
    "REDUCTIONS",
    "Accuracy",
    "ConfusionMatrix",
    "Foreign",
    "Histogram",
    "Last",
    "Max",
    "Mean",
    "Metric",
    "Min",
    "Quantiles",
    "Reduce",
    "Reduction",
    "Sum",
    "Variance",
    "array_namespace",
    "as_metric",
    "state",
]
