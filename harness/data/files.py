"""Raw rows of a data set, from the folder that ``DELTA_MEM_DATA`` names or from the hub, and checked access to them.

``docs/data.md`` describes the folder. A wrong file ends in one sentence that names file, row and field.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
import os
import re
import zlib
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.episodes import Episode, Source, digest
from harness.errors import HarnessError
from harness.experiment import DataSpec
from harness.seals import sha256

VARIABLE = "DELTA_MEM_DATA"


@dataclass(frozen=True)
class TaskData:
    """The episodes of one split, and where they came from."""

    episodes: tuple[Episode, ...]
    source: Source
    file: str
    """Name of the file within the data folder, hub address, or the generator and its seed."""
    hash: str
    """sha256 of the file's bytes; of the rows where they came from the hub or were generated."""
    note: str = ""
    """What a reader of the table must know, e.g. that the file is a sample."""
    has_history: bool = True
    """False where questions are asked of nothing: the histories are empty."""


@dataclass(frozen=True)
class DataFile:
    """A file that a data folder may hold, by its name within the folder."""

    name: str
    source: Source = "official"
    note: str = ""


@dataclass(frozen=True)
class HubRows:
    """Rows of a hub data set."""

    id: str
    config: str
    split: str
    revision: str

    def __str__(self) -> str:
        return f"{self.id}/{self.config}/{self.split}@{self.revision}"


@dataclass(frozen=True)
class Raw:
    """Rows as the file has them (or, in some schemas, one object), and where they came from."""

    rows: Any
    source: Source
    file: str
    hash: str
    note: str = ""


def folder() -> Path | None:
    """The data folder that the environment names, or None.

    Raises:
        HarnessError: it names no folder.
    """
    named = os.environ.get(VARIABLE)
    if not named:
        return None
    if not Path(named).is_dir():
        raise HarnessError(f"{VARIABLE} names {named}, which is no folder; correct it or unset it")
    return Path(named)


def generates(data: DataSpec) -> bool:
    """Whether ``data`` asks for generated rows."""
    return data.source == "generated" or (data.source == "auto" and folder() is None)


def fetch(
    data: DataSpec, files: tuple[DataFile, ...], generate: Callable[[int], Any], hub: HubRows | None = None
) -> Raw:
    """The rows that ``data`` asks for: the first of ``files`` in the folder, the hub's, or generated ones.

    Args:
        generate: Makes rows of the official schema from a seed.

    Raises:
        HarnessError: the folder holds none of the files, a file cannot be read, or there is no way to the hub.
    """
    root = folder() if data.source != "generated" else None
    if root is not None:
        for file in files:
            path = root / file.name
            if path.is_file():
                return Raw(read(path), file.source, file.name, sha256(path), file.note)
        raise HarnessError(f"{root} holds no {files[0].name}; put it there or choose `data: {{source: generated}}`")
    if generates(data):
        rows = generate(data.seed)
        return Raw(rows, "generated", f"generated, seed {data.seed}", digest(rows))
    if hub is None:
        raise HarnessError(f"{files[0].name} is on no hub; set {VARIABLE} to a folder that holds it")
    return _from_hub(hub)


def fetch_all(
    data: DataSpec,
    files: Sequence[DataFile],
    generate: Callable[[int], Any],
    hub: Sequence[HubRows] = (),
    rebuilt: Collection[str] = (),
) -> list[Raw]:
    """As ``fetch``, of a data set in several files: all that the folder has of them, in order; none of them may do.

    Args:
        rebuilt: sha256 of files that look official and are rebuilt.
    """
    root = folder() if data.source != "generated" else None
    if root is None:
        if data.source == "official":
            return [_from_hub(split) for split in hub]
        return [fetch(data, tuple(files), generate)]
    found = []
    for file in files:
        path = root / file.name
        if path.is_file():
            sha = sha256(path)
            grade: Source = "rebuilt" if sha in rebuilt else file.source
            found.append(Raw(read(path), grade, file.name, sha, file.note))
    return found


def read(path: Path) -> Any:
    """The content of a ``.json`` or ``.jsonl`` file (a list of its lines), gzipped or not, or a table's rows.

    Tables are ``.parquet`` and ``.csv``, the latter with a line of column names.

    Raises:
        HarnessError: the file is missing, cut off, or not of the format that its name says.
    """
    if path.suffix == ".parquet":
        return _parquet(path)
    try:
        with gzip.open(path, "rt", encoding="utf-8") if path.suffix == ".gz" else path.open(encoding="utf-8") as stream:
            text = stream.read()
    except (OSError, EOFError, UnicodeDecodeError, zlib.error) as error:
        raise HarnessError(f"{path} cannot be read ({error}); fetch it again") from error
    if ".csv" in path.suffixes[-2:]:
        return _table(text.removeprefix("\ufeff"), path)
    if ".jsonl" not in path.suffixes[-2:]:
        return _parse(text, str(path))
    return [_parse(line, f"{path}, line {n}") for n, line in enumerate(text.split("\n"), 1) if line.strip()]


