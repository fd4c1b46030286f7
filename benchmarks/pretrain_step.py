"""One pretraining step: ours against the same step written plainly with lightly's classes.

The two take turns. Both train a small DINOv3 transformer with the same views of the same slices
and mean centring (which is what lightly's losses have). The plain step uses lightly's heads,
`DINOLoss`, `IBOTPatchLoss` and `KoLeoLoss`, whole matrices of logits, no checkpointing, torch's
fused attention, and float32 outside autocast. Lower bound of the logits at 65536 prototypes: every
float32 copy of (rows x 65536) takes 0.25 MiB per row. The last line printed is JSON.
"""

import argparse
import json
import statistics
import warnings
from functools import partial
from typing import Any

import torch
from lightly.loss import DINOLoss, IBOTPatchLoss, KoLeoLoss
from lightly.models.modules import DINOProjectionHead
from lightly.models.utils import update_momentum
from torch import Tensor, nn

from measure import Step, paired_ratio, take_turns
from nnunet_fm.encoders import build_encoder
from nnunet_fm.encoders.families.dinov3 import TRAINING_CODE
from nnunet_fm.internal.device import keep_freed_memory
from nnunet_fm.network.activation_memory import kept_for_backward, total_bytes
from nnunet_fm_pretrain.engine.optimiser import clip_gradients, make_optimiser
from nnunet_fm_pretrain.methods.braindino.batches import MultiCropBatch
from nnunet_fm_pretrain.methods.braindino.masked_forward import forward_tokens
from nnunet_fm_pretrain.methods.braindino.objective import BrainDino
from nnunet_fm_pretrain.methods.braindino.recipe import BrainDinoRecipe
from nnunet_fm_pretrain.methods.recipes import read_recipe

BATCH, GLOBAL, LOCAL, LOCALS = 8, 128, 64, 8
ARCHITECTURE = "dinov3_vitt16"


def recipe() -> BrainDinoRecipe:
    """The paper's recipe on a ViT-Ti/16 and crops of half the side."""
    return read_recipe(
        "braindino_stage1",
        [
            f"encoder.architecture={ARCHITECTURE}",
            "encoder.drop_path=0.0",
            "encoder.rope_rescale=null",
            "objective.centring=mean",
            f"optimiser.batch_size={BATCH}",
        ],
    )


def batch() -> MultiCropBatch:
    """Random crops, and masks of half of the global ones."""
    generator = torch.Generator().manual_seed(0)
    masks = torch.rand(2, BATCH, GLOBAL // 16, GLOBAL // 16, generator=generator) < 0.3
    masks[:, ::2] = False
    return MultiCropBatch(
        torch.randn(2, BATCH, 1, GLOBAL, GLOBAL, generator=generator).half(),
        torch.randn(LOCALS, BATCH, 1, LOCAL, LOCAL, generator=generator).half(),
        masks,
    )


class Plain(nn.Module):
    """The step as one would write it from lightly's classes."""

    def __init__(self, given: BrainDinoRecipe) -> None:
        super().__init__()
        self.student, self.teacher = self._networks(given), self._networks(given)
        self.teacher.load_state_dict(self.student.state_dict())
        self.teacher.requires_grad_(False)
        prototypes = given.objective.dino_head.prototypes
        self.dino, self.ibot = (
            DINOLoss(prototypes, teacher_temp=0.04),
            IBOTPatchLoss(prototypes, teacher_temp=0.04),
        )
        self.koleo = KoLeoLoss()

    @staticmethod
    def _networks(given: BrainDinoRecipe) -> nn.ModuleDict:
        encoder: Any = build_encoder(ARCHITECTURE, **TRAINING_CODE)
        head = given.objective.dino_head
        sizes = (encoder.width, head.hidden, head.bottleneck, head.prototypes)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # lightly uses the former weight_norm
            heads = {f"{name}_head": DINOProjectionHead(*sizes) for name in ("dino", "ibot")}
        return nn.ModuleDict({"encoder": encoder, **heads})

    def forward(self, given: MultiCropBatch) -> Tensor:
        """The sum of the three losses."""
        crops = given.global_crops.float().flatten(0, 1).repeat(1, 3, 1, 1)
        local = given.local_crops.float().flatten(0, 1).repeat(1, 3, 1, 1)
        masks = given.masks.flatten(0, 1)
        hidden = masks.flatten(1)
        with torch.no_grad():
            taught = forward_tokens(self.teacher["encoder"], crops)
            teacher_cls = self.teacher["dino_head"](taught.cls)
            teacher_patches = self.teacher["ibot_head"](taught.patches[hidden])
        seen = forward_tokens(self.student["encoder"], crops, masks)
        small = forward_tokens(self.student["encoder"], local)
        student_cls = [
            *self.student["dino_head"](seen.cls).chunk(2),
            *self.student["dino_head"](small.cls).chunk(LOCALS),
        ]
        student_patches = self.student["ibot_head"](seen.patches[hidden])
        dino = self.dino(list(teacher_cls.chunk(2)), student_cls)
        ibot = self.ibot(teacher_patches, student_patches, masks)
        koleo = sum(self.koleo(c.float()) for c in seen.cls.chunk(2))
        total: Tensor = dino + ibot + 0.1 * koleo
        return total


def build(kind: str) -> tuple[nn.Module, Any, torch.optim.Optimizer, Any]:
    """Module, function that gives the loss, optimiser, function after the step."""
    given, crops = recipe(), batch()
    if kind == "ours":
        keep_freed_memory()
        made = BrainDino(given).train()
        return (
            made,
            lambda: made(crops, 0, "main").total,
            make_optimiser(made.trainable_modules("main"), given.optimiser),
            lambda: (clip_gradients(made.trainable_modules("main"), 3.0), made.after_step(0)),
        )
    plain = Plain(given).train()
    optimiser = torch.optim.AdamW(plain.student.parameters(), lr=1e-4)
    return (
        plain,
        lambda: plain(crops),
        optimiser,
        lambda: update_momentum(plain.student, plain.teacher, 0.994),
    )


def make_step(kind: str) -> Step:
    """Forward, losses, backward, clipping, optimiser, teacher."""
    _, loss, optimiser, after = build(kind)

    def step() -> None:
        with torch.autocast("cpu", torch.bfloat16):
            total = loss()
        total.backward()
        after()
        optimiser.step()
        optimiser.zero_grad()

    return step


def saved_mib(kind: str) -> float:
    """MiB kept for the backward pass of a batch."""
    module, loss, _, _ = build(kind)
    with kept_for_backward(module) as kept, torch.autocast("cpu", torch.bfloat16):
        loss()
    return round(total_bytes(kept) / 2**20, 1)


def main() -> None:
    """Measure and print one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    seconds = take_turns(
        {kind: partial(make_step, kind) for kind in ("plain", "ours")}, parser.parse_args().rounds
    )
    result: dict[str, Any] = {
        f"{kind}_s": round(statistics.median(values), 3) for kind, values in seconds.items()
    }
    result |= {f"{kind}_mib": saved_mib(kind) for kind in ("plain", "ours")}
    print(json.dumps({**result, "ratio": paired_ratio(seconds["plain"], seconds["ours"])}))


if __name__ == "__main__":
    main()
