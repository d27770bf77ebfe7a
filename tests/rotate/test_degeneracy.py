"""What of a layer does nothing, against slow readings and planted truths."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from atlas_builder.config_file import validate
from atlas_builder.interaction import pull, synchronised
from atlas_builder.models.language_model import load_model
from atlas_builder.rotate import degeneracy
from atlas_builder.rotate.degeneracy import DegeneracySums, degeneracy_of, sampled_rows
from atlas_builder.rotate.gradients import GradientRun, MLPPass
from atlas_builder.rotate.moments import MomentSums, moments_of_blocks
from atlas_builder.rounding import significant
from atlas_builder.units.mlp import MLPUnits

WIDE, UNITS, OUT = 5, 8, 3


def drawn(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


class MLP:
    """An MLP whose outputs are the network's, plain or gated."""

    def __init__(self, seed: int, activation: str, parts: int = 1, *, biases: bool = True) -> None:
        self.activation, self.is_biased = activation, biases
        self.read, self.bias = drawn(seed, parts, UNITS, WIDE), drawn(seed + 1, parts, UNITS) * biases
        self.write, self.shift = drawn(seed + 2, UNITS, OUT), drawn(seed + 3, OUT) * biases

    def parameters(self) -> list[Tensor]:
        arrays = [self.read, self.bias, self.write, self.shift] if self.is_biased else [self.read, self.write]
        for array in arrays:
            array.requires_grad_()
        return arrays

    def parts(self, inputs: Tensor) -> Tensor:
        return torch.einsum("rd,pnd->prn", inputs, self.read) + self.bias[:, None]

    def activations(self, parts: Tensor) -> Tensor:
        gate = torch.nn.functional.gelu(parts[0]) if self.activation == "gelu" else torch.relu(parts[0])
        gate = gate.square() if self.activation == "relu2" else gate
        return gate * (parts[1] if len(parts) == 2 else 1)

    def outputs(self, inputs: Tensor) -> Tensor:
        return self.activations(self.parts(inputs)) @ self.write + self.shift

    def run(self, inputs: Tensor) -> MLPPass:
        """As `GradientRun` has it: gradients of the outputs, with random signs."""
        inputs = inputs.clone().requires_grad_()
        parts = self.parts(inputs.detach()).detach().requires_grad_()
        activations = self.activations(parts)
        signs = torch.sign(drawn(99, len(inputs), OUT))
        [slopes] = torch.autograd.grad(activations.sum(), parts)
        [by_inputs] = torch.autograd.grad((self.outputs(inputs) * signs).sum(), inputs)
        by_parts = slopes * (signs @ self.write.T)
        kept = inputs, by_inputs, parts, by_parts, slopes, activations, signs
        return MLPPass(*(one.detach() for one in kept))

    def independent(self, inputs: Tensor) -> int:
        """The rank of all outputs' derivatives by all parameters."""
        parameters = self.parameters()
        derivatives = [
            torch.cat([one.flatten() for one in torch.autograd.grad(output, parameters, retain_graph=True)])
            for output in self.outputs(inputs).flatten()
        ]
        return int(torch.linalg.matrix_rank(torch.stack(derivatives), rtol=1e-10))


def rows_of(layer_pass: MLPPass, rows: Any) -> MLPPass:
    return MLPPass(*(one[:, rows] if one.dim() == 3 else one[rows] for one in layer_pass))


def facts_of(mlp: MLP, inputs: Tensor, division: list[list[list[int]]] | None = None) -> dict[str, Any]:
    """The facts, of rows in blocks of batches."""
    layer_pass, total = mlp.run(inputs), len(inputs)
    parts, _, units = layer_pass.parts.shape
    blocks = []
    for block in division or [[list(range(total))]]:
        sums = DegeneracySums(inputs.shape[1], units, parts, OUT, total, mlp.activation)
        for batch in block:
            sums.add(rows_of(layer_pass, batch), np.array(batch, np.int64))
        blocks.append(sums.arrays())
    return degeneracy_of(
        blocks,
        torch.cov(inputs.T, correction=0),
        pull(layer_pass.input_gradients[:, None]),
        torch.tensor([0.05, 0.5, 0.445, 0.005]),
        activation=mlp.activation,
        biases=mlp.is_biased,
        tolerance=1e-9,
    )


