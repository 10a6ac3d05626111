"""Images: decoding, folders, and what lies about in them."""

import errno
import io
import os
import socket
import struct
import sys
import threading
import warnings
import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from reader_contract import ReaderContract, read_all, reasons, refused_by

from simstore.errors import InvalidArgumentError, PackageMissingError, RejectedError, SourceError
from simstore.readers import Reader, ReadOptions, decode_image, open_sources
from simstore.readers.images import decoded_image
from simstore.readers.silence import silenced
from simstore.types import ImageInput

Image = pytest.importorskip("PIL.Image", reason="needs the extra simstore[images]")

MANY = 10**8


def encoded(image: Any, format: str = "PNG", **options: Any) -> bytes:
    out = io.BytesIO()
    image.save(out, format, **options)
    return out.getvalue()


def picture(height: int = 6, width: int = 8, channels: int = 3) -> Any:
    rng = np.random.default_rng(0)
    return Image.fromarray(rng.integers(0, 256, (height, width, channels), dtype=np.uint8))


def pixels(content: bytes, wanted: ImageInput | None = None) -> Any:
    return decode_image(content, wanted, max_pixels=MANY)


# -- decoding --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("format", ["PNG", "BMP", "TIFF", "GIF", "JPEG", "WEBP"])
def test_formats(format: str) -> None:
    image = Image.new("RGB", (5, 4), (200, 30, 60))
    out = decoded_image(encoded(image, format), None, max_pixels=MANY)
    assert out.data == {"width": 5, "height": 4, "format": format}
    assert out.input.shape == (4, 5, 3) and out.input.dtype == np.uint8
    assert np.abs(out.input.astype(int) - (200, 30, 60)).max() <= 4


def test_heic_or_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    heif = pytest.importorskip("pillow_heif", reason="needs the extra simstore[heif]")
    heif.register_heif_opener()
    content = encoded(Image.new("RGB", (64, 48), (10, 200, 60)), "HEIF")
    assert np.abs(pixels(content).astype(int) - (10, 200, 60)).max() <= 6 and pixels(content).shape == (48, 64, 3)
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    with pytest.raises(RejectedError, match=r"pip install 'simstore\[heif\]'"):
        pixels(content)


def test_lossless_pixels_are_exact() -> None:
    image = picture()
    assert (pixels(encoded(image)) == np.asarray(image)).all()
    grey = pixels(encoded(image), ImageInput(None, None, 1))
    assert grey.shape == (6, 8, 1) and (grey[:, :, 0] == np.asarray(image.convert("L"))).all()


@pytest.mark.parametrize(
    ("image", "colour"),
    [
        (Image.new("1", (3, 3), 1), (255, 255, 255)),
        (Image.new("L", (3, 3), 77), (77, 77, 77)),
        (Image.new("LA", (3, 3), (0, 0)), (255, 255, 255)),
        (Image.new("LA", (3, 3), (100, 255)), (100, 100, 100)),
        (Image.new("RGBA", (3, 3), (255, 0, 0, 0)), (255, 255, 255)),
        (Image.new("RGBA", (3, 3), (255, 0, 0, 128)), (255, 127, 127)),
        (Image.new("P", (3, 3), 0), (0, 0, 0)),
        (Image.fromarray(np.full((3, 3), 0x8123, np.uint16)), (0x81, 0x81, 0x81)),
    ],
)
def test_modes(image: Any, colour: tuple[int, int, int]) -> None:
    for wanted in (None, ImageInput(2, 2, 3)):
        assert np.abs(pixels(encoded(image), wanted).astype(int) - colour).max() <= 1


def test_palette_with_transparency_and_cmyk_and_floats() -> None:
    image = Image.new("P", (4, 4), 1)
    image.putpalette([255, 0, 0, 0, 0, 255])
    assert (pixels(encoded(image, transparency=1)) == 255).all()
    assert (pixels(encoded(image, transparency=bytes([255, 0]))) == 255).all()
    assert (pixels(encoded(image)) == (0, 0, 255)).all()
    assert (pixels(encoded(Image.new("CMYK", (4, 4), (0, 0, 0, 0)), "TIFF")) == 255).all()
    ramp = Image.fromarray(np.linspace(-1, 1, 16, dtype=np.float32).reshape(4, 4))
    assert (pixels(encoded(ramp, "TIFF"))[:, :, 0].ravel() == np.arange(16) * 17).all()


