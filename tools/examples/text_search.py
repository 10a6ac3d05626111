"""Text search: train on pairs of texts, without labels, and find texts by what they mean.

    python tools/examples/text_search.py [--epochs 15] [--pairs N] [--store DIR]

The texts are those that every Python has with it: documentation strings, of the standard library, numpy and Keras. The first
line of one is a question, the rest of it the answer. MultiNegativesRankLoss has each question find its own answer among all
those of a batch. One pair in ten is held out: neither the model nor its vocabulary has seen it.

How often a held-out question finds its own answer is told beside what the words they share (TF-IDF) would find.
"""

import argparse
import ast
import os
import re
import sys
import sysconfig
import tempfile
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras  # the environment comes first
import numpy as np
import tensorflow as tf
from keras import layers

import simstore
from simstore.similarity.losses import MultiNegativesRankLoss
from simstore.similarity.models import ContrastiveModel

BATCH, DIM, N_WORDS, LONGEST = 128, 256, 20_000, 150
NOT_READ = {"test", "tests", "site-packages", "idlelib", "lib2to3", "_vendor"}
ASKED = ("join two paths", "largest value along an axis", "randomly flip images", "wait for a process to end")

Pairs = list[tuple[str, str, str]]  # name, question, answer
Store = simstore.Store


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=15, help="rounds of training (default: 15, about a minute)")
    parser.add_argument("--pairs", type=int, help="only so many pairs, for a quick look")
    parser.add_argument("--store", type=Path, metavar="DIR", help="where the store is to stay (default: a temporary one)")
    options = parser.parse_args(arguments)
    keras.utils.set_random_seed(0)
    pairs = documented()
    np.random.default_rng(0).shuffle(pairs)
    pairs = pairs[: options.pairs]
    held_out, known = pairs[: len(pairs) // 10], pairs[len(pairs) // 10 :]
    print(f"{len(known):,} pairs to train on, {len(held_out):,} held out")

    model = text_model([words_of(text) for _, *texts in known for text in texts])
    model.compile(keras.optimizers.Adam(2e-3), loss=MultiNegativesRankLoss("cosine"))
    model.fit(batches(known), epochs=options.epochs, shuffle=False, verbose=2)

    with tempfile.TemporaryDirectory() as folder:
        path = options.store or Path(folder) / "documentation.sim"
        names, questions, answers = zip(*pairs, strict=True)
        with model.attach(path) as store:
            model.index([words_of(answer) for answer in answers], data=questions, keys=names)
            tell_accuracy(store, pairs, len(held_out))
        with simstore.open(path) as store:  # by its path alone: the model is in it
            for question in ASKED:
                print(f"\n{question}?")
                for hit in store.search(input=question, k=3):
                    print(f"    {hit.distance:.2f}  {hit.key}: {hit.data}")
    return 0


# -- the model -------------------------------------------------------------------------------------------------------


def text_model(texts: list[str]) -> Any:
    """Embeds a text as the mean of its words' vectors; in training some words are left out."""
    words = layers.TextVectorization(N_WORDS, output_sequence_length=LONGEST)
    words.adapt(texts)
    text = keras.Input((), dtype="string")
    vectors = layers.Embedding(N_WORDS, DIM, mask_zero=True)(words(text))
    mean = layers.GlobalAveragePooling1D()(layers.Dropout(0.4, noise_shape=(None, None, 1))(vectors))
    projector = keras.Sequential([keras.Input((DIM,)), layers.Dense(DIM)])
    return ContrastiveModel(keras.Model(text, mean), projector, algorithm="simclr", embedding="projector", name="texts")


def batches(pairs: Pairs) -> Any:
    """Batches (questions, answers), in another order each round."""
    questions, answers = ([words_of(text) for text in column] for column in list(zip(*pairs, strict=True))[1:])
    data = tf.data.Dataset.from_tensor_slices((questions, answers))
    return data.shuffle(len(pairs), seed=0).batch(BATCH, drop_remainder=len(pairs) >= BATCH)


# -- the texts -------------------------------------------------------------------------------------------------------


def documented() -> Pairs:
    """All functions and classes with a documentation string of more than a line. Sources are read, nothing is imported."""
    found = {text: name for root in folders() for name, text in docstrings(root)}  # the same text counts once
    split = [(name, *text.partition("\n")[::2]) for text, name in found.items()]
    return sorted((name, q, a.strip()) for name, q, a in split if len(q.split()) >= 3 and len(a.split()) >= 8)


def folders() -> list[Path]:
    """Where the sources are."""
    packages = [Path(str(spec.origin)).parent for spec in map(find_spec, ("numpy", "keras")) if spec]
    return [Path(sysconfig.get_paths()["stdlib"]), *packages]


def docstrings(root: Path) -> Iterator[tuple[str, str]]:
    """Names and documentation strings of what is defined in a folder."""
    for path in sorted(root.rglob("*.py")):
        parts = path.relative_to(root).with_suffix("").parts
        if NOT_READ.isdisjoint(parts):
            try:
                tree = ast.parse(path.read_text("utf-8"))
            except (SyntaxError, UnicodeDecodeError):  # a template, or another encoding
                continue
            prefix = () if root.name.startswith("python") else (root.name,)
            yield from docstrings_within(tree, ".".join((*prefix, *parts)))


def docstrings_within(node: ast.AST, prefix: str) -> Iterator[tuple[str, str]]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) and not child.name.startswith("_"):
            name = f"{prefix}.{child.name}"
            yield name, ast.get_docstring(child) or ""
            yield from docstrings_within(child, name)


def words_of(text: str) -> str:
    """The words of a text, parts of identifiers among them."""
    return " ".join(re.findall("[a-z0-9]+", text.lower()))


# -- how good it is --------------------------------------------------------------------------------------------------


def tell_accuracy(store: Store, pairs: Pairs, n_held_out: int) -> None:
    """How often the held-out questions, which come first, find their own answers among all: by the model, and by words."""
    questions = [words_of(question) for _, question, _ in pairs[:n_held_out]]
    names = np.array([name for name, *_ in pairs])
    by_model = store.search_many(inputs=questions, k=10).keys
    by_words = names[common_words(questions, [words_of(answer) for *_, answer in pairs], k=10)]
    for what, found in (("the model", by_model), ("common words", by_words)):
        is_own = found == names[:n_held_out, None]
        first, ten = is_own[:, 0].mean(), is_own.any(axis=1).mean()
        print(f"by {what + ':':14} {first:.1%} of the held-out questions find their own answer first, {ten:.1%} among ten")


def common_words(questions: list[str], answers: list[str], k: int) -> Any:
    """The k answers that share most with each question by TF-IDF: cosine of (1 + log count) · log(n / n with the word)."""
    counts = [Counter(answer.split()) for answer in answers]
    n_with = Counter(word for count in counts for word in count)
    weight = {word: np.log(len(answers) / n) for word, n in n_with.items()}
    answers_with = defaultdict(list)
    for i, count in enumerate(counts):
        values = {word: (1 + np.log(n)) * weight[word] for word, n in count.items()}
        norm = float(np.linalg.norm(list(values.values()))) or 1.0
        for word, value in values.items():
            answers_with[word].append((i, value / norm))
    scores = np.zeros((len(questions), len(answers)))
    for row, question in zip(scores, questions, strict=True):
        for word, n in Counter(question.split()).items():
            for i, value in answers_with[word]:
                row[i] += value * (1 + np.log(n)) * weight[word]
    return np.argsort(-scores, axis=1, kind="stable")[:, :k]


if __name__ == "__main__":
    sys.exit(main())
