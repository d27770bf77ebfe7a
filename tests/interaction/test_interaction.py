"""The interaction basis, its edges, modules and counts of degeneracy, against slow readings and planted truths."""

from __future__ import annotations

import itertools

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from atlas_builder.errors import ActivationError
from atlas_builder.interaction import (
    Basis,
    basis,
    edges,
    edges_needed,
    effective_parameters,
    modules,
    principal,
    pull,
    synchronised,
)

ROWS, WIDE, OUT = 60, 5, 4


def moments(rows: Tensor) -> tuple[Tensor, Tensor]:
    mean = rows.mean(dim=0)
    return mean, (rows - mean).T @ (rows - mean) / len(rows)


def drawn(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


@given(st.integers(0, 10_000), st.integers(1, WIDE), st.integers(1, OUT))
def test_a_basis_is_what_its_definition_says(seed: int, varied: int, mattering: int) -> None:
    rows = drawn(seed, ROWS, varied) @ drawn(seed + 1, varied, WIDE) + drawn(seed + 2, WIDE)
    jacobians = drawn(seed + 3, ROWS, OUT, mattering) @ drawn(seed + 4, mattering, WIDE)
    mean, covariance = moments(rows)
    found = basis(mean, covariance, pull(jacobians))
    assert len(found.importance) == min(varied, mattering)
    one = torch.eye(len(found.importance), dtype=torch.float64)
    torch.testing.assert_close(found.decode @ found.encode, one)
    coordinates = found.coordinates(rows)
    torch.testing.assert_close(coordinates.mean(dim=0), torch.zeros(len(one), dtype=torch.float64))
    torch.testing.assert_close(coordinates.T @ coordinates / ROWS, torch.diag(found.importance))
    torch.testing.assert_close(found.decode @ pull(jacobians) @ found.decode.T, one)
    # The nonzero eigenvalues of GM.
    values = torch.linalg.eigvals(covariance @ pull(jacobians)).real.sort(descending=True).values
    torch.testing.assert_close(found.importance, values[: len(one)], rtol=1e-5, atol=1e-8)
    assert bool((found.importance.diff() <= 0).all())


@given(st.integers(0, 10_000))
def test_importance_and_edges_do_not_see_a_linear_change_of_the_activations(seed: int) -> None:
    rows, jacobians, change = drawn(seed, ROWS, WIDE), drawn(seed + 1, ROWS, OUT, WIDE), drawn(seed + 2, WIDE, WIDE)
    change += 5 * torch.eye(WIDE, dtype=torch.float64)  # well conditioned
    changed, after = rows @ change.T, jacobians @ torch.linalg.inv(change)
    found = basis(*moments(rows), pull(jacobians))
    again = basis(*moments(changed), pull(after))
    torch.testing.assert_close(found.importance, again.importance, rtol=1e-6, atol=1e-9)
    torch.testing.assert_close(edges(rows, jacobians, found), edges(changed, after, again), rtol=1e-6, atol=1e-9)


def test_permuted_and_rescaled_units_have_the_same_importance_and_edges() -> None:
    rows, jacobians = drawn(0, ROWS, WIDE), drawn(1, ROWS, OUT, WIDE)
    order, scale = torch.tensor([3, 0, 4, 1, 2]), torch.tensor([0.1, 7.0, 2.0, 1e-3, 40.0], dtype=torch.float64)
    found = basis(*moments(rows), pull(jacobians))
    again = basis(*moments((rows * scale)[:, order]), pull((jacobians / scale)[..., order]))
    torch.testing.assert_close(found.importance, again.importance, rtol=1e-6, atol=0)
    torch.testing.assert_close(
        edges(rows, jacobians, found), edges((rows * scale)[:, order], (jacobians / scale)[..., order], again),
        rtol=1e-6, atol=1e-12,
    )  # fmt: skip


def test_pull_and_edges_are_sums_over_rows_outputs_and_positions() -> None:
    positions = 3
    inputs, jacobians = drawn(0, ROWS, positions, WIDE), drawn(1, ROWS, OUT, positions, WIDE)
    before = basis(*moments(inputs.flatten(0, 1)), pull(jacobians))
    after = principal(*moments(drawn(2, ROWS, OUT)))
    for following in (None, after):
        encode = torch.eye(OUT, dtype=torch.float64) if following is None else following.encode
        slow = torch.zeros(WIDE, WIDE, dtype=torch.float64)
        strengths = torch.zeros(encode.shape[1], before.encode.shape[1], dtype=torch.float64)
        for row in range(ROWS):
            contributed = torch.zeros_like(strengths)
            for position in range(positions):
                reached = encode.T @ jacobians[row, :, position]
                slow += reached.T @ reached / ROWS
                coordinates = (inputs[row, position] - before.mean) @ before.encode
                for out, direction in itertools.product(*map(range, strengths.shape)):
                    contributed[out, direction] += reached[out] @ before.decode[direction] * coordinates[direction]
            strengths += contributed**2 / ROWS
        torch.testing.assert_close(pull(jacobians, following), slow)
        torch.testing.assert_close(edges(inputs, jacobians, before, following), strengths)


def test_random_signs_stand_for_many_outputs() -> None:
    jacobian = drawn(0, OUT, WIDE)
    signs = torch.tensor(list(itertools.product([-1.0, 1.0], repeat=OUT)), dtype=torch.float64)
    torch.testing.assert_close(pull((signs @ jacobian)[:, None]), pull(jacobian[None]))


def test_principal_components_are_those_of_the_covariance() -> None:
    rows = drawn(0, ROWS, 2) @ drawn(1, 2, WIDE)
    found = principal(*moments(rows))
    assert found.encode.shape == (WIDE, 2)
    torch.testing.assert_close(found.coordinates(rows).var(dim=0, correction=0), found.importance)
    torch.testing.assert_close(found.mean + found.coordinates(rows) @ found.decode, rows)


@pytest.mark.parametrize(
    ("covariance", "pulled", "said"),
    [
        (torch.zeros(2, 2), torch.eye(2), "no activation varies"),
        (torch.eye(2), torch.zeros(2, 2), "nothing depends on"),
        (torch.diag(torch.tensor([1.0, 0])), torch.diag(torch.tensor([0, 1.0])), "nothing depends on"),
        (torch.full((2, 2), torch.nan), torch.eye(2), "NaN or infinite"),
        (torch.eye(2), torch.diag(torch.tensor([torch.inf, 1])), "NaN or infinite"),
    ],
)
def test_where_there_is_no_basis_a_sentence_says_so(covariance: Tensor, pulled: Tensor, said: str) -> None:
    with pytest.raises(ActivationError, match=said):
        basis(torch.zeros(2), covariance, pulled)


def test_equal_importances_are_a_plane_of_which_all_is_kept() -> None:
    found = basis(torch.zeros(3), torch.eye(3), torch.eye(3))
    torch.testing.assert_close(found.importance, torch.ones(3, dtype=torch.float64))
    torch.testing.assert_close(found.decode @ found.encode, torch.eye(3, dtype=torch.float64))


@given(st.integers(0, 12), st.integers(0, 1000))
def test_as_few_edges_as_are_needed_are_found(needed: int, seed: int) -> None:
    strengths = drawn(seed, 3, 4).abs()
    order = strengths.flatten().argsort(descending=True)

    def score(kept: Tensor) -> float:
        return float(kept.flatten()[order[:needed]].sum()) / max(needed, 1)

    assert edges_needed(strengths, score, 1.0 if needed else 0.0) == needed
    with pytest.raises(ValueError, match="ask for less"):
        edges_needed(strengths, score, 2.0)


def test_units_that_fire_on_the_same_rows_are_a_group() -> None:
    firing = torch.tensor([[1, 0, 1, 0, 1, 0, 1], [0, 0, 0, 1, 1, 0, 1], [1, 0, 1, 0, 1, 0, 1]], dtype=torch.bool)
    assert synchronised(firing) == [[0, 2], [4, 6]]


# --- counts ------------------------------------------------------------------


class Net:
    """Linear layers with biases, ReLUs between them."""

    def __init__(self, seed: int, *widths: int) -> None:
        self.weights = [
            (drawn(seed + 2 * place, out, wide), drawn(seed + 2 * place + 1, out))
            for place, (wide, out) in enumerate(itertools.pairwise(widths))
        ]

    def run(self, rows: Tensor, parameters: list[Tensor]) -> tuple[Tensor, list[Tensor], list[Tensor]]:
        """Outputs, the inputs of each layer and what it computes."""
        inputs, computed = [], []
        for place in range(len(self.weights)):
            inputs.append(rows)
            rows = rows @ parameters[2 * place].T + parameters[2 * place + 1]
            computed.append(rows)
            rows = torch.relu(rows) if place + 1 < len(self.weights) else rows
        return rows, inputs, computed

    def parameters(self) -> list[Tensor]:
        return [array.clone().requires_grad_() for pair in self.weights for array in pair]

    def brute(self, rows: Tensor) -> int:
        """The rank of all outputs' derivatives by all parameters."""
        parameters = self.parameters()
        outputs, _, _ = self.run(rows, parameters)
        derivatives = [
            torch.cat([one.flatten() for one in torch.autograd.grad(output, parameters, retain_graph=True)])
            for output in outputs.flatten()
        ]
        return int(torch.linalg.matrix_rank(torch.stack(derivatives), rtol=1e-10))

    def count(self, rows: Tensor) -> int:
        outputs, inputs, computed = self.run(rows, self.parameters())
        layers = []
        for place, (rows, out) in enumerate(zip(inputs, computed, strict=True)):
            gradients = torch.cat([
                torch.autograd.grad(outputs[:, column].sum(), out, retain_graph=True)[0]
                for column in range(outputs.shape[1])
            ])  # fmt: skip
            last = place + 1 == len(computed)
            layers.append((rows.detach(), gradients, None if last else out > 0))
        return effective_parameters(layers)


@pytest.mark.parametrize("seed", range(12))
def test_the_count_is_never_below_the_rank_of_all_derivatives(seed: int) -> None:
    net = Net(100 * seed, 3, 4, 4, 2)
    rows = drawn(100 * seed + 50, 80, 3)
    assert net.brute(rows) <= net.count(rows) <= sum(array.numel() for pair in net.weights for array in pair)


def test_a_generic_net_of_one_hidden_layer_has_as_many_less_as_it_has_units() -> None:
    net = Net(0, 3, 4, 2)
    net.weights[0] = (net.weights[0][0], torch.zeros(4, dtype=torch.float64))  # all fire on some rows, none on all
    rows = drawn(1, 200, 3)
    assert net.count(rows) == net.brute(rows) == (4 * 4 + 5 * 2) - 4


def test_planted_dependent_inputs_are_not_counted() -> None:
    net = Net(0, 4, 4, 2)
    net.weights[0] = (net.weights[0][0], torch.zeros(4, dtype=torch.float64))
    rows = drawn(1, 200, 3)
    rows = torch.cat([rows, rows[:, :1] - rows[:, 1:2]], dim=1)  # of rank 3 in 4 columns
    assert net.count(rows) == net.brute(rows) == (4 * 4 + 5 * 2) - 4


def test_a_clone_and_a_rescaled_clone_are_found_to_fire_together_and_counted_once_less() -> None:
    net = Net(0, 3, 4, 2)
    weight, _ = net.weights[0]
    weight[3] = 2.5 * weight[1]
    net.weights[0] = (weight, torch.zeros(4, dtype=torch.float64))
    rows = drawn(1, 200, 3)
    _, _, computed = net.run(rows, net.parameters())
    assert synchronised(computed[0] > 0) == [[1, 3]]
    assert net.brute(rows) <= net.count(rows) < (4 * 4 + 5 * 2) - 4


# --- modules -----------------------------------------------------------------


def side_by_side(one: Tensor, other: Tensor) -> Tensor:
    both = torch.zeros(len(one) + len(other), one.shape[1] + other.shape[1], dtype=one.dtype)
    both[: len(one), : one.shape[1]] = one
    both[len(one) :, one.shape[1] :] = other
    return both


def test_two_models_side_by_side_are_the_two_modules() -> None:
    one, other = drawn(0, 4, 3).abs() + 0.5, drawn(1, 5, 4).abs() + 0.5
    next_one, next_other = drawn(2, 3, 4).abs() + 0.5, drawn(3, 4, 5).abs() + 0.5
    found = modules([side_by_side(one, other), side_by_side(next_one, next_other)], [1e-3, 1e-3], seed=0)
    sides = [
        {(place, shifts[place] + number) for place, size in enumerate(sizes) for number in range(size)}
        for sizes, shifts in (((3, 4, 3), (0, 0, 0)), ((4, 5, 4), (3, 4, 3)))
    ]
    assert [set(group) for group in found.members] == sorted(sides, key=len, reverse=True)
    assert 0.4 < found.quality <= 0.5
    assert modules([side_by_side(one, other)], [1e-3]) == modules([side_by_side(one, other)], [1e-3])


def test_edges_below_the_floor_are_none() -> None:
    found = modules([torch.tensor([[1.0, 1e-6], [1e-6, 1e-6]])], [1e-5])
    assert found.members == [[(0, 0), (1, 0)]]
    assert modules([torch.zeros(2, 2)], [1.0]) == ([], 0.0)


def test_a_basis_unpacks_into_what_the_pass_stores() -> None:
    assert Basis._fields == ("mean", "encode", "decode", "importance")
