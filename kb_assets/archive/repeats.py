"""Late rows that are archived already: found by their keys, in files of any size."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as parquet

from kb_assets.archive.plan import Window
from kb_assets.archive.relation import ROW_HASH, Aging

_BATCH_ROWS = 65_536


@dataclass(frozen=True)
class Known:
    """A segment whose rows are archived already.

    Attributes:
        window: The span of time that all of its rows lie in.
        fetch: Brings its file.
    """

    window: Window
    fetch: Callable[[], Path]

    @cached_property
    def file(self) -> Path:
        """Its file, fetched when it is first asked for."""
        return self.fetch()


def part_repeats(rows: Any, aging: Aging, known: Sequence[Known]) -> tuple[Any, Any]:  # noqa: ANN401
    """Part rows from those whose keys are archived already.

    A row's time is part of its key: only segments of the rows' own time are looked into, and their
    files stream by.

    Args:
        rows: An Arrow table: the table's columns and each row's hash.
        aging: The table.
        known: What is archived.

    Returns:
        The other rows, and the repeats' keys and hashes: an Arrow table, or nothing.
    """
    repeated = _are_known(rows, aging, _of_their_time(rows, aging, known)) if known else None
    if repeated is None:
        return rows, None
    keys = rows.filter(repeated).select([aging.key, aging.time, ROW_HASH])
    return rows.filter(pc.invert(repeated)), keys


def _of_their_time(rows: Any, aging: Aging, known: Sequence[Known]) -> Iterator[Path]:  # noqa: ANN401
    ends = pc.min_max(rows[aging.time]).as_py()
    for one in known:
        if rows.num_rows and one.window.low <= ends["max"] and ends["min"] < one.window.high:
            yield one.file


def _are_known(arrived: Any, aging: Aging, files: Iterator[Path]) -> Any:  # noqa: ANN401
    """Say of each row whether its key is in one of the files; nothing if none is."""
    names = arrived[aging.key].combine_chunks()
    found: set[tuple[str, int]] = set()
    for file in files:
        with parquet.ParquetFile(file) as opened:
            for batch in opened.iter_batches(_BATCH_ROWS, columns=[aging.key, aging.time]):
                hits = batch.filter(pc.is_in(batch.column(aging.key), value_set=names))
                found.update(_keys(hits, aging))
    if not found:
        return None
    return pa.array([key in found for key in _keys(arrived, aging)], pa.bool_())


def _keys(rows: Any, aging: Aging) -> list[tuple[str, int]]:  # noqa: ANN401
    moments = rows.column(aging.time).cast(pa.int64()).to_pylist()
    return list(zip(rows.column(aging.key).to_pylist(), moments, strict=True))
