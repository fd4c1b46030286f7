"""Recipes of VolTA-3D: crops of volumes, corruption, heads and losses."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from nnunet_fm.internal.config import Count, Part, Positive
from nnunet_fm.internal.errors import InputError
from nnunet_fm_pretrain.engine.recipe import (
    Range,
    Rate,
    Recipe,
    RunRecipe,
    Share,
    check_family,
    check_range,
)
from nnunet_fm_pretrain.methods.distillation_recipe import DistillationRecipe, HeadRecipe

FAMILY = "volta3d_"


class IntensityRecipe(Part):
    """Changes of the intensities of a crop, which lie between 0 and 1.

    Attributes:
        gamma: g of a contrast change x^exp(U(-g, g)).
        scale: s of a factor U(1 - s, 1 + s).
        noise: largest standard deviation of Gaussian noise inside the head; it is drawn from
            U(0, noise).
        blur: largest standard deviation of a Gaussian blur, in voxels; drawn likewise.
    """

    gamma: Rate = 0.0
    scale: Share = 0.0
    noise: Share = 0.0
    blur: Rate = 0.0


class CorruptionRecipe(Part):
    """Group masked model learning (GMML): blocks of voxels are replaced.

    Attributes:
        share: of the voxels of a crop that are replaced, in whole patches.
        largest_block: longest edge of a block, as a share of the crop's side.
        noise: share of the blocks that are filled with noise U(0, 1); the others are filled with 0.
    """

    share: Annotated[float, Field(gt=0, lt=1)] = 0.5
    largest_block: Annotated[float, Field(gt=0, le=1)] = 0.3
    noise: Share = 0.5


class VolumeViews(Part):
    """Crops of a volume.

    Attributes:
        global_size: side of the two global crops in voxels.
        local_size: side of the local crops in voxels.
        local_crops: how many local crops there are.
        global_scale: range of the share of the largest cube inside the volume that a global crop
            covers.
        local_scale: the same of a local crop.
        anisotropy: a of a factor exp(U(-a/2, a/2)) on each edge of a crop; 0.1 keeps the edges of a
            voxel within 10 %.
        flip: probability of a left-right flip.
        teacher: changes of the intensities of the teacher's global crops.
        student: changes of those of the student's.
        corruption: see `CorruptionRecipe`.
    """

    global_size: Positive = 96
    local_size: Positive = 48
    local_crops: Count = 4
    global_scale: Range = (0.5, 1.0)
    local_scale: Range = (0.1, 0.4)
    anisotropy: Annotated[float, Field(ge=0, le=0.5)] = 0.1
    flip: Share = 0.5
    teacher: IntensityRecipe = IntensityRecipe(gamma=0.1, scale=0.1)
    student: IntensityRecipe = IntensityRecipe(gamma=0.4, scale=0.2, noise=0.05, blur=1.0)
    corruption: CorruptionRecipe = CorruptionRecipe()

    @model_validator(mode="after")
    def _scales_are_ordered(self) -> "VolumeViews":
        for name in ("global_scale", "local_scale"):
            check_range(name, getattr(self, name))
            if getattr(self, name)[1] > 1:
                raise InputError(f"{name} ends at {getattr(self, name)[1]:g}; allowed: at most 1")
        return self


class Volta3dObjective(DistillationRecipe):
    """L = global + patch + 100 reconstruction (paper, equations 1 to 6).

    Attributes:
        method: `volta3d`.
        head: of the summary and of the patches, which have prototypes of their own.
        global_weight: weight of the summary's loss.
        patch_weight: weight of the patches' loss.
        reconstruction_weight: weight of the reconstruction of corrupted voxels; the paper's 100 is
            for intensities from 0 to 1.
        koleo_weight: weight of the nearest-neighbour spread of the summaries (not the paper's); it
            needs micro-batches of two volumes or more.
        distillation_warmup_steps: steps at the start in which the student learns nothing from the
            teacher, which is a copy of it (not the paper's).

    The rest is `DistillationRecipe`'s.
    """

    method: Literal["volta3d"] = "volta3d"
    head: HeadRecipe = HeadRecipe(prototypes=8192, normalised=True)
    global_weight: Rate = 1.0
    patch_weight: Rate = 1.0
    reconstruction_weight: Rate = 100.0
    koleo_weight: Rate = 0.0
    distillation_warmup_steps: Count = 0


class AccumulatingRun(RunRecipe):
    """How the run is carried out.

    Attributes:
        micro_batch: volumes per device whose activations are held at a time; None: all of them.
            Gradients are summed up to one step of `optimiser.batch_size` volumes.
    """

    micro_batch: Positive | None = None


class Volta3dRecipe(Recipe):
    """One run of VolTA-3D.

    Attributes:
        views: see `VolumeViews`.
        objective: see `Volta3dObjective`.
        run: see `AccumulatingRun`.
    """

    views: VolumeViews = VolumeViews()
    objective: Volta3dObjective = Volta3dObjective()
    run: AccumulatingRun = AccumulatingRun()

    @model_validator(mode="after")
    def _parts_fit(self) -> "Volta3dRecipe":
        check_family(self.encoder.architecture, FAMILY)
        return self
