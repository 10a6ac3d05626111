"""Pictures of neighbours, confusions and views, and the page of a projection."""

import base64
import html
import io
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("keras", reason="needs the extra simstore[keras]")
matplotlib = pytest.importorskip("matplotlib", reason="needs the extra simstore[viz]")
matplotlib.use("Agg")

from matplotlib import colors, image, pyplot  # noqa: E402  # the backend comes first

from simstore.errors import InvalidArgumentError, PackageMissingError  # noqa: E402
from simstore.similarity.types import Lookup  # noqa: E402
from simstore.similarity.visualization import (  # noqa: E402
    confusion_matrix,
    projector,
    visualize_views,
    viz_neigbors_imgs,
    viz_neighbors_imgs,
)
from simstore.similarity.visualization.images import is_image, scaled, side_by_side  # noqa: E402
from simstore.similarity.visualization.reduction import principal_components, reduced  # noqa: E402
from simstore.similarity.visualization.tiles import _smaller, png, tiles_of  # noqa: E402

RED = "#d62839"


@pytest.fixture(autouse=True)
def _nothing_stays_open() -> Any:
    yield
    assert pyplot.get_fignums() == []


def rgb(value: int) -> np.ndarray:
    return np.full((6, 5, 3), value, np.uint8)


def neighbours(labels: list[Any], data: Any) -> list[Lookup]:
    return [Lookup(i + 1, f"k{i}", i / 8, label, None, data) for i, label in enumerate(labels)]


def frames(figure: Any) -> list[str]:
    return [colors.to_hex(axis.spines["left"].get_edgecolor()) for axis in figure.axes if axis.axison]


def titles(figure: Any) -> list[str]:
    return [axis.get_title() for axis in figure.axes if axis.axison]


def pixels(axis: Any) -> Any:
    return np.asarray(axis.images[0].get_array())


# -- neighbours ------------------------------------------------------------------------------------------------------


def test_wrong_neighbours_are_marked_whatever_the_channels() -> None:
    for example in (rgb(200), np.zeros((6, 5)), np.zeros((6, 5, 1), np.int64), rgb(3) / 255, np.zeros((6, 5, 4))):
        figure = viz_neighbors_imgs(example, 3, neighbours([3, 8, 3], example))
        assert [colour == RED for colour in frames(figure)] == [False, False, True, False]
        assert titles(figure) == ["3", "3  d: 0.00000", "8  d: 0.12500", "3  d: 0.25000"]


def test_the_marks_are_seen_in_the_picture() -> None:
    figure = viz_neighbors_imgs(rgb(255), 3, neighbours([3, 8], rgb(255)))
    file = io.BytesIO()
    figure.savefig(file)
    drawn = (image.imread(io.BytesIO(file.getvalue()))[..., :3] * 255).round()
    red = (drawn == [0xD6, 0x28, 0x39]).all(axis=2)
    columns = np.flatnonzero(red.sum(axis=0) > drawn.shape[0] / 3)  # two upright lines
    assert len(columns) > 2 and columns.min() > drawn.shape[1] / 2  # around the last of three images


def test_labels_of_every_kind() -> None:
    figure = viz_neighbors_imgs(rgb(0), "cat", neighbours(["cat", "dog", None], rgb(0)), class_mapping={"dog": "Hund"})
    assert [colour == RED for colour in frames(figure)] == [False, False, True, False]
    assert titles(figure) == ["cat", "cat  d: 0.00000", "Hund  d: 0.12500", "no label  d: 0.25000"]
    figure = viz_neighbors_imgs(rgb(0), np.array([1]), neighbours([0, 1], rgb(0)), class_mapping=["zero", "one"])
    assert titles(figure) == ["one", "zero  d: 0.00000", "one  d: 0.12500"]
    assert [colour == RED for colour in frames(figure)] == [False, True, False]
    figure = viz_neighbors_imgs(rgb(0), None, neighbours([0, 1], rgb(0)))
    assert titles(figure)[0] == "query" and RED not in frames(figure)


