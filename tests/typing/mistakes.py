"""A user's script with typical mistakes, each of which a type checker has to report.

It is never run. `check_mistakes.py` compares what pyright reports with the comments
`# error: rule, rule`: each marked line has to be reported with exactly these rules, and no other
line may be reported.
"""

from __future__ import annotations

from typing import assert_type

import jax
import jax.numpy as jnp
import optax

import jaxlog

# ---- the program as it should be: no line of it may be reported ---------------------------------

Params = dict[str, jax.Array]


def loss_fn(params: Params, x: jax.Array) -> jax.Array:
    loss = jnp.square(x @ params["w"]).mean()
    jaxlog.log("loss", loss, prog_bar=True, on_epoch=True, reduce_fx="mean", nan_policy="skip")
    jaxlog.log("largest", x, reduce_fx=jnp.max, mask=x > 0)
    jaxlog.log("accuracy", jaxlog.Accuracy.of(predictions=x > 0, labels=x > 1), batch_size=x.size)
    jaxlog.log("norm", lambda: optax.global_norm(params))
    jaxlog.log_dict({"low": x.min(), "high": x.max()}, on_step=True, sync_dist=True)
    return jaxlog.log_gradient("loss_grad", loss)


def sgd(params: Params, x: jax.Array, rate: float = 0.1) -> Params:
    grads = jax.grad(loss_fn)(params, x)
    return jax.tree.map(lambda p, g: p - rate * g, params, grads)


logger = jaxlog.TensorBoardLogger("runs", "mnist", max_queue=100, flush_secs=30)
loop = jaxlog.Loop(
    [logger, jaxlog.CSVLogger("runs")],
    log_every_n_steps=10,
    nan_policy="raise",
    callbacks=[jaxlog.EarlyStopping("loss_epoch", mode="min")],
)


@loop.training_step
def plain(params: Params, x: jax.Array) -> Params:
    return sgd(params, x)


@loop.training_step(donate_argnums=0)
def train_step(params: Params, x: jax.Array, *, rate: float = 0.1) -> Params:
    return sgd(params, x, rate)


@loop.validation_step
def eval_step(params: Params, x: jax.Array) -> jax.Array:
    return loss_fn(params, x)


captured = jaxlog.capture(sgd, hook="training_step")
batches = [jnp.ones((2, 3)), jnp.ones((2, 3))]
params = {"w": jnp.zeros(3)}
with loop:
    for epoch in loop.epochs(2):
        assert_type(epoch, int)
        for batch in loop.train(batches):
            assert_type(batch, jax.Array)
            assert_type(train_step(params, batch, rate=0.5), Params)
            params = plain(params, batch)
        for batch in loop.validate(batches):
            assert_type(eval_step(params, batch), jax.Array)
        print(loop.callback_metrics["loss_epoch"] + 1)
logs, params = captured(captured.init(params, batches[0]), params, batches[0], rate=0.2)
assert_type(params, Params)
jaxlog.read_scalars("runs").groupby("tag")["value"].last()
jaxlog.read_scalars("runs", backend="polars").group_by("tag").last()
jaxlog.read_scalars("runs", backend="numpy")["value"].max()


class Good(jaxlog.Callback):
    def on_train_epoch_end(self, loop: jaxlog.Loop) -> None:
        loop.log("twice", 2 * loop.callback_metrics["loss_epoch"], on_epoch=True)


# ---- the mistakes -------------------------------------------------------------------------------

# 1. Name and value swapped; an option that does not exist.
jaxlog.log(jnp.ones(()), "loss")  # error: reportArgumentType
jaxlog.log("x", 1.0, on_epok=True)  # error: reportCallIssue
jaxlog.log_dict({"x": 1.0}, progbar=True)  # error: reportCallIssue
loop.log("x", 1.0, on_setp=True)  # error: reportCallIssue

# 2. An option of the wrong type.
jaxlog.log("x", 1.0, on_step="yes")  # error: reportArgumentType
loop.log("x", 1.0, batch_size="32")  # error: reportArgumentType
jaxlog.log_dict({"x": 1.0}, rank_zero_only=[0])  # error: reportArgumentType

# 3. A string option with a value that does not exist.
jaxlog.log("x", 1.0, reduce_fx="median")  # error: reportArgumentType
jaxlog.log("x", 1.0, nan_policy="ignore")  # error: reportArgumentType
jaxlog.Loop(nan_policy="drop")  # error: reportArgumentType
jaxlog.EarlyStopping("loss_epoch", mode="smallest")  # error: reportArgumentType

# 4. A number as text, in a constructor.
jaxlog.Loop(log_every_n_steps="50")  # error: reportArgumentType
jaxlog.TensorBoardLogger("runs", max_queue="10")  # error: reportArgumentType

# 5. A compiled step called with other arguments than the function.
plain(params)  # error: reportCallIssue
train_step(params, "batch")  # error: reportArgumentType
train_step(params, batches[0], lr=0.5)  # error: reportCallIssue

# 6. The result of a step used as another type than the function returns.
loss: float = eval_step(params, batches[0])  # error: reportAssignmentType
train_step(params, batches[0]).mean()  # error: reportAttributeAccessIssue

# 7. Items of loop.train used as another type than the loader yields.
for number in loop.train([1, 2, 3]):
    number.upper()  # error: reportAttributeAccessIssue

# 8. A captured function called without its logs, or its two results taken as one.
captured(params, batches[0])  # error: reportCallIssue
both = captured(captured.init(params, batches[0]), params, batches[0])
both["w"]  # error: reportArgumentType, reportCallIssue

# 9. A backend that does not exist, or a polars table used as one of pandas. The other way round is
# not reported: pandas.DataFrame has a __getattr__ that accepts every name.
jaxlog.read_scalars("runs", backend="arrow")  # error: reportArgumentType, reportCallIssue
jaxlog.read_scalars("runs", backend="polars").groupby("tag")  # error: reportAttributeAccessIssue


# 10. A hook whose parameters are not those that the loop passes.
class Bad(jaxlog.Callback):
    def on_train_start(self, trainer, pl_module) -> None:  # error: reportIncompatibleMethodOverride
        print("Lightning passes these")

    def on_train_epoch_end(self) -> None:  # error: reportIncompatibleMethodOverride
        print("no loop")
