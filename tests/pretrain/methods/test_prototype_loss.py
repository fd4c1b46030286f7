import pytest
import torch
from lightly.loss import DINOLoss, IBOTPatchLoss

from helpers import plain_losses as plain
from nnunet_fm_pretrain.methods import prototype_loss as prototypes
from nnunet_fm_pretrain.methods.prototype_loss import cross_entropy, sinkhorn_bias

WARM, COLD = 0.1, 0.05


@pytest.fixture(autouse=True)
def _double() -> None:
    torch.manual_seed(0)


def unit(*shape: int) -> torch.Tensor:
    return torch.nn.functional.normalize(torch.randn(*shape, dtype=torch.float64), dim=-1)


@pytest.fixture(params=[1 << 25, 40])
def chunks(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """All rows at once, and one or two at a time."""
    monkeypatch.setattr(prototypes, "ELEMENTS", request.param)


@pytest.mark.parametrize("iterations", [1, 3, 10])
def test_the_bias_gives_sinkhorn_knopp(chunks: None, iterations: int) -> None:
    rows, weights = unit(30, 6), unit(11, 6)
    bias = sinkhorn_bias(rows, weights, COLD, iterations)
    targets = torch.softmax(rows @ weights.T / COLD + bias, dim=-1)
    assert torch.allclose(
        targets, plain.sinkhorn(rows @ weights.T, COLD, iterations), rtol=1e-10, atol=1e-14
    )


def test_sinkhorn_shares_the_rows_out_evenly() -> None:
    rows, weights = unit(200, 6), unit(5, 6)
    targets = torch.softmax(
        rows @ weights.T / COLD + sinkhorn_bias(rows, weights, COLD, 50), dim=-1
    )
    assert torch.allclose(targets.sum(0), torch.full((5,), 40.0, dtype=torch.float64), rtol=1e-2)


def test_no_rows_give_a_bias_that_is_never_used() -> None:
    assert sinkhorn_bias(torch.zeros(0, 6), torch.randn(5, 6), COLD).shape == (5,)


def loss_of_views(
    student: torch.Tensor,
    own: torch.Tensor,
    teacher: torch.Tensor,
    other: torch.Tensor,
    bias: torch.Tensor,
) -> torch.Tensor:
    pairs = 1 - torch.eye(len(student), len(teacher), dtype=torch.float64)
    weights = torch.full((student.shape[1],), 1 / student.shape[1], dtype=torch.float64)
    return cross_entropy(
        student, own, teacher, other, bias, pairs / pairs.sum(), weights, (WARM, COLD)
    )[0]


def test_dino_equals_the_plain_loss_and_its_gradients(chunks: None) -> None:
    student, teacher = unit(5, 7, 6).requires_grad_(), unit(2, 7, 6)
    own, other = unit(11, 6).requires_grad_(), unit(11, 6)
    bias = sinkhorn_bias(teacher.flatten(0, 1), other, COLD)
    loss = loss_of_views(student, own, teacher, other, bias)
    targets = plain.sinkhorn((teacher @ other.T).flatten(0, 1), COLD).unflatten(0, (2, 7))
    expected = plain.dino(list(student @ own.T), list(targets), WARM)
    assert torch.allclose(loss, expected, rtol=1e-12)
    (3 * loss).backward()
    gradients = student.grad, own.grad
    student.grad = own.grad = None
    (3 * expected).backward()
    assert torch.allclose(gradients[0], student.grad, rtol=1e-10, atol=1e-14)
    assert torch.allclose(gradients[1], own.grad, rtol=1e-10, atol=1e-14)


def test_dino_with_a_centre_equals_lightly_s(chunks: None) -> None:
    student, teacher, own, other = unit(4, 7, 6), unit(2, 7, 6), unit(11, 6), unit(11, 6)
    theirs = DINOLoss(11, teacher_temp=COLD, student_temp=WARM)
    theirs.center = torch.randn(1, 1, 11, dtype=torch.float64)
    ours = loss_of_views(student, own, teacher, other, -theirs.center.flatten() / COLD)
    assert torch.allclose(ours, theirs(list(teacher @ other.T), list(student @ own.T)), rtol=1e-12)


def test_ibot_with_a_centre_equals_lightly_s(chunks: None) -> None:
    masks = torch.rand(6, 4, 4) > 0.6
    masks[2] = False
    rows = int(masks.sum())
    student, teacher, own, other = unit(1, rows, 6), unit(1, rows, 6), unit(11, 6), unit(11, 6)
    per_crop = masks.flatten(1).sum(1, keepdim=True).clamp(min=1)
    weights = (1 / (per_crop * 6.0)).expand(-1, 16)[masks.flatten(1)].double()
    theirs = IBOTPatchLoss(11, teacher_temp=COLD, student_temp=WARM)
    theirs.center.center = torch.randn(1, 11, dtype=torch.float64)
    one = torch.ones(1, 1, dtype=torch.float64)
    ours, *_ = cross_entropy(
        student, own, teacher, other, -theirs.center.value[0] / COLD, one, weights, (WARM, COLD)
    )
    assert torch.allclose(
        ours, theirs((teacher @ other.T)[0], (student @ own.T)[0], masks), rtol=1e-6
    )


def test_entropy_and_mean_are_those_of_the_targets(chunks: None) -> None:
    teacher, other = unit(2, 7, 6), unit(11, 6)
    bias = sinkhorn_bias(teacher.flatten(0, 1), other, COLD)
    ones = torch.ones(2, 2, dtype=torch.float64), torch.ones(7, dtype=torch.float64)
    _, entropy, mean = cross_entropy(teacher, other, teacher, other, bias, *ones, (WARM, COLD))
    targets = plain.sinkhorn((teacher @ other.T).flatten(0, 1), COLD)
    assert torch.allclose(entropy, -(targets * targets.log()).sum(-1).mean(), rtol=1e-12)
    assert torch.allclose(mean, targets.mean(0), rtol=1e-12)


def test_under_autocast_the_loss_is_near_and_its_gradients_point_the_same_way() -> None:
    student, own = unit(3, 50, 16).float().requires_grad_(), unit(64, 16).float().requires_grad_()
    teacher, other = unit(2, 50, 16).float(), unit(64, 16).float()
    found = []
    for enabled in (False, True):
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            bias = sinkhorn_bias(teacher.flatten(0, 1), other, COLD)
            pairs, weights = torch.ones(3, 2) / 6, torch.full((50,), 1 / 50)
            loss, *_ = cross_entropy(
                student, own, teacher, other, bias, pairs, weights, (WARM, COLD)
            )
        loss.backward()
        found.append((loss.detach(), student.grad.clone(), own.grad.clone()))
        student.grad = own.grad = None
    (one, *exact), (other_loss, *near) = found
    assert abs(one - other_loss) < 0.02
    for a, b in zip(exact, near, strict=True):
        assert torch.cosine_similarity(a.flatten(), b.flatten(), dim=0) > 0.98
