"""Progress bars: plain objects with the loop's hooks; they read values that have arrived."""

from jaxlog.progress.rich import RichProgressBar
from jaxlog.progress.tqdm import TqdmProgressBar

__all__ = ["RichProgressBar", "TqdmProgressBar"]