def plain(mlp: MLP) -> MLP:
    """Without biases of the units, so that each fires on some rows and none on all."""
    mlp.bias = torch.zeros_like(mlp.bias)
    return mlp


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_groups_dead_and_always_on_are_those_of_the_firing_sets(data: st.DataObject) -> None:
    rows, units = data.draw(st.integers(1, 12)), data.draw(st.integers(1, 10))
    sets = data.draw(st.lists(st.integers(0, 2**rows - 1), min_size=1, max_size=4))
    chosen = data.draw(st.lists(st.sampled_from(sets), min_size=units, max_size=units))
    firing = torch.tensor([[bool(one >> row & 1) for one in chosen] for row in range(rows)])
    sums = DegeneracySums(2, units, 1, 2, rows, "relu")
    z = torch.where(firing, 1.0, -1.0).to(torch.float64)
    flat = torch.zeros(rows, 2, dtype=torch.float64)
    sums.add(MLPPass(flat, flat, z[None], z[None], z[None], z, flat), np.arange(rows))
    one = torch.eye(2, dtype=torch.float64)
    found = degeneracy_of([sums.arrays()], one, one, torch.ones(2), activation="relu", biases=True, tolerance=1e-9)
    expected = synchronised(firing)
    assert found["groups"] == {"count": len(expected), "units": expected}
    assert found["dead"]["units"] == [unit for unit in range(units) if not firing[:, unit].any()]
    assert found["always_on"]["units"] == [unit for unit in range(units) if firing[:, unit].all()]
    assert found["tokens"] == found["sampled_tokens"] == rows


@pytest.mark.parametrize(("activation", "parts"), [("relu", 1), ("gelu", 2)])
def test_however_rows_are_divided_the_facts_are_the_same(activation: str, parts: int) -> None:
    mlp, inputs = MLP(0, activation, parts), drawn(1, 90, WIDE)
    whole = facts_of(mlp, inputs)
    order = torch.randperm(90, generator=torch.Generator().manual_seed(2)).tolist()
    for cuts in ((7, 30, 31), (45,), (1, 2, 88)):
        pieces = [order[first:last] for first, last in itertools.pairwise((0, *cuts, 90))]
        assert facts_of(mlp, inputs, [[piece] for piece in pieces]) == whole
        assert facts_of(mlp, inputs, [pieces[::-1], []]) == whole


def test_a_dead_unit_made_a_rescaled_clone_is_one_dead_less_and_that_pair_more() -> None:
    mlp, inputs = plain(MLP(0, "relu")), drawn(1, 200, WIDE)
    mlp.bias[0, [2, 6]] = -1e3
    before, outputs = facts_of(mlp, inputs), mlp.outputs(inputs)
    assert (before["dead"], before["groups"]) == ({"count": 2, "units": [2, 6]}, {"count": 0, "units": []})
    mlp.read[0, 6], mlp.bias[0, 6] = 2.5 * mlp.read[0, 1], 2.5 * mlp.bias[0, 1]
    mlp.write[6] = 0.4 * mlp.write[1] / 2.5
    mlp.write[1] *= 0.6
    torch.testing.assert_close(mlp.outputs(inputs), outputs, rtol=0, atol=1e-5)
    after = facts_of(mlp, inputs)
    assert (after["dead"], after["groups"]) == ({"count": 1, "units": [2]}, {"count": 1, "units": [[1, 6]]})
    assert set(after["nearest"]["units"]) != {1, 6}
    assert mlp.independent(inputs) <= after["independent"]


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize(("activation", "parts"), [("relu", 1), ("gelu", 1), ("relu2", 1), ("gelu", 2), ("relu", 2)])
@pytest.mark.parametrize("biases", [True, False])
def test_the_count_is_never_below_the_rank_of_all_derivatives(
    seed: int, activation: str, parts: int, biases: bool
) -> None:
    mlp, inputs = MLP(10 * seed, activation, parts, biases=biases), drawn(10 * seed + 5, 120, WIDE)
    with torch.no_grad():  # a pair that fires together, and a unit that never fires
        mlp.read[0, 3], mlp.bias[0, 3] = 2 * mlp.read[0, 1], 2 * mlp.bias[0, 1]
        mlp.bias[0, 5] = -1e3 * biases
    found = facts_of(mlp, inputs)
    assert mlp.independent(inputs) <= found["independent"] <= found["parameters"]
    assert found["parameters"] == sum(array.numel() for array in mlp.parameters())


