"""A picture of an array: lines for one axis, an image for two, a histogram for everything else."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from arrayhost.cli.options import Failure, missing_extra

if TYPE_CHECKING:
    from pathlib import Path

    import numpy.typing as npt

    from arrayhost.client.array import HostedArray

__all__ = ["plot"]

_MOST_POINTS = 20_000
_MOST_PIXELS = 2_000
_NUMBERS = "biuf"


def plot(array: HostedArray, title: str, path: Path) -> None:
    """Write a picture of an array to a file.

    Of large arrays every so many elements are shown.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ModuleNotFoundError as error:
        raise missing_extra("--plot", "matplotlib", "plot") from error
    figure = Figure(figsize=(8, 5), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    axes.set_title(title)
    _draw(figure, axes, array)
    try:
        figure.savefig(path)
    except ValueError as error:
        raise Failure(f"{path}: {error}") from error


def _draw(figure: Any, axes: Any, array: HostedArray) -> None:
    names = array.dtype.names
    if names is not None and array.ndim == 1:
        shown = [name for name in names if array.dtype[name].kind in _NUMBERS]
        step = _step(len(array), _MOST_POINTS)
        values = array[::step].copy()
        for name in shown:
            axes.plot(np.arange(len(values)) * step, values[name], label=name)
        if shown:
            axes.legend()
            return
    elif array.dtype.kind in _NUMBERS and array.size:
        if array.ndim == 1:
            step = _step(len(array), _MOST_POINTS)
            axes.plot(np.arange(0, len(array), step), array[::step].copy())
        elif array.ndim == 2 or _is_picture(array):
            rows, columns = (_step(n, _MOST_PIXELS) for n in array.shape[:2])
            image = axes.imshow(array[::rows, ::columns].copy(), aspect="auto" if array.ndim == 2 else "equal")
            if array.ndim == 2:
                figure.colorbar(image)
        else:
            axes.hist(_sample(array), bins=50)
        return
    raise Failure(f"there is nothing to draw in {array.dtype} of shape {array.shape}; arrays of numbers can be plotted")


def _step(n: int, most: int) -> int:
    return max(-(-n // most), 1)


def _is_picture(array: HostedArray) -> bool:
    return array.ndim == 3 and array.shape[2] in (3, 4) and array.dtype == np.uint8


def _sample(array: HostedArray) -> npt.NDArray[Any]:
    step = _step(array.shape[0], max(_MOST_POINTS * 50 * array.shape[0] // array.size, 1))
    sample: npt.NDArray[Any] = array[::step].copy().reshape(-1)
    finite: npt.NDArray[Any] = sample[np.isfinite(sample)]
    return finite
