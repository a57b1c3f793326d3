"""The networks that recipes may name: architecture, positions, sources of their weights, and licence."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from hrvol.features.weights.cache import cache_file

PositionKind = Literal["learned", "rotary", "alibi", "none"]


@dataclass(frozen=True)
class WeightsInfo:
    """A network that recipes may name.

    Attributes
    ----------
    name
        Name in recipes.
    model
        Architecture and pre-training tag in timm.
    hub_file
        File name in the torch-hub checkpoint folder, or ``None``.
    licence
        SPDX-like licence name of the weights.
    licence_url
        Text of a licence that must be accepted before the weights are downloaded; empty for others.
    positions
        How tokens know where they are: ``learned`` embeddings, ``rotary`` ones (DINOv3), ``alibi`` (distances
        between tokens, dino-saw), or ``none``.
    hub
        Repository and file on the Hugging Face hub; ``None`` is that of timm.
    """

    name: str
    model: str
    hub_file: str | None
    licence: str
    licence_url: str = ""
    positions: PositionKind = "learned"
    hub: tuple[str, str] | None = None

    @property
    def cached(self) -> Path | None:
        """The cached file, or ``None``."""
        path = cache_file(self.name)
        return path if path.is_file() else None


_DINOV3_LICENCE = "https://ai.meta.com/resources/models-and-libraries/dinov3-license/"

_DINO_SAW = "rmdocherty/dino-saw"


def _known() -> dict[str, WeightsInfo]:
    infos = []
    for letter, size in (("s", "small"), ("b", "base"), ("l", "large")):
        for suffix, register in (("", ""), ("_reg", "_reg4")):
            infos.append(
                WeightsInfo(
                    f"dinov2_vit{letter}14{suffix}",
                    f"vit_{size}_patch14{register}_dinov2.lvd142m",
                    f"dinov2_vit{letter}14{register}_pretrain.pth",
                    "Apache-2.0",
                )
            )
    for letter, size, hub in (("s", "small", "deitsmall"), ("b", "base", "vitbase")):
        for patch in (8, 16):
            infos.append(
                WeightsInfo(
                    f"dino_vit{letter}{patch}",
                    f"vit_{size}_patch{patch}_224.dino",
                    f"dino_{hub}{patch}_pretrain.pth",
                    "Apache-2.0",
                )
            )
    infos.append(
        WeightsInfo(
            "deit_small_patch16",
            "deit_small_patch16_224.fb_in1k",
            "deit_small_patch16_224-cd65a155.pth",
            "Apache-2.0",
        )
    )
    infos.append(
        WeightsInfo("vit_small_patch16", "vit_small_patch16_224.augreg_in21k_ft_in1k", None, "Apache-2.0")
    )
    for name, size, digest in (
        ("vits16", "small", "08c60483"),
        ("vits16plus", "small_plus", "4057cbaa"),
        ("vitb16", "base", "73cec8be"),
        ("vitl16", "large", "8aa4cbdd"),
    ):
        infos.append(
            WeightsInfo(
                f"dinov3_{name}",
                f"vit_{size}_patch16_dinov3.lvd1689m",
                f"dinov3_{name}_pretrain_lvd1689m-{digest}.pth",
                "DINOv3 licence",
                licence_url=_DINOV3_LICENCE,
                positions="rotary",
            )
        )
    for positions in ("alibi", "none"):
        short = {"alibi": "alibi", "none": "nope"}[positions]
        infos.append(
            WeightsInfo(
                f"dinosaw_vits14_{short}",
                "vit_small_patch14_reg4_dinov2.lvd142m",
                None,
                "MIT",
                positions=positions,
                hub=(_DINO_SAW, f"{short}_coco_dv2_vits14_reg4.pth"),
            )
        )
    return {info.name: info for info in infos}


KNOWN: dict[str, WeightsInfo] = _known()
