"""Every command but index, in this process: what it prints, what it does, with which code it ends."""

import datetime
import gzip
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import OpenStore

import simstore
from simstore import Store, label
from simstore.errors import CorruptStoreError
from simstore.transfer import from_json

pytest.importorskip("typer")
pytest.importorskip("rich")
from typer.testing import CliRunner

from simstore.cli.app import app

N = 30


@pytest.fixture
def path(stores: OpenStore, tmp_path: Path) -> str:
    """A store with N items and two keys that look alike, closed."""
    filled(stores("a.sim", metric="l2", index_fields=["year"])).close()
    return str(tmp_path / "a.sim")


def filled(store: Store) -> Store:
    vectors = np.arange(N * 2, dtype=np.float32).reshape(N, 2)
    data = [{"year": 2000 + i, "_source": {"source": "/x", "file": f"/x/{i}.png"}} for i in range(N)]
    store.add([f"k/{i}" for i in range(N)], vectors, labels=["cat", "dog", 3] * (N // 3), data=data)
    store.add(["7", 7, 8], [[0, 0], [1, 1], [2, 2]])
    return store


class Result:
    def __init__(self, code: int, out: str, err: str) -> None:
        self.code, self.out, self.err = code, out, err

    @property
    def lines(self) -> list[Any]:
        return [json.loads(line) for line in self.out.splitlines()]


def run(*words: str, input: str | None = None) -> Result:
    result = CliRunner().invoke(app, list(words), input=input, prog_name="simstore")
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return Result(result.exit_code, result.stdout, result.stderr)


def ok(*words: str, input: str | None = None) -> Result:
    result = run(*words, input=input)
    assert (result.code, "Traceback" in result.err) == (0, False), (result.err, result.out)
    return result


# -- reading -----------------------------------------------------------------------------------------------------------


def test_get(path: str) -> None:
    assert ok("get", path, "k/1", "--json").lines[0]["label"] == "dog"
    assert ok("get", path, "k/1").out.splitlines() == ["key\tlabel\tdata", 'k/1\tdog\t{"year": 2001}']
    assert ok("get", path, "k/2", "--json", "--with-vectors").lines[0]["vector"] == [4.0, 5.0]
    missing = run("get", path, "k/1", "no", "--json")
    assert (missing.code, len(missing.lines), missing.err) == (1, 1, "no is not in the store\n")


def test_keys_that_look_like_ints(path: str) -> None:
    assert ok("get", path, "7", "--json").lines[0]["key"] == "7"
    assert ok("get", path, "7", "--int", "--json").lines[0]["key"] == 7
    assert ok("get", path, "8", "--json").lines[0]["key"] == 8
    assert run("get", path, "08", "--json").code == 1
    assert ok("get", path, "7").out.splitlines()[1].startswith('"7"\t')
    assert ok("get", path, "8").out.splitlines()[1].startswith("8\t")
    assert run("get", path, "x", "--int").code == 2


def test_list(path: str) -> None:
    assert len(ok("list", path, "--json").lines) == N + 3
    assert [item["key"] for item in ok("list", path, "--where", "year>=2028 and label in (cat,3)", "--json").lines] == ["k/29"]
    assert len(ok("list", path, "--where", '{"year": {"$lt": 2005}}', "--json").lines) == 5
    assert len(ok("list", path, "--label", "3", "--json").lines) == N // 3
    assert len(ok("list", path, "--label", "3", "-w", "year>2010", "--json").lines) == 7
    few = ok("list", path, "--limit", "2")
    assert len(few.out.splitlines()) == 3 and "2 of 33 items" in few.err
    assert ok("list", path, "--count", "-w", "exists year").out == f"{N}\n"
    counted = {from_json(line["label"]): line["count"] for line in ok("list", path, "--labels", "--json").lines}
    assert counted == {"cat": 10, "dog": 10, 3: 10, None: 3}


def test_info(path: str) -> None:
    info = ok("info", path, "--json").lines[0]
    assert (info["count"], info["dim"], info["metric"], info["n_snapshots"], info["n_rejected"]) == (N + 3, 2, "l2", 0, 0)
    assert "items\t33" in ok("info", path).out


def test_search(path: str) -> None:
    near = ok("search", path, "--vector", "2.1,3", "-k", "2", "--json", "--with-vectors").lines
    assert [hit["key"] for hit in near] == ["k/1", 8] and near[0]["vector"] == [2.0, 3.0]
    assert near[0]["distance"] == pytest.approx(0.1, abs=1e-5)
    assert [hit["key"] for hit in ok("search", path, "--key", "k/5", "-k", "2", "--json").lines] == ["k/4", "k/6"]
    assert ok("search", path, "--key", "k/5", "-k", "1", "--json").lines[0]["rank"] == 0
    assert len(ok("search", path, "--vector", "0,0", "-k", "0", "--max-distance", "4", "--json").lines) == 5
    assert ok("search", path, "--vector", "[0, 0]", "-w", "year=2029", "--exact", "--json").lines[0]["key"] == "k/29"
    assert ok("search", path, "--vector", "-", "-k", "1", "--json", input="[58, 59]").lines[0]["key"] == "k/29"
    assert ok("search", path, "--vector", "0 0", "-k", "1").out.splitlines()[0] == "rank\tdistance\tkey\tlabel\tdata"


def test_search_by_a_file(path: str, tmp_path: Path) -> None:
    np.save(tmp_path / "q.npy", np.array([[58.0, 59.0]]))
    assert ok("search", path, "--vector", str(tmp_path / "q.npy"), "-k", "1", "--json").lines[0]["key"] == "k/29"


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["search", "PATH"], 2, "give one of"),
        (["search", "PATH", "--vector", "0,0", "--key", "k/1"], 2, "give one of"),
        (["search", "PATH", "--vector", "1,x"], 2, "is no vector"),
        (["search", "PATH", "--vector", "1,2,3"], 2, "query has 3 numbers"),
        (["search", "PATH", "--vector", "1,2", "--where", "year >="], 2, "expected a value after >="),
        (["search", "PATH", "--vector", "1,2", "--where", '{"year": {"$what": 1}}'], 2, "is unknown"),
        (["search", "PATH", "--vector", "1,2", "--where", "{"], 2, "is no JSON"),
        (["search", "PATH", "--text", "x"], 2, "no embedder"),
        (["search", "PATH", "--vector", "1e39,1"], 2, "error: the query holds NaN or infinity"),
        (["search", "PATH", "--vector", "1,1", "-k", "0"], 2, "give --max-distance, too"),
        (["add", "new.sim", "--text", "x"], 2, "--embedder"),
        (["search", "PATH", "--key", "none"], 1, "not in the store"),
        (["search", "PATH", "--vector", "1,2", "--snapshot", "none"], 3, "none"),
        (["search", "PATH", "--vector", "1,2", "--what"], 2, "No such option"),
        (["serach", "PATH"], 2, "No such command"),
        (["get", "PATH"], 2, "Missing argument"),
        (["get", "nowhere.sim", "a"], 3, "there is no store at nowhere.sim"),
        (["list", "FILE"], 3, "is a file"),
        (["delete", "PATH"], 2, "give keys, or --where"),
        (["delete", "nowhere.sim", "a"], 3, "there is no store"),
        (["optimize", "nowhere.sim"], 3, "there is no store"),
        (["snapshot", "create", "nowhere.sim", "a"], 3, "there is no store"),
        (["export", "PATH", "x.txt"], 2, "does not end in one of"),
        (["export", "PATH", "FILE"], 2, "does not end in one of"),
        (["export", "PATH", "none/x.npz"], 3, "No such file"),
        (["import", "none.npz", "PATH"], 2, "there is no file"),
        (["completion", "show", "tcsh"], 2, "is none of"),
        (["add", "PATH", "--vector", "1,2", "--text", "a"], 2, "not several"),
        (["add", "PATH", "--key", "a"], 2, "JSON lines on stdin alone"),
        (["add", "PATH", "--key", "a", "--vector", "1,2", "--data", "{"], 2, "is no JSON"),
        (["add", "PATH", "--key", "k/1", "--vector", "1,2"], 3, "k/1"),
        (["add", "PATH", "--key", "a", "--vector", "1,2,3"], 2, "3 numbers"),
    ],
)
def test_what_is_wrong_is_said(
    words: list[str], code: int, said: str, path: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("x")
    names = {"PATH": path, "FILE": str(tmp_path / "file")}
    before = sorted(os.listdir(tmp_path))
    result = run(*(names.get(word, word) for word in words))
    flat = " ".join(result.err.replace("│", " ").split())
    assert (result.code, said in flat, "Traceback" in flat) == (code, True, False), flat
    assert sorted(os.listdir(tmp_path)) == before


def test_debug_shows_the_error_itself(tmp_path: Path) -> None:
    for words in (["--debug", "get", "x", "a"], ["get", "x", "a", "--debug"]):
        with pytest.raises(simstore.errors.StoreNotFoundError):
            run(*words)


# -- writing -----------------------------------------------------------------------------------------------------------


def test_add_one(tmp_path: Path) -> None:
    path = str(tmp_path / "new.sim")
    ok(
        "add",
        path,
        "--key",
        "a",
        "--vector",
        "1,2",
        "--label",
        "x",
        "--data",
        '{"at": {"$date": "2024-05-01"}}',
        "--metric",
        "l2",
    )
    ok("add", path, "--key", "5", "--int", "--vector", "3,4")
    assert ok("add", path, "--key", "a", "--vector", "5,6", "--upsert", "--json").lines == [{"added": 0, "replaced": 1}]
    with simstore.open(path, mode="r") as store:
        assert store.info().metric == "l2"
        assert store.get("a").data is None and store.get(5).vector.tolist() == [3, 4]


def test_add_lines_is_what_list_prints(path: str, tmp_path: Path) -> None:
    odd = [
        {"key": "\udcff\n\x1b[31m", "label": "\ud800", "vector": [0.1, -0.0], "data": {"a": {"$bytes": "AAE="}}},
        {"key": "b64", "vector": "AACAPwAAAEA=", "data": {"$array": {"dtype": "<i2", "shape": [1], "base64": "AQA="}}},
    ]
    assert ok("add", path, "--json", input="\n".join(map(json.dumps, odd)) + "\n\n").lines == [{"added": 2, "replaced": 0}]
    listed = ok("list", path, "--json", "--with-vectors").out
    copy = str(tmp_path / "copy.sim")
    ok("add", copy, "--metric", "l2", input=listed)
    with simstore.open(path, mode="r") as a, simstore.open(copy, mode="r") as b:
        same = [(item.key, item.label, item.vector.tobytes()) for item in a]
        assert [(item.key, item.label, item.vector.tobytes()) for item in b] == same
        assert b.get("b64").data.tolist() == [1] and b.get("\udcff\n\x1b[31m").data == {"a": b"\x00\x01"}
    shown = ok("get", path, "\udcff\n\x1b[31m").out
    assert shown.splitlines()[1].startswith("\\udcff\\n\\x1b[31m\t\\ud800\t")


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("{", "line 2"),
        ("[]", "no JSON object"),
        ('{"key": "a"}', "one of vector, text, image is needed, not none"),
        ('{"key": "a", "vector": [1, 2], "text": "x"}', "not vector and text"),
        ('{"key": "a", "vectr": [1, 2]}', "'vectr' is unknown"),
        ('{"key": "a", "vector": "x"}', "line 2"),
        ('{"key": "a", "vector": [1, 2], "data": {"$no": 1}}', "'$no' is no type"),
        ('{"key": 1.5, "vector": [1, 2]}', "a key is a str or an int"),
    ],
)
def test_a_bad_line_is_named(line: str, said: str, tmp_path: Path) -> None:
    result = run("add", str(tmp_path / "a.sim"), input=f'{{"key": "first", "vector": [1, 2]}}\n{line}\n')
    assert result.code == 2 and said in result.err
    assert not (tmp_path / "a.sim").exists() or len(simstore.open(tmp_path / "a.sim", mode="r")) == 0


