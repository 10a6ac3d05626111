"""image-thumb and text-ngram against plain loops, in any batch, in stores, and in other processes."""

import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import OpenStore
from numpy.typing import NDArray

from simstore.embedders import Embedder, input_of, named_embedder
from simstore.errors import InvalidArgumentError
from simstore.types import ImageInput, TextInput

keras = pytest.importorskip("keras", reason="needs the extra simstore[keras]")
tf = pytest.importorskip("tensorflow", reason="needs the extra simstore[keras]")


# -- image-thumb -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def thumb() -> Embedder:
    return named_embedder("image-thumb")


def pixels(n: int, seed: int = 0) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (n, 16, 16, 3), np.uint8)


def test_thumb_is_the_pixels_from_middle_grey(thumb: Embedder) -> None:
    assert (thumb.spec.name, thumb.spec.dim, input_of(thumb)) == ("image-thumb", 768, ImageInput(16, 16, 3))
    images = pixels(5)
    centred = images.reshape(5, 768).astype(float) - 127.5
    np.testing.assert_allclose(thumb.embed(images), centred / np.sqrt((centred**2).sum(1, keepdims=True)), atol=1e-6)


def test_thumb_of_one_colour_is_never_zero(thumb: Embedder) -> None:
    for grey in (0, 127, 128, 255):
        vector = thumb.embed(np.full((1, 16, 16, 3), grey, np.uint8))
        np.testing.assert_allclose(vector, np.sign(grey - 127.5) / np.sqrt(768), rtol=1e-6)


def test_thumb_finds_what_looks_the_same(thumb: Embedder) -> None:
    digits = pytest.importorskip("sklearn.datasets").load_digits()
    grey = (digits.images[:1000] * 15).astype(np.uint8).repeat(2, 1).repeat(2, 2)
    images = np.repeat(grey[..., None], 3, axis=3)
    vectors = thumb.embed(images)
    noise = np.random.default_rng(5).normal(0, 8, images.shape)
    for changed in (images * 0.8 + 40, images + noise):
        assert ((thumb.embed(changed.clip(0, 255).astype(np.uint8)) @ vectors.T).argmax(1) == np.arange(1000)).all()
    similarity = vectors @ vectors.T
    np.fill_diagonal(similarity, -1)
    assert (digits.target[similarity.argmax(1)] == digits.target[:1000]).mean() > 0.95


@pytest.mark.parametrize("wrong", [0.5, -1, 256, np.nan])
def test_thumb_refuses_numbers_that_are_no_pixels(wrong: float, thumb: Embedder) -> None:
    images = np.zeros((2, 16, 16, 3))
    np.testing.assert_allclose(np.linalg.norm(thumb.embed(images), axis=1), 1, rtol=1e-6)  # 0.0 is one
    images[1, 2, 3, 1] = wrong
    with pytest.raises(InvalidArgumentError, match=rf"takes uint8 numbers, and was given {wrong}"):
        thumb.embed(images)


# -- text-ngram ------------------------------------------------------------------------------------------------------

TEXTS = [
    "An embedded vector store",
    "an  EMBEDDED\tvector\n store ",
    "Vectors are stored in a memory-mapped file",
    "Ünïcödé ÄRGER",
    "東京タワー",
    "abc",
    "",
]


@pytest.fixture(scope="module")
def ngram() -> Any:
    return named_embedder("text-ngram", texts=TEXTS)


def ngrams_of(text: str) -> list[str]:
    padded = f" {' '.join(text.lower().split())} "
    return [padded[i : i + 5] for i in range(len(padded) - 4)] or [padded]


def hash_of(ngram: str) -> int:
    """SipHash of one n-gram, by TensorFlow's own op."""
    return int(tf.strings.to_hash_bucket_strong([ngram], 2**25, (0x73696D73, 0x746F7265))[0])


def naive_idf(texts: list[str]) -> NDArray[np.float64]:
    having = np.zeros(65536)
    for text in texts:
        for place in {hash_of(ngram) % 65536 for ngram in ngrams_of(text)}:
            having[place] += 1
    return np.maximum(np.round(np.log((1 + len(texts)) / (1 + having)) * 1024), 1) / 1024