def test_alpha_is_laid_over_white_before_resizing() -> None:
    array = np.zeros((8, 8, 4), np.uint8)
    array[:, :4] = (0, 0, 0, 255)
    array[:, 4:] = (255, 0, 0, 0)  # its colour is hidden: red must not bleed into the edge
    out = pixels(encoded(Image.fromarray(array)), ImageInput(2, 3, 3)).astype(int)
    assert (np.ptp(out, axis=2) <= 1).all() and out[0, 0].max() <= 20 and out[0, 2].min() >= 235
    kept = pixels(encoded(Image.fromarray(array)), ImageInput(8, 8, 4))
    assert (kept[:, :, 3] == array[:, :, 3]).all()


@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation(orientation: int) -> None:
    upright = np.zeros((4, 6, 3), np.uint8)
    upright[0, 0], upright[0, -1], upright[-1, 0] = 255, 170, 85
    undo = {  # how a camera that is held so stores the upright image
        1: lambda a: a, 2: lambda a: a[:, ::-1], 3: lambda a: a[::-1, ::-1], 4: lambda a: a[::-1],
        5: lambda a: a.swapaxes(0, 1), 6: lambda a: np.rot90(a), 7: lambda a: a[::-1, ::-1].swapaxes(0, 1),
        8: lambda a: np.rot90(a, -1),
    }  # fmt: skip
    exif = Image.Exif()
    exif[0x0112] = orientation
    content = encoded(Image.fromarray(np.ascontiguousarray(undo[orientation](upright))), exif=exif.tobytes())
    out = decoded_image(content, None, max_pixels=MANY)
    assert (out.input == upright).all() and (out.data["width"], out.data["height"]) == (6, 4)
    assert pixels(content, ImageInput(8, 12, 3)).shape == (8, 12, 3)


def test_resizing_is_like_pillows() -> None:
    image = Image.effect_mandelbrot((300, 200), (-2, -1.5, 1, 1.5), 50).convert("RGB")
    wanted = np.asarray(image.resize((30, 20), Image.Resampling.LANCZOS), int)
    assert np.abs(pixels(encoded(image), ImageInput(20, 30, 3)) - wanted).mean() < 2
    assert np.abs(pixels(encoded(image, "JPEG", quality=95), ImageInput(20, 30, 3)) - wanted).mean() < 4
    assert pixels(encoded(image), ImageInput(None, 30, 3)).shape == (200, 30, 3)


@pytest.mark.parametrize("format", ["PNG", "BMP", "TIFF", "GIF", "JPEG", "WEBP"])
def test_what_ends_early_is_told_as_truncated(format: str) -> None:
    content = encoded(picture(40, 60), format)
    for cut in (24, 40, len(content) // 2):
        with pytest.raises(RejectedError) as caught:
            pixels(content[:cut])
        assert caught.value.reason == "truncated", (cut, str(caught.value))


def test_damage_and_what_is_no_image() -> None:
    content = bytearray(encoded(Image.new("RGB", (400, 400), (1, 2, 3))))
    content[41:60] = b"\xff" * 19  # within the compressed pixels
    for damaged, reason in (
        (bytes(content), "damaged image"),
        (b"", "empty"),
        (b"hello there", "no image"),
        (b"BMW cars" * 9, "no image"),
    ):
        with pytest.raises(RejectedError) as caught:
            pixels(damaged)
        assert caught.value.reason == reason


def bomb(side: int) -> bytes:
    """A PNG that says it has side × side pixels."""
    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(bytes(1000))), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body)) for name, body in chunks
    )


@pytest.mark.parametrize("side", [10_001, 60_000])
def test_too_many_pixels_are_told_by_the_header(side: int) -> None:
    with pytest.raises(RejectedError) as caught:
        pixels(bomb(side))
    assert caught.value.reason == "too many pixels"
    with pytest.raises(RejectedError, match="48 pixels; 47 are allowed"):
        decode_image(encoded(picture()), None, max_pixels=47)


def test_warnings_of_pillow_do_not_leak_and_filters_stay() -> None:
    before = list(warnings.filters)
    image = Image.new("P", (4, 4), 1)
    content = encoded(image, transparency=bytes([255, 0]))
    with ThreadPoolExecutor(4) as pool:
        assert len(list(pool.map(lambda _: pixels(content), range(40)))) == 40
    with silenced(), silenced():
        assert list(warnings.filters) != before
    assert list(warnings.filters) == before


