"""pandas: constructors, what is computed from them, and hosted arrays as operands and values to set."""

from typing import Any

import numpy as np
import pytest

from tests.consumers.conftest import Maker, Pairs
from tests.consumers.libraries import assert_alike, assert_equal, library

pd = library("pandas")

FROM_MATRIX = {
    "DataFrame": lambda pd, a: pd.DataFrame(a),
    "DataFrame, no copy": lambda pd, a: pd.DataFrame(a, copy=False, columns=[f"c{i}" for i in range(a.shape[1])]),
    "DataFrame with hosted labels": lambda pd, a: pd.DataFrame(a, index=a[:, 0], columns=a[0]),
    "DataFrame of rows": lambda pd, a: pd.DataFrame([a[0], a[1]]),
    "dict of columns": lambda pd, a: pd.DataFrame({"p": a[:, 0], "q": a[:, 1]}),
    "to_numpy": lambda pd, a: pd.DataFrame(a).to_numpy(),
    "describe": lambda pd, a: pd.DataFrame(a).describe(),
    "corr": lambda pd, a: pd.DataFrame(a).corr(),
    "groupby": lambda pd, a: pd.DataFrame(a).groupby(a[:, 0] > 0).mean(),
    "sort_values": lambda pd, a: pd.DataFrame(a).sort_values(1),
    "boolean mask computed from it": lambda pd, a: pd.DataFrame(a)[a[:, 2] > 0],
    "where": lambda pd, a: pd.DataFrame(a).where(a > 0, 0.0),
    "matrix product": lambda pd, a: pd.DataFrame(a).T @ a,
    "hosted on the left": lambda pd, a: a + pd.DataFrame(a),
    "a row of it added": lambda pd, a: pd.DataFrame(a) + a[0],
    "two columns set": lambda pd, a: pd.DataFrame(np.zeros((len(a), 3))).assign(p=a[:, 0], q=a[:, 1]),
    "a block set": lambda pd, a: _set(pd.DataFrame(np.zeros((9, 9))), (slice(0, 5), slice(0, 4)), a[:5, :4]),
    "json": lambda pd, a: pd.DataFrame(a).to_json(),
}

FROM_VECTOR = {
    "Series": lambda pd, v: pd.Series(v),
    "Series of another dtype": lambda pd, v: pd.Series(v, dtype="float32"),
    "Index": lambda pd, v: pd.Index(v),
    "hosted index": lambda pd, v: pd.Series(np.arange(len(v)), index=v),
    "to_numpy": lambda pd, v: pd.Series(v).to_numpy(),
    "rolling": lambda pd, v: pd.Series(v).rolling(5).mean(),
    "groupby": lambda pd, v: pd.Series(v).groupby(pd.Series(v).round(0)).agg(["sum", "count"]),
    "arithmetic": lambda pd, v: pd.Series(np.arange(len(v))) * v,
    "hosted on the left": lambda pd, v: v - pd.Series(np.arange(len(v))),
    "comparison": lambda pd, v: pd.Series(np.zeros(len(v))) < v,
    "where": lambda pd, v: pd.Series(np.zeros(len(v))).where(v > 0, v),
    "isin": lambda pd, v: pd.Series(np.asarray(v)[::-1]).isin(v[:9]),
    "cut": lambda pd, v: pd.Series(pd.cut(v, 4, labels=False)),
    "isna": lambda pd, v: pd.isna(v),
    "concat": lambda pd, v: pd.concat([pd.Series(v), pd.Series(v[:3])]),
    "NumPy's function on both": lambda pd, v: np.hypot(pd.Series(v), v),
    "interpolate": lambda pd, v: pd.Series(v).where(v > -1).interpolate(),
}


def _set(frame: Any, index: Any, values: Any) -> Any:
    frame.iloc[index] = values
    return frame


@pytest.mark.parametrize("name", FROM_MATRIX)
def test_two_dimensions(pd: Any, matrices: Pairs, name: str) -> None:
    assert_alike(lambda a: FROM_MATRIX[name](pd, a), matrices)


@pytest.mark.parametrize("name", FROM_VECTOR)
def test_one_dimension(pd: Any, vectors: Pairs, name: str) -> None:
    assert_alike(lambda v: FROM_VECTOR[name](pd, v), vectors)


def test_other_dtypes(pd: Any, hosted: Maker) -> None:
    for values in (
        np.arange("2020-01-01", "2020-03-01", dtype="M8[D]"),
        np.arange(60) % 7,
        np.arange(60) % 2 == 0,
        np.array(["ab", "c", ""] * 20),
        np.arange(60, dtype="m8[s]"),
        np.arange(60, dtype="c8"),
    ):
        a = hosted(values)
        assert_equal(pd.Series(a), pd.Series(values))
        assert_equal(pd.Series(a[::3]), pd.Series(values[::3]))
        assert_equal(pd.DataFrame({"a": a, "b": 1}), pd.DataFrame({"a": values, "b": 1}))


def test_hosted_keys(pd: Any, hosted: Maker) -> None:
    keys = np.arange(60) % 7
    frame, a = pd.DataFrame({"v": np.arange(60.0)}), hosted(keys)
    # Hosted integers serve as positions, labels and categories; to group by, pandas wants a type that it knows.
    assert_equal(frame.iloc[a], frame.iloc[keys])
    assert_equal(frame.loc[a], frame.loc[keys])
    assert_equal(frame.groupby(pd.Series(a)).sum(), frame.groupby(keys).sum())
    assert_equal(frame.groupby(np.asarray(a)).sum(), frame.groupby(keys).sum())
    assert_equal(pd.get_dummies(a), pd.get_dummies(keys))
    assert_equal(pd.crosstab(a, a), pd.crosstab(keys, keys))
    assert_equal(pd.Series(pd.Categorical(a)), pd.Series(pd.Categorical(keys)))


def test_a_frame_does_not_write_to_the_array(pd: Any, hosted: Maker) -> None:
    a = hosted(np.zeros((4, 3)))
    frame = pd.DataFrame(a)
    frame.iloc[0, 0] = 5.0
    assert frame.iloc[0, 0] == 5.0
    assert a[0, 0] == 0.0
