"""The rows of KerasHub: vision transformers whose weights it publishes. Nothing here imports Keras.

Names, numbers of parameters and addresses: the presets in the source of keras-hub 0.32.0
(``keras_hub/src/models/*/*_presets.py``). No hash is published. The preprocessing is that of the papers' own code, as
in Hugging Face's transformers. None of these weights come with the ImageNet top, so no accuracy is stated.
"""

from __future__ import annotations

import dataclasses

from headstart.networks.architectures import Architecture, SwinTransformer, VisionTransformer
from headstart.networks.rows import BackboneSpec, WeightsFile

_ADDRESS = "https://www.kaggle.com/api/v1/models/keras/{model}/keras/{name}/{version}/download/model.weights.h5"
_NUM_STAGES = 4

_BASE = VisionTransformer("vit", 16, 768, 12, 12, 3072, 224)
_LARGE = dataclasses.replace(_BASE, width=1024, depth=24, num_heads=16, hidden=4096)
_SMALL = dataclasses.replace(_BASE, width=384, num_heads=6, hidden=1536)
_SO400M = dataclasses.replace(_BASE, width=1152, depth=27, num_heads=16, hidden=4304)


def _row(  # noqa: PLR0913
    name: str, family: str, model: str, version: int, architecture: Architecture, preprocessing: str, licence: str,
    *, file_params: int = 0, image_size: int | None = None,
) -> BackboneSpec:  # fmt: skip
    file = WeightsFile(
        _ADDRESS.format(model=model, name=name, version=version), f"{name}.weights.h5", num_params=file_params
    )
    size, step = image_size or architecture.trained_size, architecture.size_step
    smallest = -(-32 // step) * step
    return BackboneSpec(
        name, family, size, smallest, preprocessing, _NUM_STAGES, architecture.num_params, None, licence, file,
        architecture=architecture,
    )  # fmt: skip


def _vit(name: str, version: int, base: VisionTransformer, size: int = 224, patch: int = 16) -> BackboneSpec:
    architecture = dataclasses.replace(base, trained_size=size, patch_size=patch)
    return _row(name, "ViT", "vit", version, architecture, "tf", "Apache-2.0")


def _clip(name: str, base: VisionTransformer, patch: int, file_params: int, size: int = 224) -> BackboneSpec:
    architecture = dataclasses.replace(
        base, layout="clip", patch_size=patch, trained_size=size, activation="quick_gelu", epsilon=1e-5,
        patch_bias=False, norm_before=True,
    )  # fmt: skip
    return _row(name, "CLIP", "clip", 3, architecture, "clip", "MIT", file_params=file_params)


def _dinov2(name: str, base: VisionTransformer, file_params: int) -> BackboneSpec:
    # Its positions are those of 518 pixels, where its training ended; most of it was at 224, which is 7 times as fast.
    registers = 4 if "registers" in name else 0
    architecture = dataclasses.replace(
        base, layout="dinov2", patch_size=14, trained_size=518, layer_scale=True, num_registers=registers,
        antialias=bool(registers),
    )  # fmt: skip
    return _row(
        name, "DINOv2", "dinov2", 1, architecture, "torch", "Apache-2.0", file_params=file_params, image_size=224
    )


def _siglip(name: str, base: VisionTransformer, size: int, file_params: int, patch: int = 16) -> BackboneSpec:
    architecture = dataclasses.replace(
        base, layout="siglip", patch_size=patch, trained_size=size, activation="gelu_tanh", class_token=False,
        attention_pool=True,
    )  # fmt: skip
    return _row(name, "SigLIP2", "siglip", 1, architecture, "tf", "Apache-2.0", file_params=file_params)


def _swin(name: str, width: int, depth: int, heads: int, window: int) -> BackboneSpec:
    size = 32 * window
    num_heads = (heads, 2 * heads, 4 * heads, 8 * heads)
    architecture = SwinTransformer(width, (2, 2, depth, 2), num_heads, window, size)
    return _row(name, "Swin", "swin-transformer", 1, architecture, "torch", "MIT")


HUB_ROWS: tuple[BackboneSpec, ...] = (
    _vit("vit_base_patch16_224_imagenet", 4, _BASE),
    _vit("vit_base_patch16_384_imagenet", 4, _BASE, 384),
    _vit("vit_large_patch16_224_imagenet", 4, _LARGE),
    _vit("vit_base_patch16_224_imagenet21k", 3, _BASE),
    _vit("vit_base_patch32_224_imagenet21k", 3, _BASE, patch=32),
    _vit("vit_large_patch16_224_imagenet21k", 3, _LARGE),
    _dinov2("dinov2_small", _SMALL, 22_582_656),
    _dinov2("dinov2_base", _BASE, 87_632_640),
    _dinov2("dinov2_large", _LARGE, 305_771_520),
    _dinov2("dinov2_with_registers_small", _SMALL, 22_584_192),
    _dinov2("dinov2_with_registers_base", _BASE, 87_635_712),
    _dinov2("dinov2_with_registers_large", _LARGE, 305_775_616),
    _siglip("siglip2_base_patch16_224", _BASE, 224, 375_188_230),
    _siglip("siglip2_base_patch16_256", _BASE, 256, 375_234_370),
    _siglip("siglip2_base_patch16_384", _BASE, 384, 376_856_194),
    _siglip("siglip2_large_patch16_256", _LARGE, 256, 881_527_106),
    _siglip("siglip2_large_patch16_384", _LARGE, 384, 881_855_106),
    _siglip("siglip2_so400m_patch14_224", _SO400M, 224, 1_135_463_922, patch=14),
    _siglip("siglip2_so400m_patch16_256", _SO400M, 256, 1_135_671_282),
    _siglip("siglip2_so400m_patch16_384", _SO400M, 384, 1_136_040_242),
    _clip("clip_vit_base_patch16", _BASE, 16, 149_620_934),
    _clip("clip_vit_base_patch32", _BASE, 32, 151_277_363),
    _clip("clip_vit_large_patch14", _LARGE, 14, 427_616_770),
    _clip("clip_vit_large_patch14_336", _LARGE, 14, 427_944_770, 336),
    _swin("swin_tiny_patch4_window7_224", 96, 6, 3, 7),
    _swin("swin_small_patch4_window7_224", 96, 18, 3, 7),
    _swin("swin_base_patch4_window7_224", 128, 18, 4, 7),
    _swin("swin_base_patch4_window12_384", 128, 18, 4, 12),
    _swin("swin_large_patch4_window7_224", 192, 18, 6, 7),
    _swin("swin_large_patch4_window12_384", 192, 18, 6, 12),
)
