"""What a user may name as a data set: paths, patterns, readers, examples; and what is said of the rest."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from reader_contract import ReaderContract, read_all, reasons

from simstore.errors import InvalidArgumentError, SourceError
from simstore.readers import Example, Reader, ReadOptions, open_sources
from simstore.readers.globs import matches
from simstore.readers.sniffing import format_of


def tree(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(f"{name} holds text\n")
    return root


def matched(pattern: str) -> list[str]:
    return [str(one.key) for one in matches(pattern, note=lambda path, why: None)]


NAMES = ["a.txt", "b.txt", "c.log", "d/a.txt", "d/e/a.txt", "d/e/f/x.txt", ".hidden/a.txt", "d/.git/a.txt", "[odd].txt"]


@pytest.mark.parametrize(
    ("pattern", "wanted"),
    [
        ("*.txt", ["[odd].txt", "a.txt", "b.txt"]),
        ("?.txt", ["a.txt", "b.txt"]),
        ("[ab].*", ["a.txt", "b.txt"]),
        ("[!a].txt", ["b.txt"]),
        ("**/a.txt", ["a.txt", "d/a.txt", "d/e/a.txt"]),
        ("d/**", ["a.txt", "e/a.txt", "e/f/x.txt"]),
        ("d/**/x.txt", ["e/f/x.txt"]),
        ("*/a.txt", ["d/a.txt"]),
        ("d*", ["d/.git/a.txt", "d/a.txt", "d/e/a.txt", "d/e/f/x.txt"]),
        (".*/a.txt", [".hidden/a.txt"]),
        ("x*", []),
    ],
)
def test_patterns(tmp_path: Path, pattern: str, wanted: list[str]) -> None:
    tree(tmp_path, *NAMES)
    assert matched(f"{tmp_path}/{pattern}") == wanted


def test_a_name_with_special_characters_is_a_name_first(tmp_path: Path) -> None:
    tree(tmp_path, *NAMES)
    [reader] = open_sources(tmp_path / "[odd].txt")
    assert [one.key for one in read_all(reader)] == ["[odd].txt#0"]


def test_patterns_and_loops_of_links(tmp_path: Path) -> None:
    tree(tmp_path, "d/a.txt", "d/e/b.txt")
    (tmp_path / "d" / "e" / "up").symlink_to("..")
    [reader] = open_sources(f"{tmp_path}/**/*.txt")
    assert [one.key for one in read_all(reader)] == ["d/a.txt#0", "d/e/b.txt#0"]
    assert reader.source == f"{tmp_path}/**/*.txt"
    [whole] = open_sources(f"{tmp_path}/**")
    assert reasons(whole) == {"d/e/up": "link loop"}


def test_several_sources_and_formats(tmp_path: Path) -> None:
    tree(tmp_path, "a.txt", "README")
    np.save(tmp_path / "b.npy", np.ones((2, 2)))
    (tmp_path / "c.jsonl").write_text('{"text": "x"}\n')
    (tmp_path / "junk").write_bytes(bytes(range(200, 256)) * 10)
    readers = open_sources([str(tmp_path / "a.txt"), tmp_path / "b.npy", f"{tmp_path}/[c]*", iter([Example("k", "t")])])
    assert [reader.format for reader in readers] == ["lines", "npy", "jsonl", "examples"]
    assert open_sources(readers) == readers
    mixed = open_sources(f"{tmp_path}/*")
    assert [reader.format for reader in mixed] == ["npy", "jsonl"]
    assert {os.path.basename(path) for path, _ in mixed[0].notes().ignored} == {"a.txt", "README"}
    assert reasons(mixed[0]) == {"junk": "unknown format"}


def test_what_cannot_be_read_is_told(tmp_path: Path) -> None:
    tree(tmp_path, "d/a.txt", "d/b.txt")
    (tmp_path / "junk").write_bytes(bytes(range(200, 256)))
    (tmp_path / "none").touch()
    (tmp_path / "empty").mkdir()
    (tmp_path / "dangling").symlink_to("nothing")
    os.mkfifo(tmp_path / "pipe")
    for source, message in [
        ("missing.csv", "there is no such file"), ("x*.csv", "names no file"), ("junk", "no known format: it begins with"),
        ("none", "holds nothing"), ("empty", "holds no files"), ("dangling", "leads to 'nothing', which is not there"),
        ("pipe", "is a FIFO"), ("d", r"holds no images, but 2 \.txt: give a pattern, as '.*/d/\*\*/\*\.txt\*'"), ("j*", "none of 1 files can be read"),
        ("a\0b", "NUL byte"),
    ]:  # fmt: skip
        with pytest.raises(SourceError, match=message):
            open_sources(f"{tmp_path}/{source}")
    with pytest.raises(SourceError, match="no source"):
        open_sources([])
    with pytest.raises(SourceError, match="an empty path"):  # a variable that is not set, rather than this directory
        open_sources("")
    with pytest.raises(InvalidArgumentError, match="not int"):
        open_sources(3)
    with pytest.raises(SourceError, match="is a folder: give a pattern"):
        open_sources(tmp_path / "d", ReadOptions(format="lines"))


def test_non_utf8_paths(tmp_path: Path) -> None:
    name = os.fsencode(tmp_path) + b"/caf\xe9.txt"
    with open(name, "w") as file:
        file.write("hello\n")
    for source in (name, f"{tmp_path}/caf*"):
        [reader] = open_sources(source)
        assert [one.key for one in read_all(reader)] == ["caf\udce9.txt#0"]


@pytest.mark.parametrize(
    ("name", "content", "format"),
    [
        ("x", b"one line\nand another\n", "lines"),
        ("x", b"a,b\n1,2\n3,4\n", "csv"),
        ("x", b"Dear, you\nmany, many, words\nfew\n", "lines"),
        ("x.txt", b"a,b\n1,2\n3,4\n", "lines"),
        ("x.csv", b"text\nhello\n", "csv"),
        ("x.png", b"a\tb\n1\t2\n3\t4\n", "csv"),
        ("x", b'{"a": 1}\n{"a": 2}\n', "jsonl"),
        ("x.csv", b"\x89PNG\r\n\x1a\n", "images"),
        ("x.csv", b"PAR1....", "parquet"),
        ("x", "grün\n".encode() * 30_000, "lines"),
        ("x", "\ufeffa;b\n1;2\n3;4\n".encode("utf-16"), "csv"),
    ],
)
def test_formats_are_told_by_content(tmp_path: Path, name: str, content: bytes, format: str) -> None:
    (tmp_path / name).write_bytes(content)
    assert format_of(str(tmp_path / name)) == format


# -- in memory -------------------------------------------------------------------------------------------------------

EXAMPLES = [Example("a", "text a"), Example(2, "text b", "label", {"n": 1}), Example("c", "text c", 3)]


class TestExamples(ReaderContract):
    n = 3
    is_in_memory = True

    @pytest.fixture
    def make(self) -> Callable[[], Reader]:
        return lambda: open_sources(EXAMPLES)[0]


class TestExamplesMadeAnew(ReaderContract):
    n = 4
    is_in_memory = True

    @pytest.fixture
    def make(self) -> Callable[[], Reader]:
        def examples() -> Iterator[Example]:
            for i in range(4):
                yield Example(i, np.full(3, i, np.float64))

        return lambda: open_sources(examples, ReadOptions(name="mine"))[0]


def test_examples_of_each_kind() -> None:
    inputs: list[tuple[Any, str]] = [
        ("a", "text"), (np.ones(3), "vector"), ([1.0, 2.0], "vector"), (np.ones(3, np.uint8), "array"),
        (np.ones((2, 2, 3), np.uint8), "image"), (np.ones((2, 2)), "array"),
    ]  # fmt: skip
    for value, kind in inputs:
        assert open_sources([Example(1, value)])[0].input_kind == kind
    assert open_sources([Example(1, np.ones(3))], ReadOptions(as_vectors=False))[0].input_kind == "array"
    assert open_sources([Example(1, np.ones(3, np.uint8))], ReadOptions(as_vectors=True))[0].input_kind == "vector"


def test_examples_that_are_refused() -> None:
    mixed: list[Any] = [
        Example("a", np.ones(3)),
        Example("b", np.ones(2)),
        Example("c", "text"),
        "none",
        Example("d", np.zeros(3)),
    ]
    [reader] = open_sources(lambda: mixed)
    assert [one.key for one in read_all(reader)] == ["a", "d"]
    assert reasons(reader) == {"b": "wrong width", "c": "wrong type", 3: "no Example"}
    with pytest.raises(SourceError, match="not of int"):
        open_sources(iter([3]))
    with pytest.raises(SourceError, match="no example"):
        open_sources(iter([]))


def test_an_iterator_is_read_once() -> None:
    [reader] = open_sources(iter(EXAMPLES))
    assert [one.key for one in read_all(reader)] == ["a", 2, "c"]
    with pytest.raises(SourceError, match="can be read once"):
        read_all(reader)


def test_an_error_of_the_callers_own_comes_through() -> None:
    def broken() -> Iterator[Example]:
        yield EXAMPLES[0]
        raise KeyError("mine")

    [reader] = open_sources(broken)
    with pytest.raises(KeyError, match="mine"):
        read_all(reader)
