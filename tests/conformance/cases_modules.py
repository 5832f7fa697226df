"""Cases of the functions in NumPy's other modules: linalg, fft, strings, char, records, scimath, polynomial."""

import numpy as np
import numpy.lib.recfunctions as rf
import numpy.polynomial.polynomial as polynomial
from numpy.lib import scimath

from tests.conformance.cases import (
    BYTES,
    POINTS,
    RECORD,
    TEXT,
    C,
    F,
    G,
    I,
    K,
    S,
    T,
    U,
    V,
    W,
    c,
    zeros,
)
from tests.conformance.cases_numpy import Rows

la = np.linalg
SINGULAR = np.ones((3, 3))
EVEN = np.arange(36.0).reshape(6, 6) % 7 + np.eye(6)

LINALG: Rows = {
    la.cholesky: [c(S), c(S, upper=True), c(-S), c(F)],
    la.cond: [c(S), c(S, 1), c(SINGULAR, "fro"), c(V)],
    la.cross: [c(S, T), c(S, T, axis=0), c(F, F)],
    la.det: [c(S), c(np.stack([S, T])), c(F)],
    la.diagonal: [c(F), c(K, offset=1), c(V)],
    la.eig: [c(S), c(T), c(F)],
    la.eigh: [c(S), c(S, "U"), c(V)],
    la.eigvals: [c(T), c(F)],
    la.eigvalsh: [c(S), c(C)],
    la.inv: [c(S), c(I[:, :3].astype(float)), c(SINGULAR), c(F), c(V)],
    la.lstsq: [c(F, V[:3]), c(G.T, V, rcond=None), c(F, V)],
    la.matmul: [c(F, G.T), c(F, G)],
    la.matrix_norm: [c(F), c(K, ord=1, keepdims=True), c(V)],
    la.matrix_power: [c(S, 3), c(S, -1), c(F, 2), c(S, 0)],
    la.matrix_rank: [c(F), c(SINGULAR), c(S, hermitian=True)],
    la.matrix_transpose: [c(F), c(K), c(V)],
    la.multi_dot: [c([F, G.T, S]), c((F, G.T), out=zeros(3, 3)), c([F, G])],
    la.norm: [c(F), c(V, 1), c(F, axis=1), c(F, "nuc"), c(F, 5), c(K, axis=(0, 1))],
    la.outer: [c(V, U), c(F, G)],
    la.pinv: [c(F), c(S, hermitian=True), c(V)],
    la.qr: [c(F), c(F, "complete"), c(F, mode="r"), c(V)],
    la.slogdet: [c(S), c(np.stack([S, T]))],
    la.solve: [c(S, T), c(S, V[:3]), c(SINGULAR, S), c(S, V)],
    la.svd: [c(F), c(F, full_matrices=False), c(F, compute_uv=False), c(V)],
    la.svdvals: [c(F)],
    la.tensordot: [c(F, G, axes=2), c(F, G)],
    la.tensorinv: [c(EVEN.reshape(6, 2, 3), ind=1), c(EVEN.reshape(2, 3, 6), 2), c(F)],
    la.tensorsolve: [c(EVEN.reshape(2, 3, 6), zeros(2, 3) + 1), c(F, V)],
    la.trace: [c(F), c(K, offset=1), c(K, dtype="f4")],
    la.vecdot: [c(F, G), c(C, F), c(F, V[:3])],
    la.vector_norm: [c(F), c(F, axis=1, keepdims=True), c(V, ord=1)],
}

FFT: Rows = {
    np.fft.fft: [c(V), c(F, 6, 0, "ortho"), c(F, out=zeros(3, 4, dtype=complex)), c(V, 0),
                 c(F, None, -1, None, zeros(3, 4, dtype=complex))],
    np.fft.ifft: [c(C), c(V, norm="forward")],
    np.fft.fft2: [c(F), c(F, (2, 2))],
    np.fft.ifft2: [c(C)],
    np.fft.fftn: [c(K), c(K, axes=(0, 2)), c(K, out=zeros(2, 3, 4, dtype=complex))],
    np.fft.ifftn: [c(K, (2, 2), axes=(0, 1))],
    np.fft.rfft: [c(V), c(F, axis=0), c(C)],
    np.fft.irfft: [c(C), c(C, 5, out=zeros(3, 5))],
    np.fft.rfft2: [c(F)],
    np.fft.irfft2: [c(C)],
    np.fft.rfftn: [c(K)],
    np.fft.irfftn: [c(C)],
    np.fft.hfft: [c(C)],
    np.fft.ihfft: [c(V), c(V, n=3)],
    np.fft.fftshift: [c(F), c(F, axes=0)],
    np.fft.ifftshift: [c(F), c(V)],
}  # fmt: skip