def test_data_of_every_kind() -> None:
    figure = viz_neighbors_imgs(rgb(0), 1, neighbours([1, 0], None))
    assert [len(axis.images) for axis in figure.axes] == [1, 0, 0] and frames(figure)[2] == RED
    figure = viz_neighbors_imgs(
        "a question", 1, [*neighbours([1], "word " * 99), *neighbours([1], {"n": 1}), *neighbours([1], b"")]
    )
    assert [axis.texts[0].get_text() for axis in figure.axes[::2]] == ["a question", "{'n': 1}"]
    assert figure.axes[1].texts[0].get_text().replace("\n", " ") == "word " * 17 + "…"
    figure = viz_neighbors_imgs(rgb(0), 1, [])
    assert titles(figure) == ["1"]


def test_many_neighbours_go_to_the_next_row() -> None:
    figure = viz_neighbors_imgs(rgb(0), 1, neighbours([1] * 25, rgb(0)))
    assert len(titles(figure)) == 26 and len(figure.axes) == 33
    assert viz_neighbors_imgs(rgb(0), 1, [], fig_size=(3, 2)).get_size_inches().tolist() == [3, 2]


def test_the_old_spelling() -> None:
    assert viz_neigbors_imgs is viz_neighbors_imgs


def test_a_window_opens_only_where_it_can(monkeypatch: pytest.MonkeyPatch) -> None:
    shown = []
    monkeypatch.setattr(pyplot, "show", lambda: shown.append(pyplot.get_fignums()))
    viz_neighbors_imgs(rgb(0), 1, [])
    monkeypatch.setattr(pyplot, "get_backend", lambda: "QtAgg")
    viz_neighbors_imgs(rgb(0), 1, [], show=False)
    assert shown == []
    figure = viz_neighbors_imgs(rgb(0), 1, [])
    assert shown == [[figure.number]]
    pyplot.close(figure)


def test_without_matplotlib(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(PackageMissingError, match=r"simstore\[viz\]"):
        viz_neighbors_imgs(rgb(0), 1, [])


# -- images ----------------------------------------------------------------------------------------------------------


def test_images_are_scaled_by_what_their_type_holds() -> None:
    assert scaled([np.array([[[0], [51]]], np.uint8)])[0].ravel().tolist() == pytest.approx([0, 0.2])
    assert scaled([np.array([[[True], [False]]])])[0].ravel().tolist() == [1, 0]
    assert scaled([np.array([[[0.25], [0.5]]])])[0].ravel().tolist() == [0.25, 0.5]
    low, high = scaled([np.array([[[0], [8]]]), np.array([[[4], [16]]])])  # together
    assert low.ravel().tolist() + high.ravel().tolist() == [0, 0.5, 0.25, 1]
    assert scaled([np.array([[[-1.0], [0.0], [1.0]]])])[0].ravel().tolist() == [0, 0.5, 1]
    assert scaled([np.array([[[np.nan], [np.inf], [0.5]]])])[0].ravel().tolist() == [0, 0, 0.5]
    mixed = scaled([np.array([[[255]]], np.uint8), np.array([[[16.0]]])])
    assert [float(one.max()) for one in mixed] == [1, 1]
    assert scaled([]) == []


@pytest.mark.parametrize(
    "value", [None, "text", b"text", {"a": 1}, 3.0, [1, 2], np.zeros((3, 3, 2)), np.zeros((0, 3)), [[1], [2, 3]], [["a"]]]
)
def test_no_images(value: Any) -> None:
    assert not is_image(value)


def test_images_with_other_channels_stand_side_by_side() -> None:
    row = side_by_side([np.full((2, 1, 1), 0.5, np.float32), np.zeros((2, 1, 3), np.float32), np.zeros((2, 1, 4), np.float32)])
    assert row[0].tolist() == [[0.5, 0.5, 0.5, 1], [0, 0, 0, 1], [0, 0, 0, 0]]


# -- views -----------------------------------------------------------------------------------------------------------


def test_views_stand_side_by_side() -> None:
    first, second = np.zeros((5, 4, 3)), np.ones((5, 4, 3))
    figure = visualize_views([first, second], labels=np.arange(5), predictions=np.full((5, 1), 0.25))
    drawn = [axis for axis in figure.axes if axis.images]
    assert len(drawn) == 5 and len(figure.axes) == 8
    assert pixels(drawn[0]).tolist() == [[0, 0, 0, 1, 1, 1]] * 4
    assert drawn[3].get_title() == "Label: 3 | Pred: 0.25000"


def test_few_views() -> None:
    figure = visualize_views(np.zeros((3, 1, 4, 4, 3), np.uint8), labels=["cat"], predictions=["dog"], views_per_col=1)
    assert titles(figure) == ["Label: cat | Pred: dog"]
    assert titles(visualize_views([np.zeros((9, 2, 2))], num_imgs=2)) == ["0", "1"]
    assert len(visualize_views([np.zeros((3, 2, 2))], num_imgs=99).axes) == 3
    assert pixels(visualize_views([np.full((1, 1, 1), 8)], max_pixel_value=16).axes[0]).tolist() == [[0.5]]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"views": []}, "at least one"),
        ({"views": [np.zeros((2, 3, 3)), np.zeros((3, 3, 3))]}, r"\[2, 3\]"),
        ({"views": [np.zeros((2, 3))]}, "height, width"),
        ({"labels": [1]}, "labels has one for each image, 2, not 1"),
        ({"predictions": []}, "predictions"),
        ({"num_imgs": 0}, "num_imgs"),
        ({"views_per_col": 0}, "views_per_col"),
    ],
)
def test_views_that_cannot_be_shown(change: "dict[str, Any]", said: str) -> None:
    with pytest.raises(InvalidArgumentError, match=said):
        visualize_views(**{"views": [np.zeros((2, 3, 3))], **change})


