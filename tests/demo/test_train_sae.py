"""Training sparse autoencoders with the neuron-embedding term."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from atlas_builder.demo.train_sae import MOMENTUM, SAERecipe, Trainer, main, neuron_embedding_loss, train_sae
from atlas_builder.models import sae
from atlas_builder.models.sae_folders import find_saes


def test_the_term_is_what_its_formula_says() -> None:
    chance = torch.Generator().manual_seed(0)
    read, usual = torch.randn(7, 5, generator=chance), torch.randn(4, 5, generator=chance)
    encoder = torch.randn(5, 4, generator=chance)
    active = torch.rand(7, 4, generator=chance) > 0.4
    found = 0.0
    for row in range(7):
        for latent in range(4):
            if active[row, latent]:
                usually, now = (usual[latent] * encoder[:, latent]).numpy(), (read[row] * encoder[:, latent]).numpy()
                found += 1 - float(usually @ now) / float(np.linalg.norm(usually) * np.linalg.norm(now))
    assert float(neuron_embedding_loss(read, usual, encoder, active)) == pytest.approx(found, rel=1e-5)


def test_the_usual_input_follows_those_that_a_latent_is_active_on() -> None:
    trainer = Trainer(2, SAERecipe(latents=3), torch.zeros(2))
    first, second = torch.tensor([[1.0, 0.0], [3.0, 2.0], [9.0, 9.0]]), torch.tensor([[5.0, 5.0]])
    trainer._follow(first, torch.tensor([[True, False, False], [True, False, False], [False, True, False]]))
    assert trainer.usual.tolist() == [[2, 1], [9, 9], [0, 0]]
    trainer._follow(second, torch.tensor([[True, False, False]]))
    assert trainer.usual[0].tolist() == pytest.approx([MOMENTUM * 2 + 0.5, MOMENTUM * 1 + 0.5])
    assert trainer.usual[1].tolist() == [9, 9]


def _mixed() -> torch.Tensor:
    """Inputs that are sums of a few of 24 directions in 12 dimensions: more than a basis can separate."""
    chance = torch.Generator().manual_seed(1)
    directions = torch.nn.functional.normalize(torch.randn(24, 12, generator=chance), dim=1)
    on = (torch.rand(4000, 24, generator=chance) < 0.08) * torch.rand(4000, 24, generator=chance)
    return on @ directions + 0.01 * torch.randn(4000, 12, generator=chance)


def _mean_distance(trainer: Trainer, inputs: torch.Tensor) -> float:
    """Mean over latents of the mean 1 − cos between embeddings of inputs that the latent is active on."""
    found = trainer.sae(0, "mlp.hook_in", None)
    read = found.read(inputs)
    latents, rows = found.encode(read), found.tensors["W_enc"].T
    means = []
    for latent in range(found.latents):
        own = read[latents[:, latent] > 0] * rows[latent]
        if len(own) >= 2:
            unit = torch.nn.functional.normalize(own, dim=1)
            cosines = unit @ unit.T
            means.append(float(1 - (cosines.sum() - len(own)) / (len(own) * (len(own) - 1))))
    return float(np.mean(means))


def test_training_explains_inputs_and_the_term_draws_embeddings_together() -> None:
    inputs = _mixed()
    recipe = SAERecipe(latents=48, sparsity=0.3, batch=256, steps=600, learning_rate=3e-3)
    plain = train_sae(inputs, recipe)
    with_term = train_sae(inputs, SAERecipe(**{**vars(recipe), "neuron_embedding": 0.01}))
    found = plain.sae(0, "mlp.hook_in", None)
    explained = found.decode(found.encode(found.read(inputs)))
    assert float((explained - inputs).square().mean()) < 0.3 * float(inputs.var(0).mean())
    assert _mean_distance(with_term, inputs) < 0.9 * _mean_distance(plain, inputs)


def test_training_twice_gives_the_same_bytes_which_load(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    inputs = _mixed()[:500]
    for name in ("a", "b"):
        trainer = train_sae(inputs, SAERecipe(latents=8, batch=32, steps=5, neuron_embedding=0.1))
        sae.save_sae(trainer.sae(2, "mlp.hook_in", "demo"), tmp_path / name)
    for file in ("cfg.json", "sae_weights.safetensors"):
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()
    loaded = sae.load_sae(tmp_path / "a")
    assert (loaded.layer, loaded.place, loaded.latents, loaded.model) == (2, "mlp.hook_in", 8, "demo")


def test_the_command_trains_on_the_shipped_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(SAERecipe, "__init__", _short(SAERecipe.__init__))
    main(["--tokens", "500", "--weight", "0.1", "--layers", "1", "3", "--output", str(tmp_path / "saes")])
    assert [(one.layer, one.width) for one in map(sae.load_sae, find_saes(tmp_path / "saes"))] == [
        (1, 128),
        (3, 128),
    ]


def _short(made: Callable[..., None]) -> Callable[..., None]:
    def short(self: SAERecipe, **given: object) -> None:
        made(self, **{"latents": 16, "batch": 32, "steps": 3, **given})

    return short