def test_nothing_on_stdin_makes_no_store(tmp_path: Path) -> None:
    assert run("add", str(tmp_path / "a.sim"), input="\n").code == 2
    assert not (tmp_path / "a.sim").exists()


def test_delete(path: str) -> None:
    assert ok("delete", path, "k/1", "8", "--json").lines == [{"deleted": 2, "matched": 2, "keys": ["k/1", 8]}]
    missing = run("delete", path, "k/2", "none")
    assert (missing.code, missing.err) == (1, "none is not in the store\n")
    assert "11 items would be deleted" in ok("delete", path, "--where", "year > 2018", "--dry-run").out
    asked = run("delete", path, "--where", "year > 2018", input="y\n")
    assert asked.code == 2 and "give --yes" in " ".join(asked.err.replace("│", " ").split())
    assert ok("list", path, "--count").out == f"{N + 1}\n"
    assert "11 items deleted" in ok("delete", path, "--where", "year > 2018", "--yes").out
    assert "0 items deleted" in ok("delete", path, "--where", "year > 2018").out
    assert ok("list", path, "--count").out == f"{N - 10}\n"


# -- upkeep ------------------------------------------------------------------------------------------------------------


def test_upkeep(path: str, tmp_path: Path) -> None:
    assert "--deep reads everything" in ok("check", path).out
    assert ok("check", path, "--deep").out == "sound\n"
    assert ok("check", path, "--deep", "--json").lines == []
    assert ok("optimize", path, "--json").lines == [{"count": N + 3, "n_segments": 1}]
    ok("delete", path, "k/1")
    assert ok("compact", path, "--json").lines[0]["n_purged"] == 1
    assert "nothing was to be rebuilt" in ok("repair", path).out
    assert ok("backup", path, str(tmp_path / "b.sim"), "--json").lines == [{"path": str(tmp_path / "b.sim")}]
    assert run("backup", path, str(tmp_path / "b.sim")).code == 3
    assert ok("list", str(tmp_path / "b.sim"), "--count").out == f"{N + 2}\n"
    assert ok("rejected", path, "--json").lines == []
    assert "nothing was rejected" in ok("rejected", path).err


