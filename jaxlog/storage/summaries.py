"""`Summary`: histograms, images, text and audio for event files.

The functions here check and copy their arguments on the caller's thread, and return a `build`
function for the writer's thread, which makes the protobuf message. Only `build` imports
tensorboardX: that takes 0.14 to 0.49 s, and most runs do not need it.
"""

from __future__ import annotations

import importlib.util
import io
import wave
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from jaxlog.errors import LoggerError
from jaxlog.storage.records import summary_record

__all__ = ["Summary", "audio", "bucket_counts", "histogram", "image", "text"]

_CHANNELS = (1, 3, 4)
_LAYOUTS = {2: "HW", 3: "HWC", 4: "NHWC"}


@dataclass(frozen=True, slots=True)
class Summary:
    """One value of one tag at one step.

    Attributes:
        tag: its name.
        step: at least 0.
        wall_time: seconds since the epoch.
        build: returns the `tensorboardX.proto` message `Summary` with one value. `record` sets the
            tag.

    Example:
        >>> summary = Summary("note", 3, 0.0, text("note", "the first run"))
        >>> b"the first run" in summary.record()
        True
    """

    tag: str
    step: int
    wall_time: float
    build: Callable[[], Any]

    def record(self) -> bytes:
        """The record for an event file."""
        message = self.build()
        for value in message.value:
            value.tag = self.tag  # tensorboardX replaces characters that TensorBoard accepts
        return summary_record(message.SerializeToString(), self.step, self.wall_time)


def histogram(tag: str, values: npt.ArrayLike, bins: int | str = 64) -> Callable[[], Any]:
    """A histogram of the finite values, by `np.histogram`.

    Raises:
        LoggerError: values that are not real numbers, or bins that numpy rejects.
    """
    array = _array("log_histogram", tag, values, "biuf").ravel().astype(np.float64)
    try:
        np.histogram([0.0, 1.0], bins)
    except (TypeError, ValueError) as error:
        raise LoggerError(f"log_histogram({tag!r}): bins={bins!r}: {error}") from error

    def build() -> Any:
        finite = array[np.isfinite(array)]
        counts, edges = _counted(finite, bins)
        low, high = (finite.min(), finite.max()) if finite.size else (0.0, 0.0)
        return _histogram(
            low=low,
            high=high,
            total=finite.sum(),
            squares=np.square(finite).sum(),
            limits=edges[1:],
            counts=counts,
        )

    return build


def _counted(finite: np.ndarray, bins: Any) -> tuple[np.ndarray, np.ndarray]:
    if not finite.size:
        return np.zeros(1), np.arange(2.0)
    one = np.array([finite.size]), np.array([finite.min(), finite.max()])
    # With too few float64 numbers between the values for so many bins, a new numpy raises
    # ValueError; numpy 2.0 divides by a width of 0, and raises IndexError or loses the values.
    try:
        with np.errstate(divide="ignore", invalid="ignore"):
            counts, edges = np.histogram(finite, bins)
    except (IndexError, ValueError):
        return one
    covers_all = isinstance(bins, (int, str))
    return one if covers_all and counts.sum() != finite.size else (counts, edges)


def bucket_counts(tag: str, counts: npt.ArrayLike, edges: npt.ArrayLike) -> Callable[[], Any]:
    """A histogram from counts: below the first edge, between edges, above the last.

    Raises:
        LoggerError: edges that do not increase, or not one count more than edges.
    """
    ends = _array("log_histogram", tag, edges, "biuf").ravel().astype(np.float64)
    numbers = _array("log_histogram", tag, counts, "biuf").ravel().astype(np.float64)
    if not ends.size or not (np.diff(ends) > 0).all() or not np.isfinite(ends).all():
        raise LoggerError(f"log_histogram({tag!r}): edges must be finite numbers that increase")
    if numbers.size != ends.size + 1:
        raise LoggerError(
            f"log_histogram({tag!r}): {numbers.size} counts for {ends.size} edges; there is one "
            f"count more than edges: below the first, between them, above the last"
        )

    def build() -> Any:
        # The outer buckets are unbounded; draw them as wide as their neighbours.
        widths = np.diff(ends) if ends.size > 1 else np.ones(1)
        limits = np.concatenate([[ends[0] - widths[0]], ends, [ends[-1] + widths[-1]]])
        there = np.flatnonzero(numbers)
        low, high = (limits[there[0]], limits[there[-1] + 1]) if there.size else (0.0, 0.0)
        middles = (limits[:-1] + limits[1:]) / 2
        return _histogram(
            low=low,
            high=high,
            total=(numbers * middles).sum(),
            squares=(numbers * middles**2).sum(),
            limits=limits[1:],
            counts=numbers,
        )

    return build


