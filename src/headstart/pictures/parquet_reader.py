"""A script, run by `parquet`: the path of a Parquet file and names of columns -> lines of JSON on standard output.

The first says what there is, each of the others is a row, and the last is null; or an object with an error.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from typing import Any

_ROWS_AT_ONCE = 1024


def read(path: str, columns: Sequence[str]) -> Iterator[Any]:
    """What there is to say of a file, line by line."""
    from pyarrow import parquet

    with open(path, "rb") as file:  # noqa: PTH123  a script that imports little
        table = parquet.ParquetFile(file)
        names = list(table.schema_arrow.names)
        taken = [name for name in columns if name in names]
        metadata = table.metadata
        groups = (metadata.row_group(number) for number in range(metadata.num_row_groups))
        chunks = (group.column(number) for group in groups for number in range(group.num_columns))
        sizes = (each.total_uncompressed_size for each in chunks if each.path_in_schema.partition(".")[0] in taken)
        yield {"columns": names, "taken": taken, "num_rows": metadata.num_rows, "num_bytes": sum(sizes)}
        for batch in table.iter_batches(_ROWS_AT_ONCE, columns=taken, use_threads=False):
            yield from zip(*(batch.column(name).to_pylist() for name in taken), strict=True)
    yield None


def main() -> None:
    """Write the lines; whatever Arrow raises for a damaged file, and it raises many kinds, becomes an error."""
    try:
        for line in read(sys.argv[1], sys.argv[2:]):
            _write(line)
    except BrokenPipeError:
        sys.exit(1)
    except Exception as error:
        _write({"error": str(error) or type(error).__name__})


def _write(line: Any) -> None:
    """What JSON does not know, such as bytes and dates, becomes an object, which is no name."""
    sys.stdout.write(json.dumps(line, default=lambda value: {type(value).__name__: str(value)}) + "\n")


if __name__ == "__main__":
    main()
