"""A contact sheet: images beside each other, with two lines of text under each."""

import io
from pathlib import Path
from typing import Any, NamedTuple

from simstore.cli.inputs import MAX_PIXELS
from simstore.cli.printing import bare
from simstore.errors import InvalidArgumentError, RejectedError

__all__ = ["Tile", "draw_sheet"]

_SIZE, _GAP, _LINE = 160, 12, 16
_N_COLUMNS = 6
_N_LETTERS = 24
_INK, _QUIET, _PAPER, _FRAME = "#1f2430", "#7a8194", "#ffffff", "#2a7d4f"
_FORMATS = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG"}


class Tile(NamedTuple):
    """One picture: a line, a name, and the image file; None where there is none."""

    caption: str
    name: str
    file: str | None


def draw_sheet(path: str, tiles: list[Tile]) -> None:
    """Draws tiles to a file, the first one framed. Images that are missing, or are none, are drawn as that.

    Raises:
        InvalidArgumentError: The file's suffix is no .png or .jpg.
        PackageMissingError: Pillow is not installed.
        StorageError: It cannot be written.
    """
    from simstore.readers.images import import_pillow
    from simstore.transfer.publishing import new_file

    format = _FORMATS.get(Path(path).suffix.lower())
    if format is None:
        raise InvalidArgumentError(f"--sheet is a path that ends in {', '.join(_FORMATS)}, not {path!r}")
    pillow = import_pillow()
    n_columns = min(_N_COLUMNS, len(tiles))
    n_rows = -(-len(tiles) // n_columns)
    width = _GAP + n_columns * (_SIZE + _GAP)
    height = _GAP + n_rows * (_SIZE + 2 * _LINE + _GAP)
    sheet = pillow.new("RGB", (width, height), _PAPER)
    for i, tile in enumerate(tiles):
        x = _GAP + i % n_columns * (_SIZE + _GAP)
        y = _GAP + i // n_columns * (_SIZE + 2 * _LINE + _GAP)
        _draw_tile(pillow, sheet, tile, x, y, is_first=i == 0)
    content = io.BytesIO()
    sheet.save(content, format)
    with new_file(Path(path), overwrite=True) as file:
        file.write(content.getvalue())


def _draw_tile(pillow: Any, sheet: Any, tile: Tile, x: int, y: int, *, is_first: bool) -> None:
    from PIL import ImageDraw

    draw = ImageDraw.Draw(sheet)
    what = ""
    try:
        image = _image(pillow, tile.file)
        if image is not None:
            sheet.paste(image, (x + (_SIZE - image.width) // 2, y + (_SIZE - image.height) // 2))
        else:
            what = "no image"
    except RejectedError as err:
        what = err.reason
    if what:
        draw.rectangle((x, y, x + _SIZE - 1, y + _SIZE - 1), outline=_QUIET)
        draw.line((x, y, x + _SIZE - 1, y + _SIZE - 1), fill=_QUIET)
        draw.line((x, y + _SIZE - 1, x + _SIZE - 1, y), fill=_QUIET)
        draw.rectangle((x + 10, y + 68, x + _SIZE - 11, y + 90), fill=_PAPER, outline=_QUIET)
        draw.text((x + 16, y + 72), what[:_N_LETTERS], fill=_INK)
    if is_first:
        draw.rectangle((x - 4, y - 4, x + _SIZE + 3, y + _SIZE + 3), outline=_FRAME, width=3)
    draw.text((x, y + _SIZE + 4), _cut(tile.caption), fill=_INK)
    draw.text((x, y + _SIZE + 4 + _LINE), _cut(tile.name), fill=_QUIET)


def _image(pillow: Any, file: str | None) -> Any:
    """An image in the tile's size, small ones enlarged without blur; None for no file.

    Raises:
        RejectedError: It is not there, or no image.
    """
    from simstore.cli.inputs import image_at

    if file is None:
        return None
    image = pillow.fromarray(image_at(file, None, max_pixels=MAX_PIXELS))
    scale = _SIZE / max(image.size)
    size = tuple(max(1, round(side * scale)) for side in image.size)
    return image.resize(size, pillow.Resampling.NEAREST if scale > 2 else pillow.Resampling.LANCZOS)


def _cut(text: str) -> str:
    """The end of a text, which tells more of a path, in letters that the built-in font has."""
    plain = bare(text).encode("latin-1", "replace").decode("latin-1")
    return plain if len(plain) <= _N_LETTERS else "..." + plain[3 - _N_LETTERS :]
