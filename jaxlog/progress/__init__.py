"""Progress bars: objects with the loop's hooks, which show values that are already on the host.

`epoch_bars.py` maps hooks to bars, `bar.py` is the interface of one bar, and `tqdm.py` and
`rich.py` draw it.
"""

from jaxlog.progress.rich import RichProgressBar
from jaxlog.progress.tqdm import TqdmProgressBar

__all__ = ["RichProgressBar", "TqdmProgressBar"]
