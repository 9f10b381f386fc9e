"""Logging from anywhere in a traced program, and the transform that makes the logs a result.

The concept
-----------
`jaxlog.log` adds a *log equation* to the program that JAX is tracing. The equation has no results;
an effect keeps JAX from dropping it. It passes through `jit`, `grad`, `vmap`, `scan`, `checkpoint`,
`shard_map` and every other transform like an equation of JAX itself, so a value is counted as often
as the program computes it.

`jaxlog.capture` traces a function into a program with log equations and builds from it a program
without them, which returns what was logged as a further result. What is logged under one name in
one step is folded into its *state*: a few numbers (a sum and a count, a minimum, ...) or a metric.
States form a monoid: `merge` is associative and `neutral` changes nothing. So every construct of
control flow has an obvious meaning: a loop carries a state, a branch that does not log returns the
neutral one, shards are merged.

The way of one value
--------------------
::

    def step(x):
        def body(total, v):
            jaxlog.log("v", v)
            return total + v, None
        total, _ = lax.scan(body, 0.0, x)
        return jnp.sin(total)

is traced into this program (jax 0.10; the parameter `call` of `log`, name and options, is cut)::

    { lambda ; a:f32[4]. let
        b:f32[] = scan[
          jaxpr={ lambda ; c:f32[] d:f32[]. let
              e:f32[] = reshape[dimensions=None new_sizes=() sharding=None] d
              log[call=LogCall(name='v', ...)] e
              f:f32[] = convert_element_type[new_dtype=float32 weak_type=False] c
              g:f32[] = add f d
            in (g,) }
          length=4
          num_carry=1
          ...
        ] 0.0:f32[] a
        i:f32[] = sin b
      in (i,) }

The walk over it (`sites.py`) finds that "v" is logged several times in a step. So its state is a
`total` and a count of `units`, which the rule of `scan` adds to the carry::

    { lambda ; a:f32[4]. let
        b:f32[] c:f32[] d:i32[] = scan[
          jaxpr={ lambda ; e:f32[] f:f32[] g:i32[] h:f32[]. let
              i:f32[] = reshape[dimensions=None new_sizes=() sharding=None] h
              j:f32[] = convert_element_type[new_dtype=float32 weak_type=False] e
              k:f32[] = add j h
              l:f32[] = add f i
              m:i32[] = add g 1:i32[]
            in (k, l, m) }
          length=4
          num_carry=3
          ...
        ] 0.0:f32[] 0.0:f32[] 0:i32[] a
        o:f32[] = sin b
      in (c, d, o) }

`Captured.__call__` pushes the state `(c, d)` into the `Logs`; a `Loop` into a `Recording`.

The rules
---------
Equations without logs, at any depth, are copied into the new program as they are, with their lines
and names. An equation with logs inside is rebuilt by the `Rule` of its primitive. A rule says which
programs are inside, whether they repeat, whether they may not run, on which shards they run, and
how the equation is built again. The walk and the interpreter read the same rule, so a primitive is
added by one `register` in `rules.py`. Without a rule, a log inside it is a `CaptureError`.

Sharp edges
-----------
- Under `vmap`, a `cond` with a batched predicate logs both branches for every lane, because JAX
  turns it into a select. A batched `while_loop` logs in all lanes until the last one is done.
- `jax.linearize` of a `while_loop` logs twice, because JAX runs the loop twice.
- In a `scan` under `grad`, JAX drops a `cond` without results whose predicate is the same in every
  iteration. Capture warns; log with `mask=` in place of the branch.
- What is only traced is not logged: `jax.eval_shape`, or the primal of a custom derivative under
  `grad`. Capture warns if the name is logged nowhere else.
- A captured function can be differentiated from outside only where no `custom_jvp` or `custom_vjp`
  function logs: its primal would be differentiated in place of its rule. Capture the gradient.
- A tangent cannot be logged in reverse mode, because reverse mode never computes it.
- The condition of a `while_loop` cannot log, because it returns nothing but its result.
- In a checked `shard_map`, JAX types a Python constant such as `x.size` as equal on all shards. It
  counts once a shard under `sync_dist`, because each shard means its own.
- A lazy log (`log(name, thunk)`) becomes a `cond` only in capture. As a `cond` from the start, JAX
  would drop it where it knows the predicate before the value.
- The log effect derives from that of `jax.debug.callback`, the only kind that JAX keeps through
  partial evaluation, control flow, `checkpoint` and custom derivatives at once.
- The first logs must be strongly typed and placed like the results, or the step compiles twice.
- Without `jax.jit` around it, a captured function is traced anew at every call.

Read in this order
------------------
::

    log.py          what user code calls; context.py: the hook, and whether anything is captured
    primitive.py    the log equation under JAX's transforms
    lazy.py         the same for values that are computed only at steps that are written
    gradient.py     the norm of a cotangent, logged by the backward pass
    capture.py      the two halves of a captured function: trace, run
    programs.py     the programs inside an equation; which equations log
    rule.py         what has to be known of a primitive; rules.py: the rules
    sites.py        trace: the walk that finds the schema; reduced.py: sums that are summed already
    interpreter.py  run: the program without log equations; shards.py: which shards contribute
    placement.py    the devices of the first logs
    libraries.py    what other libraries need while a function is captured; see jaxlog.interop

The functions `capture` and `log` are `jaxlog.capture` and `jaxlog.log`. They are not names of this
package, where `capture` and `log` are the modules.
"""

from jaxlog.tracing import rules as rules  # registers the rules
from jaxlog.tracing.capture import Captured, SchemaMismatchError
from jaxlog.tracing.context import hook, is_captured, silent
from jaxlog.tracing.gradient import log_gradient
from jaxlog.tracing.libraries import Call, Library, transform_for
from jaxlog.tracing.log import log_dict
from jaxlog.tracing.placement import place_recording, placement_of
from jaxlog.tracing.rule import RULES, Results, Rule, register

__all__ = [
    "RULES",
    "Call",
    "Captured",
    "Library",
    "Results",
    "Rule",
    "SchemaMismatchError",
    "hook",
    "is_captured",
    "log_dict",
    "log_gradient",
    "place_recording",
    "placement_of",
    "register",
    "silent",
    "transform_for",
]
