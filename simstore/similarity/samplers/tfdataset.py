"""A sampler of a data set that is known by name."""

from collections.abc import Sequence
from pathlib import Path

from simstore.similarity.samplers.datasets import Preprocess, load_dataset
from simstore.similarity.samplers.memory import MultiShotMemorySampler
from simstore.similarity.samplers.sampler import AugmenterFn

__all__ = ["TFDatasetMultiShotMemorySampler"]


class TFDatasetMultiShotMemorySampler(MultiShotMemorySampler):
    """As MultiShotMemorySampler, of a data set by its name: see ``load_dataset`` for where it is looked for.

    Args:
        dataset_name: The name, or the path of an .npz file with x_train, y_train, x_test and y_test.
        classes_per_batch: How many classes a batch has.
        x_key: The feature of a tensorflow-datasets example that is x.
        y_key: The one that is y.
        splits: Which to take; both by default.
        preprocess_fn: Called as preprocess_fn(x, y) with each example, once; returns both.
        examples_per_class_per_batch, steps_per_epoch, class_list, total_examples_per_class, augmenter, warmup,
            num_augmentations_per_example, replace, seed, workers: See MultiShotMemorySampler.

    Raises:
        InvalidArgumentError: The data set is nowhere to be found, with what each place said; or another argument is wrong.

    Example:
        >>> sampler = TFDatasetMultiShotMemorySampler("digits", classes_per_batch=10)
        >>> sampler.num_examples, sampler.example_shape
        (1797, (8, 8, 1))
    """

    def __init__(
        self,
        dataset_name: str | Path,
        classes_per_batch: int,
        x_key: str = "image",
        y_key: str = "label",
        splits: str | Sequence[str] = ("train", "test"),
        examples_per_class_per_batch: int = 2,
        steps_per_epoch: int = 1000,
        class_list: Sequence[int] | None = None,
        total_examples_per_class: int | None = None,
        preprocess_fn: Preprocess | None = None,
        augmenter: AugmenterFn | None = None,
        warmup: int = -1,
        *,
        num_augmentations_per_example: int = 1,
        replace: bool = False,
        seed: int | None = None,
        workers: int = 1,
    ) -> None:
        x, y = load_dataset(dataset_name, splits, x_key=x_key, y_key=y_key, preprocess_fn=preprocess_fn)
        super().__init__(
            x,
            y,
            classes_per_batch,
            examples_per_class_per_batch,
            steps_per_epoch,
            class_list,
            total_examples_per_class,
            augmenter,
            None,
            warmup,
            num_augmentations_per_example=num_augmentations_per_example,
            replace=replace,
            seed=seed,
            workers=workers,
        )
