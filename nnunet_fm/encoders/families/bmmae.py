"""BM-MAE, a 3-D ViT with a tokenizer for each MRI sequence (Robinet et al., arXiv:2505.00568; extra `[volume]`)."""

import warnings
from collections.abc import Iterator, Sequence
from typing import Any, cast

import torch
from jaxtyping import Float
from torch import Tensor, nn

from nnunet_fm.encoders.contract import check_sides
from nnunet_fm.encoders.families.brainiac import VolumeViT, turned
from nnunet_fm.internal.errors import InputError
from nnunet_fm.internal.messages import unknown

TOKENIZERS = {"T1": "t1", "T1c": "t1ce", "T2": "t2", "FLAIR": "flair"}  # in the authors' names
TOKENS = ("native", "fused")


class BMMAE(VolumeViT):
    """A ViT that knows which sequence each of its channels is.

    Sequences that are missing are left out, as in its pretraining. Positions are sines and cosines:
    stored for the native grid, made anew for any other.

    Args:
        taps: as `VolumeViT`.
        modalities: of the input's channels, in their order: of T1, T1c, T2, FLAIR.
        tokens: `native`, the authors': the tokens of all sequences side by side, averaged over the
            sequences after each tapped block; or `fused`: averaged at the beginning, a pass as
            short as that of one sequence.
        pool: what `embed` gives: the authors' `cls`, or the `mean` of the tokens.
        **body: as `VolumeViT`.

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
        from monai.networks.blocks.patchembedding import PatchEmbeddingBlock

        sizes = {"image_size": 128, "mlp_dim": 1536, "qkv_bias": True, **body}
        super().__init__(taps, pool=pool, **sizes)
        strange = [m for m in modalities if m not in TOKENIZERS]
        if strange or not modalities or len(set(modalities)) < len(modalities):
            raise InputError(
                unknown("modality", ", ".join(strange or modalities), TOKENIZERS, "Each once.")
            )
        if tokens not in TOKENS:
            raise InputError(f"tokens {tokens!r}; allowed: {', '.join(TOKENS)}")
        self.names, self.tokens, self.in_channels = (
            [TOKENIZERS[m] for m in modalities],
            tokens,
            len(modalities),
        )
        self.input_spec = self.input_spec.of_modalities(modalities, subsets=True)
        spec, width = self.input_spec, self.feature_info[0].channels
        del self.vit.patch_embedding

        def embedding() -> nn.Module:
            block = PatchEmbeddingBlock(
                1, spec.native_size, spec.divisor, width, 1, pos_embed_type="none"
            )
            block.position_embeddings = nn.Parameter(
                sines((self.side,) * 3, width), requires_grad=False
            )
            return nn.ModuleDict({"patch_embedding": block})

        self.vit.tokenizers = nn.ModuleDict({name: embedding() for name in TOKENIZERS.values()})
        self.vit.cls_token = nn.Parameter(torch.randn(1, 1, width) * 0.02)

    def embed(self, x: Float[Tensor, "b c z y x"]) -> Float[Tensor, "b d"]:
        """The CLS token after the final norm, or the mean of the tokens (which the CLS token does not see then)."""
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
        """Tokens of all sequences, one sequence after the other, or of their mean."""
        check_sides(x.shape[2:], self.input_spec.divisor, "patch size")
        found, grid = [], tuple(side // self.input_spec.divisor for side in reversed(x.shape[2:]))
        for channel, name in enumerate(self.names):
            embedding = cast(Any, self.vit.tokenizers)[name]["patch_embedding"]
            patches = (
                embedding.patch_embeddings(turned(x[:, channel : channel + 1]))
                .flatten(2)
                .transpose(1, 2)
            )
            native = embedding.position_embeddings
            found.append(
                patches
                + (native if grid == (self.side,) * 3 else sines(grid, native.shape[-1]).to(native))
            )
        return (
            torch.cat(found, 1) if self.tokens == "native" else torch.stack(found).mean(0)
        ), grid

    def _as_map(
        self, tokens: Float[Tensor, "b n d"], grid: tuple[int, ...]
    ) -> Float[Tensor, "b d tz ty tx"]:
        """The mean over the sequences."""
        copies = len(self.names) if self.tokens == "native" else 1
        return super()._as_map(tokens.unflatten(1, (copies, -1)).mean(1), grid)

    def parameters_in_use(self) -> Iterator[nn.Parameter]:
        """Those of the sequences at hand, without the CLS token, which `features` does not use."""
        named = {f"tokenizers.{n}." for n in TOKENIZERS.values() if n not in self.names} | {
            "cls_token"
        }
        left_out = {
            id(p) for name, p in self.vit.named_parameters() if name.startswith(tuple(named))
        }
        positions = {
            id(p) for name, p in self.vit.named_parameters() if name.endswith("position_embeddings")
        }
        return (p for p in super().parameters_in_use() if id(p) not in left_out | positions)


def sines(grid: tuple[int, ...], width: int) -> Float[Tensor, "1 n d"]:
    """MONAI's sines and cosines, without the warning that its call of `meshgrid` raises."""
    from monai.networks.blocks.pos_embed_utils import build_sincos_position_embedding

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "torch.meshgrid")
        return build_sincos_position_embedding(list(grid), width).detach()
