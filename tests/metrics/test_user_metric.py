# Wrong types are the point of this file.
# pyright: reportCallIssue=false, reportArgumentType=false, reportAttributeAccessIssue=false
"""What a user's subclass of Metric may declare, what it becomes, and what is refused."""

from __future__ import annotations

import copy
import dataclasses
import pickle
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxlog.errors import LogArgumentError
from jaxlog.metrics import Accuracy, Mean, Metric, state


class PerClass(Metric):
    unit: ClassVar[str] = "1"
    num_classes: int = 10
    correct: jax.Array = state(lambda c: np.zeros(c.num_classes, np.float32), "sum")
    best: jax.Array = state(-jnp.inf, reduce="max")

    @classmethod
    def of(cls, labels, *, num_classes=10):
        correct = jax.nn.one_hot(labels, num_classes).sum(0)
        return cls(num_classes=num_classes, correct=correct, best=correct.max())

    def compute(self):
        return self.correct.max()


class Bias(Metric):
    bias: jax.Array = state(0.0, "mean")
    count: jax.Array = state(0, "sum")


def test_update_passes_the_configuration():
    metric = PerClass.empty(num_classes=3).update(jnp.array([0, 2, 2]))
    assert metric.config == {"num_classes": 3}
    assert metric.correct.tolist() == [1.0, 0.0, 2.0]
    assert PerClass.empty().correct.shape == (10,)


def test_configuration_is_static_and_states_are_leaves():
    metric = PerClass.empty(num_classes=3)
    paths = [jax.tree_util.keystr(path) for path, _ in jax.tree_util.tree_leaves_with_path(metric)]
    assert paths == [".correct", ".best"]
    assert jax.tree.structure(metric) != jax.tree.structure(PerClass.empty(num_classes=4))
    assert jax.jit(lambda m: jnp.zeros(m.num_classes))(metric).shape == (3,)


def test_a_mean_field_brings_a_hidden_weight_that_stays_out_of_the_way():
    assert len(jax.tree.leaves(Bias.empty())) == 3
    assert len(jax.tree.leaves(Mean.empty())) == 2
    weights = [jax.tree.leaves(metric)[-1] for metric in (Bias(bias=2.0, count=1), Bias.empty())]
    assert [float(weight) for weight in weights] == [1.0, 0.0]


def test_a_state_left_out_is_neutral():
    metric = PerClass(num_classes=2)
    jax.tree.map(np.testing.assert_array_equal, metric, PerClass.empty(num_classes=2))


def test_leaves_take_the_declared_dtype_strongly_typed():
    made = jax.jit(lambda x: Bias(bias=x, count=True))(1)
    assert [(x.dtype, x.weak_type) for x in jax.tree.leaves(made)] == [
        (jnp.float32, False),
        (jnp.int32, False),
        (jnp.float32, False),
    ]


def test_numpy_leaves_next_to_tracers_take_the_declared_dtype():
    made = jax.eval_shape(lambda x: Bias(bias=x, count=np.prod((2, 3))), 1.0)
    assert made.count.dtype == jnp.int32


def test_metrics_are_frozen_copy_pickle_and_replace():
    metric = Bias(bias=jnp.float32(2.0), count=jnp.int32(3))
    with pytest.raises(dataclasses.FrozenInstanceError):
        metric.count = jnp.int32(4)
    for other in (copy.deepcopy(metric), pickle.loads(pickle.dumps(metric))):
        assert repr(other) == repr(metric)
    assert int(dataclasses.replace(metric, count=jnp.int32(4)).count) == 4


def test_repr_reads_well_with_numbers_tracers_and_shapes():
    assert repr(Accuracy.of(predictions=jnp.array([1]), labels=jnp.array([1]))) == (
        "Accuracy(correct=1, total=1)"
    )
    assert repr(PerClass.empty(num_classes=3)) == (
        "PerClass(num_classes=3, correct=float32[3], best=-inf)"
    )
    seen = []
    jax.eval_shape(lambda m: seen.append(repr(m)), Accuracy.empty())
    assert seen == ["Accuracy(correct=int32[], total=int32[])"]


def test_a_subclass_inherits_states_and_may_add_some():
    class Error(Accuracy):
        worst: jax.Array = state(0.0, "mean")

        def compute(self):
            return 1.0 - super().compute()

    metric = Error.empty().update(predictions=jnp.array([1, 0]), labels=jnp.array([1, 1]))
    assert float(metric.compute()) == 0.5
    assert metric.host_compute() == 0.5
    with pytest.raises(LogArgumentError, match="merge: Accuracy got a Error"):
        Accuracy.empty().merge(metric)


def test_any_tree_of_things_fits_the_structure():
    named = jax.tree.map(lambda _: "spec", Bias.empty())
    assert named.count == "spec"
    assert repr(named) == "Bias(bias='spec', count='spec', _mean_weight='spec')"


@pytest.mark.parametrize(
    ("declare", "message"),
    [
        (lambda: state(0.0, "median"), r"reduce='median'.*override merge"),
        (lambda: _declared(state(2.0, "sum")), r"'field' is 2.0.*neutral element.*compute\(\)"),
        (lambda: _declared(state(-np.inf, "min")), r"'field' is -inf.*\(inf\)"),
        (lambda: _declared(state(False, "max")), r"'field' has dtype bool.*state\(0"),
        (lambda: _declared(state("zero", "sum")), r"has dtype <U4"),
        (lambda: _declared(state(0, "mean")), r"integer \(int32\) with reduce='mean'.*state\(0.0"),
        (lambda: _declared(state(0.0, "sum"), name="merge"), r"'merge' hides Metric.merge"),
    ],
)
def test_bad_declarations_fail_at_the_class(declare, message):
    with pytest.raises(LogArgumentError, match=message):
        declare()


def _declared(field, name="field"):
    return type("Bad", (Metric,), {name: field, "__annotations__": {name: "jax.Array"}})


def test_neutral_elements_are_fine_as_defaults():
    for field in (
        state(np.inf, "min"),
        state(np.iinfo(np.int32).min, "max"),
        state(np.zeros(2), "sum"),
    ):
        _declared(field).empty()


class Threshold(Metric):
    threshold: float
    hits: jax.Array = state(0, "sum")


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: Bias(bias=jnp.ones(3)), r"Bias: bias has shape \(3,\).*declared with shape \(\)"),
        (lambda: Bias(count=0.5), r"Bias: count has dtype float64.*cut off.*state\(0.0, 'sum'\)"),
        (lambda: Bias(count=jnp.ones(())), r"count has dtype float32"),
        (lambda: Bias(count=2**40), r"count=1099511627776 does not fit int32"),
        (lambda: Bias(count=2**70), r"Bias: count"),
        (lambda: Bias(count="three"), r"count got str 'three'"),
        (lambda: Bias(count=None), r"count got NoneType"),
        (lambda: Bias(bias=1j), r"bias got complex"),
        (lambda: PerClass(num_classes=jnp.ones(3)), r"num_classes=.*must be hashable.*state\(0.0"),
        (lambda: PerClass.empty(classes=3), r"PerClass.empty: got classes.*are: num_classes"),
        (Threshold.empty, r"Threshold.empty: .*threshold"),
    ],
)
def test_bad_arguments_say_what_to_write(build, message):
    with pytest.raises(LogArgumentError, match=message):
        build()


def test_of_and_compute_are_the_users_to_write():
    with pytest.raises(NotImplementedError, match=r"Bias\(bias=..., count=...\)"):
        Bias.of(1.0)
    with pytest.raises(NotImplementedError, match="compute"):
        Bias.empty().compute()
