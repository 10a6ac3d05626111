"""A knowledge graph: embed its triples with a Keras model, search them, and answer questions that it does not hold.

    python tools/examples/knowledge_graph.py [--epochs 12] [--steps 100] [--store DIR]

The graph is what Unicode knows of letters: (É, lower case, é), (É, without marks, E), (É, mark, combining acute accent),
(É, script, Latin), … One fact in ten is held out. A question is a triple without its end: (É, lower case, ?). The model
learns to embed questions that have the same answer, and that answer, alike. Facts are indexed, and the things they are
about: of the things, those near a question are its answers; of the facts, those near it are like it.
"""

import argparse
import os
import sys
import tempfile
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras  # the environment comes first
import numpy as np
from keras import layers, ops

import simstore
from simstore import label
from simstore.similarity.layers import MetricEmbedding
from simstore.similarity.losses import SupConLoss
from simstore.similarity.models import SimilarityModel

DIM, BATCH = 64, 128
LETTERS = [*range(0x41, 0x250), *range(0x370, 0x530), *range(0x1E00, 0x2000)]  # Latin, Greek, Cyrillic

Triple = tuple[str, str, str]
Store = simstore.Store


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=12, help="rounds of training (default: 12)")
    parser.add_argument("--steps", type=int, default=100, help="batches in an epoch (default: 100)")
    parser.add_argument("--store", type=Path, metavar="DIR", help="where the store is to stay (default: a temporary one)")
    options = parser.parse_args(arguments)
    keras.utils.set_random_seed(0)

    triples = sorted(set(facts()))
    order = np.random.default_rng(0).permutation(len(triples))
    held_out, known = ([triples[i] for i in part] for part in np.split(order, [len(triples) // 10]))
    names = Names(triples)
    print(f"{len(known):,} facts about {len(names.things):,} things to train on, {len(held_out):,} held out")

    model = graph_model(len(names.things) + 1, len(names.relations) + 1)
    model.compile(keras.optimizers.Adam(0.01), loss=SupConLoss())
    model.fit(Batches(known, names, options.steps), epochs=options.epochs, verbose=2)

    with tempfile.TemporaryDirectory() as folder:
        path = options.store or Path(folder) / "letters.sim"
        with model.attach(path) as store:
            things = [("", "", thing) for thing in names.things]
            model.index(names.ids(things), ["thing"] * len(things), data=names.things, keys=names.things)
            model.index(names.ids(known), ["fact"] * len(known), data=known, keys=[", ".join(fact) for fact in known])
            tell_accuracy(store, names, known, held_out)
        with simstore.open(path) as store:  # by its path alone: the model is in it
            for head, relation, tail in {fact[1]: fact for fact in held_out}.values():
                question = names.ids([(head, relation, "")])[0]
                (answer,) = store.search(input=question, k=1, where=label == "thing")
                alike = store.search(input=question, k=3, where=label == "fact")
                print(f"\n({head}, {relation}, ?)  {answer.key}" + ("" if answer.key == tail else f", and should be {tail}"))
                print("    as in " + ",  ".join(f"({hit.key})" for hit in alike))
    return 0


# -- the graph -------------------------------------------------------------------------------------------------------


def facts() -> Iterator[Triple]:
    """What Unicode says of each letter."""
    for letter in filter(str.isalpha, map(chr, LETTERS)):
        yield letter, "script", unicodedata.name(letter).split()[0].title()
        yield letter, "kind", {"Lu": "capital letter", "Ll": "small letter"}.get(unicodedata.category(letter), "other letter")
        base, *marks = list(unicodedata.normalize("NFD", letter))
        if marks:
            yield letter, "without marks", base
        for mark in marks:
            yield letter, "mark", unicodedata.name(mark).lower()
        for relation, other in (("lower case", letter.lower()), ("upper case", letter.upper())):
            if other != letter and len(other) == 1:
                yield letter, relation, other


class Names:
    """The numbers of things and relations. 0 is a place that is left open."""

    def __init__(self, triples: Sequence[Triple]) -> None:
        self.things = sorted({thing for head, _, tail in triples for thing in (head, tail)})
        self.relations = sorted({relation for _, relation, _ in triples})
        self._thing = {"": 0} | {name: i for i, name in enumerate(self.things, 1)}
        self._relation = {"": 0} | {name: i for i, name in enumerate(self.relations, 1)}

    def ids(self, triples: Sequence[Triple]) -> Any:
        """Triples as numbers, int32 [n, 3]."""
        return np.array([(self._thing[h], self._relation[r], self._thing[t]) for h, r, t in triples], np.int32)


# -- the model -------------------------------------------------------------------------------------------------------


def graph_model(n_things: int, n_relations: int) -> Any:
    """Embeds (h, r, t) as e(h) ∘ w(r) + b(r) + e(t); what is open, thing 0, adds nothing.

    A relation scales and shifts a thing's vector: DistMult (Yang et al. 2015) and TransE (Bordes et al. 2013) in one.
    """
    ids = keras.Input((3,), dtype="int32")
    head, relation, tail = ids[:, 0], ids[:, 1], ids[:, 2]
    thing = layers.Embedding(n_things, DIM, embeddings_initializer="glorot_normal")
    scale = layers.Embedding(n_relations, DIM, embeddings_initializer="ones")
    shift = layers.Embedding(n_relations, DIM, embeddings_initializer="zeros")
    question = (thing(head) * scale(relation) + shift(relation)) * is_given(head)
    return SimilarityModel(ids, MetricEmbedding(DIM)(question + thing(tail) * is_given(tail)), name="letters")


def is_given(ids: Any) -> Any:
    return ops.cast(ops.expand_dims(ids, 1) > 0, "float32")


class Batches(keras.utils.PyDataset):  # type: ignore[misc]
    """Questions and their answers, side by side; what has the same answer has the same label."""

    def __init__(self, facts: Sequence[Triple], names: Names, steps: int) -> None:
        super().__init__()
        self.questions = names.ids([(head, relation, "") for head, relation, _ in facts])
        self.answers = names.ids([("", "", tail) for *_, tail in facts])
        self.steps, self.random = steps, np.random.default_rng(0)

    def __len__(self) -> int:
        return self.steps

    def __getitem__(self, index: int) -> tuple[Any, Any]:
        rows = self.random.integers(0, len(self.questions), BATCH)
        return np.concatenate([self.questions[rows], self.answers[rows]]), np.tile(self.answers[rows, 2], 2)


# -- how good it is --------------------------------------------------------------------------------------------------


def tell_accuracy(store: Store, names: Names, known: Sequence[Triple], held_out: Sequence[Triple]) -> None:
    """How often a held-out answer comes first, or among ten; beside it, the answers that its relation has most often.

    Answers that are known of the same question do not count, as they are right, too.
    """
    others = defaultdict(set)
    frequent: dict[str, Counter[str]] = defaultdict(Counter)
    for head, relation, tail in known:
        others[head, relation].add(tail)
        frequent[relation][tail] += 1
    found = store.search_many(inputs=names.ids([(h, r, "") for h, r, _ in held_out]), k=20, where=label == "thing").keys
    guessed = [[tail for tail, _ in frequent[relation].most_common(20)] for _, relation, _ in held_out]
    for what, answers in (("the model", found.tolist()), ("frequency", guessed)):
        left = [[a for a in row if a not in others[h, r]] for row, (h, r, _) in zip(answers, held_out, strict=True)]
        first, ten = (np.mean([t in row[:k] for row, (*_, t) in zip(left, held_out, strict=True)]) for k in (1, 10))
        print(f"by {what}: {first:.1%} of the held-out facts are the first answer, {ten:.1%} among ten")


if __name__ == "__main__":
    sys.exit(main())
