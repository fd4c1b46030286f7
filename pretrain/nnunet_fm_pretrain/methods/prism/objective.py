"""The objective of PRISM: three phases, each of which trains its own modules.

* `main` trains encoder, decoder and heads to reconstruct masked crops, to predict TR, TE, flip
  angle and body region, and to give an image and its translation the same anatomy;
* `discriminator` trains the encoder and its heads to tell images from generated ones;
* `generator` trains decoder and styles, every few steps, to make images that pass for real ones and
  keep the anatomy. The encoder, which judges them, is frozen.
"""

from collections.abc import Mapping, Sequence
from typing import Any, cast

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import Dataset

from nnunet_fm.encoders import Encoder, build_encoder
from nnunet_fm.encoders.families.prism import DEEPEST, Branches, Divided
from nnunet_fm.encoders.families.prism import Prism as PrismEncoder
from nnunet_fm_pretrain.data.acquisition import PARAMETERS
from nnunet_fm_pretrain.data.volume_store import VolumeStore
from nnunet_fm_pretrain.engine.objective import Exported, Losses, Objective
from nnunet_fm_pretrain.methods.contrast import infonce
from nnunet_fm_pretrain.methods.prism.crops import (
    UNKNOWN,
    CropBatch,
    CropBatches,
    acquisition_statistics,
)
from nnunet_fm_pretrain.methods.prism.generator import Decoder, Style
from nnunet_fm_pretrain.methods.prism.recipe import PrismRecipe
from nnunet_fm_pretrain.methods.reconstruction import mean_over, nothing_reconstructed
from nnunet_fm_pretrain.methods.self_distillation import exact_dtype
from nnunet_fm_pretrain.methods.voxel_size import common_voxel, exported_spacing

MAIN, DISCRIMINATOR, GENERATOR = "main", "discriminator", "generator"


class Heads(nn.ModuleDict):
    """Linear layers on the means of the branches: `metadata` and, if used, the others.

    Args:
        width: of the branches.
        recipe: of the run.
    """

    def __init__(self, width: int, recipe: PrismRecipe) -> None:
        settings = recipe.objective
        layers: dict[str, nn.Module] = {
            "metadata": nn.Linear(width, len(PARAMETERS)),
            "discriminator": nn.Linear(width, 1),
        }
        if settings.regions:
            layers["region"] = nn.Linear(width, len(settings.regions))
        if settings.contrast_weight:
            layers["contrast"] = nn.Linear(width, settings.projection)
        super().__init__(layers)