def test_damage_is_found_and_mended(path: str) -> None:
    ok("optimize", path)
    (segment,) = Path(path, "segments").iterdir()
    content = bytearray(segment.read_bytes())
    content[-5] ^= 255
    segment.write_bytes(content)
    found = run("check", path, "--deep", "--json")
    assert found.code == 1 and {"where", "what", "remedy"} == set(found.lines[0])
    assert run("check", path, "--deep").code == 1
    assert "rebuilt: " in ok("repair", path).out
    assert ok("check", path, "--deep").code == 0


def test_snapshots(path: str) -> None:
    assert ok("snapshot", "create", path, "monday", "--note", "n", "--json").lines[0]["count"] == N + 3
    assert run("snapshot", "create", path, "monday").code == 3
    ok("delete", path, "k/1", "8")
    ok("add", path, "--key", "new", "--vector", "1,1")
    ok("add", path, "--key", "k/2", "--vector", "1,1", "--upsert")
    changes = ok("snapshot", "diff", path, "monday", "--json").lines
    assert sorted(map(str, changes)) == sorted(
        str({"change": what, "key": key})
        for what, key in [("added", "new"), ("changed", "k/2"), ("deleted", "k/1"), ("deleted", 8)]
    )
    assert ok("snapshot", "diff", path, "monday", "monday", "--json").lines == []
    assert "added\tnew" in ok("snapshot", "diff", path, "monday").out
    assert ok("get", path, "k/1", "--snapshot", "monday", "--json").lines[0]["key"] == "k/1"
    assert "to undo: simstore snapshot restore" in ok("snapshot", "restore", path, "monday").out
    assert ok("get", path, "k/1", "--json").code == 0
    listed = ok("snapshot", "list", path, "--json").lines
    assert [one["name"] for one in listed] == ["monday", "before-restore-monday"]
    assert datetime.datetime.fromisoformat(listed[0]["created"]).tzinfo is not None
    assert "monday\t" in ok("snapshot", "list", path).out
    ok("snapshot", "delete", path, "monday")
    assert run("snapshot", "delete", path, "monday").code == 3