@pytest.mark.parametrize(("biases", "expected"), [(True, 8 * 6 + 3 * 9 - 8), (False, 8 * 5 + 3 * 8 - 8)])
def test_a_generic_relu_layer_has_as_many_less_as_it_has_units(biases: bool, expected: int) -> None:
    mlp, inputs = plain(MLP(3, "relu", biases=biases)), drawn(4, 200, WIDE)
    assert facts_of(mlp, inputs)["independent"] == mlp.independent(inputs) == expected


def test_a_planted_dead_unit_and_dependent_inputs_are_not_counted() -> None:
    mlp, inputs = plain(MLP(3, "relu")), drawn(4, 200, WIDE)
    mlp.bias[0, 5] = -1e3
    inputs[:, 4] = inputs[:, 0] - inputs[:, 1]
    found = facts_of(mlp, inputs)
    assert found["activations_rank"] == 4
    assert found["independent"] == mlp.independent(inputs) == 7 * 5 + 3 * 8 - 7


def test_what_enters_behind_a_layer_norm_lacks_one_direction_and_behind_an_rms_norm_none() -> None:
    stream, gain = torch.randn(400, 16, generator=torch.Generator().manual_seed(0)), torch.rand(16) + 0.5
    for norm, rank in (
        (torch.nn.functional.layer_norm(stream, (16,), gain, gain), 15),
        (torch.nn.functional.rms_norm(stream, (16,), gain), 16),
    ):
        mlp = MLP(0, "gelu")
        mlp.read = drawn(1, 1, UNITS, 16)
        assert facts_of(mlp, norm.double())["activations_rank"] == rank


def test_the_nearest_pair_is_that_of_the_largest_jaccard_index_outside_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(degeneracy, "_BLOCK", 3)
    mlp, inputs = plain(MLP(7, "relu")), drawn(8, 300, WIDE)
    mlp.read[0, 7] = 3 * mlp.read[0, 0]
    mlp.bias[0, 2], mlp.bias[0, 4] = -1e3, 1e3
    found = facts_of(mlp, inputs)
    firing = (mlp.parts(inputs)[0] > 0).numpy()
    alike = {
        (one, other): (firing[:, one] & firing[:, other]).sum() / (firing[:, one] | firing[:, other]).sum()
        for one, other in itertools.combinations([0, 1, 3, 4, 5, 6, 7], 2)
        if (one, other) != (0, 7)
    }
    best = max(alike, key=alike.__getitem__)
    assert found["nearest"] == {"units": list(best), "by": "jaccard", "value": significant(float(alike[best]))}
    assert found["groups"]["units"] == [[0, 7]]
    assert found["always_on"]["units"] == [4]


def test_units_without_firing_sets_are_compared_by_their_slopes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(degeneracy, "_BLOCK", 3)
    mlp, inputs = MLP(7, "gelu", 2), drawn(8, 300, WIDE)
    found = facts_of(mlp, inputs)
    assert found["dead"] is found["always_on"] is found["groups"] is None
    slopes = mlp.run(inputs).slopes[0]
    cosines = {
        pair: abs(float(torch.nn.functional.cosine_similarity(slopes[:, pair[0]], slopes[:, pair[1]], dim=0)))
        for pair in itertools.combinations(range(UNITS), 2)
    }
    best = max(cosines, key=cosines.__getitem__)
    assert found["nearest"]["units"] == list(best)
    assert found["nearest"]["by"] == "slope cosine"
    assert found["nearest"]["value"] == pytest.approx(cosines[best], abs=1e-4)


def test_directions_are_counted_from_the_most_important_one() -> None:
    assert facts_of(MLP(0, "relu"), drawn(1, 40, WIDE))["directions_99"] == 3  # 0.5, 0.445, 0.05


def test_where_tokens_are_too_few_or_the_layer_too_wide_parameters_are_not_counted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    mlp = MLP(0, "gelu", 2)
    few, enough = facts_of(mlp, drawn(1, 31, WIDE)), facts_of(mlp, drawn(1, 32, WIDE))
    assert (few["independent"], few["needed"]) == (None, 32)
    assert enough["independent"] > 0
    monkeypatch.setattr(degeneracy, "WIDEST", 15)
    wide = facts_of(mlp, drawn(1, 32, WIDE))
    assert (wide["independent"], wide["needed"]) == (None, None)
    assert wide["nearest"] == enough["nearest"]
    assert wide["parameters"] == enough["parameters"]


