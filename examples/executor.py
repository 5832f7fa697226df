"""concurrent.futures.ProcessPoolExecutor on hosted arrays, under spawn: python examples/executor.py"""

import multiprocessing
from concurrent.futures import ProcessPoolExecutor, as_completed

import numpy as np

from arrayhost import ArrayManager


def smooth(image, rows, result):
    """Average each pixel of some rows with its two neighbours above and below."""
    top, bottom = rows
    above = np.maximum(np.arange(top, bottom) - 1, 0)
    below = np.minimum(np.arange(top, bottom) + 1, len(image) - 1)
    # Read from one hosted array, written to another: the assignment is one atomic write.
    result[top:bottom] = (image[above] + image[top:bottom] + image[below]) / 3
    return top, bottom


def main():
    context = multiprocessing.get_context("spawn")  # its processes start with nothing but what they are sent
    with ArrayManager(ctx=context) as manager, ProcessPoolExecutor(2, mp_context=context) as executor:
        image = manager.array(np.random.default_rng(0).integers(0, 256, size=(400, 300)).astype(float))
        result = manager.empty(image.shape)
        futures = [executor.submit(smooth, image, (top, top + 100), result) for top in range(0, 400, 100)]
        print("rows done:", sorted(future.result() for future in as_completed(futures)))
        print(f"roughness before {np.abs(np.diff(image, axis=0)).mean():.2f}", end=", ")
        print(f"after {np.abs(np.diff(result, axis=0)).mean():.2f}")


if __name__ == "__main__":
    main()
