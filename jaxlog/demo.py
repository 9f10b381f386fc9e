"""`python -m jaxlog.demo`: a Flax model learns real handwritten digits, logged from end to end."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax.training.train_state import TrainState

import jaxlog
from jaxlog.errors import MissingDependencyError

__all__ = ["main"]

Batch = dict[str, np.ndarray]


class Digits(nn.Module):
    """A small convolutional network that logs from inside a layer."""

    @nn.compact
    def __call__(self, image: jax.Array, *, train: bool = False) -> jax.Array:
        """Logits, shape `(batch, 10)`, of images, shape `(batch, 8, 8, 1)`."""
        x = nn.relu(nn.Conv(16, (3, 3))(image))
        x = nn.relu(nn.Conv(32, (3, 3), strides=2)(x))
        if train:  # a layer logs like any other code: here, the share of units that are off
            jaxlog.log("layer/units_off", (x == 0).mean())
        x = nn.relu(nn.Dense(64)(x.reshape(len(x), -1)))
        return nn.Dense(10)(x)


def load_digits(seed: int = 0) -> tuple[Batch, Batch]:
    """1797 handwritten digits of 8 by 8 pixels, as training and validation sets.

    The data is part of scikit-learn (from the UCI repository, Alpaydin and Kaynak, 1998).

    Raises:
        MissingDependencyError: scikit-learn is not installed.
    """
    try:
        from sklearn import datasets  # noqa: PLC0415 - optional
    except ImportError as error:
        raise MissingDependencyError.for_package("scikit-learn", extra="demo") from error
    images, labels = datasets.load_digits(return_X_y=True)
    order = np.random.default_rng(seed).permutation(len(images))
    data = {
        "image": (images[order] / 16).astype(np.float32).reshape(-1, 8, 8, 1),
        "label": labels[order].astype(np.int32),
    }
    split = 1437
    train = {name: array[:split] for name, array in data.items()}
    return train, {name: array[split:] for name, array in data.items()}


def batches(data: Batch, size: int, seed: int | None = None) -> Sequence[Batch]:
    """Batches of `size` examples; the last one is smaller. Shuffled if a seed is given."""
    count = len(data["label"])
    order = np.arange(count) if seed is None else np.random.default_rng(seed).permutation(count)
    parts = [order[at : at + size] for at in range(0, count, size)]
    return [{name: array[part] for name, array in data.items()} for part in parts]


def loss_and_logits(
    state: TrainState, params: Any, batch: Batch, *, train: bool = False
) -> tuple[jax.Array, jax.Array]:
    """Mean cross entropy, shape (), and logits, shape `(batch, 10)`."""
    logits = state.apply_fn({"params": params}, batch["image"], train=train)
    loss = optax.softmax_cross_entropy_with_integer_labels(logits, batch["label"]).mean()
    return loss, logits


def train_step(state: TrainState, batch: Batch) -> TrainState:
    """One step of Adam."""

    def loss_fn(params: Any) -> jax.Array:
        loss, logits = loss_and_logits(state, params, batch, train=True)
        accuracy = jaxlog.Accuracy.of(logits=logits, labels=batch["label"])
        jaxlog.log("loss", loss, prog_bar=True, on_epoch=True)
        jaxlog.log("accuracy", accuracy, on_epoch=True)
        return loss

    grads = jax.grad(loss_fn)(state.params)
    jaxlog.log("grad_norm", optax.tree.norm(grads))
    return state.apply_gradients(grads=grads)


def validation_step(state: TrainState, batch: Batch) -> None:
    """Logs what the model makes of data it does not learn from."""
    loss, logits = loss_and_logits(state, state.params, batch)
    accuracy = jaxlog.Accuracy.of(logits=logits, labels=batch["label"])
    jaxlog.log("val_loss", loss)
    jaxlog.log("val_accuracy", accuracy, prog_bar=True)


def train(log_dir: Path, epochs: int) -> str:
    """Trains; returns where the event files are."""
    training, validation = load_digits()
    model = Digits()
    params = model.init(jax.random.key(0), jnp.zeros((1, 8, 8, 1)))["params"]
    state = TrainState.create(apply_fn=model.apply, params=params, tx=optax.adam(2e-3))

    events = jaxlog.TensorBoardLogger(str(log_dir), name="digits")
    loop = jaxlog.Loop(events, log_every_n_steps=5)
    step = loop.training_step(train_step, donate_argnums=0)
    evaluate = loop.validation_step(validation_step)
    with loop:
        for epoch in loop.epochs(epochs):
            for batch in loop.train(batches(training, 64, seed=epoch)):
                state = step(state, batch)
            for batch in loop.validate(batches(validation, 120)):
                evaluate(state, batch)
    return events.log_dir


def summary(log_dir: str) -> Iterator[str]:
    """Lines of a table: first, best and last value of every tag."""
    table = jaxlog.read_scalars(log_dir)
    yield f"{'tag':<18}{'points':>8}{'first':>11}{'lowest':>11}{'highest':>11}{'last':>11}"
    for tag, rows in table.groupby("tag", sort=True):
        value = rows["value"]
        numbers = (value.iloc[0], value.min(), value.max(), value.iloc[-1])
        yield f"{tag:<18}{len(rows):>8}" + "".join(f"{number:>11.4g}" for number in numbers)


def main(arguments: Sequence[str] | None = None) -> None:
    """Trains, then prints a table, saves the curves and says where everything is."""
    parser = argparse.ArgumentParser(prog="python -m jaxlog.demo", description=__doc__)
    parser.add_argument("--log-dir", type=Path, default=Path("demo_logs"), help="where to write")
    parser.add_argument("--epochs", type=int, default=10, help="passes over the data")
    options = parser.parse_args(arguments)

    run = train(options.log_dir, options.epochs)
    print("\n".join(["", *summary(run), ""]))
    picture = Path(run) / "curves.png"
    jaxlog.plot_scalars(run, path=str(picture))
    print(f"event files:  {run}")
    print(f"curves:       {picture}")
    print(f"TensorBoard:  tensorboard --logdir {options.log_dir}")


if __name__ == "__main__":
    main()
