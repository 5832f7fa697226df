"""matplotlib: the same pixels, whoever owns the array."""

from collections.abc import Callable
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from tests.consumers.conftest import Pairs
from tests.consumers.libraries import assert_alike, library


def _open_fonts(pyplot: ModuleType) -> None:
    pyplot.switch_backend("agg")
    pixels(pyplot, lambda ax, a: ax.plot(a), [0, 1])


pyplot = library("matplotlib.pyplot", _open_fonts)

PICTURES: dict[str, Callable[[Any, Any], object]] = {
    "plot": lambda ax, a: ax.plot(a[0], a[1]),
    "plot columns": lambda ax, a: ax.plot(a),
    "plot by names": lambda ax, a: ax.plot("p", "q", data={"p": a[0], "q": a[1]}),
    "imshow": lambda ax, a: ax.imshow(a),
    "imshow in colours": lambda ax, a: ax.imshow(np.clip(np.abs(a[:20, :18]), 0, 1).reshape(20, 6, 3)),
    "scatter": lambda ax, a: ax.scatter(a[0], a[1], c=a[2], s=np.abs(a[3]) * 20),
    "hist": lambda ax, a: ax.hist(a[0]),
    "hist of columns": lambda ax, a: ax.hist(a[:, :3]),
    "boxplot of columns": lambda ax, a: ax.boxplot(a[:, :4]),
    "violinplot of columns": lambda ax, a: ax.violinplot(a[:, :4]),
    "contourf": lambda ax, a: ax.contourf(a),
    "pcolormesh": lambda ax, a: ax.pcolormesh(a),
    "fill_between": lambda ax, a: ax.fill_between(np.arange(a.shape[1]), a[0], a[1]),
    "errorbar": lambda ax, a: ax.errorbar(np.arange(a.shape[1]), a[0], yerr=np.abs(a[1])),
    "bar": lambda ax, a: ax.bar(np.arange(a.shape[1]), a[0]),
    "quiver": lambda ax, a: ax.quiver(a[:5, :5], a[5:10, :5]),
    "limits": lambda ax, a: ax.set_xlim(a[0, :2]),
}


def pixels(pyplot: Any, draw: Callable[[Any, Any], object], a: Any) -> np.ndarray:
    figure, axes = pyplot.subplots(figsize=(2, 1.5), dpi=50)
    try:
        draw(axes, a)
        figure.canvas.draw()
        return np.array(figure.canvas.buffer_rgba())
    finally:
        pyplot.close(figure)


@pytest.mark.parametrize("name", PICTURES)
def test_pixels(pyplot: Any, matrices: Pairs, name: str) -> None:
    picture = pixels(pyplot, PICTURES[name], matrices["whole"].plain)
    assert len(np.unique(picture)) > 2  # something was drawn
    assert_alike(lambda a: pixels(pyplot, PICTURES[name], a), matrices)
