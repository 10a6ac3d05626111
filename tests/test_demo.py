"""The demo, from end to end, and what it takes and refuses."""

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import simstore

TOOLS = Path(__file__).resolve().parent.parent / "tools"
sys.path.insert(0, str(TOOLS))

import demo_data  # noqa: E402
import demo_digits  # noqa: E402

RUN_TIMEOUT_S = 300


def run(*arguments: str | Path) -> "subprocess.CompletedProcess[str]":
    paths = [str(TOOLS.parent), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(paths)}
    command = [sys.executable, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=RUN_TIMEOUT_S)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The folder and the output of one run."""
    for extra in ("keras", "sklearn", "matplotlib"):
        pytest.importorskip(extra, reason=f"the demo needs {extra}", exc_type=ImportError)
    out = tmp_path_factory.mktemp("demo") / "out"
    ran = run(TOOLS / "demo_digits.py", "--out", out)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "Traceback" not in ran.stderr
    return out, ran.stdout


def accuracies(output: str, row: str) -> list[float]:
    found = re.search(rf"{row}, \d+ numbers +([\d.]+)% +([\d.]+)%", output)
    assert found is not None, output
    return [float(number) for number in found.groups()]


@pytest.mark.slow
class TestRun:
    def test_accuracy(self, finished: tuple[Path, str]) -> None:
        nearest, majority = accuracies(finished[1], "embedding")
        assert 97.5 <= nearest <= 100 and 97.5 <= majority <= 100

    def test_the_baseline_is_the_one_that_scikit_learn_finds(self, finished: tuple[Path, str]) -> None:
        from sklearn.neighbors import KNeighborsClassifier

        parts = demo_data.load_digits()
        indexed, queries = (part.images.reshape(len(part), -1) for part in (parts.indexed, parts.queries))
        by_one = KNeighborsClassifier(1).fit(indexed, parts.indexed.labels).score(queries, parts.queries.labels)
        assert accuracies(finished[1], "raw pixels")[0] == pytest.approx(100 * by_one, abs=0.5)  # ties may differ

    def test_the_store(self, finished: tuple[Path, str]) -> None:
        parts = demo_data.load_digits()
        with simstore.open(finished[0] / "digits.sim", mode="r") as store:
            assert len(store) == len(parts.indexed)
            assert store.check(deep=True) == []
            assert "mine" not in store
            item = store.get("digit-00005")
            assert item.label == parts.indexed.labels[5]
            np.testing.assert_array_equal(item.data["image"], parts.indexed.images[5])

    def test_the_other_process_finds_the_right_one(self, finished: tuple[Path, str]) -> None:
        out, output = finished
        searched = re.search(r"A held-out (\d) finds:\n +(digit-\d+), label (\d), distance [\d.]+", output)
        assert searched is not None
        assert searched[1] == searched[3]
        label = demo_data.load_digits().queries.labels[0]
        assert searched[1] == str(label)
        with simstore.open(out / "digits.sim", mode="r") as store:
            assert store.get(searched[2]).label == label

    def test_the_lines_at_the_end_work_as_they_are_printed(self, finished: tuple[Path, str], tmp_path: Path) -> None:
        lines = finished[1].splitlines()[-3:]
        assert lines[0].startswith("import ")
        script = tmp_path / "lines.py"
        script.write_text("\n".join(lines))
        ran = run("-W", "ignore", script)
        assert re.match(r"<Hits 5: 'digit-\d+': ", ran.stdout), ran.stdout + ran.stderr

    def test_the_picture(self, finished: tuple[Path, str]) -> None:
        from matplotlib import image

        pixels = image.imread(finished[0] / "neighbours.png")[..., :3]
        assert min(pixels.shape[:2]) > 800
        assert 0.02 < (pixels < 0.5).all(axis=2).mean() < 0.5  # ink
        assert (pixels > 0.95).all(axis=2).mean() > 0.3  # paper


# -- what it takes and refuses ---------------------------------------------------------------------------------------


def test_a_folder_that_no_demo_made_is_left_alone(tmp_path: Path) -> None:
    own = tmp_path / "digits.sim"
    own.mkdir()
    (own / "data.mdb").write_text("mine")
    with pytest.raises(SystemExit, match="no demo made it"):
        demo_digits.fresh_folder(tmp_path)
    with pytest.raises(SystemExit, match="no demo made it"):
        demo_digits.fresh_folder(own / "data.mdb")
    assert (own / "data.mdb").read_text() == "mine"


def test_a_demos_folder_is_used_again_and_only_its_store_goes(tmp_path: Path) -> None:
    out = demo_digits.fresh_folder(tmp_path / "new" / "out")
    (out / "digits.sim").mkdir()
    (out / "digits.sim" / "data.mdb").write_text("old")
    (out / "notes.txt").write_text("mine")
    assert demo_digits.fresh_folder(out) == out
    assert not (out / "digits.sim").exists()
    assert (out / "notes.txt").read_text() == "mine"


@pytest.mark.parametrize("shape", [(40, 6, 6), (40, 36), (40, 6, 6, 1)])
def test_files_of_x_and_y(shape: tuple[int, ...], tmp_path: Path) -> None:
    x, y = np.arange(40 * 36, dtype=np.int64).reshape(shape), np.arange(40).astype(str)
    np.savez(tmp_path / "xy.npz", x=x, y=y)
    parts = demo_data.load_file(tmp_path / "xy.npz")
    assert (len(parts.indexed), len(parts.queries)) == (32, 8)
    assert set(parts.indexed.labels.tolist()) | set(parts.queries.labels.tolist()) == set(y.tolist())
    for part in (parts.training, parts.indexed, parts.queries):
        assert part.images.shape[1:] == (6, 6, 1)
        assert [int(image.flat[0]) // 36 for image in part.images] == part.labels.astype(int).tolist()


def test_files_of_train_and_test(tmp_path: Path) -> None:
    x, y = np.zeros((30, 5, 5, 3), np.uint8), np.arange(30).reshape(-1, 1)
    np.savez(tmp_path / "keras.npz", x_train=x, y_train=y, x_test=x[:10], y_test=y[:10] + 100)
    parts = demo_data.load_file(tmp_path / "keras.npz")
    assert parts.indexed.labels.tolist() == list(range(30))
    assert sorted(parts.queries.labels.tolist()) == list(range(100, 110))


@pytest.mark.parametrize(
    "arrays",
    [
        {"a": np.zeros(3)},
        {"x": np.zeros((20, 7)), "y": np.zeros(20)},
        {"x": np.zeros((20, 4, 4)), "y": np.zeros(19)},
        {"x": np.zeros((2, 4, 4)), "y": np.zeros(2)},
        {"x": np.full((20, 4, 4), "a"), "y": np.zeros(20)},
    ],
)
def test_files_that_cannot_be_used(arrays: "dict[str, np.ndarray]", tmp_path: Path) -> None:
    np.savez(tmp_path / "bad.npz", **arrays)
    with pytest.raises(SystemExit, match="cannot be used"):
        demo_data.load_file(tmp_path / "bad.npz")


def test_no_file(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="cannot be used"):
        demo_data.load_file(tmp_path / "none.npz")
    (tmp_path / "text.npz").write_text("no arrays")
    with pytest.raises(SystemExit, match="cannot be used"):
        demo_data.load_file(tmp_path / "text.npz")


def test_rows_of_the_picture() -> None:
    assert demo_digits.first_of_each_label([3, 3, "a", 3, 1, 1, 2], 3) == [0, 2, 4]
