"""DEVICE: a user's step function captured and compiled, its recording threaded out of sight.

A `Stage` (training, validation, test) holds what outlives a phase: the step functions, the keys
they log and the window being filled. A step function is called by the user as before; it registers
the call with its stage, passes its recording as a donated argument, and hands what it recorded to
the stage as a `Segment` when a window is taken. Steps know their stage; the stage knows steps by
the protocol `Step` only.

Read the files in this order: `stage.py`, `compiled_step.py` (jit, pmap, lanes), `scan_step.py`
(many steps in one program), `shifted_arguments.py` (what jit is told of the user's arguments),
`gather.py` and `agreement.py` (several processes), `batch_size.py`.
"""

from jaxlog.steps.compiled_step import CompiledStep
from jaxlog.steps.decorator import STEP_HOOKS, StepDecorator
from jaxlog.steps.scan_step import ScanStep
from jaxlog.steps.stage import Stage, Step

__all__ = ["STEP_HOOKS", "CompiledStep", "ScanStep", "Stage", "Step", "StepDecorator"]
