"""Cases of the functions in NumPy's main namespace. A row: a function, and its calls."""

import io
from collections.abc import Callable
from typing import Any

import numpy as np

from tests.conformance.cases import (
    BYTES,
    DAYS,
    NONE,
    PACKED,
    RECORD,
    SPANS,
    TEXT,
    ZERO,
    B,
    C,
    F,
    G,
    I,
    J,
    K,
    L,
    P,
    S,
    T,
    U,
    V,
    W,
    X,
    c,
    via,
    zeros,
)

Rows = dict[Callable[..., Any], list[Callable[..., Any]]]


def spread(row: Any) -> Any:
    return row.max() - row.min()


def tail(row: Any) -> Any:
    return row[1:] * 2


def root_sum(array: Any, axis: int) -> Any:
    return np.sum(np.abs(array), axis)


def add_indices(i: Any, j: Any) -> Any:
    return i * 10 + j


def saved(array: Any) -> bytes:
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def saved_text(array: Any) -> bytes:
    file = io.BytesIO()
    np.savetxt(file, array, fmt="%.3f")
    return file.getvalue()


def saved_archive(save: Callable[..., Any]) -> Callable[..., Any]:
    def names_and_arrays(**arrays: Any) -> Any:
        file = io.BytesIO()
        save(file, **arrays)
        file.seek(0)
        with np.load(file) as archive:
            return [(name, archive[name]) for name in archive]

    return names_and_arrays


def from_file(like: Any) -> Any:
    return np.fromfile(__file__, "u1", 4, like=like)


def from_text_file(load: Callable[..., Any]) -> Callable[..., Any]:
    def loaded(like: Any) -> Any:
        return load(io.StringIO("1 2\n3 4\n"), like=like)

    return loaded


def by_conversion(function: Callable[..., Any]) -> Callable[..., Any]:
    """These do not ask the array what to do, they ask for an ndarray: live memory, whose flags are another matter."""

    def converted(array: Any, *args: Any, **kwargs: Any) -> Any:
        return function(array, *args, **kwargs).copy()

    return converted


CREATION: Rows = {
    np.arange: [c(3, like=F), c(1, 7, 2, dtype="f4", like=F), c(0, 5, 0, like=F)],
    np.array: [
        c([1, 2], like=F),
        via(by_conversion(np.array), F),
        via(by_conversion(np.array), I, dtype="f4", ndmin=3),
        via(by_conversion(np.array), [V, U]),
        via(by_conversion(np.array), [[V], [U]], dtype=complex),
        via(by_conversion(np.array), F, dtype="M8[D]"),
    ],
    np.asarray: [
        c([1, 2], like=F),
        via(by_conversion(np.asarray), F),
        via(by_conversion(np.asarray), [I, J], "f4"),
        via(by_conversion(np.asarray), L, order="C"),
    ],
    np.asanyarray: [c([1, 2], like=F), via(by_conversion(np.asanyarray), C)],
    np.ascontiguousarray: [c([1, 2], like=F), via(by_conversion(np.ascontiguousarray), L)],
    np.asfortranarray: [c([1, 2], like=F), via(by_conversion(np.asfortranarray), K)],
    np.require: [c([1, 2], "f8", "C", like=F), via(by_conversion(np.require), K, "f4", ["F", "O"])],
    np.empty: [c((0, 2), like=F)],
    np.eye: [c(3, like=F), c(2, 3, 1, dtype=bool, like=F)],
    np.identity: [c(3, like=F)],
    np.tri: [c(3, 4, -1, like=F)],
    np.full: [c((2, 2), 7, like=F), c(2, [1, 2], "f4", like=F)],
    np.ones: [c((2, 3), like=F), c(-1, like=F)],
    np.zeros: [c((2, 3), "c8", "F", like=F)],
    np.fromfunction: [c(add_indices, (2, 3), like=F)],
    np.fromiter: [c(range(4), float, like=F)],
    np.frombuffer: [c(b"abcdefgh", "u2", like=F)],
    np.fromstring: [c("1 2 3", sep=" ", like=F)],
    np.fromfile: [via(from_file, F)],
    np.loadtxt: [via(from_text_file(np.loadtxt), F)],
    np.genfromtxt: [via(from_text_file(np.genfromtxt), F)],
    np.linspace: [c(V, U, 5), c(0, U, 3, axis=1), c(V, 1, 4, endpoint=False, retstep=True), c(V, U, -1)],
    np.logspace: [c(V, U, 3), c(0, 2, 4, base=U, axis=-1)],
    np.geomspace: [c(U, 16, 3), c(V, U, 3)],
    np.empty_like: [via(lambda a: np.empty_like(a).dtype, F), c(NONE), c(NONE, "f4", shape=(2, 0))],
    np.ones_like: [c(F), c(L), c(I, "f4", "C", shape=(2,)), c(F, subok=False)],
    np.zeros_like: [c(F), c(L), c(RECORD), c(TEXT)],
    np.full_like: [c(F, 7), c(I, 2.5), c(I, V), c(L, ZERO, order="A"), c(F, "x")],
    np.copy: [c(F), c(L), c(L, "C"), c(TEXT), c(X, order="F")],
    np.astype: [c(F, int), c(I, "c8", copy=False), c(F, float, copy=False), c(X, "i4")],
    np.meshgrid: [c(V, W), c(V, W, indexing="ij"), c(V, W, copy=False, sparse=True), c(V, copy=False), c(V, bad=1)],
    np.ix_: [c(W, P), c([0, 1], W), c(F)],
    np.diag: [c(V), c(V, 1), c(F), c(F, k=-1), c(K)],
    np.diagflat: [c(F), c([V, U], 1)],
    np.vander: [c(V), c(V, 3, increasing=True), c(F)],
    np.tril: [c(F), c(K, k=1), c(I, -1)],
    np.triu: [c(F), c(K, k=1), c(V)],
    np.diag_indices_from: [c(S), c(F), c(V)],
    np.tril_indices_from: [c(S), c(F, k=1), c(V)],
    np.triu_indices_from: [c(S), c(F, k=-1), c(K)],
}

