"""The augmentation of Barlow Twins."""

from typing import Any

from simstore.similarity.augmenters import images as of_images
from simstore.similarity.augmenters.augmenter import ImageAugmenter, Seed

__all__ = ["BarlowAugmenter"]


class BarlowAugmenter(ImageAugmenter):
    """Random crop, flip, colours, blur and solarisation, for Barlow Twins and VICReg.

    The crop is 75 to 100 % of both sides. Images are [n, height, width, 1 or 3], integers from 0 to 255 or floats from 0 to
    1, and so are the views, as float32. TensorFlow Similarity's took pixels for 0 to 1 in one place and 0 to 255 in
    another, and came out all but black and white.

    Args:
        width: Of the views, in pixels.
        height: Of the views, in pixels.
        flip_probability: Of a flip, left to right.
        brightness_multiplier: Brightness is added to: ± this. The paper has 0.4, by factor.
        contrast_multiplier: Contrast changes by ± this.
        saturation_multiplier: Saturation changes by ± this.
        hue_multiplier: Hue changes by ± this share of a full circle.
        jitter_probability: Of any such change.
        greyscale_probability: Of no colour at all.
        blur_probability: Of a Gaussian blur.
        blur_min_sigma: Its least width, in pixels.
        blur_max_sigma: Its greatest width, in pixels.
        solarize_probability: Of bright pixels being inverted.
        solarize_thresh: From where on, of 255, whatever the range. TensorFlow Similarity's 10 inverted nearly all; the paper
            has 128.
        num_cpu: Not used: batches are augmented as a whole.
        value_range: (lowest, highest) value of a pixel. By default what the type says.
        seed: The same seed gives the same views, call by call.

    Source: Zbontar et al., "Barlow Twins: Self-Supervised Learning via Redundancy Reduction", ICML 2021.
    """

    def __init__(
        self,
        width: int,
        height: int,
        flip_probability: float = 0.5,
        brightness_multiplier: float = 0.8,
        contrast_multiplier: float = 0.6,
        saturation_multiplier: float = 0.6,
        hue_multiplier: float = 0.2,
        jitter_probability: float = 0.8,
        greyscale_probability: float = 0.2,
        blur_probability: float = 0.2,
        blur_min_sigma: float = 0.0,
        blur_max_sigma: float = 1.0,
        solarize_probability: float = 0.2,
        *,
        solarize_thresh: float = 128,
        num_cpu: int | None = None,
        value_range: tuple[float, float] | None = None,
        seed: int | None = None,
    ) -> None:
        super().__init__(height, width, value_range=value_range, seed=seed)
        self.flip_probability = flip_probability
        self.brightness_multiplier = brightness_multiplier
        self.contrast_multiplier = contrast_multiplier
        self.saturation_multiplier = saturation_multiplier
        self.hue_multiplier = hue_multiplier
        self.jitter_probability = jitter_probability
        self.greyscale_probability = greyscale_probability
        self.blur_probability = blur_probability
        self.blur_min_sigma = blur_min_sigma
        self.blur_max_sigma = blur_max_sigma
        self.solarize_probability = solarize_probability
        self.solarize_thresh = solarize_thresh
        self.num_cpu = num_cpu

    def _view(self, images: Any, draw: Seed) -> Any:
        box = of_images.random_side_box(images, draw, side=(0.75, 1.0))
        is_flipped = of_images.happens(images, self.flip_probability, draw)
        view = of_images.resample(images, box, self.height, self.width, is_flipped=is_flipped)
        view = of_images.color_jitter(
            view,
            draw,
            brightness=self.brightness_multiplier,
            contrast=self.contrast_multiplier,
            saturation=self.saturation_multiplier,
            hue=self.hue_multiplier,
            is_additive=True,
            jitter_probability=self.jitter_probability,
            grey_probability=self.greyscale_probability,
        )
        view = of_images.blur(view, draw, probability=self.blur_probability, sigma=(self.blur_min_sigma, self.blur_max_sigma))
        return of_images.solarize(view, draw, probability=self.solarize_probability, threshold=self.solarize_thresh / 255)

    def _resized(self, images: Any) -> Any:
        return of_images.resample(images, of_images.centre_box(images), self.height, self.width)
