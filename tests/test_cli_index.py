"""simstore index: what it takes in, what it says, how it stops; searches by image and their contact sheets."""

import json
import os
import pty
import re
import select
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import simstore
from simstore import IngestReport, Store

pytest.importorskip("typer")
pytest.importorskip("rich")
pytest.importorskip("PIL")
from PIL import Image as pillow
from test_cli import ok, run

EMBEDDER = """
import time
import numpy as np

def colours(images):
    return np.array([np.asarray(image, np.float32).mean(axis=(0, 1)) + 1 for image in images])

colours.dim = 3

def lengths(texts):
    open("started", "w").close()
    time.sleep(PAUSE_S)
    return np.array([[len(text), text.count("a") + 1] for text in texts], np.float32)

lengths.dim = 2
"""


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "own_embedders", raising=False)
    (tmp_path / "own_embedders.py").write_text(EMBEDDER.replace("PAUSE_S", "0"))
    return tmp_path


def photos(folder: Path, n: int = 6) -> None:
    for name, colour in (("cats", (250, 0, 0)), ("dogs", (0, 0, 250))):
        (folder / "photos" / name).mkdir(parents=True)
        for i in range(n):
            pillow.new("RGB", (20 + i, 30), tuple(max(0, part - i) for part in colour)).save(
                folder / "photos" / name / f"{i}.png"
            )
    (folder / "photos/cats/bad.png").write_text("no image at all")


def table(folder: Path, n: int = 200) -> None:
    rows = [f"t{i},{'a' * (i % 50 + 1)} {i},{'xy'[i % 2]},{2000 + i}" for i in range(n)]
    (folder / "t.csv").write_text("\n".join(["id,text,label,year", *rows]) + "\n")


COLOURS = ("--embedder", "own_embedders:colours")
LENGTHS = ("--embedder", "own_embedders:lengths")


def test_images(folder: Path) -> None:
    photos(folder)
    first = ok("index", "photos", "--store", "p.sim", *COLOURS, "--json", "--report", "r.json")
    report = first.lines[0]
    assert (report["added"], report["rejected"], report["n_embedded"]) == (12, {"no image": 1}, 12)
    assert json.loads((folder / "r.json").read_text()) == report
    assert "guessed: " in first.err and "simstore rejected p.sim" in first.err
    again = ok("index", "photos", "--store", "p.sim", *COLOURS)
    assert "unchanged\t12" in again.out and "rejected before\t1" in again.out and "embedded\t0" in again.out
    assert run("index", "photos", "--store", "p.sim", *COLOURS, "--strict").code == 1
    (rejected,) = ok("rejected", "p.sim", "--json").lines
    assert (rejected["reason"], rejected["key"]) == ("no image", "cats/bad.png")
    assert ok("rejected", "p.sim").err == "1 no image\n"
    assert {item["label"] for item in ok("list", "p.sim", "--json").lines} == {"cats", "dogs"}


def test_prune(folder: Path) -> None:
    photos(folder)
    ok("index", "photos", "-s", "p.sim", *COLOURS)
    for i in range(4):
        (folder / f"photos/cats/{i}.png").unlink()
    told = ok("index", "photos", "-s", "p.sim", *COLOURS)
    assert "vanished\t4" in told.out and "cats/0.png" in told.err and "--prune" in told.err
    refused = run("index", "photos", "-s", "p.sim", *COLOURS, "--prune")
    assert refused.code == 3 and len(ok("list", "p.sim", "--json").lines) == 12
    assert "deleted\t4" in ok("index", "photos", "-s", "p.sim", *COLOURS, "--prune", "--force").out