def _histogram(*, low: Any, high: Any, total: Any, squares: Any, limits: Any, counts: Any) -> Any:
    from tensorboardX.summary import histogram_raw  # noqa: PLC0415  see above

    return histogram_raw(
        name="",
        min=float(low),
        max=float(high),
        num=float(np.sum(counts)),
        sum=float(total),
        sum_squares=float(squares),
        bucket_limits=np.asarray(limits).tolist(),
        bucket_counts=np.asarray(counts, np.float64).tolist(),
    )


def image(tag: str, pixels: npt.ArrayLike, dataformats: str | None = None) -> Callable[[], Any]:
    """A picture, or a batch of them as a grid.

    Raises:
        LoggerError: a shape or dtype that does not fit, or pillow is not installed.
    """
    array = _array("log_image", tag, pixels, "buf")
    layout = dataformats or _LAYOUTS.get(array.ndim, "")
    if sorted(layout) not in [sorted(known) for known in _LAYOUTS.values()]:
        raise LoggerError(
            f"log_image({tag!r}): dataformats={dataformats!r} for shape {array.shape}; it is an "
            f"order of HW, HWC or NHWC"
        )
    if len(layout) != array.ndim or ("C" in layout and _size(array, layout, "C") not in _CHANNELS):
        raise LoggerError(
            f"log_image({tag!r}): shape {array.shape} is not {layout} with 1, 3 or 4 channels; "
            f"say in which order the axes stand, such as dataformats='CHW'"
        )
    if array.dtype.kind == "u" and array.dtype != np.uint8:
        raise LoggerError(
            f"log_image({tag!r}): {array.dtype} has no known range; write uint8 from 0 to 255, or "
            f"floats from 0 to 1"
        )
    if importlib.util.find_spec("PIL") is None:
        raise LoggerError('log_image needs pillow; pip install "jaxlog[images]"')
    if array.dtype != np.uint8:
        unit = np.nan_to_num(array.astype(np.float32), nan=0.0)
        array = (np.clip(unit, 0.0, 1.0) * 255.0).round().astype(np.uint8)

    def build() -> Any:
        from tensorboardX import summary  # noqa: PLC0415

        return summary.image("image", array, dataformats=layout)

    return build


def text(tag: str, content: str) -> Callable[[], Any]:
    """Text, which TensorBoard shows as Markdown.

    Raises:
        LoggerError: it is not a string.
    """
    if not isinstance(content, str):
        kind = type(content).__name__
        raise LoggerError(f"log_text({tag!r}): text is a str, but got {kind}; write str(...)")

    def build() -> Any:
        from tensorboardX import summary  # noqa: PLC0415

        return summary.text("text", content.encode("utf-8", "backslashreplace").decode())

    return build


def audio(tag: str, samples: npt.ArrayLike, sample_rate: int) -> Callable[[], Any]:
    """Sound, as 16-bit WAV.

    Raises:
        LoggerError: a shape or dtype that does not fit, or a rate that is not positive.
    """
    array = _array("log_audio", tag, samples, "f")
    frames = array[:, None] if array.ndim == 1 else array
    if frames.ndim != 2 or frames.shape[1] not in (1, 2):
        raise LoggerError(
            f"log_audio({tag!r}): shape {array.shape}; write [frames] or [frames, channels] with "
            f"1 or 2 channels"
        )
    if not int(sample_rate) > 0:
        raise LoggerError(f"log_audio({tag!r}): sample_rate is frames a second, got {sample_rate}")

    def build() -> Any:
        from tensorboardX.proto import summary_pb2  # noqa: PLC0415

        messages: Any = summary_pb2  # Any: protobuf makes the classes at import
        clipped = np.clip(np.nan_to_num(frames), -1.0, 1.0)
        content = _wav((clipped * 32767).round().astype("<i2"), int(sample_rate))
        sound = messages.Summary.Audio(
            sample_rate=float(sample_rate),
            num_channels=frames.shape[1],
            length_frames=len(frames),
            encoded_audio_string=content,
            content_type="audio/wav",
        )
        return messages.Summary(value=[messages.Summary.Value(audio=sound)])

    return build


def _wav(frames: np.ndarray, rate: int) -> bytes:
    file = io.BytesIO()
    with wave.open(file, "wb") as out:
        out.setnchannels(frames.shape[1])
        out.setsampwidth(2)
        out.setframerate(rate)
        out.writeframes(frames.tobytes())
    return file.getvalue()


def _size(array: np.ndarray, layout: str, axis: str) -> int:
    return array.shape[layout.index(axis)]


def _array(method: str, tag: str, value: Any, kinds: str) -> np.ndarray:
    """A copy as a numpy array, because the caller may change its array before it is written."""
    array = np.array(value)
    # The float types of ml_dtypes have kind "V" and numpy's functions do not take them.
    if array.dtype.kind == "V" or array.dtype.name == "bfloat16":
        array = array.astype(np.float32)
    if array.dtype.kind not in kinds:
        raise LoggerError(
            f"{method}({tag!r}): needs numbers of a kind that fits, but got {array.dtype} of shape "
            f"{array.shape}"
        )
    return array
