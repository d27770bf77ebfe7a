"""Edges between directions of neighbouring layers, against whole Jacobians and changes that leave a network alone."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import orjson
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray
from safetensors.torch import save_file
from torch import Tensor

from atlas_builder.config import Configuration, ModelSettings
from atlas_builder.corpus.contexts import Contexts
from atlas_builder.describe import interactions
from atlas_builder.describe.interactions import Pair, floor_of, measure_edges, spread_contexts
from atlas_builder.describe.results import Interactions, edges_file, write_modules
from atlas_builder.errors import ActivationError, ModelError
from atlas_builder.interaction import Basis, edges, modules
from atlas_builder.models.language_model import LanguageModel, load_model
from atlas_builder.progress import Progress
from atlas_builder.rotate.results import FACTS, ROTATION_FILE, Rotation
from atlas_builder.units.base import StopForwardPass
from tests.support.atlases import Configure
from tests.support.models import SHAPES

WIDTH, KEPT = 16, (5, 4)
TOLERANCE = 1e-6


def drawn(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def directions(seed: int, kept: int) -> Basis:
    """Some directions of an input; that they are an interaction basis plays no part."""
    turned = torch.linalg.qr(drawn(seed, WIDTH, WIDTH)).Q * (1 + drawn(seed + 1, WIDTH).abs())
    return Basis(drawn(seed + 2, WIDTH), turned[:, :kept], torch.linalg.inv(turned)[:kept], torch.ones(kept))


def rotation_of(folder: Path, *layers: Basis) -> Rotation:
    folder.mkdir(exist_ok=True)
    stored = {
        f"L{number}.{name}": array.contiguous() for number, basis in enumerate(layers)
        for name, array in basis._asdict().items()
    }  # fmt: skip
    facts = orjson.dumps({"layers": list(range(len(layers)))}).decode()
    save_file(stored, folder / ROTATION_FILE, metadata={FACTS: facts})
    return Rotation(folder)


def contexts_of(*lengths: int, bos: int | None = 0) -> Contexts:
    tokens = np.random.default_rng(0).integers(1, 2048, sum(lengths)).astype(np.int32)
    document = np.arange(len(lengths), dtype=np.int32)
    starts = np.cumsum([0, *lengths])
    return Contexts(tokens, starts, document, np.zeros_like(document), ["text"] * len(lengths), bos, "")


def exact(folder: Path) -> LanguageModel:
    """A model in float64: what is compared is the formula, not rounding."""
    loaded = load_model(ModelSettings(name=str(folder)))
    loaded.bridge.double()
    return loaded


def run_between(bridge: Any, text: Tensor, inputs: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """What enters the MLPs of both layers; with `inputs` in place of what enters the first."""
    seen: list[Tensor] = []

    def first(tensor: Tensor, hook: Any) -> Tensor:
        seen.append(tensor if inputs is None else inputs)
        return seen[0]

    def second(tensor: Tensor, hook: Any) -> None:
        seen.append(tensor)
        raise StopForwardPass

    with suppress(StopForwardPass):
        hooks = [("blocks.0.mlp.hook_in", first), ("blocks.1.mlp.hook_in", second)]
        bridge.run_with_hooks(text, fwd_hooks=hooks, return_type=None)
    return seen[0], seen[1]


def slowly(loaded: LanguageModel, contexts: Contexts, before: Basis, after: Basis) -> NDArray[np.float64]:
    """The same edges from the whole Jacobian of every context."""
    first = int(contexts.bos is not None)
    total = torch.zeros(len(after.importance), len(before.importance), dtype=torch.float64)
    for context in range(len(contexts)):
        text = torch.from_numpy(contexts.stack(np.array([context])))
        inputs = run_between(loaded.bridge, text)[0].detach()

        def following(given: Tensor, text: Tensor = text) -> Tensor:
            return run_between(loaded.bridge, text, given)[1][0]

        jacobian: Any = torch.autograd.functional.jacobian(following, inputs)  # type: ignore[no-untyped-call]
        jacobian = jacobian[first:, :, 0, first:]  # (after, out, before, d)
        rows = inputs[:, first:].expand(len(jacobian), -1, -1)
        total += edges(rows, jacobian, before, after) * len(jacobian)
    return (total / contexts.token_count).numpy()


@pytest.fixture
def configuration(configure: Configure) -> Configuration:
    return configure(interaction={"edge_tokens": 1000, "edges_shown": 0.2})


def measured(
    loaded: LanguageModel, rotation: Rotation, contexts: Contexts, config: Configuration, folder: Path
) -> NDArray[np.float64]:
    folder.mkdir(exist_ok=True)
    measure_edges(loaded, rotation, contexts, config, folder, Progress(quiet=True))
    return Interactions(folder).edges(0)


@pytest.mark.parametrize("family", sorted(SHAPES))
@pytest.mark.parametrize("bos", [0, None])
def test_edges_are_those_of_whole_jacobians(
    family: str, bos: int | None, tiny_model: Callable[[str], Path], configuration: Configuration, tmp_path: Path
) -> None:
    loaded, contexts = exact(tiny_model(family)), contexts_of(6, 3, bos=bos)
    before, after = directions(0, KEPT[0]), directions(10, KEPT[1])
    found = measured(loaded, rotation_of(tmp_path, before, after), contexts, configuration, tmp_path / "describe")
    np.testing.assert_allclose(found, slowly(loaded, contexts, before, after), rtol=TOLERANCE)


def test_edges_of_a_model_in_float32_are_right_to_its_precision(
    gpt2_folder: Path, configuration: Configuration, tmp_path: Path
) -> None:
    contexts, rotation = contexts_of(20, 20), rotation_of(tmp_path, directions(0, 5), directions(10, 4))
    plain = load_model(ModelSettings(name=str(gpt2_folder)))
    found = measured(plain, rotation, contexts, configuration, tmp_path / "plain")
    precise = measured(exact(gpt2_folder), rotation, contexts, configuration, tmp_path / "precise")
    np.testing.assert_allclose(found, precise, rtol=1e-4)


def test_edges_do_not_see_how_units_are_ordered_and_scaled(
    tiny_model: Callable[[str], Path], configuration: Configuration, tmp_path: Path
) -> None:
    loaded, contexts = exact(tiny_model("gpt2")), contexts_of(6, 6)
    before, after = directions(0, KEPT[0]), directions(10, KEPT[1])
    for block in loaded.bridge.original_model.transformer.h:  # a ReLU's units may be scaled
        block.mlp.act = torch.nn.ReLU()
    one = measured(loaded, rotation_of(tmp_path / "one", before, after), contexts, configuration, tmp_path / "here")
    inputs = run_between(loaded.bridge, torch.from_numpy(contexts.stack(np.array([0]))))[0]
    scale = drawn(7, 24).exp()
    order = torch.from_numpy(np.random.default_rng(0).permutation(24))
    gain = drawn(8, WIDTH).exp()
    with torch.no_grad():
        mlp, norm = (getattr(loaded.bridge.original_model.transformer.h[0], name) for name in ("mlp", "ln_2"))
        reads, writes = (getattr(layer, "original_component", layer) for layer in (mlp.c_fc, mlp.c_proj))
        gained = getattr(norm, "original_component", norm)
        reads.weight.copy_((reads.weight * scale)[:, order] / gain[:, None])
        reads.bias.copy_((reads.bias * scale)[order])
        writes.weight.copy_((writes.weight / scale[:, None])[order])
        gained.weight.mul_(gain)
        gained.bias.mul_(gain)
    changed = run_between(loaded.bridge, torch.from_numpy(contexts.stack(np.array([0]))))[0]
    torch.testing.assert_close(changed, inputs * gain)
    scaled = Basis(before.mean * gain, before.encode / gain[:, None], before.decode * gain, before.importance)
    other = measured(loaded, rotation_of(tmp_path / "two", scaled, after), contexts, configuration, tmp_path / "there")
    np.testing.assert_allclose(other, one, rtol=TOLERANCE)


def test_a_stopped_run_goes_on_where_it_was_and_gives_the_same_bytes(
    gpt2_folder: Path, configuration: Configuration, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded, contexts = load_model(ModelSettings(name=str(gpt2_folder))), contexts_of(9, 9, 4)
    rotation = rotation_of(tmp_path, directions(0, 5), directions(10, 4))
    whole, part = tmp_path / "whole", tmp_path / "part"
    measured(loaded, rotation, contexts, configuration, whole)
    part.mkdir()
    with monkeypatch.context() as stopped:
        stopped.setattr(interactions, "modules", lambda *_: pytest.fail("stopped"))
        with pytest.raises(pytest.fail.Exception):
            measured(loaded, rotation, contexts, configuration, part)
    monkeypatch.setattr(Pair, "squares", lambda *_: pytest.fail("a finished pair ran again"))
    measured(loaded, rotation, contexts, configuration, part)
    files = {file.name: file.read_bytes() for file in whole.iterdir()}
    assert files == {file.name: file.read_bytes() for file in part.iterdir()}
    assert set(files) == {"edges-L0.npy", "modules.json"}


@pytest.mark.parametrize("fault", ["cut", "refused"])
def test_a_model_that_cannot_be_differentiated_is_refused_in_a_sentence(
    fault: str, gpt2_folder: Path, configuration: Configuration, tmp_path: Path
) -> None:
    loaded = load_model(ModelSettings(name=str(gpt2_folder)))

    def outputs(module: Any, inputs: Any, output: Tensor) -> Tensor:
        if fault == "refused":
            raise NotImplementedError("Trying to use forward AD with an operator that does not support it")
        return output.detach().round().int().float()

    loaded.bridge.original_model.transformer.h[1].ln_2.register_forward_hook(outputs)
    rotation = rotation_of(tmp_path, directions(0, 5), directions(10, 4))
    with pytest.raises(ModelError, match=r"cannot be differentiated .* float32"):
        measured(loaded, rotation, contexts_of(6), configuration, tmp_path / "describe")


def test_derivatives_that_are_no_numbers_are_refused(
    gpt2_folder: Path, configuration: Configuration, tmp_path: Path
) -> None:
    loaded = load_model(ModelSettings(name=str(gpt2_folder)))
    before = directions(0, 5)
    broken = before._replace(decode=torch.full_like(before.decode, float("nan")))
    with pytest.raises(ActivationError, match="NaN"):
        measured(
            loaded, rotation_of(tmp_path, broken, directions(10, 4)), contexts_of(6), configuration, tmp_path / "out"
        )


@given(arrays(np.float64, (7, 6), elements=st.sampled_from([0.0, 1e-300, 0.5, 1.0, 1.5, 3.0])), st.floats(0.001, 1))
def test_edges_above_the_floor_are_the_asked_share_with_what_equals_them(
    strengths: NDArray[np.float64], share: float
) -> None:
    floor = floor_of(strengths, share)
    assert floor > 0 or not (strengths > floor).any() or strengths[strengths > 0].min() < 1e-299
    shown = strengths > floor
    asked = max(1, round(share * strengths.size))
    assert shown.sum() >= min(asked, (strengths > 0).sum())
    if shown.any():
        assert (strengths > strengths[shown].min()).sum() < asked  # all but the weakest shown are too few
        assert not shown[strengths == 0].any()


@given(st.lists(st.integers(1, 30), min_size=1, max_size=40), st.integers(1, 1000))
def test_contexts_are_spread_over_the_text(lengths: list[int], tokens: int) -> None:
    chosen = spread_contexts(contexts_of(*lengths), tokens)
    assert len(chosen) >= 1
    assert ((chosen >= 0) & (chosen < len(lengths))).all()
    assert (np.diff(chosen) > 0).all()
    if tokens >= sum(lengths):
        assert len(chosen) == len(lengths)
    elif len(chosen) > 1:
        assert max(np.diff(chosen)) - min(np.diff(chosen)) <= 1


def test_two_models_side_by_side_are_two_modules(tmp_path: Path) -> None:
    """Directions 0–3 of each layer are of the one, 4–6 of the other; an odd order must not matter."""
    order = [np.random.default_rng(place).permutation(7) for place in range(3)]
    strengths = []
    for one, other in itertools.pairwise(order):
        whole = np.zeros((7, 7))
        whole[:4, :4] = np.random.default_rng(1).uniform(1, 2, (4, 4))
        whole[4:, 4:] = np.random.default_rng(2).uniform(1, 2, (3, 3))
        strengths.append(whole[other][:, one])
    floors = [floor_of(matrix, 1.0) for matrix in strengths]
    found = modules([torch.from_numpy(matrix) for matrix in strengths], floors)
    layers = [2, 5, 9]
    for layer, matrix in zip(layers, strengths, strict=False):
        np.save(edges_file(tmp_path, layer), matrix)
    members = [[(layers[place], direction) for place, direction in group] for group in found.members]
    write_modules(tmp_path, dict(zip([(2, 5), (5, 9)], floors, strict=True)), found.quality, members, 100)
    read = Interactions(tmp_path)
    picks: list[Callable[[int], bool]] = [lambda one: one < 4, lambda one: one >= 4]
    planted = [
        sorted((layer, at) for layer, turned in zip(layers, order, strict=True) for at in range(7) if pick(turned[at]))
        for pick in picks
    ]
    assert read.modules == planted
    assert [read.module_of(*group[0]) for group in planted] == [1, 2]
    assert (read.layers, read.after, read.tokens) == ([2, 5], {2: 5, 5: 9}, 100)
    assert len(read.shown(2)) == (strengths[0] > floors[0]).sum() == 16 + 9
    middle = read.strongest(5, 3)
    assert [edge.strength for edge in middle.incoming] == sorted(strengths[0][3][strengths[0][3] > 0], reverse=True)
    assert {edge.layer for edge in middle.outgoing} == {9}
    assert read.strongest(2, 0).incoming == read.strongest(9, 0).outgoing == []


def test_one_layer_alone_has_no_edges(
    gpt2_folder: Path, configuration: Configuration, tmp_path: Path
) -> None:  # fmt: skip
    loaded = SimpleNamespace(bridge=None)
    rotation = rotation_of(tmp_path, directions(0, 5))
    folder = tmp_path / "describe"
    folder.mkdir()
    measure_edges(loaded, rotation, contexts_of(6), configuration, folder, Progress(quiet=True))  # type: ignore[arg-type]
    read = Interactions(folder)
    assert (read.layers, read.modules, read.module_of(0, 0)) == ([], [], None)
    assert read.strongest(0, 0) == ([], [])