def test_search_by_image_and_the_sheet(folder: Path) -> None:
    photos(folder)
    ok("index", "photos", "-s", "p.sim", *COLOURS)
    (folder / "photos/cats/1.png").unlink()
    ok("add", "p.sim", "--key", "by hand", "--vector", "249,1,1")
    words = ["search", "p.sim", "--image", "photos/cats/0.png", "-k", "4", "--json"]
    found = ok(*words, *COLOURS, "--sheet", "s.png")
    assert {hit["key"] for hit in found.lines[:3]} <= {"cats/0.png", "cats/1.png", "cats/2.png", "cats/3.png", "by hand"}
    with pillow.open(folder / "s.png") as sheet:
        assert sheet.size == (12 + 5 * 172, 12 + 160 + 32 + 12)
        assert sheet.getpixel((12 + 80, 12 + 80)) == (250, 0, 0)  # the query comes first
        missing = [hit["key"] for hit in found.lines].index("cats/1.png") + 1
        assert sheet.getpixel((12 + missing * 172 + 1, 12 + 1)) == (122, 129, 148)  # a frame, crossed
    ok("search", "p.sim", "--key", "dogs/0.png", "-k", "40", "--sheet", "s.jpg")
    with pillow.open(folder / "s.jpg") as sheet:
        assert sheet.size[0] == 12 + 6 * 172
    assert run(*words, *COLOURS, "--sheet", "s.txt").code == 2
    assert run("search", "p.sim", "--image", "nowhere.png", *COLOURS).code == 3
    unsaved = run(*words)
    assert unsaved.code == 2 and "could not be saved" in unsaved.err


def test_texts_and_columns(folder: Path) -> None:
    table(folder)
    done = ok("index", "t.csv", "-s", "t.sim", *LENGTHS, "--metric", "l2", "--label-column", "year", "--json")
    assert done.lines[0]["added"] == 200 and "column 'text' is the text" in done.err
    item = ok("get", "t.sim", "t3", "--json").lines[0]
    assert (item["label"], item["data"]["text"]) == (2003, "aaaa 3")
    near = ok("search", "t.sim", "--text", "aaaa 3", "-k", "1", "--json", *LENGTHS).lines
    assert near[0]["distance"] == 0
    assert ok("add", "t.sim", "--key", "new", "--text", "aaa", *LENGTHS).code == 0


def test_reembed(folder: Path) -> None:
    photos(folder)
    ok("index", "photos", "-s", "p.sim", *COLOURS)
    (folder / "own_embedders.py").write_text(
        EMBEDDER.replace("PAUSE_S", "0") + "\ndef greys(images):\n    return colours(images)[:, :1]\n\ngreys.dim = 1\n"
    )
    sys.modules.pop("own_embedders")
    missing = run("reembed", "p.sim", "--embedder", "own_embedders:greys", "--field", "none")
    assert missing.code == 2 and "no field 'none'" in missing.err
    assert ok("reembed", "p.sim", "--embedder", "own_embedders:greys", "--json").lines == [
        {"n_items": 12, "dim": 1, "n_resumed": 0}
    ]
    assert ok("info", "p.sim", "--json").lines[0]["dim"] == 1


def test_reembed_by_an_embedder_that_learns_from_the_texts_first(folder: Path) -> None:
    pytest.importorskip("keras")
    table(folder, 30)
    ok("index", "t.csv", "-s", "t.sim", *LENGTHS)
    assert "--field" in run("reembed", "t.sim", "--embedder", "text-ngram").err
    moved = ok("reembed", "t.sim", "--embedder", "text-ngram", "--field", "text", "--json")
    assert moved.lines == [{"n_items": 30, "dim": 256, "n_resumed": 0}]
    ok("index", "t.csv", "-s", "n.sim", "--embedder", "text-ngram")
    new, old = (ok("list", name, "--json", "--with-vectors").lines for name in ("n.sim", "t.sim"))
    assert [(item["key"], item["vector"]) for item in new] == [(item["key"], item["vector"]) for item in old]


def test_reembed_with_a_first_pass(folder: Path) -> None:
    pytest.importorskip("keras")
    table(folder)
    ok("index", "t.csv", "-s", "t.sim", "--label-column", "label", *LENGTHS)
    refused = run("reembed", "t.sim", "--embedder", "text-ngram")
    assert refused.code == 2 and "--field" in refused.err
    assert ok("reembed", "t.sim", "--embedder", "text-ngram", "--field", "text", "--json").lines[0]["n_items"] == 200
    near = ok("search", "t.sim", "--text", "aaaa 3", "-k", "1", "--json").lines
    assert near[0]["key"] == "t3" and near[0]["distance"] < 1e-6
    ok("index", "t.csv", "-s", "n.sim", "--label-column", "label", "--embedder", "text-ngram")
    assert ok("search", "n.sim", "--text", "aaaa 3", "-k", "1", "--json").lines[0]["key"] == "t3"


