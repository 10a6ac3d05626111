"""Which image format bytes are, and whether they stop short of its end."""

from typing import Literal

__all__ = ["image_format", "is_cut_short", "looks_like_image"]

_SUFFIXES = frozenset(
    "jpg jpeg jpe jfif png apng webp gif bmp dib tif tiff heic heif hif".split()
)  # by these alone a file is taken for one that should be an image
_HEIF_BRANDS = {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"}
_BMP_HEADERS = {12, 16, 40, 52, 56, 64, 108, 124}
_MAGIC = {
    b"\x89PNG\r\n\x1a\n": "PNG",
    b"\xff\xd8\xff": "JPEG",
    b"GIF87a": "GIF",
    b"GIF89a": "GIF",
    b"II*\0": "TIFF",
    b"MM\0*": "TIFF",
    b"II+\0": "TIFF",
    b"MM\0+": "TIFF",
}


def looks_like_image(path: str) -> bool:
    """Whether a path ends like that of an image."""
    return path.rpartition(".")[2].lower() in _SUFFIXES


def image_format(head: bytes) -> str | None:
    """The format of an image by its first bytes (32 are enough), as Pillow names it; None for what is no image."""
    for magic, name in _MAGIC.items():
        if head.startswith(magic):
            return name
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "WEBP"
    if head[:2] == b"BM" and head[6:10] == bytes(4) and int.from_bytes(head[14:18], "little") in _BMP_HEADERS:
        return "BMP"
    if head[4:8] == b"ftyp" and head[8:12] in _HEIF_BRANDS:
        return "HEIF"
    return None


def is_cut_short(name: str, content: bytes) -> bool:
    """Whether an image that could not be decoded lacks its end.

    Args:
        name: Its format, of image_format().
    """
    tail = content[-4096:]
    if name == "PNG":
        return b"IEND" not in tail
    if name == "JPEG":
        return b"\xff\xd9" not in tail
    if name == "GIF":
        return not tail.rstrip(b"\0").endswith(b";")
    if name == "WEBP":
        return int.from_bytes(content[4:8], "little") + 8 > len(content)
    if name == "BMP":
        return int.from_bytes(content[2:6], "little") > len(content)
    if name == "TIFF":
        return _directory_ends_late(content)
    return _boxes_end_late(content)


def _directory_ends_late(content: bytes) -> bool:
    """Whether the first directory of a TIFF goes on after its end."""
    order: Literal["little", "big"] = "little" if content[:1] == b"I" else "big"
    at = int.from_bytes(content[4:8], order)
    return at + 2 + 12 * int.from_bytes(content[at : at + 2], order) > len(content)


def _boxes_end_late(content: bytes) -> bool:
    """Whether the boxes of an ISO media file go on after its end."""
    at = 0
    while at + 8 <= len(content):
        size = int.from_bytes(content[at : at + 4], "big")
        if size == 1:
            size = int.from_bytes(content[at + 8 : at + 16], "big")
        if size == 0:
            return False
        at += max(size, 8)
    return at != len(content)
