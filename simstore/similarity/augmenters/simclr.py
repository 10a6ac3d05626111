"""SimCLR's augmentation."""

from typing import Any

from simstore.errors import InvalidArgumentError
from simstore.similarity.augmenters import images as of_images
from simstore.similarity.augmenters.augmenter import ImageAugmenter, Seed

__all__ = ["SimCLRAugmenter"]


class SimCLRAugmenter(ImageAugmenter):
    """Random crop, flip and colours, as SimCLR has them.

    The crop is 8 to 100 % of the image, of an aspect ratio from 3/4 to 4/3 of its own; the flip, left to right, has
    probability 1/2; the colours change with probability 0.8 (brightness, contrast and saturation by ± 0.8, hue by ± 0.2, each
    times jitter_strength) and go with 0.2. Images are [n, height, width, 1 or 3], integers from 0 to 255 or floats from 0
    to 1, and so are the views, as float32.

    Args:
        height: Of the views, in pixels.
        width: Of the views, in pixels.
        is_training: Whether views are random. If not, they are the middle of the image.
        color_distort: Whether to change colours.
        jitter_strength: How much. TensorFlow Similarity wrote jitter_stength, which works, too.
        crop: Whether to crop.
        eval_crop_proportion: The share of the sides that is shown when not training.
        flip: Whether to flip.
        version: "v2" for brightness as a factor, "v1" for one added.
        num_cpu: Not used: batches are augmented as a whole.
        blur_probability: Of a Gaussian blur of 0.1 to 2 pixels. The paper has 0.5; TensorFlow Similarity left it out.
        value_range: (lowest, highest) value of a pixel. By default what the type says.
        seed: The same seed gives the same views, call by call.

    Source: Chen et al., "A Simple Framework for Contrastive Learning of Visual Representations", ICML 2020, and "Big
    Self-Supervised Models are Strong Semi-Supervised Learners", NeurIPS 2020.

    Example:
        >>> import numpy as np
        >>> first, second = SimCLRAugmenter(32, 32, seed=1)(np.zeros((8, 28, 28, 1), "uint8"))
        >>> first.shape
        TensorShape([8, 32, 32, 1])
    """

    def __init__(
        self,
        height: int,
        width: int,
        is_training: bool = True,
        color_distort: bool = True,
        jitter_strength: float = 1.0,
        crop: bool = True,
        eval_crop_proportion: float = 0.875,
        flip: bool = True,
        version: str = "v2",
        num_cpu: int | None = None,
        *,
        jitter_stength: float | None = None,
        blur_probability: float = 0.0,
        value_range: tuple[float, float] | None = None,
        seed: int | None = None,
    ) -> None:
        super().__init__(height, width, value_range=value_range, seed=seed)
        if version not in ("v1", "v2"):
            raise InvalidArgumentError(f"version is 'v1' or 'v2', not {version!r}")
        if not 0 < eval_crop_proportion <= 1:
            raise InvalidArgumentError(f"eval_crop_proportion is above 0 and at most 1, not {eval_crop_proportion}")
        self.is_training = is_training
        self.color_distort = color_distort
        self.jitter_strength = jitter_strength if jitter_stength is None else jitter_stength
        self.crop = crop
        self.eval_crop_proportion = eval_crop_proportion
        self.flip = flip
        self.version = version
        self.num_cpu = num_cpu
        self.blur_probability = blur_probability

    def _view(self, images: Any, draw: Seed) -> Any:
        if not self.is_training:
            return self._resized(images)
        if self.crop:
            box = of_images.random_area_box(images, draw, area=(0.08, 1.0), aspect=(3 / 4, 4 / 3))
        else:
            box = of_images.centre_box(images)
        is_flipped = of_images.happens(images, 0.5, draw) if self.flip else None
        view = of_images.resample(images, box, self.height, self.width, is_flipped=is_flipped)
        if self.color_distort:
            view = of_images.color_jitter(
                view,
                draw,
                brightness=0.8 * self.jitter_strength,
                contrast=0.8 * self.jitter_strength,
                saturation=0.8 * self.jitter_strength,
                hue=0.2 * self.jitter_strength,
                is_additive=self.version == "v1",
                jitter_probability=0.8,
                grey_probability=0.2,
            )
        if self.blur_probability:
            view = of_images.blur(view, draw, probability=self.blur_probability, sigma=(0.1, 2.0))
        return view

    def _resized(self, images: Any) -> Any:
        box = of_images.centre_box(images, self.eval_crop_proportion if self.crop else 1.0)
        return of_images.resample(images, box, self.height, self.width)