# -- folders ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    root = tmp_path / "photos"
    for i, name in enumerate(["a.png", "cat/1.png", "cat/2.jpg", "dog/deep/3.PNG", "dog/4.gif"]):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        formats = {".png": "PNG", ".jpg": "JPEG", ".gif": "GIF"}
        (root / name).write_bytes(encoded(picture(4 + i, 5), formats[Path(name).suffix.lower()]))
    return root


def opened(source: Any, **options: Any) -> Reader:
    [reader] = open_sources(source, ReadOptions(**options))
    return reader


class TestImageFolder(ReaderContract):
    n = 5

    @pytest.fixture
    def make(self, folder: Path) -> Callable[[], Reader]:
        return lambda: opened(folder)


class TestImagePattern(ReaderContract):
    n = 4

    @pytest.fixture
    def make(self, folder: Path) -> Callable[[], Reader]:
        return lambda: opened(f"{folder}/*/*", image_input=ImageInput(3, 3, 1))


class TestSingleImage(ReaderContract):
    n = 1

    @pytest.fixture
    def make(self, folder: Path) -> Callable[[], Reader]:
        return lambda: opened(folder / "a.png")


def test_keys_and_labels(folder: Path) -> None:
    keys = ["a.png", "cat/1.png", "cat/2.jpg", "dog/4.gif", "dog/deep/3.PNG"]
    labels = {
        None: [None, "cat", "cat", "dog", "deep"],
        "parent": ["photos", "cat", "cat", "dog", "deep"],
        "none": [None] * 5,
        r"^(\w+)/": [None, "cat", "cat", "dog", "dog"],
        r"(\d)\.(?P<label>\w+)": [None, "png", "jpg", "gif", "PNG"],
        r"\d": [None, "1", "2", "4", "3"],
    }
    for label_from, wanted in labels.items():
        reader = opened(folder, label_from=label_from)
        found = read_all(reader)
        assert [one.key for one in found] == keys and [one.label for one in found] == wanted
        assert bool(reader.notes().guesses) == (label_from is None)
    assert reader.source == str(folder) and reader.n_examples == 5
    with pytest.raises(InvalidArgumentError, match="no regular expression"):
        ReadOptions(label_from="(")


def test_a_hostile_folder(tmp_path: Path) -> None:
    root = tmp_path / "hostile"
    (root / "sub").mkdir(parents=True)
    (root / "good.png").write_bytes(encoded(picture()))
    (root / "really.png").write_bytes(encoded(picture(), "JPEG"))
    (root / "one.gif").write_bytes(encoded(Image.new("RGB", (1, 1)), "GIF"))
    (root / "without suffix").write_bytes(encoded(picture(), "WEBP"))
    (root / "line\nbreak.png").write_bytes(encoded(picture()))
    odd = os.fsencode(root) + b"/caf\xe9.png"
    with open(odd, "wb") as file:
        file.write(encoded(picture()))
    (root / "text.png").write_text("this is no image")
    (root / "empty.jpg").touch()
    (root / "cut.png").write_bytes(encoded(picture(60, 60))[:900])
    (root / "bomb.png").write_bytes(bomb(50_000))
    (root / "notes.txt").write_text("not meant")
    (root / "nowhere.png").symlink_to("nothing")
    (root / "round").symlink_to("round")
    (root / "sub" / "up").symlink_to("..")
    (root / "linked.png").symlink_to("good.png")
    os.mkfifo(root / "pipe.png")
    with socket.socket(socket.AF_UNIX) as listener:
        os.chdir(root), listener.bind("sock"), os.chdir(tmp_path)
        reader = opened(root)
        assert reasons(reader) == {
            "text.png": "no image", "empty.jpg": "empty", "cut.png": "truncated", "bomb.png": "too many pixels",
            "nowhere.png": "dangling link", "round": "link loop", "sub/up": "link loop", "pipe.png": "not a regular file",
            "sock": "not a regular file",
        }  # fmt: skip
    assert reader.notes().ignored == ((str(root / "notes.txt"), "no image"),)
    keys = [key for batch in reader.batches(3) for key in batch.keys]
    good = {"good.png", "really.png", "one.gif", "without suffix", "line\nbreak.png", "caf\udce9.png", "linked.png"}
    assert set(keys) - {"text.png", "empty.jpg", "cut.png", "bomb.png"} == good
    dangling = next(one for one in refused_by(reader) if one.key == "nowhere.png")
    assert dangling.file.path == str(root / "nowhere.png") and dangling.row is None and "nothing" in dangling.message