def test_vectors_need_no_embedder(folder: Path) -> None:
    np.save(folder / "v.npy", np.random.default_rng(0).normal(size=(50, 4)).astype(np.float32))
    estimate = ok("index", "v.npy", "-s", "v.sim", "--dry-run", "--json").lines[0]
    assert estimate["is_dry_run"] and estimate["added"] == 50 and not (folder / "v.sim").exists()
    assert "would be added\t50" in ok("index", "v.npy", "-s", "v.sim", "--dry-run").out
    ok("index", "v.npy", "-s", "v.sim", "--metric", "l2")
    assert ok("info", "v.sim", "--json").lines[0]["metric"] == "l2"
    dry = run("index", "v.npy", "-s", "v.sim", "--dry-run", *LENGTHS)
    assert dry.code in (2, 3) and ok("info", "v.sim", "--json").lines[0]["embedder"] is None


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["index", "photos", "-s", "p.sim"], 2, "name what turns them into vectors by --embedder"),
        (["index", "nowhere", "-s", "p.sim", *COLOURS], 2, "nowhere"),
        (["index", "t.csv", "-s", "p.sim", *LENGTHS, "--text-column", "body"], 2, "has no column 'body'"),
        (["index", "photos", "-s", "p.sim", *COLOURS, "--label-from", "("], 2, "regular expression"),
        (["index", "photos", "-s", "p.sim", "--embedder", "image-thum"], 2, "image-thumb"),
        (["index", "photos", "-s", "p.sim", "--embedder", "own_embedders:none"], 2, "none"),
        (["index", "photos", "-s", "p.sim", *COLOURS, "--metric", "cos"], 2, "cosine"),
        (["index", "photos", "-s", "p.sim", *COLOURS, "--format", "pictures"], 2, "pictures"),
        (["index", "photos", *COLOURS], 2, "--store"),
        (["index", "", "-s", "p.sim", *COLOURS], 2, "an empty path"),
        (["index", "photos", "-s", "p.sim", *COLOURS, "--report", "none/r.json"], 2, "there is no folder 'none'"),
    ],
)
def test_what_is_wrong_makes_no_store(words: list[str], code: int, said: str, folder: Path) -> None:
    photos(folder)
    table(folder)
    result = run(*words)
    flat = " ".join(result.err.replace("│", " ").split())
    assert (result.code, said in flat, "Traceback" in flat) == (code, True, False), flat
    assert not (folder / "p.sim").exists()


def test_a_store_that_holds_nothing_yet_takes_another_embedder(folder: Path) -> None:
    """The first run was given one that fails on everything."""
    photos(folder)
    failed = run("index", "photos", "-s", "p.sim", *LENGTHS)
    assert failed.code == 3 and "the embedder fails" in failed.err and ok("list", "p.sim", "--count").out == "0\n"
    assert ok("index", "photos", "-s", "p.sim", *COLOURS, "--json").lines[0]["added"] == 12
    assert ok("info", "p.sim", "--json").lines[0]["dim"] == 3 and ok("check", "p.sim", "--deep").out == "sound\n"
    refused = run("index", "photos", "-s", "p.sim", *LENGTHS)
    assert refused.code == 3 and "the store was made with the embedder" in refused.err


def test_texts_are_not_gone_through_for_a_store_of_another_embedder(folder: Path) -> None:
    pytest.importorskip("keras")
    table(folder)
    ok("index", "t.csv", "-s", "t.sim", *LENGTHS)
    refused = run("index", "t.csv", "-s", "t.sim", "--embedder", "text-ngram")
    assert refused.code == 3 and "goes through" not in refused.err
    assert "holds vectors of the embedder 'own_embedders:lengths'" in refused.err and "simstore reembed" in refused.err