SHAPING: Rows = {
    np.append: [c(F, G), c(F, G, axis=0), c(V, 5), c(F, V, axis=1)],
    np.array_split: [c(F, 3), c(V, 3), c(F, [1, 3], axis=1), c(F, 0)],
    np.atleast_1d: [c(ZERO), c(F), c(ZERO, V, 1.5)],
    np.atleast_2d: [c(ZERO), c(V), c(V, F)],
    np.atleast_3d: [c(ZERO), c(V), c(F), c(K, V)],
    np.block: [c([[F, G], [I, J]]), c([V, U]), c([[F], [V, U]]), c(F)],
    np.broadcast_arrays: [c(F, V), c(ZERO, F), c(F, K), c(F, 1)],
    np.broadcast_to: [c(V, (3, 4)), c(ZERO, (2, 2)), c(F, (2, 3, 4)), c(F, (2, 2))],
    np.column_stack: [c([V, U, W]), c((F, G)), c([F, V])],
    np.concatenate: [
        c([F, G]), c((F, I), 1), c([F, G], axis=None), c((I, J), dtype="f4"), c([F, G], out=zeros(6, 4)),
        c([F, G], 0, zeros(6, 4)), c([F, V]), c([F, X], casting="no", dtype="f4"), c([TEXT, TEXT]), c([]),
    ],
    np.delete: [c(F, 1), c(F, [0, 2], 1), c(F, W, 1), c(F, slice(1), 0), c(F, 9, 0), c(V, P)],
    np.dsplit: [c(K, 2), c(F, 2), c(K, 3)],
    np.dstack: [c([F, G]), c([V, U]), c([F, V])],
    np.expand_dims: [c(F, 0), c(F, (0, 3)), c(F, 5)],
    np.flip: [c(F), c(K, 1), c(K, (0, 2)), c(F, 2)],
    np.fliplr: [c(F), c(V)],
    np.flipud: [c(F), c(V)],
    np.hsplit: [c(F, 2), c(V, 2), c(F, [1]), c(F, 3)],
    np.hstack: [c([F, G]), c([V, U]), c((F, I), dtype="f4", casting="same_kind"), c([F, V])],
    np.insert: [c(F, 1, 5), c(F, 1, V, 0), c(V, W, U), c(F, [1, 2], G[:, :2], 1), c(F, 9, 1)],
    np.matrix_transpose: [c(F), c(K), c(V)],
    np.moveaxis: [c(K, 0, -1), c(K, [0, 1], [1, 2]), c(K, 0, 5)],
    np.pad: [c(F, 1), c(V, (2, 1), "edge"), c(F, 1, "reflect"), c(V, 2, "linear_ramp", end_values=(1, 2)),
             c(V, 1, "mean"), c(F, -1)],
    np.ravel: [c(F), c(L), c(L, "F"), c(L, "K"), c(ZERO)],
    np.repeat: [c(F, 2), c(V, W), c(F, [1, 2, 3], axis=0), c(F, -1), c(F, [1, 2], 0)],
    np.reshape: [c(F, (4, 3)), c(F, -1), c(K, (2, -1), order="F"), c(F, (6, 2), copy=True), c(F, 5),
                 c(L, -1, copy=False)],
    np.resize: [c(F, (2, 2)), c(V, 7), c(F, 0), c(F, -1)],
    np.roll: [c(F, 1), c(F, (1, 2), (0, 1)), c(V, -2), c(F, 1, 3)],
    np.rollaxis: [c(K, 2), c(K, 0, 2), c(K, 4)],
    np.rot90: [c(F), c(K, 2, (1, 2)), c(F, 3), c(V)],
    np.shape: [c(F), c([V, U])],
    np.ndim: [c(F), c([V, U])],
    np.size: [c(F), c(F, 1), c([V, U])],
    np.split: [c(F, 3), c(F, [1, 2], axis=1), c(F, 2)],
    np.squeeze: [c(K[:1]), c(K[:, :1], axis=1), c(K, axis=0)],
    np.stack: [c([F, G]), c([F, I], axis=-1), c([V, U], 1, zeros(4, 2)), c([V, U], out=zeros(2, 4)), c([F, V])],
    np.swapaxes: [c(K, 0, 2), c(K, 0, 7)],
    np.tile: [c(F, 2), c(V, (2, 2)), c(F, [2, 1, 1])],
    np.transpose: [c(K), c(K, (1, 0, 2)), c(F), c(K, (0, 1))],
    np.trim_zeros: [c(np.array([0, 0, 1, 2, 0])), c(np.array([0, 1.5, 0]), "f"), c(zeros(3))],
    np.unstack: [c(F), c(K, axis=1), c(ZERO)],
    np.vsplit: [c(F, 3), c(V, 2)],
    np.vstack: [c([F, G]), c((V, U)), c([V, F], dtype="f4"), c([F, K])],
    np.lib.stride_tricks.sliding_window_view: [c(V, 2), c(F, (2, 2)), c(F, 2, axis=1), c(V, 2, writeable=True),
                                               c(V, 9)],
}  # fmt: skip

