"""BM-MAE: a 3-D ViT with a tokenizer for each MRI sequence (extra `[volume]`).

Robinet et al., arXiv:2505.00568.
"""

import warnings
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any, cast

import torch
from jaxtyping import Float
from torch import Tensor, nn

from nnunet_fm.encoders.axes import reverse_axes
from nnunet_fm.encoders.contract import check_sides
from nnunet_fm.encoders.families.brainiac import TINY, VolumeViT, from_monai_vit
from nnunet_fm.encoders.key_format import PROJECTORS, Converted, KeyFormat
from nnunet_fm.encoders.registry import (
    register_architecture,
    register_cards,
    register_key_format,
)
from nnunet_fm.encoders.weight_card import WeightCard
from nnunet_fm.internal.errors import InputError
from nnunet_fm.internal.messages import unknown

TOKENIZERS = {"T1": "t1", "T1c": "t1ce", "T2": "t2", "FLAIR": "flair"}  # in the authors' names
TOKENS = ("native", "fused")


class BMMAE(VolumeViT):
    """A ViT that knows which sequence each of its channels is.

    Missing sequences are skipped, as in its pretraining. Positions are sines and cosines: stored
    for the native grid, computed for any other.

    Args:
        taps: as in `VolumeViT`.
        modalities: sequences of the input's channels in order, out of T1, T1c, T2, FLAIR.
        tokens: `native`, as its authors do: the tokens of all sequences are concatenated and
            averaged over the sequences after each tapped block; or `fused`: averaged before the
            first block, as fast as one sequence.
        pool: what `embed` returns: the authors' `cls` token, or the `mean` of the tokens.
        **body: as in `VolumeViT`.

    Raises:
        ValueError: unknown or repeated modalities, another mode or pool.
    """

    pools = ("cls", "mean")

    def __init__(
        self,
        taps: Sequence[int] | None = None,
        modalities: Sequence[str] = tuple(TOKENIZERS),
        tokens: str = "native",
        pool: str = "cls",
        **body: Any,
    ) -> None:
        sizes = {"image_size": 128, "mlp_dim": 1536, "qkv_bias": True, **body}
        super().__init__(taps, pool=pool, **sizes)
        unknown_names = [m for m in modalities if m not in TOKENIZERS]
        if unknown_names or not modalities or len(set(modalities)) < len(modalities):
            given = ", ".join(unknown_names or modalities)
            raise InputError(unknown("modality", given, TOKENIZERS, "Each once."))
        if tokens not in TOKENS:
            raise InputError(f"tokens {tokens!r}; allowed: {', '.join(TOKENS)}")
        self.names = [TOKENIZERS[m] for m in modalities]
        self.tokens = tokens
        self.in_channels = len(modalities)
        self.input_spec = self.input_spec.of_modalities(modalities, subsets=True)
        width = self.feature_info[0].channels
        del self.vit.patch_embedding
        self.vit.tokenizers = nn.ModuleDict(
            {name: self._tokenizer(width) for name in TOKENIZERS.values()}
        )
        self.vit.cls_token = nn.Parameter(torch.randn(1, 1, width) * 0.02)

    def _tokenizer(self, width: int) -> nn.Module:
        """Build the patch embedding of one sequence, with fixed positions."""
        from monai.networks.blocks.patchembedding import PatchEmbeddingBlock

        spec = self.input_spec
        block = PatchEmbeddingBlock(
            1, spec.native_size, spec.divisor, width, 1, pos_embed_type="none"
        )
        positions = sines((self.side,) * 3, width)
        block.position_embeddings = nn.Parameter(positions, requires_grad=False)
        return nn.ModuleDict({"patch_embedding": block})

    def embed(self, x: Float[Tensor, "b c z y x"]) -> Float[Tensor, "b d"]:
        """Return the CLS token after the final norm, or the mean of tokens computed without it."""
        tokens, _ = self._embedded(x)
        if self.pool == "cls":
            tokens = torch.cat([self.vit.cls_token.expand(len(x), -1, -1), tokens], 1)
        for block in self.vit.blocks:
            tokens = block(tokens)
        tokens = self.vit.norm(tokens)
        return tokens[:, 0] if self.pool == "cls" else tokens.mean(1)

    def _embedded(
        self, x: Float[Tensor, "b c z y x"]
    ) -> tuple[Float[Tensor, "b n d"], tuple[int, ...]]:
        """Return the tokens of all sequences, concatenated or averaged, and the grid."""
        check_sides(x.shape[2:], self.input_spec.divisor, "patch size")
        grid = tuple(side // self.input_spec.divisor for side in reversed(x.shape[2:]))
        embedded = []
        for channel, name in enumerate(self.names):
            embedding = cast(Any, self.vit.tokenizers)[name]["patch_embedding"]
            volume = reverse_axes(x[:, channel : channel + 1])
            patches = embedding.patch_embeddings(volume).flatten(2).transpose(1, 2)
            positions = embedding.position_embeddings
            if grid != (self.side,) * 3:
                positions = sines(grid, positions.shape[-1]).to(positions)
            embedded.append(patches + positions)
        if self.tokens == "native":
            return torch.cat(embedded, 1), grid
        return torch.stack(embedded).mean(0), grid

    def as_map(
        self, tokens: Float[Tensor, "b n d"], grid: tuple[int, ...]
    ) -> Float[Tensor, "b d tz ty tx"]:
        """Average over the sequences."""
        copies = len(self.names) if self.tokens == "native" else 1
        return super().as_map(tokens.unflatten(1, (copies, -1)).mean(1), grid)

    def active_parameters(self) -> Iterator[nn.Parameter]:
        """Yield the parameters of the present sequences, without positions and the CLS token."""
        absent = [f"tokenizers.{n}." for n in TOKENIZERS.values() if n not in self.names]
        unused = ("cls_token", *absent)
        excluded = {
            id(p)
            for name, p in self.vit.named_parameters()
            if name.startswith(unused) or name.endswith("position_embeddings")
        }
        return (p for p in super().active_parameters() if id(p) not in excluded)


def sines(grid: tuple[int, ...], width: int) -> Float[Tensor, "1 n d"]:
    """Return MONAI's sine and cosine positions, without the warning of its call of `meshgrid`."""
    from monai.networks.blocks.pos_embed_utils import build_sincos_position_embedding

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "torch.meshgrid")
        return build_sincos_position_embedding(list(grid), width).detach()


