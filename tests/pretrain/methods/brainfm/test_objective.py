"""The losses of BrainFM-MRI against their definitions, and what padding may not do."""

from typing import Any

import pytest
import torch
from torch import Tensor

from helpers.pretraining import small_brainfm_recipe
from nnunet_fm.network.activation_memory import kept_for_backward, total_bytes
from nnunet_fm_pretrain.data.volume_store import VolumeStore
from nnunet_fm_pretrain.methods.brainfm.batches import SessionBatch, valid_patches
from nnunet_fm_pretrain.methods.brainfm.objective import in_patches
from nnunet_fm_pretrain.methods.recipes import parse_recipe
from nnunet_fm_pretrain.methods.registry import get_method


def built(**parts: object) -> Any:
    """The objective with conditional norms that do something, in float64."""
    made = get_method("brainfm").build(parse_recipe(small_brainfm_recipe(**parts), "test"))
    generator = torch.Generator().manual_seed(1)
    for name, parameter in made.named_parameters():
        if ".scale.weight" in name or ".shift.weight" in name:
            parameter.data.normal_(0, 0.1, generator=generator)
    return made.double().train()


@pytest.fixture(scope="module")
def batch(scans: VolumeStore) -> SessionBatch:
    """Four sessions, of one to three scans."""
    batches = built().batches(scans, 0, 1)
    found: SessionBatch = next(
        b for b in (batches[n] for n in range(20)) if len(set(scans_of(b))) > 1
    )
    return found


def scans_of(batch: SessionBatch) -> list[int]:
    return batch.inside.flatten(2).any(2).sum(1).tolist()


def alone(batch: SessionBatch, place: int) -> SessionBatch:
    """One session of a batch, without empty places."""
    scans = scans_of(batch)[place]
    patches = batch.visible.shape[1] // batch.names.shape[1]
    parts = (part[place : place + 1, :scans] for part in batch[:3])
    return SessionBatch(*parts, batch.visible[place : place + 1, : scans * patches])


def predicted(made: Any, batch: SessionBatch) -> tuple[Tensor, Tensor]:
    text = made.encoder.text.table[batch.names]
    valid = valid_patches(batch.inside, 32, 8).flatten(1)
    seen = made.encode(batch.volumes.double(), text, batch.visible)
    return made.decoder(seen, text, valid), valid


@pytest.mark.parametrize("fused", [True, False])
def test_a_session_is_reconstructed_alike_alone_and_beside_larger_ones(
    batch: SessionBatch, fused: bool
) -> None:
    """Padded scans and padded tokens take part in nothing."""
    made = built()
    for block in (*made.encoder.vit.blocks, *made.decoder.blocks):
        block.attn.fused_attn = fused
    together, valid = predicted(made, batch)
    for place in range(len(batch.names)):
        single, own = predicted(made, alone(batch, place))
        length = own.shape[1]
        assert torch.equal(valid[place, :length], own[0])
        torch.testing.assert_close(together[place, :length][own[0]], single[0][own[0]])


def test_checkpointing_saves_memory_and_changes_no_gradient(batch: SessionBatch) -> None:
    found, saved = [], []
    for checkpointing in (False, True):
        made = built(run={"checkpointing": checkpointing})
        seen = predicted(made, batch)[0].detach()  # the decoder alone is measured below
        text = made.encoder.text.table[batch.names]
        valid = valid_patches(batch.inside, 32, 8).flatten(1)
        with torch.no_grad():
            tokens = made.encode(batch.volumes.double(), text, batch.visible)
        with kept_for_backward(made.decoder) as kept:
            assert torch.equal(made.decoder(tokens, text, valid), seen)
        saved.append(total_bytes(kept))
        made(batch, 0, "main").total.backward()
        found.append([p.grad for p in made.parameters() if p.grad is not None])
    assert len(found[0]) == len(found[1]) > 0
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))
    assert saved[1] < 0.6 * saved[0]