def naive_vector(text: str, idf: NDArray[np.float64]) -> NDArray[np.float64]:
    vector = np.zeros(256)
    for ngram in ngrams_of(text):
        hashed = hash_of(ngram)
        vector[hashed // 65536 % 256] += (-1 if hashed >= 2**24 else 1) * idf[hashed % 65536]
    return vector / np.linalg.norm(vector)


def test_ngram_is_the_sum_of_hashed_5_grams(ngram: Any) -> None:
    assert (ngram.spec.name, ngram.spec.dim, input_of(ngram)) == ("text-ngram", 256, TextInput())
    idf = naive_idf(TEXTS)
    np.testing.assert_array_equal(ngram.model.get_layer("ngrams").idf, idf)
    for text, vector in zip([*TEXTS, "never seen"], ngram.embed([*TEXTS, "never seen"]), strict=True):
        np.testing.assert_allclose(vector, naive_vector(text, idf), atol=1e-6)


def test_the_hash_is_the_same_on_every_machine() -> None:
    assert [hash_of(text) for text in (" stor", "東京", "  ")] == [11122153, 7153419, 31215015]  # as it was first computed


def test_ngram_does_not_tell_case_and_white_space_apart(ngram: Embedder) -> None:
    first, second, third = ngram.embed(TEXTS[:3])
    np.testing.assert_array_equal(first, second)
    assert first @ third < 0.6


def test_ngram_gives_every_text_a_vector_of_length_1(ngram: Embedder) -> None:
    texts = ["", " ", "\0", "a", "ab\n", "x" * 100_000, "🙂", b"\xff\xfe no UTF-8"]
    np.testing.assert_allclose(np.linalg.norm(ngram.embed(texts), axis=1), 1, rtol=1e-6)


def test_ngrams_that_cancel_each_other_out_leave_the_first() -> None:
    layer = named_embedder("text-ngram", texts=["a"]).model.get_layer("ngrams")  # type: ignore[attr-defined]
    layer.idf.assign(np.ones(65536))
    seen: dict[int, tuple[str, int]] = {}
    for i in range(20_000):  # 4 characters and the spaces make two n-grams
        text = f"{i:04x}"
        first, second = (hash_of(ngram) // 65536 for ngram in ngrams_of(text))
        if (first - second) % 512 == 256:
            seen[i] = text, first % 256
            break
    [(text, place)] = seen.values()
    assert layer(tf.constant([text])).numpy().tolist() == np.eye(256)[[place]].tolist()


def test_ngram_in_a_batch_is_the_same_to_the_bit_as_alone(ngram: Embedder) -> None:
    texts = [" ".join(TEXTS[:3]) * (i % 7) + str(i) for i in range(700)]
    whole = ngram.embed(texts)
    np.testing.assert_array_equal(np.concatenate([ngram.embed(texts[i : i + 97]) for i in range(0, 700, 97)]), whole)
    np.testing.assert_array_equal(np.concatenate([ngram.embed([text]) for text in texts[:40]]), whole[:40])


RECORD = "customer of the northern branch since 2019: "


def records(n: int) -> list[str]:
    """Made-up records; two thirds of each are the same in all."""
    rng = np.random.default_rng(11)
    letters = np.array(list("abcdefghijklmnopqrstuvwxyz"))
    words = ["".join(rng.choice(letters, rng.integers(4, 9))) for _ in range(n)]
    return [f"{RECORD}{word} {rng.integers(9999)}, paid in full" for word in words]


def test_ngram_finds_the_text_that_was_misspelt() -> None:
    texts = records(1000)
    embedder = named_embedder("text-ngram", texts=texts)
    misspelt = [text.replace("customer of the", "CUSTOMER,").replace(", paid in", " paid  in")[:-3] for text in texts]
    near = embedder.embed(misspelt) @ embedder.embed(texts).T
    assert (near.argmax(1) == np.arange(1000)).mean() > 0.97


def test_what_all_texts_have_weighs_little() -> None:
    openings = [
        "Dear customer, thank you for your letter, which was received and is now answered as follows: ",
        "This message was made by a machine; please do not reply to it, and do read what it says here: ",
    ]
    entries = [record.removeprefix(RECORD)[:-14] for record in records(1000)]
    texts = [openings[i % 2] + entry for i, entry in enumerate(entries)]
    others = [openings[(i + 1) % 2] + entry for i, entry in enumerate(entries)]

    def found(first_pass: list[str]) -> float:
        embedder = named_embedder("text-ngram", texts=first_pass)
        return float(((embedder.embed(others) @ embedder.embed(texts).T).argmax(1) == np.arange(1000)).mean())

    assert found(["nothing of the kind"]) < 0.1  # all weigh about the same
    assert found(texts) > 0.9


def test_ngram_passes_over_the_texts_once_and_does_not_keep_them() -> None:
    alive, most = 0, 0

    class Text(str):
        __slots__ = ()

        def __del__(self) -> None:
            nonlocal alive
            alive -= 1

    def stream() -> Iterator[str]:
        nonlocal alive, most
        for i in range(5000):
            alive += 1
            most = max(most, alive)
            yield Text(f"text number {i}")

    named_embedder("text-ngram", texts=stream())
    assert alive <= 1 and most <= 2


@pytest.mark.parametrize("long", [3_000_000, 40_000])
def test_long_texts_are_counted_in_pieces_of_bounded_size(long: int, monkeypatch: pytest.MonkeyPatch) -> None:
    from simstore.embedders import text_ngram

    pieces = [len(b"".join(some)) for some in text_ngram._batches("x" * long for _ in range(50))]
    assert sum(pieces) == 50 * long and max(pieces) < (1 << 20) + long


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        (None, r"needs a first pass over the texts: named_embedder\('text-ngram', texts=…\)"),
        ([], r"needs texts for its first pass, and was given none"),
        ("one text", r"not a single one: give it as \[text\]"),
        (["a", 3], r"texts= holds str, not int"),
    ],
)
def test_ngram_without_texts(texts: Any, message: str) -> None:
    with pytest.raises(InvalidArgumentError, match=message):
        named_embedder("text-ngram", texts=texts)


