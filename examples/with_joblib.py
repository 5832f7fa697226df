"""joblib.Parallel on hosted arrays, written to by its workers: python examples/with_joblib.py"""

import os

import numpy as np
from joblib import Parallel, delayed

from arrayhost import ArrayManager


def fill(block, seed):
    """Estimate pi, once for each element of a block."""
    points = np.random.default_rng(seed).random((len(block), 10_000, 2))
    block[...] = 4 * (np.hypot(points[..., 0], points[..., 1]) < 1).mean(axis=1)
    return os.getpid()


def main():
    with ArrayManager() as manager:
        estimates = manager.zeros(32)
        # joblib's own sharing of arrays is read-only; a hosted view is written to where it is.
        workers = Parallel(n_jobs=2)(delayed(fill)(block, seed) for seed, block in enumerate(estimates.blocks(8)))
        print("other processes wrote:", os.getpid() not in workers, "all of it:", bool((estimates > 0).all()))
        print(f"pi is about {estimates.mean():.2f}")


if __name__ == "__main__":
    main()