class Prism(Objective):
    """Encoder with branches and heads, decoder and styles of PRISM.

    Args:
        recipe: of the run; the networks are initialised from its seed.
    """

    all_phases = (MAIN, DISCRIMINATOR, GENERATOR)
    voxel_mm: Tensor
    acquisition_mean: Tensor
    acquisition_std: Tensor

    def __init__(self, recipe: PrismRecipe) -> None:
        super().__init__()
        self.recipe, self.settings = recipe, recipe.objective
        with torch.random.fork_rng():
            torch.manual_seed(recipe.seed)
            built = build_encoder(recipe.encoder.architecture, branches=True)
            self.encoder = cast(PrismEncoder, built)
            width = self.encoder.deepest
            self.decoder = Decoder(width, recipe.objective.upsampling == "transposed")
            self.style = Style(self.decoder, width, recipe.objective.mapping_depth)
            self.heads = Heads(width, recipe)
        self.encoder.set_gradient_checkpointing(recipe.run.checkpointing)
        # of the logarithms of TR, TE and flip angle in the store; 0 before it was read
        self.register_buffer("acquisition_mean", torch.zeros(len(PARAMETERS)))
        self.register_buffer("acquisition_std", torch.zeros(len(PARAMETERS)))
        self.register_buffer("voxel_mm", torch.zeros(3))  # for the export; 0 if the scans differ

    @property
    def branches(self) -> Branches:
        """The branches of the encoder."""
        return cast(Branches, self.encoder.branches)

    def batches(self, store: VolumeStore, rank: int, ranks: int) -> Dataset[CropBatch]:
        """Return crops; note the size of their voxels, and the statistics of TR, TE, flip angle."""
        phases = len(self.all_phases)
        made = CropBatches(store, self.recipe, self.encoder.deepest, phases, rank, ranks)
        mean, std = acquisition_statistics(store)
        self.acquisition_mean.copy_(mean)
        self.acquisition_std.copy_(std)
        self.voxel_mm.copy_(common_voxel(store.records))
        return made

    def phases(self, step: int) -> Sequence[str]:
        """Return the phases of a step, without those that have no weight or have not begun."""
        if not self.settings.adversarial_weight or step < self.settings.translation_start:
            return (MAIN,)
        with_generator = step % self.settings.generator_every == 0
        return self.all_phases if with_generator else (MAIN, DISCRIMINATOR)

    def trainable_modules(self, phase: str) -> Mapping[str, nn.Module]:
        """Return what a phase trains."""
        if phase == GENERATOR:
            return {"decoder": self.decoder, "style": self.style}
        used = {"metadata", "region"}
        if phase == DISCRIMINATOR:
            used.add("discriminator")
        elif self.settings.contrast_trains_encoder:
            used.add("contrast")
        modules: dict[str, nn.Module] = {"encoder": self.encoder}
        modules |= {name: head for name, head in self.heads.items() if name in used}
        return modules if phase == DISCRIMINATOR else {**modules, "decoder": self.decoder}

    def forward(self, batch: CropBatch, step: int, phase: str) -> Losses:
        """Compute the losses of a phase."""
        exact = exact_dtype(self.encoder.swin.patch_embed.proj.weight)
        floats = {name: getattr(batch, name).to(exact) for name in ("clean", "masked", "styles")}
        batch = batch._replace(**floats)
        if phase == GENERATOR:
            return self._generator(batch)
        return self._main(batch, step) if phase == MAIN else self._discriminator(batch)

    def _main(self, batch: CropBatch, step: int) -> Losses:
        s = self.settings
        divided = self.divide(batch.masked)
        predicted = self.reconstruct(divided).to(batch.clean.dtype)
        error, hidden = (predicted - batch.clean).abs(), batch.hidden
        reconstruction = error.mean()
        total, parts, monitors = self._acquisition_losses(divided, batch)
        total = total + s.reconstruction_weight * reconstruction
        parts |= {"reconstruction": reconstruction}
        monitors |= {
            "predict_zero": batch.clean.abs().mean(),
            "hidden": mean_over(error, hidden),
            "hidden_predict_zero": mean_over(batch.clean.abs(), hidden),
        }
        if s.contrast_trains_encoder and step >= s.translation_start:
            clean = self.divide(batch.clean)
            with torch.no_grad():
                synthetic = self.translate(clean, batch.styles[0])
            contrast = self._contrast(clean, self.divide(synthetic), batch)
            total = total + s.contrast_weight * contrast
            parts["contrast"] = contrast
        return _losses(total, parts, monitors)

    def _discriminator(self, batch: CropBatch) -> Losses:
        # first with gradients: autocast of torch before 2.10 keeps casts that were made without
        clean = self.divide(batch.clean)
        real = self._judged(clean)
        with torch.no_grad():
            reconstructed = self.reconstruct(self.divide(batch.masked))
            synthetic = self.translate(clean, batch.styles[1])
        fakes = [self._judged(self.divide(image)) for image in (reconstructed, synthetic)]
        loss = functional.softplus(-real).mean()
        loss = loss + sum(functional.softplus(fake).mean() for fake in fakes)
        total, parts, _ = self._acquisition_losses(clean, batch)
        total = total + self.settings.adversarial_weight * loss
        monitors = {
            "real": real.sigmoid().mean(),
            "reconstructed": fakes[0].sigmoid().mean(),
            "synthetic": fakes[1].sigmoid().mean(),
        }
        return _losses(total, {**parts, "adversarial": loss}, monitors)

    def _generator(self, batch: CropBatch) -> Losses:
        s = self.settings
        with torch.no_grad():
            masked, clean = self.divide(batch.masked), self.divide(batch.clean)
        reconstructed = self.reconstruct(masked)
        synthetic = self.divide(self.translate(clean, batch.styles[2]))
        judged = self._judged(self.divide(reconstructed)), self._judged(synthetic)
        adversarial = torch.stack([functional.softplus(-fake).mean() for fake in judged]).sum()
        reconstruction = (reconstructed.to(batch.clean.dtype) - batch.clean).abs().mean()
        total = s.adversarial_weight * adversarial + s.reconstruction_weight * reconstruction
        parts = {"adversarial": adversarial, "reconstruction": reconstruction}
        if s.contrast_weight:
            parts["contrast"] = self._contrast(clean, synthetic, batch)
            total = total + s.contrast_weight * parts["contrast"]
        return _losses(total, parts, {})

    def divide(self, x: Float[Tensor, "b 1 z y x"]) -> Divided:
        """Encode crops and divide the deepest map."""
        divided: Divided = self.branches(self.encoder.maps(x)[DEEPEST])
        return divided

    def reconstruct(self, divided: Divided) -> Float[Tensor, "b 1 z y x"]:
        """Decode the joined map."""
        return self.encoder.turn.undo(self.decoder(self.branches.join(*divided)))

    def translate(
        self, divided: Divided, drawn: Float[Tensor, "b w"]
    ) -> Float[Tensor, "b 1 z y x"]:
        """Decode the map of an image with the sequence of a drawn style."""
        style = self.style(drawn)
        sequence = self.style.restyled(divided.sequence, style)
        joined = self.branches.join(divided.deepest, divided.anatomy, sequence)
        return self.encoder.turn.undo(self.decoder(joined, self.style.scales_of(style)))

    def _judged(self, divided: Divided) -> Float[Tensor, "b 1"]:
        """Return how real images look to the discriminator, in float32."""
        judged: Tensor = self.heads["discriminator"](_pooled(self.branches.join(*divided)))
        return judged.to(exact_dtype(judged))

    def _contrast(self, clean: Divided, synthetic: Divided, batch: CropBatch) -> Float[Tensor, ""]:
        """Contrast the anatomy of images with that of their translations and of other people's."""
        head = self.heads["contrast"]
        vectors = [head(_pooled(divided.anatomy)) for divided in (clean, synthetic)]
        return infonce(vectors[0], vectors[1], batch.subjects, self.settings.temperature)

    def _acquisition_losses(
        self, divided: Divided, batch: CropBatch
    ) -> tuple[Tensor, dict[str, Tensor], dict[str, Tensor]]:
        """Predict TR, TE and flip angle from the sequence's branch, the region from anatomy's.

        Returns:
            The weighted sum, its terms, and the errors of predicting the mean.
        """
        s = self.settings
        predicted = self.heads["metadata"](_pooled(divided.sequence))
        scores = (batch.acquisition - self.acquisition_mean) / self.acquisition_std
        known = ~scores.isnan()
        scores = scores.nan_to_num()
        parts, monitors = {}, {}
        for number, name in enumerate(PARAMETERS):
            error = (predicted[:, number] - scores[:, number]).abs()
            parts[name] = mean_over(error.to(exact_dtype(error)), known[:, number])
            monitors[f"{name}_mean"] = mean_over(scores[:, number].abs(), known[:, number])
        total = s.metadata_weight * sum(parts.values(), start=predicted.new_zeros(()))
        if s.regions:
            logits = self.heads["region"](_pooled(divided.anatomy))
            known = batch.regions != UNKNOWN
            entropy = functional.cross_entropy(
                logits.to(exact_dtype(logits)), batch.regions.clamp(min=0), reduction="none"
            )
            parts["region"] = mean_over(entropy, known)
            total = total + s.region_weight * parts["region"]
        return total, parts, monitors

    def load_encoder(self, encoder: Encoder) -> None:
        """Start from `encoder`; branches that it lacks, and all else, keep their random weights.

        Raises:
            InputError: an encoder that is not PRISM's.
        """
        given = cast(PrismEncoder, encoder)
        own = self.encoder.state_dict()
        self.encoder.load_state_dict({**own, **given.state_dict()})

    def collapse_warning(self, monitors: Mapping[str, float]) -> str | None:
        """Warn if the reconstruction is no better than zero."""
        prefix = f"{MAIN}_"
        own = {k.removeprefix(prefix): v for k, v in monitors.items() if k.startswith(prefix)}
        return nothing_reconstructed(own)

    def export_encoder(self) -> Exported:
        """Return the encoder with its branches."""
        architecture = self.recipe.encoder.architecture
        options: dict[str, Any] = {
            "branches": True,
            "crop_size": self.recipe.views.size,
            "spacing": exported_spacing(self.voxel_mm),
        }
        return Exported(self.encoder.state_dict(), architecture, f"{architecture}.trained", options)


def _pooled(x: Float[Tensor, "b d i j k"]) -> Float[Tensor, "b d"]:
    return x.mean((2, 3, 4))


def _losses(total: Tensor, parts: dict[str, Tensor], monitors: dict[str, Tensor]) -> Losses:
    return Losses(
        total,
        {name: part.detach() for name, part in parts.items()},
        {name: value.detach() for name, value in monitors.items()},
    )