# -- confusion -------------------------------------------------------------------------------------------------------


def ticks(axes: Any) -> list[str]:
    return [tick.get_text() for tick in axes.get_yticklabels()]


def test_confusions_are_counted_with_the_unknown() -> None:
    #       true      0  0  0  1  1  7  unknown ×3
    true = np.array([0, 0, 0, 1, 1, 7, -1, -1, -1])
    pred = np.array([0, 0, 1, 1, -1, 7, -1, -1, 0])
    axes, matrix = confusion_matrix(pred, true, normalize=False)
    assert ticks(axes) == ["0", "1", "7", "unknown"]
    assert matrix.tolist() == [[2, 1, 0, 0], [0, 1, 0, 1], [0, 0, 1, 0], [1, 0, 0, 2]]
    assert axes.get_xlabel() == "Predicted label\naccuracy=0.6667; misclass=0.3333"
    assert [text.get_text() for text in axes.texts][:4] == ["2", "1", "0", "0"]
    axes, shares = confusion_matrix(pred, true)
    assert shares.tolist() == [[2 / 3, 1 / 3, 0, 0], [0, 0.5, 0, 0.5], [0, 0, 1, 0], [1 / 3, 0, 0, 2 / 3]]
    assert [text.get_text() for text in axes.texts][:4] == ["0.67", "0.33", "0", "0"]
    assert axes.get_xlabel() == "Predicted label\naccuracy=0.6667; misclass=0.3333"


def test_confusions_of_names() -> None:
    axes, matrix = confusion_matrix(["cat", None, "dog"], ["cat", "cat", "cow"], labels={"cat": "Katze", "emu": "Emu"})
    assert ticks(axes) == ["Katze", "cow", "dog", "Emu", "unknown"]
    assert matrix.tolist() == [[0.5, 0, 0, 0, 0.5], [0, 0, 1, 0, 0], [0] * 5, [0] * 5, [0] * 5]
    axes, _ = confusion_matrix([[2], [0]], [2, 2], labels=["a", "b", "c"], no_match_label=-7)
    assert ticks(axes) == ["a", "b", "c"]


def test_many_classes_have_no_numbers() -> None:
    axes, matrix = confusion_matrix(range(40), range(40))
    assert matrix.shape == (40, 40) and len(axes.texts) == 0


@pytest.mark.parametrize(("pred", "true"), [([1], [1, 2]), ([], [])])
def test_confusions_of_nothing(pred: list[int], true: list[int]) -> None:
    with pytest.raises(InvalidArgumentError, match="one label for each item"):
        confusion_matrix(pred, true)


