"""The index that every similarity model has: made, replaced, and of the model as it is."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from simstore.embedders import KerasEmbedder
from simstore.errors import InvalidArgumentError
from simstore.similarity import distances
from simstore.similarity.distances import Distance
from simstore.similarity.indexer import Index, metric_of
from simstore.similarity.models.embedding import Embedding
from simstore.store import Store

__all__ = ["HasIndex"]


class _Parts:
    """What a model keeps beside its layers. A plain object: Keras neither tracks nor saves it."""

    index: Index | None = None
    embedding: Embedding | None = None
    distance: Distance | None = None
    embedding_output = 0
    n_assigned = 0  # how often weights were set other than by training


class HasIndex:
    """The index of a model.

    It is a store in a temporary directory, which is made when the first item comes and goes with the model; ``attach`` puts a
    lasting one in its place. Embeddings are always those of the weights as they are. What was indexed before more training
    cannot be compared with them, and every call that would do so is refused (EmbedderMismatchError): index again. Training,
    ``set_weights`` and ``load_weights`` are noticed; weights assigned to a layer directly are not, until a call that costs
    more than to read them all compares: ``index`` of hundreds, ``calibrate``, ``save_index``, ``index_summary``, ``attach``.
    """

    name: str
    optimizer: Any

    # -- what a model brings along --

    def _embedding_model(self) -> Any:
        """A functional Keras model from inputs to embeddings, over this model's layers."""
        raise NotImplementedError

    def _output_at(self, output: int | str | None) -> int | None:
        """The place of an output, of its name or its place; None for None.

        Raises:
            InvalidArgumentError: There is no such output.
        """
        places, n = self._outputs_by_name()
        place = places.get(output) if isinstance(output, str) else output
        if output is None or (isinstance(place, int) and not isinstance(place, bool) and 0 <= place < n):
            return place
        names = f": {', '.join(map(repr, places))}" if places else ""
        raise InvalidArgumentError(f"the model {self.name!r} has no output {output!r}; it has {n}, from 0{names}")

    def _outputs_by_name(self) -> tuple[dict[str, int], int]:
        """The places of the outputs that have names, and how many outputs there are."""
        return {}, 1

    # -- weights --

    @property
    def _parts(self) -> _Parts:
        parts: _Parts = self.__dict__.setdefault("_similarity_parts", _Parts())  # not through Keras' __setattr__
        return parts

    def set_weights(self, weights: Any) -> None:
        """As in Keras."""
        super().set_weights(weights)  # type: ignore[misc]
        self._parts.n_assigned += 1

    def load_weights(self, *args: Any, **kwargs: Any) -> None:
        """As in Keras."""
        super().load_weights(*args, **kwargs)  # type: ignore[misc]
        self._parts.n_assigned += 1

    @property
    def _embedding(self) -> Embedding:
        parts = self._parts
        if parts.embedding is None:
            parts.embedding = Embedding(self._embedding_model(), self.name)
        return parts.embedding

    def _embedded(self, x: Any, verbose: int = 0) -> NDArray[np.float32]:
        """Embeddings [n, dim] of a batch; 1 shows progress."""
        return self._embedding(x, verbose=verbose)

    def _fingerprint(self, *, surely: bool = False) -> str:
        """The model's fingerprint; ``surely``: computed even if no training was noticed."""
        optimizer = getattr(self, "optimizer", None)
        version = (self._parts.n_assigned, int(getattr(optimizer, "iterations", 0)))
        return self._embedding.fingerprint(version, surely=surely)

    def embedder(self, *, save: bool = True) -> KerasEmbedder:
        """The model as a store's embedder, with the weights as they are now.

        Args:
            save: Whether a store keeps a copy of the model. A model with layers that Keras cannot load again needs False.
        """
        return self._embedding.embedder(save=save)

    # -- the index itself --

    def create_index(
        self,
        distance: Distance | str = "cosine",
        search: str = "nmslib",
        kv_store: str = "memory",
        evaluator: str = "memory",
        embedding_output: int | str | None = None,
        stat_buffer_size: int = 1000,
    ) -> None:
        """Gives the model a new, empty, temporary index. A temporary one that it had is lost; a lasting one stays on the disk.

        Args:
            distance: By which items are compared.
            embedding_output: Which output of a model with several is the embedding: its name, or its place; by default the one
                that it was.
            search, kv_store, evaluator, stat_buffer_size: TensorFlow Similarity's; without effect, the store does it all.

        Raises:
            InvalidArgumentError: The distance cannot be an index; there is no such output.
        """
        refuse_objects(search=search, kv_store=kv_store, evaluator=evaluator)
        metric_of(distances.get(distance))
        at = self._output_at(embedding_output)
        self._replace_index(None)
        self._set_distance(distance, at)

    def _set_distance(self, distance: Distance | str, embedding_output: int | None) -> None:
        """Takes over a distance and an output; an index that holds items stays if it can."""
        chosen, parts = distances.get(distance), self._parts
        index = parts.index
        if index is not None and chosen != index.distance:
            if chosen.metric == index.distance.metric:
                index.distance = chosen
            elif len(index.store) or not index.is_temporary:
                raise InvalidArgumentError(
                    f"the index, {len(index.store)} items, is by {index.distance.name!r} distance, and {chosen.name!r} is to "
                    f"come: create_index({chosen.name!r}) makes a new one"
                )
            else:
                self._replace_index(None)
        if embedding_output is not None and embedding_output != parts.embedding_output:
            parts.embedding_output, parts.embedding = embedding_output, None
            if parts.index is not None and parts.index.is_temporary and not len(parts.index.store):
                self._replace_index(None)  # it may be of another width
        parts.distance = chosen
        parts.n_assigned += 1  # a new optimizer counts its steps from 0

    def _replace_index(self, index: Index | None) -> None:
        old, self._parts.index = self._parts.index, index
        if old is not None:
            old.close()

    def _current_index(self, *, surely: bool = False) -> Index:
        """The index, made if there is none, and of the model as it is.

        Not a property: Keras reads all of those where it saves.

        Args:
            surely: Compare with the weights themselves, even if no training was noticed.
        """
        parts = self._parts
        if parts.index is None:
            parts.index = Index.temporary(self._embedding.dim, parts.distance or distances.CosineDistance())
        parts.index.check_made_by(self._fingerprint(surely=surely), self.name)
        return parts.index

    @property
    def _existing(self) -> Index:
        if self._parts.index is None:
            raise InvalidArgumentError(f"the model {self.name!r} has no index yet: index items, or attach a store")
        return self._parts.index

    @property
    def store(self) -> Store:
        """The index's store, to delete and filter items, and to take snapshots. A temporary one goes with the model.

        Raises:
            InvalidArgumentError: There is none yet.
        """
        return self._existing.store

    def attach(self, store: Any) -> Store:
        """Puts a lasting store in the place of the index.

        What is indexed is on the disk when the call returns. The first items bring the model with them, so that the store
        opens by its path alone, and answers raw inputs, in any process.

        Args:
            store: The path of a store, which is made if it is not there; or an open Store, which the caller closes.

        Returns:
            The store. One that was opened here is closed with the model, or when another index takes its place.

        Raises:
            EmbedderMismatchError: Its items are of another model, or of this one before it was trained on.
            DimensionError, InvalidArgumentError: Its vectors or its metric do not fit the model; the model has several inputs.
        """
        if self._parts.index is not None and self._parts.index.store is store:
            return self._current_index().store
        self._embedding.check_storable()
        index = Index.lasting(store, self._embedding.dim, self._parts.distance)
        try:
            index.check_made_by(self._fingerprint(surely=True), self.name)
        except BaseException:
            index.close()
            raise
        self._parts.distance = index.distance
        self._replace_index(index)
        return index.store

    def reset_index(self) -> None:
        """Empties the index, and forgets the calibration. Of an attached store all items are deleted."""
        index = self._parts.index
        if index is None or index.is_temporary:
            self._replace_index(None)
        else:
            index.clear()


def refuse_objects(**engines: Any) -> None:
    """Raises InvalidArgumentError for engines of one's own: there is one index."""
    for name, value in engines.items():
        if not isinstance(value, str):
            raise InvalidArgumentError(
                f"{name} is a {type(value).__name__}: the index is a simstore Store, which finds and keeps the items. Leave "
                f"{name} out, and attach(path) for one that lasts"
            )