def test_export_and_import(path: str, tmp_path: Path) -> None:
    for format in ("parquet", "jsonl", "npz"):
        file, copy = str(tmp_path / f"all.{format}"), str(tmp_path / f"{format}.sim")
        assert ok("export", path, file, "--json").lines[0]["count"] == N + 3
        assert run("export", path, file).code == 3
        ok("export", path, file, "--force", "--where", "exists year")
        assert ok("import", file, copy, "--json").lines[0]["added"] == N
        again = run("import", file, copy)
        assert again.code == 3 and "nothing was imported" in again.err
        assert "0 items added, 30 replaced" in ok("import", file, copy, "--upsert").out
        with simstore.open(copy, mode="r") as store:
            info = store.info()
            assert (info.metric, info.indexed_fields, store.count(label == 3)) == ("l2", ("year",), 10)


def test_a_damaged_file_makes_no_store(path: str, tmp_path: Path) -> None:
    file, copy = tmp_path / "all.jsonl", str(tmp_path / "copy.sim")
    ok("export", path, str(file))
    whole = file.read_bytes()
    file.write_bytes(whole.replace(b"k/7", b"k/8"))
    damaged = run("import", str(file), copy)
    assert damaged.code == 2 and "checksum does not match" in damaged.err and not os.path.exists(copy)
    file.write_bytes(gzip.compress(whole))
    assert "gunzip it first" in run("import", str(file), copy).err and not os.path.exists(copy)
    file.write_bytes(whole)
    ok("add", copy, "--key", "first", "--vector", "1,2", "--metric", "ip")
    assert "compares by l2; this one does by ip" in ok("import", str(file), copy).err


def test_completion() -> None:
    script = ok("completion", "show", "bash").out
    assert "_SIMSTORE_COMPLETE=complete_bash" in script and "simstore" in script


def test_a_damaged_store_is_a_store_error(path: str) -> None:
    Path(path, "data.mdb").write_bytes(b"")
    result = run("list", path)
    assert result.code == 3 and "Traceback" not in result.err
    with pytest.raises(CorruptStoreError):
        run("list", path, "--debug")