REDUCING: Rows = {
    np.all: [c(B), c(F, axis=1), c(B, 0, None, True), c(F, out=np.array(True)), c(F, where=B), c(F, 5)],
    np.any: [c(B), c(F, axis=1, keepdims=True), c(B, 0, zeros(4, dtype=bool)), c(NONE)],
    np.amax: [c(F), c(X), c(I, 1), c(NONE)],
    np.amin: [c(F), c(X, axis=0), c(I, None, np.array(0))],
    np.max: [c(F), c(X), c(I, 1), c(F, 0, zeros(4)), c(F, where=B, initial=-9.0), c(NONE), c(TEXT), c(DAYS)],
    np.min: [c(F), c(SPANS), c(K, axis=(0, 2), keepdims=True), c(NONE, axis=0)],
    np.argmax: [c(F), c(F, 1), c(F, 0, zeros(4, dtype="i8")), c(X), c(NONE), c(F, axis=1, keepdims=True), c(TEXT)],
    np.argmin: [c(F), c(F, axis=0), c(DAYS), c(F, 3)],
    np.average: [c(F), c(F, 1, V), c(F, weights=G, returned=True), c(F, axis=0, keepdims=True), c(F, weights=V),
                 c(V, weights=np.array([1.0, -1, 0, 0]))],
    np.count_nonzero: [c(B), c(F, axis=0), c(F, 1, keepdims=True), c(TEXT)],
    np.cumprod: [c(F), c(I, 1), c(F, 0, None, zeros(3, 4)), c(F, axis=4)],
    np.cumsum: [c(F), c(I, 1, "f4"), c(F, 0, out=zeros(3, 4)), c(B)],
    np.cumulative_prod: [c(V), c(F, axis=1), c(V, include_initial=True), c(F)],
    np.cumulative_sum: [c(V), c(F, axis=1, dtype="f4"), c(V, out=zeros(4)), c(F)],
    np.mean: [c(F), c(F, 0), c(I, 1, "f4"), c(F, 0, None, zeros(4)), c(F, where=B), c(NONE), c(SPANS[:2]), c(TEXT)],
    np.median: [c(F), c(F, 0), c(X), c(F, 1, zeros(3)), c(F, overwrite_input=True), c(F, 1, None, True), c(NONE)],
    np.nanargmax: [c(X), c(X, 1), c(np.array([np.nan]))],
    np.nanargmin: [c(X), c(X, axis=0)],
    np.nancumprod: [c(X), c(X, 1)],
    np.nancumsum: [c(X), c(X, 0, out=zeros(3, 4))],
    np.nanmax: [c(X), c(X, 1), c(np.array([np.nan, np.nan])), c(X, 0, zeros(4))],
    np.nanmean: [c(X), c(X, axis=0), c(np.array([np.nan]))],
    np.nanmedian: [c(X), c(X, 1), c(X, overwrite_input=True)],
    np.nanmin: [c(X), c(X, axis=1, keepdims=True)],
    np.nanpercentile: [c(X, 30), c(X, [20, 80], 1), c(X, V), c(X, 130)],
    np.nanprod: [c(X), c(X, 0)],
    np.nanquantile: [c(X, 0.3), c(X, [0.2, 0.8], axis=1), c(X, 2)],
    np.nanstd: [c(X), c(X, 1, ddof=1)],
    np.nansum: [c(X), c(X, 0), c(X, out=np.array(0.0))],
    np.nanvar: [c(X), c(X, 1, ddof=4)],
    np.percentile: [c(F, 30), c(F, [20, 80], 0), c(F, U * 10, method="lower"), c(F, 50, 1, zeros(3)),
                    c(F, 50, overwrite_input=True), c(F, 200)],
    np.prod: [c(F), c(I, 1), c(F, 0, None, zeros(4)), c(np.array([1e200, 1e200])), c(F, where=B, initial=2)],
    np.ptp: [c(F), c(F, 1), c(I, 0, zeros(4, dtype=int)), c(B)],
    np.quantile: [c(F, 0.3), c(F, [0.2, 0.8], 1), c(F, U / 9), c(F, 0.5, weights=G, method="inverted_cdf"), c(F, -1)],
    np.std: [c(F), c(F, 0), c(F, 1, None, zeros(3)), c(I, ddof=12), c(F, correction=1), c(C)],
    np.sum: [c(F), c(I, 0), c(B), c(F, 1, None, zeros(3)), c(F, keepdims=True, axis=(0, 1)), c(F, where=B, initial=5),
             c(I, dtype="u1"), c(np.array([1e308, 1e308])), c(TEXT), c(RECORD), c(ZERO), c(NONE), c([V, U])],
    np.var: [c(F), c(F, 0, "f4"), c(F, 1, out=zeros(3)), c(NONE), c(C, mean=np.array([[0j]]))],
    np.trapezoid: [c(V), c(F, V), c(F, dx=0.5, axis=0)],
    np.trace: [c(F), c(K, 1, 1, 2), c(K, out=zeros(4)), c(K, 0, 0, 1, None, zeros(4)), c(V)],
    np.apply_along_axis: [c(spread, 0, F), c(tail, 1, F), c(np.sort, -1, G), c(spread, 4, F)],
    np.apply_over_axes: [c(np.sum, K, [0, 2]), c(root_sum, F, 1)],
}  # fmt: skip