# NumPy lists these under names that np.strings or np.char has without the underscore.
strings = np.strings
STRINGS: Rows = {
    strings.capitalize: [c(TEXT), c(F)],
    strings.center: [c(TEXT, 7), c(TEXT, W, "*")],
    strings.decode: [c(BYTES), c(BYTES, "latin1"), c(TEXT)],
    strings.encode: [c(TEXT), c(np.array(["é"]), "ascii")],
    strings.expandtabs: [c(np.array(["a\tb"])), c(np.array(["a\tb"]), 4)],
    strings.ljust: [c(TEXT, 7)],
    strings.lower: [c(TEXT), c(BYTES)],
    strings.mod: [c(np.array(["%d", "%5.1f"]), V[:2]), c(np.array(["%d"]), TEXT[:1])],
    strings.multiply: [c(TEXT, 2), c(TEXT, W), c(TEXT, V)],
    strings.partition: [c(TEXT, "b"), c(TEXT, TEXT)],
    strings.replace: [c(TEXT, "b", "BB"), c(TEXT, TEXT[:1], "-", count=1)],
    strings.rjust: [c(TEXT, W)],
    strings.rpartition: [c(TEXT, "b")],
    strings.swapcase: [c(TEXT)],
    strings.title: [c(TEXT)],
    strings.translate: [c(BYTES, bytes(range(256)), b"b")],
    strings.upper: [c(TEXT)],
    strings.zfill: [c(TEXT, 6), c(TEXT, W)],
    np.char.join: [c("-", TEXT), c(TEXT, TEXT)],
    np.char.split: [c(TEXT), c(TEXT, "b")],
    np.char.rsplit: [c(TEXT, "b", 1)],
    np.char.splitlines: [c(np.array(["a\nb"]))],
    np.char.equal: [c(TEXT, TEXT), c(TEXT, "12"), c(F, TEXT)],
    np.char.not_equal: [c(TEXT, "12")],
    np.char.greater: [c(TEXT, "12")],
    np.char.greater_equal: [c(TEXT, TEXT[::-1])],
    np.char.less: [c(BYTES, b"12")],
    np.char.less_equal: [c(TEXT, "12")],
}

OTHER = np.array([(1, 7.0), (3, 8.0)], [("i", "i4"), ("g", "f8")])

RECORDS: Rows = {
    rf.append_fields: [c(POINTS, "z", V[:3]), c(POINTS, ["z"], [W[:3]], usemask=False), c(POINTS, "z", V, "f4")],
    rf.apply_along_fields: [c(np.mean, POINTS)],
    rf.assign_fields_by_name: [c(POINTS, POINTS[::-1]), c(RECORD, OTHER[[0, 1, 0]]),
                               c(RECORD, OTHER[[0, 1, 0]], zero_unassigned=False), c(dst=POINTS, src=POINTS[::-1])],
    rf.drop_fields: [c(RECORD, "f"), c(RECORD, ["i", "s"], usemask=False)],
    rf.find_duplicates: [c(np.ma.array(RECORD), "i"), c(RECORD.view(np.ma.MaskedArray), return_index=True)],
    rf.join_by: [c("i", RECORD[1:], OTHER, usemask=False), c("i", RECORD[1:], OTHER, "outer"), c("z", RECORD, OTHER)],
    rf.merge_arrays: [c((POINTS, OTHER)), c([V, W], flatten=True), c((POINTS, RECORD), asrecarray=True)],
    rf.rec_append_fields: [c(POINTS, "z", V[:3])],
    rf.rec_drop_fields: [c(POINTS, "x")],
    rf.rec_join: [c("i", RECORD[1:], OTHER)],
    rf.recursive_fill_fields: [c(POINTS, zeros(4, dtype=POINTS.dtype)), c(OTHER, RECORD)],
    rf.rename_fields: [c(POINTS, {"x": "u"})],
    rf.repack_fields: [c(RECORD), c(RECORD[["i", "s"]], align=True)],
    rf.require_fields: [c(RECORD, [("f", "f4"), ("n", "i8")])],
    rf.stack_arrays: [c((POINTS, OTHER)), c([POINTS, POINTS], usemask=False)],
    rf.structured_to_unstructured: [c(POINTS), c(POINTS, "f4"), c(RECORD)],
    rf.unstructured_to_structured: [c(G), c(G, names=["a", "b", "c", "d"]), c(G, names=["a"])],
}  # fmt: skip

SCIMATH: Rows = {
    scimath.arccos: [c(F)],
    scimath.arcsin: [c(V)],
    scimath.arctanh: [c(F)],
    scimath.log: [c(F), c(U)],
    scimath.log10: [c(F)],
    scimath.log2: [c(V)],
    scimath.logn: [c(2, F), c(U, V)],
    scimath.power: [c(V, 0.5), c(W, -2.0), c(F, G)],
    scimath.sqrt: [c(F), c(U), c(TEXT)],
}

POLYNOMIAL: Rows = {
    polynomial.polyval2d: [c(V, U, F), c(V, W, G)],
    polynomial.polygrid2d: [c(V, U, F)],
}

if hasattr(polynomial, "polyvalnd"):  # NumPy 2.5
    POLYNOMIAL[polynomial.polyvalnd] = [c((V, U), F), c([V, W], G)]

TABLE: Rows = {**LINALG, **FFT, **STRINGS, **RECORDS, **SCIMATH, **POLYNOMIAL}
