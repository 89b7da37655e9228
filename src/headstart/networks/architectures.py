"""What the vision transformers of the catalogue are made of, in numbers. Nothing here imports Keras."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

_POSITIONS_FOLDED = "2"  # Of the first build, OpenVINO now and then counted the positions from -1.


@dataclasses.dataclass(frozen=True)
class VisionTransformer:
    """A vision transformer: patches, then blocks that all have the same width.

    Sources: ViT, https://arxiv.org/abs/2010.11929; CLIP, https://arxiv.org/abs/2103.00020; DINOv2,
    https://arxiv.org/abs/2304.07193, with registers https://arxiv.org/abs/2309.16588; SigLIP 2,
    https://arxiv.org/abs/2502.14786.

    Attributes:
        layout: how KerasHub names its parts: "vit", "clip", "dinov2" or "siglip" (see `hub_layouts`).
        patch_size: the side of a patch in pixels.
        width: of a token.
        depth: how many blocks.
        num_heads: of the attention.
        hidden: units of the first layer of each block's MLP.
        trained_size: the side of the images for which it has positions; others are interpolated.
        activation: of the MLP: "gelu", "gelu_tanh" or "quick_gelu".
        epsilon: of every LayerNormalization.
        class_token: whether a token of its own stands before those of the patches.
        num_registers: further tokens between that and the patches.
        patch_bias: whether the convolution that makes patches has a bias.
        norm_before: whether there is a LayerNormalization before the first block.
        attention_pool: whether it ends in a pooling by attention.
        layer_scale: whether every block scales what it adds.
        antialias: whether interpolating positions to a smaller image smooths them.
    """

    layout: str
    patch_size: int
    width: int
    depth: int
    num_heads: int
    hidden: int
    trained_size: int
    activation: str = "gelu"
    epsilon: float = 1e-6
    class_token: bool = True
    num_registers: int = 0
    patch_bias: bool = True
    norm_before: bool = False
    attention_pool: bool = False
    layer_scale: bool = False
    antialias: bool = False

    graph: ClassVar[str] = _POSITIONS_FOLDED

    @property
    def num_extra(self) -> int:
        """Tokens before those of the patches."""
        return int(self.class_token) + self.num_registers

    @property
    def size_step(self) -> int:
        """Sides of images are multiples of this."""
        return self.patch_size

    @property
    def num_params(self) -> int:
        """Parameters of the network that is built at `trained_size`."""
        width, num_patches = self.width, (self.trained_size // self.patch_size) ** 2
        mlp = 2 * width * self.hidden + self.hidden + width
        attention = 4 * (width * width + width)
        block = attention + mlp + 4 * width
        ends = 3 * self.patch_size**2 * width + self.patch_bias * width + (num_patches + self.num_extra) * width
        pool = attention + mlp + 3 * width if self.attention_pool else 0  # Its query is a token, and it has one norm.
        return ends + self.depth * block + (1 + self.norm_before) * 2 * width + pool


@dataclasses.dataclass(frozen=True)
class SwinTransformer:
    """A Swin transformer: attention within windows, which every second block shifts. https://arxiv.org/abs/2103.14030.

    Attributes:
        width: of the first stage; every further one has twice that of the one before.
        depths: blocks of each stage.
        num_heads: of each stage.
        window: the side of a window in tokens.
        trained_size: the side of the images it was trained on.
    """

    width: int
    depths: tuple[int, ...]
    num_heads: tuple[int, ...]
    window: int
    trained_size: int

    patch_size: ClassVar[int] = 4
    epsilon: ClassVar[float] = 1e-5
    graph: ClassVar[str] = _POSITIONS_FOLDED

    @property
    def size_step(self) -> int:
        """Sides of images are multiples of this: whole windows in every stage."""
        return (self.patch_size << (len(self.depths) - 1)) * self.window

    @property
    def num_params(self) -> int:
        """Parameters of the network that is built; how far a token is from another is one for each pair of them."""
        total = 3 * self.patch_size**2 * self.width + 3 * self.width
        for stage, (depth, heads) in enumerate(zip(self.depths, self.num_heads, strict=True)):
            width = self.width << stage
            total += depth * (12 * width * width + 13 * width + heads * self.window**4)
            total += 8 * width * width + 8 * width if stage < len(self.depths) - 1 else 2 * width
        return total


Architecture = VisionTransformer | SwinTransformer