SELECTING: Rows = {
    np.argpartition: [c(V, 2), c(G, 1, 0), c(F, 9)],
    np.argsort: [c(V), c(G, 0), c(TEXT), c(RECORD, order="f"), c(X, kind="stable"), c(F, 3), c(V, order="x")],
    np.argwhere: [c(B), c(I), c(ZERO)],
    np.bincount: [c(W), c(W, V), c(W, minlength=6), c(V), c(np.array([-1]))],
    np.choose: [c(W, [V, U, V, U]), c(W, F), c(W, [V, U], mode="wrap"), c(W, [V, U, V, U], zeros(4)),
                # no out= with another mode: NumPy itself then writes beside an array that is not contiguous
                c(W, F, mode="clip")],
    np.compress: [c(P, V), c([True, False, True], F, 0), c(P, F, 1, zeros(3, 3)), c(P, F, axis=5)],
    np.digitize: [c(F, np.sort(V)), c(V, U, right=True), c(V, W)],
    np.extract: [c(B, F), c(P, V)],
    np.flatnonzero: [c(B), c(I)],
    np.lexsort: [c((V, W)), c(F), c([TEXT, W]), c((V, W, F))],
    np.nonzero: [c(B), c(F), c(ZERO)],
    np.partition: [c(V, 2), c(G, [0, 1], 0), c(F, 9), c(RECORD, 1, order="f")],
    np.piecewise: [c(F, [F < 0, F >= 0], [-1, 1]), c(V, [P], [spread, 0]), c(F, [B], [1, 2, 3])],
    np.ravel_multi_index: [c((W, W), (4, 4)), c([W, W], (3, 3), "wrap"), c((W, W), (2, 2))],
    np.searchsorted: [c(U, V), c(U, 3), c(V, F, "right", sorter=np.argsort(V)), c(F, 1)],
    np.select: [c([B, F > 0], [F, G]), c([B], [I], default=J), c([P, V > 0], [V, 1], 7), c([V], [V]), c([], [])],
    np.sort: [c(V), c(G, 0), c(G, None), c(TEXT), c(RECORD, order=["f", "i"]), c(X, kind="stable"), c(F, 7), c(DAYS)],
    np.sort_complex: [c(C.ravel()), c(W)],
    np.take: [c(V, W), c(F, W, 1), c(F, [0, 2], 0, zeros(2, 4)), c(F, 9), c(V, W, mode="clip"), c(F, V)],
    np.take_along_axis: [c(F, np.argsort(G, 1), 1), c(V, W, 0), c(V, W, None), c(F, W, 0)],
    np.unravel_index: [c(W, (2, 3)), c(7, (3, 4)), c(W, (2, 1)), c(I, (3, 5), "F")],
    np.where: [c(B), c(B, F, G), c(P, V, 0), c(F > 1, TEXT, ""), c(B, F)],
    np.unique: [c(J), c(TEXT), c(T, axis=0), c(J, return_index=True, return_inverse=True, return_counts=True), c(X)],
    np.unique_all: [c(J), c(X)],
    np.unique_counts: [c(J)],
    np.unique_inverse: [c(J)],
    np.unique_values: [c(J), c(TEXT)],
    np.intersect1d: [c(I, J), c(W, W, return_indices=True)],
    np.isin: [c(I, J), c(I, [1, 2], invert=True), c(TEXT, TEXT[:2]), c(I, J, kind="sort")],
    np.setdiff1d: [c(I, J), c(TEXT, TEXT[1:])],
    np.setxor1d: [c(I, J)],
    np.union1d: [c(I, J), c(V, W)],
    np.histogram: [c(F), c(F, 4, (0, 3)), c(V, np.sort(U), weights=U), c(F, "auto", density=True), c(X)],
    np.histogram2d: [c(V, U, 3), c(V, U, [2, U])],
    np.histogram_bin_edges: [c(F, 4), c(F, "fd"), c(F, U)],
    np.histogramdd: [c(G, 2), c((V, U), [2, 2], density=True), c(F, 0)],
}  # fmt: skip

