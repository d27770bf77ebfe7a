"""The benchmark of modular addition does what it says, on a tiny network of random weights."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

import pytest
import torch
from torch import Tensor

from atlas_builder.interaction import Basis
from tests.benchmarks.modadd import Ablation, Addition, alike, alike_by_chance, derive, frequencies, measure

MODULUS, WIDE, HEADS, HEAD, UNITS = 5, 6, 2, 3, 8


@pytest.fixture(scope="module")
def model() -> Addition:
    shapes = {
        "embed.W_E": (MODULUS + 1, WIDE),
        "pos_embed.W_pos": (3, WIDE),
        "blocks.0.attn.W_O": (HEADS, HEAD, WIDE),
        "blocks.0.attn.b_O": (WIDE,),
        "blocks.0.mlp.W_in": (WIDE, UNITS),
        "blocks.0.mlp.b_in": (UNITS,),
        "blocks.0.mlp.W_out": (UNITS, WIDE),
        "blocks.0.mlp.b_out": (WIDE,),
        "unembed.W_U": (WIDE, MODULUS + 1),
        "unembed.b_U": (MODULUS + 1,),
    }
    shapes |= {f"blocks.0.attn.W_{name}": (HEADS, WIDE, HEAD) for name in "QKV"}
    shapes |= {f"blocks.0.attn.b_{name}": (HEADS, HEAD) for name in "QKV"}
    drawn = torch.Generator().manual_seed(0)
    model = Addition({name: torch.randn(shape, dtype=torch.float64, generator=drawn) for name, shape in shapes.items()})
    model.value_bias += 0.1
    return model


def attended(model: Addition, stream: Tensor) -> Tensor:
    """The stream (3, d) of one pair after attention, head by head."""
    result = stream[-1] + model.out_bias
    for head in range(HEADS):
        query = stream[-1] @ model.query[head] + model.query_bias[head]
        key = stream @ model.key[head] + model.key_bias[head]
        attention = torch.softmax(key @ query / math.sqrt(HEAD), dim=0)
        result = result + attention @ (stream @ model.value[head] + model.value_bias[head])
    return result


def test_attention_by_numbers_is_attention_by_pairs(model: Addition) -> None:
    slow = torch.stack([attended(model, model.table[tokens]) for tokens in model.tokens])
    torch.testing.assert_close(model.attend(model.table), slow)
    assert model.sums.tolist() == [(first + second) % MODULUS for first in range(MODULUS) for second in range(MODULUS)]


def test_derivatives_are_those_of_the_sections(model: Addition) -> None:
    rows = torch.tensor([3, 17, 4, 20])
    trained = derive(model, rows)
    sections = [partial(attended, model), model.compute, model.logits]
    for inputs, jacobians, section in zip(trained.inputs, trained.jacobians, sections, strict=True):
        slow = torch.stack([torch.autograd.functional.jacobian(section, row) for row in inputs])  # type: ignore[no-untyped-call]
        torch.testing.assert_close(jacobians, slow)


@pytest.mark.parametrize("local", [False, True])
@pytest.mark.parametrize("place", range(3))
def test_each_direction_is_computed_from_what_it_keeps(model: Addition, place: int, local: bool) -> None:
    bases, strengths = measure(model, derive(model, torch.arange(MODULUS**2 - 3)), local)
    rows = torch.tensor([24, 0, 7, 23])
    ablation = Ablation(model, bases, place, rows)
    for share in (0.0, 0.3, 0.8, 1.0):
        kept = torch.rand(strengths[place].shape, generator=torch.Generator().manual_seed(1)) < share
        kept[1] = kept[0]  # two directions with the same edges
        expected = torch.stack([ablated(model, bases, place, kept, model.tokens[row]) for row in rows])
        torch.testing.assert_close(ablation.logits(kept), expected)
    whole = model.logits(model.compute(model.attend(model.table)))[rows]
    torch.testing.assert_close(ablation.logits(torch.ones_like(kept)), whole)  # nothing that matters is left out


def ablated(model: Addition, bases: list[Basis], place: int, kept: Tensor, tokens: Tensor) -> Tensor:
    """Logits of one pair, direction by direction."""
    sections: list[Callable[[Tensor], Tensor]] = [partial(attended, model), model.compute, model.logits]
    activations = model.table[tokens]
    for section in sections[:place]:
        activations = section(activations)
    before, after = bases[place], bases[place + 1] if place < 2 else None
    if after is None:
        mean, encode = torch.zeros(MODULUS + 1).double(), torch.eye(MODULUS + 1).double()
        decode = encode
    else:
        mean, encode, decode = after.mean, after.encode, after.decode
    reached = mean.clone()
    for direction, used in enumerate(kept):
        given = before.mean + sum(
            (
                (activations - before.mean) @ before.encode[:, [one]] * before.decode[one]
                for one in used.nonzero()[:, 0]
            ),
            torch.zeros_like(activations),
        )
        reached += (sections[place](given) - mean) @ encode[:, direction] * decode[direction]
    for section in sections[place + 1 :]:
        reached = section(reached)
    return reached


def test_a_wave_has_its_frequency() -> None:
    first, second = torch.cartesian_prod(torch.arange(7.0), torch.arange(7.0)).T
    turn = 2 * math.pi / 7
    waves = [
        torch.cos(turn * 2 * (first + second) + 1) + 5,
        torch.cos(turn * 3 * first) + torch.cos(turn * 3 * (first - second)),
        torch.cos(turn * second) + torch.sin(turn * 2 * second),
        torch.cos(turn * (first + 2 * second)),
    ]
    expected = [[0, 1, 0], [0, 0, 1], [0.5, 0.5, 0], [0, 0, 0]]
    torch.testing.assert_close(frequencies(torch.stack(waves, dim=1), 7).T, torch.tensor(expected))


def test_directions_with_the_frequency_of_most_of_their_module_are_counted() -> None:
    assert alike([[4, 4, 9], [9, 9], [], [4]]) == 5
    assert alike_by_chance([[4, 4], [4]]) == 3
    assert alike_by_chance([[1, 1, 1], [2, 2, 2]]) < 6
