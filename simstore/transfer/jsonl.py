"""JSONL: a line of settings, a line for each item, a line with their number and checksum.

Vectors are base64 of little-endian float32. All lines are ASCII: what else there is stands in escapes.
"""

import base64
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, BinaryIO, NoReturn

import numpy as np
import xxhash

from simstore.errors import SourceError
from simstore.transfer.file_info import Chunk, FileInfo, Lines, info_of, read_info
from simstore.transfer.json_form import from_json, to_json

__all__ = ["JsonlContent", "write_jsonl"]

_N_ITEMS, _N_BYTES = 1000, 8 << 20
_TAIL = 1 << 12


def write_jsonl(file: BinaryIO, settings: str, lines: Iterable[Lines]) -> None:
    """Writes items."""
    head = f'{{"simstore": {settings}}}\n'.encode("ascii")
    file.write(head)
    checksum, n = xxhash.xxh3_64(head), 0
    for part in lines:
        content = "".join(_line(*item) for item in zip(*part, strict=True)).encode("ascii")
        checksum.update(content)
        file.write(content)
        n += len(part.keys)
    file.write(f'{{"end": {{"count": {n}, "xxh3_64": "{checksum.hexdigest()}"}}}}\n'.encode("ascii"))


def _line(key: Any, label: Any, data: str, vector: Any) -> str:
    numbers = base64.b64encode(vector.astype("<f4", copy=False).tobytes()).decode()
    return f'{{"key": {_text(key)}, "label": {_text(label)}, "data": {data}, "vector": "{numbers}"}}\n'


def _text(value: Any) -> str:
    return json.dumps(to_json(value))


class JsonlContent:
    """A file that write_jsonl wrote.

    Raises:
        SourceError: It is none, or is cut off.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file = open(path, "rb")  # noqa: SIM115
        try:
            self._head, settings = self._first()
            self._stop, self._end = self._last()
            self.info: FileInfo = info_of(path, settings, self._end["count"])
        except BaseException:
            self._file.close()
            raise

    def close(self) -> None:
        """See Content."""
        self._file.close()

    def _first(self) -> tuple[bytes, dict[str, Any]]:
        line = self._file.readline(1 << 20)
        try:
            settings = json.dumps(json.loads(line)["simstore"])
        except (ValueError, KeyError, TypeError, RecursionError):
            raise SourceError(
                f"{self._path} does not start with a line of settings, as `simstore export` writes one: `simstore index` "
                "reads other JSONL files, `simstore add` lines with keys and vectors"
            ) from None
        return line, read_info(self._path, "jsonl", settings)

    def _last(self) -> tuple[int, dict[str, Any]]:
        size = self._file.seek(0, 2)
        self._file.seek(max(len(self._head), size - _TAIL))
        tail = self._file.read()
        line = tail[tail[:-1].rfind(b"\n") + 1 :]
        try:
            end = json.loads(line)["end"]
            return size - len(line), {"count": int(end["count"]), "xxh3_64": str(end["xxh3_64"])}
        except (ValueError, KeyError, TypeError, RecursionError):
            raise SourceError(f"{self._path} is cut off: its last line is missing; export it anew") from None

    def chunks(self, *, decoding: bool = True) -> Iterator[Chunk]:
        """See Content."""
        checksum, n = xxhash.xxh3_64(self._head), 0
        for lines in self._lines():
            for line in lines:
                checksum.update(line)
            yield self._chunk(lines, n) if decoding else self._bare_chunk(lines, n)
            n += len(lines)
        if n != self._end["count"]:
            self._damaged(f"it has {n:,} lines of items, and says that {self._end['count']:,} were written")
        if checksum.hexdigest() != self._end["xxh3_64"]:
            self._damaged("its lines are not those that were written (their checksum does not match)")

    def _lines(self) -> Iterator[list[bytes]]:
        at = self._file.seek(len(self._head))
        lines: list[bytes] = []
        size = 0
        while at < self._stop:
            line = self._file.readline()
            at += len(line)
            lines.append(line)
            size += len(line)
            if len(lines) == _N_ITEMS or size > _N_BYTES:
                yield lines
                lines, size = [], 0
        if lines:
            yield lines

    def _bare_chunk(self, lines: list[bytes], n: int) -> Chunk:
        return Chunk([self._object(line, n)["key"] for line in lines], [], [], np.empty((0, 0), np.float32))

    def _object(self, line: bytes, n: int) -> Any:
        try:
            item = json.loads(line)
            return {"key": from_json(item["key"]), "label": item["label"], "data": item["data"], "vector": item["vector"]}
        except (ValueError, KeyError, TypeError, RecursionError) as err:
            self._damaged(f"line {n + 2:,} or one soon after it is no item ({err!r:.80})")

    def _chunk(self, lines: list[bytes], n: int) -> Chunk:
        items = [self._object(line, n) for line in lines]
        try:
            vectors = np.frombuffer(b"".join(base64.b64decode(item["vector"], validate=True) for item in items), "<f4")
            return Chunk(
                [item["key"] for item in items],
                [from_json(item["label"]) for item in items],
                [from_json(item["data"]) for item in items],
                vectors.reshape(len(items), self.info.dim or 0).astype(np.float32),
            )
        except (ValueError, TypeError, RecursionError) as err:
            self._damaged(f"line {n + 2:,} or one soon after it is no item ({err!r:.80})")

    def _damaged(self, what: str) -> NoReturn:
        raise SourceError(f"{self._path} is damaged: {what}; export it anew")