def test_embedders_are_listed() -> None:
    names = {line["name"]: line for line in ok("embedders", "--json").lines}
    assert {"image-thumb", "text-ngram", "image-efficientnet-lite0", "text-minilm"} <= names.keys()
    assert "image-thumb\timage\t768" in ok("embedders").out


ENV = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[1]), "COLUMNS": "100"}


def test_who_interrupts_does_not_wait_for_graphs(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    np.save(folder / "v.npy", np.random.default_rng(0).normal(size=(4_000, 100)).astype(np.float32))
    ingest = Store.ingest

    def stopped(self: Store, *args: Any, **more: Any) -> IngestReport:
        report = ingest(self, *args, **more)
        signal.raise_signal(signal.SIGINT)
        return replace(report, is_interrupted=more["stop"].is_set())

    monkeypatch.setattr(Store, "ingest", stopped)
    result = run("index", "v.npy", "-s", "v.sim", "--json")
    assert result.code == 130 and result.lines[0]["added"] == 4_000 and "Run the same command again" in result.err
    assert ok("info", "v.sim", "--json").lines[0]["n_segments"] == 0
    monkeypatch.setattr(Store, "ingest", ingest)
    assert ok("index", "v.npy", "-s", "v.sim", "--json").lines[0]["unchanged"] == 4_000
    assert ok("info", "v.sim", "--json").lines[0]["n_segments"] == 1


def test_ctrl_c_stops_after_the_batch_and_the_same_command_goes_on(folder: Path) -> None:
    table(folder, 2000)
    (folder / "own_embedders.py").write_text(EMBEDDER.replace("PAUSE_S", "0.05"))
    words = ["index", "t.csv", "-s", "t.sim", *LENGTHS, "--batch-size", "20", "--json"]
    env = {**ENV, "PYTHONPATH": f"{ENV['PYTHONPATH']}{os.pathsep}{folder}"}
    child = subprocess.Popen(
        [sys.executable, "-m", "simstore", *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=env
    )
    for _ in range(600):
        if (folder / "started").exists():
            break
        time.sleep(0.05)
    child.send_signal(signal.SIGINT)
    out, err = child.communicate(timeout=60)
    report: dict[str, Any] = json.loads(out)
    assert child.returncode == 130 and report["is_interrupted"] and 0 < report["added"] < 2000
    assert b"Run the same command again" in err and b"Traceback" not in err
    with simstore.open(folder / "t.sim", mode="r") as store:
        assert len(store) == report["added"]
    (folder / "own_embedders.py").write_text(EMBEDDER.replace("PAUSE_S", "0"))
    sys.modules.pop("own_embedders", None)
    rest = ok(*words).lines[0]
    assert (rest["added"], rest["unchanged"]) == (2000 - report["added"], report["added"])


def test_progress_is_drawn_on_a_terminal_only(folder: Path) -> None:
    table(folder, 400)
    (folder / "own_embedders.py").write_text(EMBEDDER.replace("PAUSE_S", "0.1"))
    env = {**ENV, "PYTHONPATH": f"{ENV['PYTHONPATH']}{os.pathsep}{folder}", "TERM": "xterm"}
    ours, theirs = pty.openpty()
    words = ["index", "t.csv", "-s", "t.sim", *LENGTHS, "--batch-size", "20", "--json"]
    child = subprocess.Popen([sys.executable, "-m", "simstore", *words], stdout=subprocess.PIPE, stderr=theirs, env=env)
    os.close(theirs)
    drawn = b""
    while child.poll() is None or select.select([ours], [], [], 0)[0]:
        if select.select([ours], [], [], 0.1)[0]:
            try:
                drawn += os.read(ours, 1 << 16)
            except OSError:
                break
    os.close(ours)
    assert child.stdout is not None
    assert json.loads(child.stdout.read())["added"] == 400
    child.stdout.close()
    assert child.wait(60) == 0
    assert re.search(rb"\d+/", drawn) and b"ingest" in drawn
