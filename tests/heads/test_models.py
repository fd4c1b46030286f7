"""Losses, subsets, neighbours and the head, against other people's code and plain definitions."""

import warnings

import numpy as np
import pytest
import torch
from sklearn.neighbors import KNeighborsClassifier

from nnunet_fm.heads.knn import knn_predict
from nnunet_fm.heads.losses import cox_loss, stroke_days_loss
from nnunet_fm.heads.mlp import Training, train_head
from nnunet_fm.heads.subsets import quantile_strata, stratified_subset, survival_strata


def survivors(seed: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    rng = np.random.default_rng(seed)
    times = torch.from_numpy(np.ceil(rng.exponential(20, 60)))  # with ties
    return (
        torch.from_numpy(rng.standard_normal(60)).requires_grad_(),
        times,
        torch.from_numpy(rng.random(60) < 0.6),
    )


def test_the_cox_loss_is_equation_11_and_torchsurv_s() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from torchsurv.loss.cox import neg_partial_log_likelihood

    for seed in range(3):
        risk, times, events = survivors(seed)
        plain = sum(
            torch.logsumexp(risk[times >= times[i]], 0) - risk[i] for i in range(60) if events[i]
        )
        found = cox_loss(risk, times, events)
        assert float(found.detach()) == pytest.approx(
            float((plain / events.sum()).detach()), abs=1e-12
        )
        (gradient,) = torch.autograd.grad(found, risk)
        (expected,) = torch.autograd.grad(plain / events.sum(), risk)
        torch.testing.assert_close(gradient, expected)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            theirs = neg_partial_log_likelihood(
                risk, events, times, ties_method="breslow", reduction="sum"
            )
        assert float(found.detach()) == pytest.approx(
            float((theirs / events.sum()).detach()), rel=1e-5
        )
    nobody = cox_loss(risk, times, torch.zeros(60, dtype=torch.bool))
    assert not nobody.detach()
    assert not torch.autograd.grad(nobody, risk)[0].any()


def test_the_stroke_loss_is_equation_9() -> None:
    truth, error = (
        torch.zeros(2, dtype=torch.float64),
        torch.tensor([0.5, -3.0], dtype=torch.float64),
    )
    plain = [
        0.2 * r**2 + 0.8 * (0.5 * abs(r) + 0.5 * (r**2 / 2 if abs(r) <= 1 else abs(r) - 0.5))
        for r in (0.5, -3)
    ]
    assert float(stroke_days_loss(error, truth)) == pytest.approx(np.mean(plain), abs=1e-12)


def test_subsets_are_nested_stratified_and_indifferent_to_order() -> None:
    subjects = [f"s{n}" for n in range(164)]
    classes = ["cn"] * 56 + ["mci"] * 74 + ["ad"] * 34
    former: set[str] = set()
    for ratio in (0.1, 0.2, 0.4, 0.6, 0.8, 1.0):
        chosen = stratified_subset(subjects, classes, ratio, seed=3)
        of_class = [
            sum(classes[subjects.index(s)] == c for s in chosen) for c in ("cn", "mci", "ad")
        ]
        assert of_class == [int(ratio * n + 0.5) for n in (56, 74, 34)]
        assert former <= set(chosen)
        former = set(chosen)
        assert set(stratified_subset(subjects[::-1], classes[::-1], ratio, seed=3)) == former
    assert set(stratified_subset(subjects, classes, 0.2, 4)) != set(
        stratified_subset(subjects, classes, 0.2, 3)
    )
    fewer = set(stratified_subset(subjects[1:], classes[1:], 0.4, 3))
    assert len(fewer ^ set(stratified_subset(subjects, classes, 0.4, 3))) <= 2
    assert len(stratified_subset(["a", "b"], ["x", "y"], 0.1, 0)) == 2
    for ratio in (0, 1.2):
        with pytest.raises(ValueError, match=r"allowed: above 0, up to 1"):
            stratified_subset(subjects, classes, ratio, 0)
    with pytest.raises(ValueError, match="a subject comes twice"):
        stratified_subset(["a", "a"], [0, 0], 0.5, 0)


def test_strata_of_numbers_are_quarters() -> None:
    assert np.bincount(quantile_strata(np.random.default_rng(0).random(40))).tolist() == [10] * 4
    events = np.arange(40) < 20
    strata = survival_strata(np.arange(40.0), events)
    assert {s: strata.count(s) for s in strata} == {
        (e, q): 5 for e in (True, False) for q in range(4)
    }
    assert len(survival_strata(np.arange(4.0), np.zeros(4, bool))) == 4


def test_neighbours_are_scikit_learn_s_where_nobody_ties() -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, 90)
    train, test = rng.standard_normal((90, 8)) + labels[:, None], rng.standard_normal((50, 8)) + 0.5
    for k in (1, 3, 5, 9):
        theirs = KNeighborsClassifier(k, metric="cosine").fit(train, labels).predict(test)
        assert np.array_equal(knn_predict(train, labels, test, k), theirs)
    with pytest.raises(ValueError, match="k = 91 with 90 training vectors; allowed: 1 to 90"):
        knn_predict(train, labels, test, 91)


def test_ties_go_to_the_nearer_class() -> None:
    angles = np.array([0.3, 0.9, -0.4, -0.5])
    train, labels = np.stack([np.cos(angles), np.sin(angles)], 1), np.array([1, 1, 0, 0])
    query = np.array([[1.0, 0.0]])
    assert knn_predict(train, labels, query, 4).tolist() == [0]  # cos .3 + cos .9 < cos .4 + cos .5
    assert knn_predict(train, labels, query, 2).tolist() == [1]
    assert knn_predict(train[[0, 0]], np.array([1, 0]), query, 2).tolist() == [
        0
    ]  # all equal: the lowest class


def test_a_head_learns_is_a_function_of_its_seed_and_refuses_nan() -> None:
    torch.manual_seed(0)
    x = torch.randn(80, 12)
    y = (x[:, 0] * x[:, 1] > 0).long()  # nothing linear
    training = Training(steps=400, hidden=64, learning_rate=1e-2)

    def loss(outputs: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.cross_entropy(outputs, y[rows])

    before = torch.random.get_rng_state()
    heads = [train_head(x, 2, loss, training, seed) for seed in (0, 0, 1)]
    assert torch.equal(torch.random.get_rng_state(), before)
    assert float((heads[0](x).argmax(1) == y).float().mean()) > 0.95
    assert torch.equal(heads[0](x), heads[1](x))
    assert not torch.equal(heads[0](x), heads[2](x))
    with pytest.raises(FloatingPointError, match="not finite"):
        train_head(x, 2, lambda o, r: o.sum() * torch.nan, training, 0)


def test_every_number_of_subjects_gets_the_same_steps() -> None:
    for count, size in ((3, 3), (80, 32), (80, 80)):
        seen: list[int] = []

        def loss(outputs: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
            seen.append(len(rows))  # noqa: B023
            return outputs.square().mean()

        train_head(
            torch.randn(count, 4),
            1,
            loss,
            Training(steps=7, batch_size=None if size == 80 else 32),
            0,
        )
        assert seen == [size] * 7
