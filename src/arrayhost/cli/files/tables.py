"""Tables from CSV and Parquet: an array with a field for each column, or a matrix of numbers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from arrayhost.cli.files import Item
from arrayhost.cli.options import Failure, missing_extra

if TYPE_CHECKING:
    from pathlib import Path

    import numpy.typing as npt

    from arrayhost.cli.files import Reading

_DELIMITERS = {".tsv": "\t"}


def read(path: Path, kind: str, reading: Reading) -> list[Item]:
    """Read a table."""
    arrow = _library(path)
    try:
        table = _read_csv(path, reading) if kind == "csv" else _read_parquet(path)
    except arrow.ArrowInvalid as error:
        raise Failure(f"{path}: {error}") from error
    columns = {str(name): _column(path, str(name), table.column(i)) for i, name in enumerate(table.column_names)}
    if len(columns) < len(table.column_names):
        raise Failure(f"{path}: two columns have the same name; rename one")
    if not columns:
        raise Failure(f"{path}: the table has no columns")
    return [Item("", _matrix(path, columns) if reading.matrix else _record(columns))]


def write(path: Path, kind: str, array: npt.NDArray[Any], name: str) -> None:
    """Write a table: a column for each field, or for each column of a matrix."""
    arrow = _library(path)
    if array.dtype.names is not None and array.ndim == 1:
        columns = {field: array[field] for field in array.dtype.names}
    elif array.dtype.names is None and array.ndim == 1:
        columns = {name: array}
    elif array.dtype.names is None and array.ndim == 2:
        columns = {str(i): array[:, i] for i in range(array.shape[1])}
    else:
        raise Failure(
            f"{path}: a table has one or two axes, or fields, and this is {array.dtype} of shape {array.shape}"
        )
    try:
        table = arrow.table({field: np.ascontiguousarray(column) for field, column in columns.items()})
    except (arrow.ArrowInvalid, arrow.ArrowNotImplementedError) as error:
        raise Failure(f"{path}: elements of dtype {array.dtype} have no place in a table ({error})") from error
    if kind == "csv":
        import pyarrow.csv

        options = pyarrow.csv.WriteOptions(delimiter=_DELIMITERS.get(path.suffix.lower(), ","))
        pyarrow.csv.write_csv(table, path, options)
    else:
        import pyarrow.parquet

        pyarrow.parquet.write_table(table, path)


def _library(path: Path) -> Any:
    try:
        import pyarrow
    except ModuleNotFoundError as error:
        raise missing_extra(f"{path}: a table", "pyarrow", "tables") from error
    return pyarrow


def _read_csv(path: Path, reading: Reading) -> Any:
    import pyarrow.csv

    delimiter = reading.delimiter or _DELIMITERS.get(path.suffix.lower(), ",")
    return pyarrow.csv.read_csv(
        path,
        read_options=pyarrow.csv.ReadOptions(autogenerate_column_names=not reading.header),
        parse_options=pyarrow.csv.ParseOptions(delimiter=delimiter),
    )


def _read_parquet(path: Path) -> Any:
    import pyarrow.parquet

    return pyarrow.parquet.read_table(path)


def _column(path: Path, name: str, column: Any) -> npt.NDArray[Any]:
    """Turn a column into elements of a fixed size: text gets the width of the longest."""
    import pyarrow as arrow

    if arrow.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    if arrow.types.is_date(column.type):
        column = column.cast(arrow.timestamp("s"))
    values: npt.NDArray[Any] = column.to_numpy()
    if values.dtype != object:
        return values
    if arrow.types.is_string(column.type) or arrow.types.is_large_string(column.type):
        return np.array(["" if value is None else value for value in values], np.str_)
    if arrow.types.is_null(column.type):
        return np.full(len(values), np.nan)
    if arrow.types.is_boolean(column.type):
        raise Failure(f"{path}: column {name!r} has gaps among its truth values; fill them, or leave the column out")
    raise Failure(f"{path}: column {name!r} of type {column.type} has no counterpart of a fixed size in NumPy")


def _record(columns: dict[str, npt.NDArray[Any]]) -> npt.NDArray[Any]:
    record = np.empty(len(next(iter(columns.values()))), [(name, column.dtype) for name, column in columns.items()])
    for name, column in columns.items():
        record[name] = column
    return record


def _matrix(path: Path, columns: dict[str, npt.NDArray[Any]]) -> npt.NDArray[Any]:
    wrong = [name for name, column in columns.items() if column.dtype.kind not in "biufc"]
    if wrong:
        raise Failure(f"{path}: --matrix is for numbers, and these columns hold none: {', '.join(wrong)}")
    return np.stack(list(columns.values()), axis=1)