def test_a_fifo_that_takes_a_files_place_does_not_hang(folder: Path) -> None:
    [batch] = opened(folder).batches(100)
    os.remove(folder / "a.png")
    os.mkfifo(folder / "a.png")
    done: list[str] = []

    def read() -> None:
        try:
            batch.read(0)  # type: ignore[union-attr]
        except RejectedError as err:
            done.append(err.reason)

    thread = threading.Thread(target=read, daemon=True)
    thread.start()
    thread.join(10)
    assert done == ["not a regular file"]


def test_what_vanishes_or_cannot_be_read(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    [batch] = opened(folder).batches(100)
    os.remove(folder / "a.png")
    with pytest.raises(RejectedError, match="is gone") as caught:
        batch.read(0)  # type: ignore[union-attr]
    assert caught.value.reason == "vanished"
    real = os.open

    def refusing(path: Any, *args: Any, **options: Any) -> int:
        if str(path).endswith("1.png"):
            raise PermissionError(errno.EACCES, "Permission denied", path)
        return real(path, *args, **options)

    monkeypatch.setattr(os, "open", refusing)
    assert reasons(opened(folder)) == {"cat/1.png": "unreadable"}


def test_a_folder_that_cannot_be_listed_is_told(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.scandir

    def refusing(path: Any) -> Any:
        if str(path).endswith("dog"):
            raise PermissionError(errno.EACCES, "Permission denied", path)
        return real(path)

    monkeypatch.setattr(os, "scandir", refusing)
    reader = opened(folder)
    assert reasons(reader) == {"dog": "unreadable"} and len(read_all(reader)) == 3


def test_links_across_folders_do_not_multiply(tmp_path: Path) -> None:
    root = tmp_path / "web"
    for i in range(12):
        (root / str(i)).mkdir(parents=True)
        (root / str(i) / "x.png").write_bytes(encoded(picture()))
        for j in range(12):
            (root / str(i) / f"to{j}").symlink_to(f"../{j}")
    reader = opened(root)
    assert 12 <= sum(len(batch.keys) for batch in reader.batches(100)) < 500


def test_a_store_on_the_way_is_not_opened(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for i, name in enumerate(("store.json", "data.mdb", "lock.mdb")):
        store = folder / f"s{i}.sim"
        store.mkdir()
        (store / name).touch()
        (store / "looks.png").write_bytes(encoded(picture()))
    (folder / "into.png").symlink_to("s2.sim/lock.mdb")
    (folder / "inside").symlink_to("s1.sim")
    (folder / "chain.png").symlink_to("into.png")
    real = os.open

    def watching(path: Any, *args: Any, **options: Any) -> int:
        assert ".sim" not in os.path.realpath(os.fsdecode(path)), path
        return real(path, *args, **options)

    monkeypatch.setattr(os, "open", watching)
    reader = opened(folder)
    assert len(read_all(reader)) == 5 and refused_by(reader) == []
    assert sorted(os.path.basename(path) for path, _ in reader.notes().ignored) == [
        "chain.png",
        "inside",
        "into.png",
        "s0.sim",
        "s1.sim",
        "s2.sim",
    ]
    for source in (folder / "s0.sim", folder / "s0.sim" / "looks.png", folder / "into.png", f"{folder}/s1.sim/*"):
        with pytest.raises(SourceError, match="export it"):
            open_sources(source)


def test_many_ignored_files_are_counted(tmp_path: Path) -> None:
    (tmp_path / "x.png").write_bytes(encoded(picture()))
    for i in range(1010):
        (tmp_path / f"{i}.txt").touch()
    reader = opened(tmp_path)
    for _ in range(2):
        assert len(read_all(reader)) == 1
        ignored = reader.notes().ignored
        assert len(ignored) == 1001 and ignored[-1] == ("", "and 10 more")


def test_without_pillow_nothing_is_begun(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "PIL", None)
    with pytest.raises(PackageMissingError, match=r"images need Pillow: pip install 'simstore\[images\]'"):
        open_sources(folder)
