"""scipy: linear algebra, transforms, statistics, images, and sparse arrays from dense ones."""

from typing import Any

import numpy as np
import pytest

from tests.consumers.conftest import Maker, Pairs
from tests.consumers.libraries import assert_alike, assert_equal, library

linalg = library("scipy.linalg")
fft = library("scipy.fft")
stats = library("scipy.stats")
ndimage = library("scipy.ndimage")
sparse = library("scipy.sparse")

# A square array and a vector of it.
LINALG = {
    **{
        name: lambda m, s, v, name=name: getattr(m, name)(s)
        for name in ["det", "inv", "pinv", "svdvals", "qr", "lu", "lu_factor", "eigvals", "schur", "expm", "norm"]
    },
    "solve": lambda m, s, v: m.solve(s, v),
    "solve several": lambda m, s, v: m.solve(s, s.T),
    "lstsq": lambda m, s, v: m.lstsq(s, v),
    "cholesky": lambda m, s, v: m.cholesky(s @ s.T + 50 * np.eye(len(v))),
    "eigh of what was computed": lambda m, s, v: m.eigh(s + s.T),
    "toeplitz": lambda m, s, v: m.toeplitz(v),
    "block_diag": lambda m, s, v: m.block_diag(s, v),
}
FFT = {
    **{
        name: lambda m, a, name=name: getattr(m, name)(a)
        for name in ["fft", "ifft", "fft2", "fftn", "rfft", "irfft", "rfft2", "dct", "dst", "dctn", "fftshift"]
    },
    "one axis": lambda m, a: m.fft(a, axis=0, n=32, norm="ortho"),
    "two workers": lambda m, a: m.fft2(a, workers=2),
}
STATS = {
    **{
        name: lambda m, a, name=name: getattr(m, name)(a)
        for name in ["describe", "skew", "kurtosis", "zscore", "rankdata", "iqr", "sem", "mode"]
    },
    "gmean": lambda m, a: m.gmean(np.abs(a)),
    "ttest_ind": lambda m, a: tuple(m.ttest_ind(a[:, 0], a[:, 1])),
    "pearsonr": lambda m, a: tuple(m.pearsonr(a[:, 0], a[:, 1])),
    "spearmanr": lambda m, a: tuple(m.spearmanr(a[:, 0], a[:, 1])),
    "kstest": lambda m, a: m.kstest(a[:, 0], "norm").pvalue,
    "linregress": lambda m, a: tuple(m.linregress(a[:, 0], a[:, 1])),
    "gaussian_kde": lambda m, a: m.gaussian_kde(a[:, 0])(a[:5, 1]),
    "fit": lambda m, a: m.norm.fit(a),
    "pdf": lambda m, a: m.norm.pdf(a),
    "binned_statistic": lambda m, a: m.binned_statistic(a[:, 0], a[:, 1])[0],
}
NDIMAGE = {
    **{
        name: lambda m, a, name=name: getattr(m, name)(a, 2)
        for name in ["gaussian_filter", "uniform_filter", "median_filter", "zoom"]
    },
    "sobel": lambda m, a: m.sobel(a),
    "rotate": lambda m, a: m.rotate(a, 30),
    "convolve": lambda m, a: m.convolve(a, a[:3, :3]),
    "map_coordinates": lambda m, a: m.map_coordinates(a, np.abs(a[:2]) * 5),
    "label": lambda m, a: m.label(a > 0),
    "label a hosted array": lambda m, a: m.label(a),
    "sum where": lambda m, a: m.sum(a, a > 0),
    "maximum_position": lambda m, a: m.maximum_position(a),
    "distance_transform": lambda m, a: m.distance_transform_edt(a),
    "a Python function": lambda m, a: m.generic_filter(a[:9, :9], np.max, 3),
}
SPARSE = {
    **{
        name: lambda m, a, name=name: getattr(m, name)(a)
        for name in ["csr_array", "csc_array", "coo_array", "csr_matrix", "dia_array"]
    },
    "product": lambda m, a: m.csr_array(a) @ a.T,
    "product from the left": lambda m, a: a.T @ m.csr_array(a),
    "times a vector": lambda m, a: m.csr_array(a) @ a[0],
    "a matrix times a vector": lambda m, a: m.csr_matrix(a) * a[0],
    "multiply": lambda m, a: m.csr_array(a).multiply(a),
    "sum": lambda m, a: np.asarray(m.csr_array(a) + a),
    "sum from the left": lambda m, a: np.asarray(a + m.csr_array(a)),
    "hosted data": lambda m, a: m.coo_array((a[0], (np.arange(a.shape[1]), np.arange(a.shape[1])))),
    "diagonal": lambda m, a: m.diags_array(a[0]),
}


@pytest.mark.parametrize("name", LINALG)
def test_linalg(linalg: Any, matrices: Pairs, name: str) -> None:
    def call(a: Any) -> Any:
        n = min(a.shape)
        return LINALG[name](linalg, a[:n, :n], a[:n, 1])

    assert_alike(call, matrices, rtol=1e-9)


@pytest.mark.parametrize("name", FFT)
def test_fft(fft: Any, matrices: Pairs, name: str) -> None:
    assert_alike(lambda a: FFT[name](fft, a), matrices, rtol=1e-12)


@pytest.mark.parametrize("name", STATS)
def test_stats(stats: Any, matrices: Pairs, name: str) -> None:
    assert_alike(lambda a: STATS[name](stats, a), matrices, rtol=1e-12)


@pytest.mark.parametrize("name", NDIMAGE)
def test_ndimage(ndimage: Any, matrices: Pairs, name: str) -> None:
    assert_alike(lambda a: NDIMAGE[name](ndimage, a), matrices)


@pytest.mark.parametrize("name", SPARSE)
def test_sparse_from_dense(sparse: Any, matrices: Pairs, name: str) -> None:
    assert_alike(lambda a: SPARSE[name](sparse, a), matrices)


@pytest.mark.census_ignore("memfd:arrayhost:locks", reason="a lock file is opened when first used, and kept")
def test_output_into_the_array_needs_a_section(ndimage: Any, hosted: Maker) -> None:
    values = np.random.default_rng(1).normal(size=(20, 20))
    a = hosted(values)
    with pytest.raises(ValueError, match="read-only"):
        ndimage.gaussian_filter(values, 1, output=a)
    with a.write() as x:
        ndimage.gaussian_filter(values, 1, output=x)
    assert_equal(a.copy(), ndimage.gaussian_filter(values, 1))


def test_what_may_be_overwritten_is_not_when_it_is_hosted(fft: Any, linalg: Any, hosted: Maker) -> None:
    values = np.random.default_rng(2).normal(size=(20, 20)) + 0j
    a = hosted(values)
    assert_equal(linalg.inv(a, overwrite_a=True), linalg.inv(values), rtol=1e-9)
    with pytest.raises(ValueError, match="not writeable"):  # as for any read-only ndarray
        fft.fft(a, overwrite_x=True)
    assert_equal(a.copy(), values)