# -- projection ------------------------------------------------------------------------------------------------------


def data_of(page: str) -> Any:
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.DOTALL)
    assert found is not None
    return json.loads(found[1])


def test_principal_components_by_hand() -> None:
    # Along (3, 4)/5 by −5, 0, 5 and across it by nothing: one direction holds everything.
    line = np.array([[-3.0, -4.0], [0.0, 0.0], [3.0, 4.0]]) + 7
    assert principal_components(line, 2) == pytest.approx(np.array([[-5, 0], [0, 0], [5, 0]]), abs=1e-12)
    assert principal_components(np.ones((1, 3)), 2).tolist() == [[0, 0]]
    assert principal_components(np.array([[1.0], [3.0]]), 2) == pytest.approx(np.array([[-1, 0], [1, 0]]))


def test_principal_components_keep_the_distances_they_can() -> None:
    flat = np.random.default_rng(0).normal(size=(30, 2)) @ np.array([[1.0, 0, 1, 0], [0, 2, 0, -1]])
    plane = principal_components(flat, 2)
    for a, b in [(0, 1), (5, 20), (29, 3)]:
        assert np.linalg.norm(plane[a] - plane[b]) == pytest.approx(np.linalg.norm(flat[a] - flat[b]))


def test_the_page_holds_everything() -> None:
    vectors = np.array([[0.0, 0], [4, 0], [4, 2]])
    images = np.arange(3 * 4 * 4, dtype=np.uint8).reshape(3, 4, 4)
    projection = projector(vectors, [7, None, "b"], {7: "seven"}, images, tooltips_info={"file": ["x", "y", 3]}, method="pca")
    data = data_of(projection.page)
    assert data["classes"] == ["seven", "b"] and data["classOf"] == [0, -1, 1]
    assert data["info"] == {"file": ["x", "y", "3"]} and data["tiles"]["size"] == [4, 4]
    xs, ys = data["points"]
    assert (min(xs), max(xs)) == (0, 1)
    size = np.ptp(projection.coordinates[:, 0])
    assert np.ptp(ys) == pytest.approx(np.ptp(projection.coordinates[:, 1]) / size, abs=1e-4)  # one scale for both
    assert np.argmax(ys) == np.argmin(projection.coordinates[:, 1])  # on a screen y goes down
    assert "3 items, 2 dimensions, by principal components" in data["about"]


def test_the_page_needs_no_network_and_runs_no_label() -> None:
    evil = "</script><script>alert(1)</script>"
    page = projector(np.eye(3), [evil, "a", "b"], tooltips_info={evil: [evil] * 3}, title=evil, method="pca").page
    assert page.count("</script>") == 2 and "alert(1)</script>" not in page
    assert data_of(page)["classes"][0] == evil
    assert not re.search(r"https?://|src=|@import|url\(", page)
    assert "default-src 'none'" in page


def test_the_page_is_saved_and_shown_in_notebooks(tmp_path: Path) -> None:
    projection = projector(np.eye(3), method="pca", plot_size=321, title="Ä")
    assert projection.save(tmp_path / "map.html").read_text("utf-8") == projection.page
    shown = projection._repr_html_()
    assert 'height="321"' in shown and html.unescape(re.findall(r'srcdoc="(.*?)"', shown, re.DOTALL)[0]) == projection.page
    data = data_of(projection.page)
    assert data["classes"] == [] and data["classOf"] == [-1] * 3 and data["colorize"] is False and data["tiles"] is None


def test_tsne_keeps_what_is_near_together() -> None:
    pytest.importorskip("sklearn")
    rng = np.random.default_rng(0)
    labels = np.repeat([0, 1], 20)
    vectors = rng.normal(size=(40, 60)) + labels[:, None] * 20
    projection = projector(vectors, labels)
    assert projection.method == "tsne"
    xy = projection.coordinates
    distances = np.linalg.norm(xy[:, None] - xy[None], axis=2) + np.eye(40) * 1e9
    assert (labels[distances.argmin(axis=1)] == labels).all()
    assert projector(vectors).coordinates.tolist() == xy.tolist()  # the same seed