@given(st.integers(0, 10_000), st.integers(1, 400))
def test_sampled_rows_are_spread_evenly(total: int, wanted: int) -> None:
    rows = sampled_rows(total, wanted)
    assert len(rows) == min(total, wanted)
    steps = np.diff(rows)
    assert not len(rows) or (rows[0] == 0 and rows[-1] < total)
    assert not len(steps) or (steps.min() >= 1 and steps.max() - steps.min() <= 1)


def test_of_many_units_a_list_names_some_and_says_how_many_there_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(degeneracy, "LISTED", 3)
    mlp = MLP(0, "relu")
    mlp.bias[0] = torch.tensor([-1e3] * 4 + [1e3] * 4)
    found = facts_of(mlp, drawn(1, 40, WIDE))
    assert found["dead"] == {"count": 4, "units": [0, 1, 2]}
    assert found["groups"] == {"count": 1, "units": [[4, 5, 6]]}


# --- models --------------------------------------------------------------------


class Loaded:
    """A model's MLP of one layer on some contexts."""

    def __init__(self, name: str, layer: int, contexts: int) -> None:
        settings = {"model": {"name": name}, "corpus": {"source": "stdlib"}, "units": {"layers": [layer]}}
        self.model = load_model(validate(settings).model)
        self.units, self.layer = MLPUnits(self.model.bridge, [layer]), layer
        source = torch.Generator().manual_seed(0)
        self.tokens = torch.randint(5, int(self.model.bridge.cfg.d_vocab), (contexts, 60), generator=source)

    def logits(self) -> Tensor:
        with torch.no_grad():
            logits: Tensor = self.model.bridge(self.tokens[:8], return_type="logits")
        return logits

    def facts(self) -> dict[str, Any]:
        run = GradientRun(self.model, self.units, head=0)
        parts, count, width = self.units.read_weights(self.layer).shape
        activation = self.units.activation
        assert activation is not None
        total = self.tokens.numel()
        sums = DegeneracySums(width, count, parts, width, total, activation)
        moment_sums = MomentSums(width, parts, count)
        for first in range(0, len(self.tokens), 16):
            numbers = range(len(self.tokens))[first : first + 16]
            layer_pass = run.run(self.tokens[first : first + 16], list(numbers))[self.layer]
            rows = np.arange(numbers[0] * 60, (numbers[-1] + 1) * 60)
            sums.add(layer_pass, rows)
            moment_sums.add(layer_pass, rows)
        found = moments_of_blocks([moment_sums.arrays()])
        return degeneracy_of(
            [sums.arrays()],
            found.covariance,
            found.pulled,
            torch.ones(width),
            activation=activation,
            biases=self.units.read_biases(self.layer) is not None,
            tolerance=1e-9,
        )


def test_a_dead_neuron_of_the_relu_twin_made_a_clone_is_found_as_that_pair_and_one_dead_less() -> None:
    loaded = Loaded("relu-demo", 1, 32)
    before, logits = loaded.facts(), loaded.logits()
    dead, taken = before["dead"]["units"], {unit for group in before["groups"]["units"] for unit in group}
    live = next(unit for unit in range(512) if unit not in {*dead, *taken})
    mlp = loaded.model.bridge.original_model.transformer.h[1].mlp
    with torch.no_grad():
        mlp.c_fc.weight[:, dead[0]] = 2.5 * mlp.c_fc.weight[:, live]
        mlp.c_fc.bias[dead[0]] = 2.5 * mlp.c_fc.bias[live]
        mlp.c_proj.weight[dead[0]] = 0.6 * mlp.c_proj.weight[live] / 2.5
        mlp.c_proj.weight[live] *= 0.4
    torch.testing.assert_close(loaded.logits(), logits, rtol=0, atol=1e-5)
    after = loaded.facts()
    assert after["dead"] == {"count": before["dead"]["count"] - 1, "units": dead[1:]}
    pair = sorted([dead[0], live])
    assert [group for group in after["groups"]["units"] if group not in before["groups"]["units"]] == [pair]
    assert after["groups"]["count"] == before["groups"]["count"] + 1
    assert after["independent"] == before["independent"]  # what changes of the clone can do, those of the other do


@pytest.mark.parametrize(("family", "lacks"), [("gpt2", 1), ("gpt_neox", 1), ("llama", 0), ("qwen3", 0)])
def test_models_with_layer_norm_have_one_null_direction_and_with_rms_norm_none(
    tiny_model: Callable[[str], Path], family: str, lacks: int
) -> None:
    for layer in (0, 1):
        found = Loaded(str(tiny_model(family)), layer, 20).facts()
        assert found["width"] - found["activations_rank"] == lacks