CALCULATING: Rows = {
    np.allclose: [c(F, F + 1e-9), c(F, G), c(X, X, equal_nan=True)],
    np.angle: [c(C), c(F, deg=True)],
    np.around: [c(F, 1), c(F, 1, zeros(3, 4))],
    np.round: [c(F), c(F, 1, zeros(3, 4)), c(I, -1), c(C, decimals=2), c(TEXT)],
    np.array_equal: [c(F, F), c(F, G), c(X, X, equal_nan=True), c(F, V), c(TEXT, TEXT)],
    np.array_equiv: [c(F, F), c(V, [V, V])],
    np.clip: [c(F, 0, 2), c(F, V, U), c(F, 0, 2, zeros(3, 4)), c(F, min=1), c(I, 0.5, 7, out=zeros(3, 4, dtype=int)),
              c(F, None, None), c(DAYS, DAYS[0], DAYS[1])],
    np.convolve: [c(V, U), c(V, W, "same"), c(V, [])],
    np.correlate: [c(V, U), c(V, C[0], "full"), c(F, V)],
    np.corrcoef: [c(F), c(V, U), c(F, rowvar=False), c(np.ones((2, 3)))],
    np.cov: [c(F), c(V, U, ddof=0), c(F, fweights=np.array([1, 2, 1, 1])), c(F, aweights=U), c(V[:1])],
    np.cross: [c(S, T), c(S, T[0], axis=1), c(F, G)],
    np.diff: [c(F), c(V, 2), c(F, axis=0, prepend=0, append=1), c(V, prepend=U), c(DAYS), c(B), c(F, -1)],
    np.dot: [c(F, G.T), c(V, U), c(F, V), c(S, T, zeros(3, 3)), c(S, T, out=zeros(3, 3)), c(F, G), c(V, 2),
             c(S, T, out=zeros(3, 3, dtype=int)), c(np.array([1e308, 1e308]), np.array([10.0, 10.0]))],
    np.ediff1d: [c(F), c(V, U, 9)],
    np.einsum: [c("ij,ij->i", F, G), c("ij->ji", F), c("ii->i", S), c("ij,jk", F, G.T, optimize=True),
                c("i,i", V, U, out=np.array(0.0)), c("ij,k", F, V, optimize="greedy"), c("ij,ij", F, S),
                c(F, [0, 1], G, [0, 1], [0]), c("...i->...", K), c("ii->i", S, optimize=True)],
    np.einsum_path: [c("ij,jk,kl->il", S, T, S), c("ij,jk", S, T, optimize="optimal")],
    np.fix: [c(F), c(F, zeros(3, 4)), c(F, out=zeros(3, 4))],
    np.gradient: [c(V), c(F), c(F, 2.0, axis=0), c(V, U), c(F, V, axis=1, edge_order=2), c(V[:1])],
    np.i0: [c(F), c(C)],
    np.imag: [c(C), c(F), c(C[0])],
    np.real: [c(C), c(F), c([V, U])],
    np.inner: [c(F, G), c(V, U), c(F, S)],
    np.interp: [c(F, U, V), c(V, U, C[0], left=0, right=1), c(2.5, U, V, period=3), c(V, U, V[:2])],
    np.isclose: [c(F, G, 0.5), c(X, X, equal_nan=True), c(F, V), c(F, TEXT)],
    np.iscomplex: [c(C), c(F)],
    np.iscomplexobj: [c(C), c(F)],
    np.isreal: [c(C), c(F)],
    np.isrealobj: [c(C), c(F)],
    np.isneginf: [c(np.array([-np.inf, 1])), c(F, zeros(3, 4, dtype=bool)), c(C)],
    np.isposinf: [c(np.array([np.inf, 1])), c(F, out=zeros(3, 4, dtype=bool)), c(TEXT)],
    np.kron: [c(S, T), c(V, F)],
    np.nan_to_num: [c(X), c(X, copy=False), c(X, False, 7.0), c(C, nan=1), c(TEXT), c(I, copy=False)],
    np.outer: [c(V, U), c(F, G), c(V, U, zeros(4, 4)), c(V, U, out=zeros(4, 4))],
    np.poly: [c(V), c(S), c(F)],
    np.polyadd: [c(V, U), c(V, [1, 2])],
    np.polyder: [c(V), c(V, 2), c(V, -1)],
    np.polydiv: [c(V, U[:2]), c(V, [0.0])],
    np.polyfit: [c(V, U, 1), c(V, F.T, 2), c(V, U, 1, full=True), c(V, U, 2, w=U, cov="unscaled"), c(V, U, -1)],
    np.polyint: [c(V), c(V, 2, U[:2])],
    np.polymul: [c(V, U)],
    np.polysub: [c(V, U)],
    np.polyval: [c(V, F), c(V, 2), c([1, 2], V)],
    np.roots: [c(V), c(U), c(F)],
    np.real_if_close: [c(C), c(F + 1e-15j), c(F)],
    np.sinc: [c(F), c(V)],
    np.tensordot: [c(F, G, 2), c(F, G, ([1], [1])), c(K, F, ([1, 2], [0, 1])), c(F, G, 1)],
    np.unwrap: [c(F), c(F * 3, axis=0, period=4), c(I, period=5)],
    np.vdot: [c(F, G), c(C, C), c(V, S)],
    np.packbits: [c(B), c(B, 1), c(PACKED, bitorder="little"), c(F)],
    np.unpackbits: [c(PACKED), c(PACKED, 1, count=6), c(I)],
    np.busday_count: [c(DAYS[:2], DAYS[1:3]), c(DAYS[:1], DAYS[:1], "1111100", [], None, zeros(1, dtype=int)),
                      c(DAYS, DAYS)],
    np.busday_offset: [c(DAYS[:3], 1), c(DAYS[:3], W[:3], "forward", out=zeros(3, dtype="M8[D]")), c(DAYS, 1, "raise")],
    np.is_busday: [c(DAYS), c(DAYS, out=zeros(4, dtype=bool)), c(F)],
    np.datetime_as_string: [c(DAYS), c(DAYS, "h"), c(DAYS[0:1], unit="s", timezone="UTC"), c(F)],
}  # fmt: skip