@pytest.mark.parametrize("value", [0.0, 1.0, 0.1, -1e-20, 1e20])
def test_equal_embeddings_are_one_point(value: float) -> None:
    """scikit-learn's t-SNE dies of them."""
    points, method = reduced(np.full((20, 7), value, np.float32), "tsne", 0)
    assert method == "pca" and np.ptp(points) <= 1e-6 * abs(value)


def test_the_method_goes_by_what_there_is(monkeypatch: pytest.MonkeyPatch) -> None:
    assert projector(np.eye(9)).method == "pca"  # too few
    monkeypatch.setattr("simstore.similarity.visualization.reduction._MOST_TSNE", 11)
    assert projector(np.eye(12)).method == "pca"  # too many
    monkeypatch.setitem(sys.modules, "sklearn.manifold", None)
    assert projector(np.eye(11)).method == "pca"  # not installed
    with pytest.raises(PackageMissingError, match="scikit-learn"):
        projector(np.eye(11), method="tsne")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"embeddings": np.zeros(3)}, r"\[n, dim\]"),
        ({"embeddings": np.zeros((0, 3))}, "at least one"),
        ({"embeddings": [["a"]]}, "numbers"),
        ({"embeddings": [[0.0, 1], [np.nan, 1], [0, 1]]}, r"embeddings\[1\]"),
        ({"labels": [1]}, "1 labels for 3"),
        ({"images": np.zeros((2, 3, 3))}, "images has one for each of the 3 embeddings, not 2"),
        ({"images": np.zeros((3, 3))}, "one of them is an image"),
        ({"images": [np.zeros((3, 3)), np.zeros((3, 4)), np.zeros((3, 3))]}, "one size"),
        ({"tooltips_info": {"path": ["a"]}}, r"tooltips_info\['path'\]"),
        ({"method": "umap"}, "'tsne', 'pca' or None, not 'umap'"),
    ],
)
def test_what_the_projector_refuses(change: "dict[str, Any]", said: str) -> None:
    with pytest.raises(InvalidArgumentError, match=said):
        projector(**{"embeddings": np.eye(3), **change})


def test_the_projector_needs_no_matplotlib() -> None:
    code = (
        "import sys; sys.modules['matplotlib'] = None; sys.modules['sklearn'] = None; import numpy as np;"
        "from simstore.similarity.visualization import projector; print(projector(np.eye(20)).method)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)
    assert done.stdout.strip() == "pca", done.stderr


# -- tiles -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n_channels", [1, 3, 4])
def test_png_files_hold_their_pixels(n_channels: int) -> None:
    drawn = np.random.default_rng(0).integers(0, 256, (5, 7, n_channels), np.uint8)
    read = (image.imread(io.BytesIO(png(drawn)), format="png") * 255).round().astype(np.uint8)
    assert read.tolist() == (drawn[..., 0] if n_channels == 1 else drawn).tolist()


def test_every_image_is_where_its_number_says() -> None:
    images = np.random.default_rng(0).integers(0, 256, (300, 3, 2, 3), np.uint8)
    tiles = tiles_of(images, 64)
    sheets = [base64.b64decode(sheet.removeprefix("data:image/png;base64,")) for sheet in tiles.sheets]
    read = [(image.imread(io.BytesIO(sheet), format="png") * 255).round() for sheet in sheets]
    for i in (0, 15, 16, 255, 256, 299):
        row, column = divmod(i % tiles.per_sheet, tiles.columns)
        part = read[i // tiles.per_sheet][row * 3 : row * 3 + 3, column * 2 : column * 2 + 2]
        assert part.tolist() == images[i].tolist()


def test_large_images_become_small_by_their_means() -> None:
    large = np.array([[0, 100, 10, 20], [200, 100, 30, 40]], np.uint8)[:, :, None]
    assert _smaller(large, 2)[:, :, 0].tolist() == [[100, 25]]
    assert _smaller(large, 4) is large
    assert _smaller(np.arange(5.0)[:, None, None], 2).ravel().tolist() == [0.5, 3]
