"""Train a sparse autoencoder with a penalty for polysemantic latents (Foote 2024, arXiv 2411.08166).

    python -m atlas_builder.train_sae [--weight W] [--layers N…] [--tokens T] --output DIR

trains one on the MLP input of each layer of the shipped model, `DIR/L0` and so on. The loss is the squared error of
the reconstruction, the sum of the latents, and, as an option, the paper's

    L_N = Σ over active latents of 1 − cos(h̄_j ⊙ w_j, h ⊙ w_j)

with w_j the latent's encoder row and h̄_j the running mean, of momentum 0.9, of the encoder
inputs that it is active on: a latent is penalised for activating on inputs whose neuron
embedding differs from its usual one. The paper does not state the weight of L_N.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from torch import Tensor
from torch.nn import functional

from atlas_builder.config_file import validate
from atlas_builder.corpus import contexts, documents
from atlas_builder.models import language_model, sae
from atlas_builder.models.memory import as_float32
from atlas_builder.models.sae import SAE
from atlas_builder.units.open import open_units

MOMENTUM = 0.9
_TINY = 1e-8
_TOKENS_AT_ONCE = 8192


@dataclass(frozen=True)
class SAERecipe:
    """Everything an SAE depends on besides its data."""

    latents: int = 512
    sparsity: float = 1.5
    """Weight of the sum of latents, per input and coordinate of the input."""
    neuron_embedding: float = 0.0
    """Weight of L_N, per input."""
    learning_rate: float = 1e-3
    batch: int = 1024
    steps: int = 4000
    seed: int = 0


class Trainer:
    """A standard SAE in training; inputs are (batch, width)."""

    def __init__(self, width: int, recipe: SAERecipe, mean: Tensor) -> None:
        self.recipe = recipe
        chance = torch.Generator().manual_seed(recipe.seed)
        decoder = functional.normalize(torch.randn(recipe.latents, width, generator=chance), dim=1)
        self.weights = {
            "W_enc": decoder.T.clone(),
            "W_dec": decoder,
            "b_enc": torch.zeros(recipe.latents),
            "b_dec": mean.clone(),
        }
        for tensor in self.weights.values():
            tensor.requires_grad_()
        self.usual = torch.zeros(recipe.latents, width)
        """h̄ of each latent."""
        self._met = torch.zeros(recipe.latents, dtype=torch.bool)
        self._optimizer = torch.optim.Adam(self.weights.values(), lr=recipe.learning_rate)

    def step(self, inputs: Tensor) -> dict[str, float]:
        """Train on a batch; returns the terms of its loss, each as a mean over inputs."""
        read = inputs - self.weights["b_dec"]
        latents = functional.relu(read @ self.weights["W_enc"] + self.weights["b_enc"])
        error = (latents @ self.weights["W_dec"] - read).square().mean()
        active = latents.detach() > 0
        self._follow(read.detach(), active)
        loss = error + self.recipe.sparsity * latents.sum(1).mean() / inputs.shape[1]
        apart = torch.zeros(())
        if self.recipe.neuron_embedding:
            apart = neuron_embedding_loss(read, self.usual, self.weights["W_enc"], active) / len(inputs)
            loss = loss + self.recipe.neuron_embedding * apart
        self._optimizer.zero_grad(set_to_none=True)
        torch.autograd.backward(loss)
        self._optimizer.step()
        with torch.no_grad():  # longer rows would let latents shrink and lower the sparsity loss
            self.weights["W_dec"].copy_(functional.normalize(self.weights["W_dec"], dim=1))
        return {"error": error.item(), "active": active.sum(1).float().mean().item(), "apart": apart.item()}

    def _follow(self, read: Tensor, active: Tensor) -> None:
        """Update the running mean of the inputs on which each latent is active."""
        counts = active.sum(0)
        now = (active.T.float() @ read) / counts.clamp(min=1)[:, None]  # (latents, width)
        share = torch.where(self._met, 1 - MOMENTUM, 1.0)[:, None]
        self.usual = torch.where(counts[:, None] > 0, self.usual + share * (now - self.usual), self.usual)
        self._met |= counts > 0

    def sae(self, layer: int, place: str, name: str | None) -> SAE:
        """The trained SAE."""
        tensors = {key: tensor.detach().clone() for key, tensor in self.weights.items()}
        return SAE("standard", layer, place, tensors, model=name)


def neuron_embedding_loss(read: Tensor, usual: Tensor, encoder: Tensor, active: Tensor) -> Tensor:
    """L_N summed over a batch: `read` (batch, width), `usual` (latents, width), `active` (batch, latents).

    The cosine of h̄ ⊙ w and h ⊙ w is Σ h̄ h w² over both lengths, so it needs products of
    matrices only and never all embeddings at once.
    """
    squares = encoder.T.square()  # (latents, width)
    dot = read @ (usual * squares).T  # (batch, latents)
    lengths = (read.square() @ squares.T).clamp(min=_TINY).sqrt()
    usually = (usual.square() * squares).sum(1).clamp(min=_TINY).sqrt()
    return ((1 - dot / (lengths * usually)) * active).sum()


def train_sae(inputs: Tensor, recipe: SAERecipe) -> Trainer:
    """Train on rows of `inputs`, (rows, width), drawn at random."""
    trainer = Trainer(inputs.shape[1], recipe, inputs.mean(0))
    for step, rows in enumerate(_draws(len(inputs), recipe), start=1):
        losses = trainer.step(inputs[rows])
        if step % 500 == 0:
            print(f"step {step:5d}  " + "  ".join(f"{name} {value:.4g}" for name, value in losses.items()), flush=True)
    return trainer


def _draws(rows: int, recipe: SAERecipe) -> Iterator[Tensor]:
    chance = torch.Generator().manual_seed(recipe.seed)
    for _ in range(recipe.steps):
        yield torch.randint(rows, (recipe.batch,), generator=chance)


def mlp_inputs(layer: int, tokens: int = 400_000) -> Tensor:
    """The MLP inputs of a layer of the shipped model, on so many tokens of its corpus: (tokens, width)."""
    config = validate(
        {
            "model": {"name": "demo"},
            "corpus": {"source": "stdlib", "max_tokens": tokens},
            "units": {"layers": [layer]},
        }
    )
    loaded = language_model.load_model(config.model)
    units = open_units(loaded, config)
    head = 1 if loaded.bos is not None else 0
    rows: list[Tensor] = []
    with TemporaryDirectory() as scratch:
        read = contexts.write_contexts(
            documents.documents(config.corpus),
            loaded.encode,
            Path(scratch),
            context=config.corpus.context,
            bos=loaded.bos,
            max_tokens=config.corpus.max_tokens,
        )
        for batch in read.batches(_TOKENS_AT_ONCE):
            text = torch.from_numpy(read.stack(batch))
            units.run(text, lambda _, inputs, __: rows.append(as_float32(inputs[:, head:].flatten(0, 1)).clone()))
    return torch.cat(rows)


def main(arguments: list[str] | None = None) -> None:
    """Train one SAE a layer for the shipped model and save them in SAELens's layout."""
    parser = argparse.ArgumentParser(description="Train sparse autoencoders on the shipped model.")
    parser.add_argument("--weight", type=float, default=0.0, help="weight of the neuron-embedding term")
    parser.add_argument("--layers", type=int, nargs="+", default=[0, 1, 2, 3])
    parser.add_argument("--tokens", type=int, default=400_000)
    parser.add_argument("--output", type=Path, required=True)
    options = parser.parse_args(arguments)
    recipe = SAERecipe(neuron_embedding=options.weight)
    for layer in options.layers:
        trainer = train_sae(mlp_inputs(layer, options.tokens), recipe)
        trained = trainer.sae(layer, "mlp.hook_in", "demo")
        sae.save_sae(trained, options.output / f"L{layer}", recipe=vars(recipe), tokens=options.tokens)


if __name__ == "__main__":
    main()