ASKING: Rows = {
    np.array2string: [c(F), c(F, precision=2, separator=", "), c(TEXT), c(RECORD), c(ZERO)],
    np.array_repr: [c(F), c(NONE), c(RECORD), c(I.astype("i2"))],
    np.array_str: [c(F), c(ZERO), c(DAYS)],
    np.can_cast: [via(lambda a: np.can_cast(a.dtype, "f4"), F), c(F, "f4"), c(ZERO, "i4")],
    np.common_type: [c(F), c(F.astype("f4"), C), c(I), c(TEXT)],
    np.may_share_memory: [c(F, G), via(lambda a: np.may_share_memory(a, a), F)],
    np.shares_memory: [c(F, G), via(lambda a: np.shares_memory(a, a[1:]), F), c(F, "x")],
    np.min_scalar_type: [c(F), c(ZERO), c(I)],
    np.result_type: [c(F, I), c(I.astype("i2"), 3), c(F.astype("f4"), ZERO), c(TEXT, F)],
    np.save: [via(saved, F), via(saved, L), via(saved, RECORD), via(saved, ZERO)],
    np.savetxt: [via(saved_text, F), via(saved_text, V), via(saved_text, K)],
    np.savez: [via(saved_archive(np.savez), a=F, b=TEXT)],
    np.savez_compressed: [via(saved_archive(np.savez_compressed), a=L, b=RECORD)],
    np.diagonal: [c(F), c(K, 1), c(K, 0, 1, 2), c(V), c(F, 9)],
}  # fmt: skip

