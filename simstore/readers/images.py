"""Decoding images: upright, over white, in the size and channels that an embedder takes."""

import io
from typing import Any

import numpy as np
from numpy.typing import NDArray

from simstore.errors import PackageMissingError, RejectedError
from simstore.readers.image_formats import image_format, is_cut_short
from simstore.readers.pixels import fitted, orientation_of, upright_size
from simstore.readers.reader import Decoded
from simstore.readers.silence import silenced
from simstore.types import ImageInput

__all__ = ["decode_image", "decoded_image", "import_pillow"]


def import_pillow() -> Any:
    """PIL.Image, with the plugins for what is read here.

    Raises:
        PackageMissingError: Pillow is not installed.
    """
    try:
        from PIL import BmpImagePlugin, GifImagePlugin, Image, JpegImagePlugin, PngImagePlugin, TiffImagePlugin, WebPImagePlugin
    except ImportError as err:
        raise PackageMissingError.of("images", "Pillow", "images") from err
    del BmpImagePlugin, GifImagePlugin, JpegImagePlugin, PngImagePlugin, TiffImagePlugin, WebPImagePlugin
    return Image


def decode_image(content: bytes, image_input: ImageInput | None, *, max_pixels: int) -> NDArray[np.uint8]:
    """The pixels of an image file, uint8 [height, width, channels], 0…255: turned as its EXIF says, transparency over white.

    Of animations it is the first frame. 16 bits a channel lose their lower 8; 32-bit and floating-point ones are stretched
    from their least to their greatest value.

    Args:
        content: JPEG, PNG, WebP, GIF, BMP, TIFF, or HEIC where pillow-heif is installed, whatever the file is called.
        image_input: The size and channels wanted: 1 (grey), 3 (RGB) or 4 (RGBA, not over white). A size of None is the
            image's own; None altogether is RGB in its own size.
        max_pixels: More than so many are refused before anything is decoded.

    Raises:
        RejectedError: It is none, is damaged, or has too many pixels.
        PackageMissingError: Pillow is not installed.
    """
    pixels: NDArray[np.uint8] = decoded_image(content, image_input, max_pixels=max_pixels).input
    return pixels


def decoded_image(content: bytes, image_input: ImageInput | None, *, max_pixels: int) -> Decoded:
    """As decode_image, with {"width", "height", "format"} of the upright image in the file."""
    pillow = import_pillow()
    if not content:
        raise RejectedError("empty", "the file holds nothing")
    name = image_format(content[:32])
    if name is None:
        raise RejectedError("no image", f"it begins with {content[:16]!r}, as no image that can be read here does")
    if name == "HEIF":
        _register_heif()
    with silenced():
        try:
            with pillow.open(io.BytesIO(content), formats=(name,)) as image:
                _check_size(image, max_pixels)
                if name != "JPEG":  # of which less may be decoded; getexif() of a damaged PNG would hide the damage
                    image.load()
                orientation = orientation_of(image)
                width, height = upright_size(image, orientation)
                pixels = fitted(image, image_input, orientation)
        except (RejectedError, MemoryError):
            raise
        except pillow.DecompressionBombError as err:
            raise RejectedError("too many pixels", str(err)) from err
        except Exception as err:  # Pillow's decoders raise nearly everything for damaged bytes
            raise _damaged(name, content, err) from err
    return Decoded(pixels, {"width": width, "height": height, "format": name})


def _register_heif() -> None:
    try:
        import pillow_heif
    except ImportError as err:
        text = "HEIC images need pillow-heif: pip install 'simstore[heif]'"
        raise RejectedError("HEIC without pillow-heif", text) from err
    pillow_heif.register_heif_opener()


def _check_size(image: Any, max_pixels: int) -> None:
    width, height = image.size
    if width * height > max_pixels:
        raise RejectedError("too many pixels", f"{width}×{height} are {width * height:,} pixels; {max_pixels:,} are allowed")


def _damaged(name: str, content: bytes, err: Exception) -> RejectedError:
    if is_cut_short(name, content) or "truncated" in str(err).lower():
        return RejectedError("truncated", f"the {name} image ends after {len(content)} bytes, before its end: {err}")
    return RejectedError("damaged image", f"the {name} image cannot be decoded: {err or type(err).__name__}")
