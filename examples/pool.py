"""multiprocessing.Pool on a hosted array: python examples/pool.py"""

from multiprocessing import Pool

import numpy as np

from arrayhost import ArrayManager


def total(part):
    return part.sum()  # read in place: the task was sent a handle, not the elements


def standardise(part, mean, deviation):
    with part.write() as x:  # exclusive, in place; views of one array share its lock
        x -= mean
        x /= deviation


def main():
    with ArrayManager() as manager, Pool(2) as pool:
        a = manager.array(np.random.default_rng(0).normal(5.0, 2.0, size=(100_000, 10)))
        parts = a.blocks(8)  # eight hosted views

        totals = pool.map(total, parts)
        print("totals of 8 parts, and of the whole:", round(sum(totals)), round(a.sum()))

        mean, deviation = a.mean(), a.std()
        pool.starmap(standardise, [(part, mean, deviation) for part in parts])
        print(f"mean {abs(a.mean()):.3f}, standard deviation {a.std():.3f}")


if __name__ == "__main__":
    main()