WRITING: Rows = {
    np.copyto: [c(F, G), c(F, 1), c(I, F), c(I, F, casting="unsafe"), c(F, V, where=B), c(F, G, where=P),
                c(dst=F, src=G), c(TEXT, BYTES.astype("U9")), c(F, S), c(F, [V, U, V])],
    np.put: [c(F, W, V), c(F, [1, 3], 9), c(I, 99, 1), c(I, W, F), c(F, W, V, mode="wrap"), c(a=F, ind=W, v=U)],
    np.place: [c(F, B, V), c(F, B, []), c(I, B, [1.5]), c(arr=F, mask=B, vals=U), c(F, P, V)],
    np.putmask: [c(F, B, G), c(F, B, V), c(I, B, 2.5), c(a=F, mask=B, values=9), c(F, P, G)],
    np.fill_diagonal: [c(S, 9), c(S, V[:3]), c(K, 1), c(np.zeros((5, 2)), 1, wrap=True), c(a=S, val=2), c(V, 1)],
    np.put_along_axis: [c(F, np.argsort(G, 1)[:, :1], 9, 1), c(F, np.argsort(G, 1)[:1], V, 0), c(V, W, U, None),
                        c(arr=F, indices=W.reshape(1, 4) % 3, values=1, axis=0), c(F, W, 1, 0)],
}  # fmt: skip

TABLE: Rows = {**CREATION, **SHAPING, **REDUCING, **SELECTING, **CALCULATING, **ASKING, **WRITING}