def test_the_losses_are_those_of_the_paper(batch: SessionBatch) -> None:
    made = built(objective={"regulariser_warmup_steps": 4})
    losses = made(batch, 1, "main")
    errors, zeros, tokens = [], [], []
    for place in range(len(batch.names)):
        one = alone(batch, place)
        guess, valid = predicted(made, one)
        target = in_patches(one.volumes.double(), 8)
        for patch in torch.nonzero(valid[0] & ~one.visible[0]).flatten().tolist():
            scan, number = divmod(patch, 64)
            z, y, x = number // 16, number // 4 % 4, number % 4
            for voxel in range(512):
                where = (8 * z + voxel // 64, 8 * y + voxel // 8 % 8, 8 * x + voxel % 8)
                bounds = one.inside[0, scan].tolist()
                if all(low <= w < high for w, (low, high) in zip(where, bounds, strict=True)):
                    value = one.volumes[0, scan][where].double()
                    assert value == target[0, patch, voxel]
                    errors.append((guess[0, patch, voxel] - value) ** 2)
                    zeros.append(value**2)
        seen = made.encode(one.volumes.double(), made.encoder.text.table[one.names], one.visible)
        tokens.append(seen.tokens[0])
    torch.testing.assert_close(losses.parts["reconstruction"], torch.stack(errors).mean())
    torch.testing.assert_close(losses.monitors["predict_zero"], torch.stack(zeros).mean())
    z = torch.cat(tokens)
    covariances = torch.cov(z.T)
    variance = torch.relu(1 - (covariances.diagonal() + 1e-4).sqrt()).mean()
    off = covariances - covariances.diagonal().diag()
    covariance = off.square().sum() / z.shape[1]
    torch.testing.assert_close(losses.parts["variance"], variance)
    torch.testing.assert_close(losses.parts["covariance"], covariance)
    expected = losses.parts["reconstruction"] + 0.5 * (0.1 * variance + 0.003 * covariance)
    torch.testing.assert_close(losses.total, expected)


def test_voxels_outside_a_scan_and_empty_places_have_no_gradient(batch: SessionBatch) -> None:
    made = built()
    volumes = batch.volumes.double().requires_grad_()
    made(batch._replace(volumes=volumes), 0, "main").total.backward()
    valid = valid_patches(batch.inside, 32, 8)
    empty = ~batch.inside.flatten(2).any(2)
    assert empty.any()
    assert volumes.grad is not None
    assert not volumes.grad[empty].any()
    by_patch = in_patches(volumes.grad, 8).unflatten(1, (-1, 64))
    assert not by_patch[~valid].any()
    assert by_patch[valid].any()


def test_hidden_patches_have_the_text_of_their_own_scan(batch: SessionBatch) -> None:
    """The authors' code gives half of them another scan's (an order applied twice)."""
    made = built()
    place = scans_of(batch).index(max(scans_of(batch)))
    one = alone(batch, place)
    with torch.no_grad():
        for block in made.decoder.blocks:  # each token for itself
            block.attn.proj.weight.zero_()
            block.attn.proj.bias.zero_()
        before, valid = predicted(made, one)
        made.encoder.text.table[one.names[0, 1]] += 1
        after, _ = predicted(made, one)
    hidden = (valid & ~one.visible)[0]
    changed = (before != after).any(-1)[0]
    second = torch.arange(len(hidden)) // 64 == 1
    assert torch.equal(changed[hidden], second[hidden])


def test_norms_are_plain_at_the_start() -> None:
    recipe = parse_recipe(small_brainfm_recipe(), "test")
    made: Any = get_method("brainfm").build(recipe)
    x = torch.randn(2, 10, 24)
    text, slots = made.encoder.text.of(["T1", "T2"]).expand(2, -1, -1), torch.arange(10) % 2
    norm = made.encoder.vit.blocks[3].norm1
    expected = torch.nn.functional.layer_norm(x, (24,))
    torch.testing.assert_close(norm(x, text, slots.expand(2, -1)), expected, rtol=0, atol=0)


def test_a_mask_ratio_is_of_the_session_s_valid_patches(batch: SessionBatch) -> None:
    valid = valid_patches(batch.inside, 32, 8).flatten(1)
    assert not (batch.visible & ~valid).any()
    for seen, there in zip(batch.visible.sum(1), valid.sum(1), strict=True):
        assert int(seen) == int(there) - round(0.75 * int(there))
