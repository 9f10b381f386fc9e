"""Processes that do not log the same: `python -m <this module> PROCESS PROCESSES PORT`."""

from __future__ import annotations

import sys

import jax
import jax.numpy as jnp

import jaxlog


def step(x: jax.Array) -> None:
    jaxlog.log("loss", x.mean())
    if jax.process_index() == 1:
        jaxlog.log("extra", x.max())


if __name__ == "__main__":
    process, processes, port = sys.argv[1:]
    jax.config.update("jax_platforms", "cpu")
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    jax.distributed.initialize(f"127.0.0.1:{port}", int(processes), int(process))
    loop = jaxlog.Loop(False, progress_bar=False)
    train_step = loop.training_step(step)
    try:
        with loop:
            for batch in loop.train([jnp.ones(2)]):
                train_step(batch)
    except jaxlog.SchemaError as error:
        sys.stdout.write(str(error))
        sys.exit(3)
