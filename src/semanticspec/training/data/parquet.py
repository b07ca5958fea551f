"""Parquet files with a stamp: metadata that tells which collection, judge and format a file belongs to."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from io import BytesIO
from pathlib import Path
from typing import Any

from semanticspec.errors import ProbeError, first_line
from semanticspec.install_hints import install_hint


def require_pyarrow() -> None:
    """Raises ProbeError if pyarrow is missing; call it before work whose results need it."""
    try:
        import pyarrow.parquet  # noqa: F401
    except ImportError as error:
        raise ProbeError(
            f"collections and labels are Parquet files and need pyarrow: {install_hint('probes')}"
        ) from error


def to_parquet(rows: Iterable[Mapping[str, Any]], schema: Any, metadata: Mapping[str, str]) -> bytes:
    """Returns the content of a Parquet file with these rows, of a `pyarrow.Schema`."""
    import pyarrow
    import pyarrow.parquet

    table = pyarrow.Table.from_pylist(list(rows), schema=schema.with_metadata(metadata))
    buffer = BytesIO()
    pyarrow.parquet.write_table(table, buffer, compression="zstd")
    return buffer.getvalue()


def read_parquet(
    path: Path, schema: Any, stamp: Mapping[str, str], fix: str, optional: Collection[str] = ()
) -> tuple[list[dict[str, Any]], dict[str, str]]:
    """Returns the rows and the metadata of a file.

    Args:
        path: the file.
        schema: the `pyarrow.Schema` it must have.
        stamp: the metadata it must have; it may have more.
        fix: what to do about an unusable file, for the message.
        optional: columns that the file may lack; its rows lack them then.

    Raises:
        ProbeError: the file is broken, or has another schema or stamp.
    """
    import pyarrow
    import pyarrow.parquet

    try:
        table = pyarrow.parquet.read_table(BytesIO(path.read_bytes()))
    except (OSError, pyarrow.ArrowException) as error:
        raise ProbeError(f"{path} is broken ({first_line(error)}); {fix}") from error
    metadata = {key.decode(): text.decode() for key, text in (table.schema.metadata or {}).items()}
    check_stamp(path, metadata, stamp, fix)
    missing = set(optional) - set(table.schema.names)
    expected = pyarrow.schema([field for field in schema if field.name not in missing])
    if not table.schema.equals(expected):
        raise ProbeError(f"{path} has other columns or types than {', '.join(schema.names)}; {fix}")
    return table.to_pylist(), metadata


def check_stamp(path: Path, found: Mapping[str, Any], expected: Mapping[str, str], fix: str) -> None:
    """Raises ProbeError if the stamp of a file differs from what is expected."""
    for key, value in expected.items():
        if found.get(key) != value:
            raise ProbeError(
                f"{path} belongs to another {key} ({found.get(key)!r}, expected {value!r}); {fix}"
            )
