"""reembed(): the whole store goes over to another embedder."""

from collections.abc import Callable
from typing import Any

from simstore.embedders import Embedder, model_bytes, to_record
from simstore.errors import InvalidArgumentError
from simstore.reports import Reembedded
from simstore.storage import Transaction
from simstore.store import arguments, models, opening
from simstore.store.base import StoreBase
from simstore.store.core import Core
from simstore.store.move import Move
from simstore.types import Item, Progress

__all__ = ["Reembedding"]


class Reembedding(StoreBase):
    """Everything about going over to another embedder."""

    def reembed(
        self,
        embedder: Embedder,
        *,
        inputs: Callable[[Item], Any] | None = None,
        batch_size: int = 64,
        progress: Progress | None = None,
    ) -> Reembedded:
        """Gives all items vectors of another embedder, which is the store's from then on.

        The old vectors answer until all new ones are there; then one transaction switches, and the next call of every process
        sees the new ones alone. Others read and write meanwhile; what they write is embedded, too. A call that was interrupted
        leaves what it has embedded: called again with the same embedder it goes on from there, and with the embedder that the
        store has it gives up the move. Snapshots keep their vectors and their embedder, and ``restore`` brings them back.

        The store keeps no inputs: ``inputs`` tells them. Neither it nor the embedder may write to this store.
        Afterwards ``optimize()`` builds one graph over the new vectors, before searches have it done beside them.

        Args:
            embedder: What is to make the vectors. A KerasEmbedder is saved in the store, as by ``open``.
            inputs: Called as inputs(item) for the input of each item; by default that is the item's data.
            batch_size: How many inputs the embedder is given at once.
            progress: Called as progress("reembed", done, total) now and then.

        Returns:
            Reembedded(n_items, dim, n_resumed); n_items is 0 where a move was given up.

        Raises:
            InvalidArgumentError: The store has this embedder already; an item without data, and no inputs; another argument.
            InvalidVectorError: The embedder made something that cannot be compared; names the item.
            EmbedderMismatchError: Another call of reembed() has taken over.
            ReadOnlyStoreError: The store was opened to be read.
            StorageFullError, StorageError: It could not be written. Whatever was raised, the store goes on as it was.

        Example:
            >>> import simstore, numpy as np, tempfile
            >>> from simstore.embedders import FunctionEmbedder
            >>> with simstore.open(tempfile.mkdtemp(), metric="l2") as store:
            ...     _ = store.add(["a", "b"], np.eye(2), data=[[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]])
            ...     _ = store.reembed(FunctionEmbedder(lambda batch: np.array(batch), name="numbers", dim=3))
            ...     store.search(input=[4, 5, 6], k=1)[0].key
            'b'
        """
        self._check_writable()
        if inputs is not None and not callable(inputs):
            raise InvalidArgumentError(f"inputs is a function item → input, or None for the item's data; not {inputs!r:.60}")
        arguments.check_positive("batch_size", batch_size)
        record = to_record(embedder)
        if record["dim"] > opening.MAX_DIM:
            raise InvalidArgumentError(f"the embedder makes vectors of {record['dim']} numbers: {opening.MAX_DIM} is the most")
        if self._view().schema.fingerprint == record["fingerprint"]:
            return self._given_up(record)
        content = model_bytes(embedder)  # refused before anything is embedded
        record = models.with_checksum(record, content)
        with self._embedders.taking(embedder, record):
            done = Move(self._cores, embedder, record, content, inputs, int(batch_size or 64), progress).run()
        self._remove_spare_models()
        return done

    def _given_up(self, record: dict[str, Any]) -> Reembedded:
        """The store stays with the embedder that it has: what was staged for another is dropped.

        Raises:
            InvalidArgumentError: Nothing was.
        """

        def end(txn: Transaction, core: Core) -> bool:
            return core.database.end_staging(txn)

        if not self._written(end):
            raise InvalidArgumentError(
                f"the store has the embedder {record['name']!r} already (fingerprint {record['fingerprint']}): there is "
                "nothing to do. Items whose inputs have changed are embedded anew by upsert(keys, inputs=…)"
            )
        return Reembedded(0, record["dim"], 0)
