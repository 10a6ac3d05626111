"""A reader of examples that are in memory, or made by the program that calls."""

from collections.abc import Callable, Iterable, Iterator, Sized
from itertools import chain
from typing import Any

import numpy as np

from simstore.errors import RejectedError, SourceError
from simstore.readers.options import ReadOptions
from simstore.readers.reader import Batch, Example, InputKind, Notes, SourceFile
from simstore.readers.row_batches import Gatherer
from simstore.readers.row_examples import vectors_alike
from simstore.readers.values import array_of, text_of

__all__ = ["ExampleReader"]

Examples = Iterable[Example] | Callable[[], Iterable[Example]]


class ExampleReader:
    """Examples of an iterable; their keys are their own.

    The first one tells what they are: a str is a text, a float array [dim] a vector (as_vectors=False: an input), a uint8
    array of three axes an image, any other array an input.

    Args:
        examples: An iterable, or a function that returns a new one at each call. An iterator can be read only once.
        options: name= stands for the source; as_vectors=.

    Raises:
        SourceError: There is none, or what comes first is no Example.
    """

    format = "examples"

    def __init__(self, examples: Examples, options: ReadOptions) -> None:
        self.source = options.name or "examples"
        self.n_examples = len(examples) if isinstance(examples, Sized) else None
        self._examples = examples
        self._once: Iterator[Example] | None = None
        self._is_spent = False
        self.input_kind = self._first_kind(options)

    def _first_kind(self, options: ReadOptions) -> InputKind:
        iterator = self._iterator()
        first = next(iterator, None)
        if first is None:
            raise SourceError(f"{self.source}: there is no example")
        if not isinstance(first, Example):
            raise SourceError(
                f"{self.source}: an iterable of simstore.readers.Example was expected, not of {type(first).__name__}"
            )
        if self._is_iterator():
            self._once = chain([first], iterator)
        return _kind(first.input, options.as_vectors)

    def _is_iterator(self) -> bool:
        return not callable(self._examples) and iter(self._examples) is self._examples

    def _iterator(self) -> Iterator[Example]:
        if self._once is not None:
            if self._is_spent:
                raise SourceError(
                    f"{self.source}: an iterator can be read once: give a list, or a function that makes a new one"
                )
            self._is_spent = True
            return self._once
        return iter(self._examples() if callable(self._examples) else self._examples)

    def notes(self) -> Notes:
        """Nothing is guessed, nothing passed over."""
        return Notes((), ())

    def batches(self, size: int) -> Iterator[Batch]:
        """The examples, at most size at once.

        Raises:
            SourceError: An iterator is read for the second time.
        """
        rows = Gatherer(SourceFile("", 0, 0), size, self.input_kind)
        read = _reader(self.input_kind)
        error: Exception | None = None
        try:
            for example in self._iterator():
                key = example.key if isinstance(example, Example) else None
                rows.put(_checked(example, read), key)
                if rows.is_full:
                    yield rows.take()
        except Exception as err:  # the user's own: what came before it is taken in all the same
            error = err
        last = rows.end()
        if last is not None:
            yield last
        if error is not None:
            raise error


def _kind(value: Any, as_vectors: bool | None) -> InputKind:
    if isinstance(value, str):
        return "text"
    array = np.asarray(value)
    if as_vectors or (as_vectors is None and array.ndim == 1 and array.dtype.kind == "f"):
        return "vector"
    return "image" if array.ndim == 3 and array.dtype == np.uint8 else "array"


def _reader(kind: InputKind) -> Callable[[Any], Any]:
    if kind == "text":
        return text_of
    return vectors_alike() if kind == "vector" else array_of


def _checked(example: Any, read: Callable[[Any], Any]) -> Example | RejectedError:
    if not isinstance(example, Example):
        return RejectedError("no Example", f"an Example was expected, not {type(example).__name__}")
    data: Any = example.data
    if data is not None and not isinstance(data, dict):
        return RejectedError("bad data", f"the data of an example is a dict, not {type(data).__name__}")
    try:
        return Example(example.key, read(example.input), example.label, example.data)
    except (RejectedError, ValueError, TypeError) as err:
        return err if isinstance(err, RejectedError) else RejectedError("wrong type", f"the input is no array: {err}")