def from_bmmae(state: Mapping[str, Tensor]) -> Converted:
    """Convert BM-MAE's names; its decoder, which holds the mask tokens, is dropped."""
    encoder = {key: v for key, v in state.items() if not key.startswith("decoder.")}
    result = from_monai_vit(encoder)
    decoder = [key for key in state if key.startswith("decoder.")]
    result.dropped |= dict.fromkeys(decoder, "decoder of the pretraining")
    return result


def _is_bmmae(state: Mapping[str, Tensor]) -> bool:
    name = "tokenizers.t1.patch_embedding.patch_embeddings.weight"
    return name in state or f"vit.{name}" in state


def _card(tag: str, file: str, pretrained_on: tuple[str, ...]) -> WeightCard:
    return WeightCard(
        name=f"bmmae_vitb16.{tag}",
        architecture="bmmae_vitb16",
        licence="none found",
        source=f"{file} of https://huggingface.co/luklebigboss/BM-MAE",
        hub=f"hf://luklebigboss/BM-MAE/{file}",
        files=(file,),
        pretrained_on=pretrained_on,
        citation="arXiv:2505.00568",
        spatial_dims=3,
    )


register_architecture("bmmae_vitb16", BMMAE)
register_architecture("volume_testbmmae", partial(BMMAE, **TINY), PROJECTORS)
register_key_format(KeyFormat("BM-MAE", _is_bmmae, from_bmmae))
register_cards(
    _card("brats2021", "bmmae.pth", ("BraTS2021", "TCGA-GBM", "TCGA-LGG")),
    _card("notcga", "bmmae_tcga.pth", ("BraTS2021",)),
)