def test_half_a_character_is_refused_with_the_text(ngram: Embedder) -> None:
    named_embedder("text-ngram", texts=["a\ud800b"])  # the first pass leaves it to embed()
    with pytest.raises(InvalidArgumentError, match=r"a text holds '\\ud800', half of a character: 'a\\ud800b'"):
        ngram.embed(["fine", "a\ud800b"])


@pytest.mark.parametrize("wrong", [None, 3, np.zeros(2), ["a"]])
def test_what_is_no_text_is_refused_beside_texts(wrong: Any, ngram: Embedder) -> None:
    with pytest.raises(InvalidArgumentError, match=rf"takes texts, and was given {type(wrong).__name__}"):
        ngram.embed(["a text", wrong])


# -- both ------------------------------------------------------------------------------------------------------------


def test_many_threads(thumb: Embedder, ngram: Embedder) -> None:
    images = pixels(40)
    of_images, of_texts = thumb.embed(images), ngram.embed(TEXTS)
    with ThreadPoolExecutor(8) as threads:
        found = list(threads.map(lambda i: thumb.embed(images[i : i + 1])[0], range(40)))
        texts = list(threads.map(lambda i: ngram.embed([TEXTS[i % 7]])[0], range(70)))
    np.testing.assert_array_equal(found, of_images)
    np.testing.assert_array_equal(texts, np.tile(of_texts, (10, 1)))


def test_they_are_the_same_under_other_defaults_of_keras(thumb: Embedder, ngram: Embedder) -> None:
    keras.config.set_dtype_policy("mixed_bfloat16")
    keras.config.set_image_data_format("channels_first")
    try:
        again = [named_embedder("image-thumb", batch_size=3), named_embedder("text-ngram", texts=iter(TEXTS))]
    finally:
        keras.config.set_dtype_policy("float32")
        keras.config.set_image_data_format("channels_last")
    assert [embedder.spec for embedder in again] == [thumb.spec, ngram.spec]
    np.testing.assert_array_equal(again[0].embed(pixels(7)), thumb.embed(pixels(7)))


def test_a_store_that_saved_them_is_used_by_its_path_in_a_new_process(
    thumb: Embedder, ngram: Embedder, stores: OpenStore, tmp_path: Path
) -> None:
    for embedder, inputs in ((thumb, pixels(7)), (ngram, TEXTS)):
        store = stores(f"{embedder.spec.name}.sim", embedder=embedder)
        store.add([f"k{i}" for i in range(7)], inputs=inputs)
        np.save(tmp_path / f"{embedder.spec.name}.npy", embedder.embed(inputs))
        store.close()
    code = f"""
import numpy as np, simstore
from simstore.embedders import input_of, named_embedder, same_name
from simstore.types import ImageInput, TextInput
inputs = dict([("text-ngram", {TEXTS!r}), ("image-thumb", np.random.default_rng(0).integers(0, 256, (7, 16, 16, 3), np.uint8))])
for name, some in inputs.items():
    with simstore.open(f"{tmp_path}/{{name}}.sim", background=False) as store:
        saved = np.load(f"{tmp_path}/{{name}}.npy")
        for i in range(7):
            store.upsert(f"again{{i}}", inputs=some[i])
            assert (store.get(f"again{{i}}").vector == saved[i]).all()
        assert store.search(input=some[3], k=2).distances.max() < 1e-6
        spec = store.info().embedder
        assert same_name(spec, name)
        assert store.check(deep=True) == []
    new = named_embedder(name, texts=inputs["text-ngram"])
    assert new.spec == spec
    with simstore.open(f"{tmp_path}/{{name}}.sim", embedder=new, background=False) as store:
        assert store.search(input=some[3], k=2).distances.max() < 1e-6
"""
    ran = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, timeout=120)
    assert ran.returncode == 0, ran.stderr
