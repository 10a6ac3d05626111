"""What inputs an embedder takes: images, texts, arrays, or it does not say."""

import os
from pathlib import Path
from typing import Any

import pytest

from simstore.embedders import KerasEmbedder, from_record, input_of, model_bytes, to_record
from simstore.types import ArrayInput, ImageInput, TextInput

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
keras = pytest.importorskip("keras", reason="needs the extra simstore[keras]")


def flat(shape: Any, dtype: str = "float32") -> Any:
    inputs = keras.Input(shape, dtype=dtype)
    x = inputs if len(shape) == 1 else keras.layers.GlobalAveragePooling2D()(inputs) if None in shape else None
    return keras.Model(inputs, keras.layers.Dense(2)(keras.layers.Flatten()(inputs) if x is None else x))


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        ((28, 28, 1), ImageInput(28, 28, 1)),
        ((32, 48, 3), ImageInput(32, 48, 3)),
        ((None, None, 3), ImageInput(None, None, 3)),
        ((28, 28), ImageInput(28, 28, 1)),
        ((32, 32, 4), ArrayInput((32, 32, 4))),
        ((3, 32, 32), ArrayInput((3, 32, 32))),
        ((64,), ArrayInput((64,))),
        ((4, 4, 4, 3), ArrayInput((4, 4, 4, 3))),
    ],
)
def test_what_a_model_takes(shape: Any, expected: Any, tmp_path: Path) -> None:
    embedder = KerasEmbedder(flat(shape))
    assert input_of(embedder) == expected
    rescaled = KerasEmbedder(flat(shape), preprocess=keras.layers.Rescaling(1 / 255))
    assert input_of(rescaled) == expected
    path = tmp_path / "m.keras"
    path.write_bytes(model_bytes(rescaled) or b"")
    again = from_record(to_record(rescaled), path)
    assert again is not None and input_of(again) == expected


def test_what_a_preprocess_takes() -> None:
    model = flat((8, 8, 3))
    inputs = keras.Input((None, None, 1))
    coloured = keras.Model(inputs, keras.layers.Concatenate()([keras.layers.Resizing(8, 8)(inputs)] * 3))
    assert input_of(KerasEmbedder(model, preprocess=coloured)) == ImageInput(None, None, 1)
    assert input_of(KerasEmbedder(model, preprocess=keras.layers.Resizing(8, 8))) == ImageInput(8, 8, 3)
    assert input_of(KerasEmbedder(model, preprocess=lambda batch: batch)) is None
    words = keras.layers.TextVectorization(output_mode="multi_hot", vocabulary=["a", "b"])
    assert input_of(KerasEmbedder(flat((3,)), preprocess=words)) == TextInput()


def test_a_model_of_two_inputs_does_not_say() -> None:
    one, two = keras.Input((2,)), keras.Input((2,))
    assert input_of(KerasEmbedder(keras.Model([one, two], keras.layers.Add()([one, two])))) is None