def _table(text: str, path: Path) -> list[dict[str, Any]]:
    try:
        return list(csv.DictReader(io.StringIO(text), strict=True))
    except csv.Error as error:
        raise HarnessError(f"{path} is cut off or no CSV ({error}); fetch it again") from error


def _parquet(path: Path) -> list[dict[str, Any]]:
    import pyarrow
    import pyarrow.parquet

    try:
        return pyarrow.parquet.read_table(path).to_pylist()
    except (OSError, pyarrow.ArrowException) as error:
        reason = " ".join(str(error).split()).rstrip(".")
        raise HarnessError(f"{path} cannot be read as Parquet ({reason}); fetch it again") from error


def _parse(text: str, where: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:  # cut off, too deep, or a number of thousands of digits
        raise HarnessError(f"{where} is cut off or no JSON ({error}); fetch it again") from error


def unrepeated(pairs: Sequence[tuple[str, Any]], where: str) -> dict[str, Any]:
    """A JSON object of these pairs, for ``object_pairs_hook``.

    Raises:
        HarnessError: a key is given twice.
    """
    found = dict(pairs)
    if len(found) < len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in keys if keys.count(key) > 1)
        raise HarnessError(f"{where}: the key '{twice}' is given twice in one object; keep one")
    return found


def _from_hub(hub: HubRows) -> Raw:
    import datasets

    try:
        rows = datasets.load_dataset(hub.id, hub.config, split=hub.split, revision=hub.revision).to_list()
    except (OSError, ValueError, RuntimeError) as error:  # what `datasets` raises where it finds neither net nor cache
        reason = (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")
        raise HarnessError(
            f"{hub} cannot be had from the hub ({reason}); go online or set {VARIABLE} to a folder with the files"
        ) from error
    note = "" if re.fullmatch(r"[0-9a-f]{40}", hub.revision) else f"hub revision {hub.revision} is not pinned"
    return Raw(rows, "official", str(hub), digest(rows), note)


def loaded(raw: Raw, episodes: Iterable[Episode], note: str = "") -> TaskData:
    """What a reader made of ``raw``."""
    return TaskData(tuple(episodes), raw.source, raw.file, raw.hash, "; ".join(filter(None, (raw.note, note))))


def field(row: Any, key: str, kind: type | tuple[type, ...], where: str) -> Any:
    """``row[key]``, which must be a ``kind``; ``where`` names file and row for the error.

    Raises:
        HarnessError: the row is no object, or the field is missing or of another type.
    """
    if not isinstance(row, dict) or key not in row:
        raise HarnessError(f"{where}: the field '{key}' is missing; fetch the file again or compare docs/data.md")
    kinds = kind if isinstance(kind, tuple) else (kind,)
    if not isinstance(row[key], kind) or (isinstance(row[key], bool) and bool not in kinds):  # true is no 1
        wanted = " or ".join(k.__name__ for k in kinds)
        got = type(row[key]).__name__
        raise HarnessError(f"{where}: the field '{key}' is {got}, not {wanted}; compare docs/data.md")
    return row[key]


def strings(row: Any, key: str, where: str) -> list[str]:
    """``row[key]``, which must be a list of strings.

    Raises:
        HarnessError: it is not.
    """
    values = field(row, key, list, where)
    for n, value in enumerate(values):
        if not isinstance(value, str):
            raise HarnessError(f"{where}: '{key}' holds {type(value).__name__} at {n}, not str; compare docs/data.md")
    return values


def optional(row: Any, key: str, kind: type, where: str) -> Any:
    """As :func:`field`, of a key that may be absent or null: then None.

    Raises:
        HarnessError: it is of another type.
    """
    return None if isinstance(row, dict) and row.get(key) is None else field(row, key, kind, where)


def rows_of(raw: Raw, kind: type = list) -> Any:
    """The rows of a file, which must be a list (or another ``kind``) and not empty.

    Raises:
        HarnessError: they are not.
    """
    if not isinstance(raw.rows, kind) or not raw.rows:
        wanted = "list of rows" if kind is list else "object of rows"
        raise HarnessError(f"{raw.file} is no {wanted}, or an empty one; compare docs/data.md")
    return raw.rows
