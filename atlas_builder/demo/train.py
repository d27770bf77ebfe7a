"""Train a shipped model from nothing but the running interpreter's standard library.

    python -m atlas_builder.demo.train [--model gpt | relu | crate] [--output DIR] [--steps N]

Trains a byte-level BPE tokenizer and a model of 4 layers, holding out every 20th document,
and evaluates the model on the held-out documents beside a trigram model. Prints progress
and writes `training.json` beside the weights.

`gpt` is a GPT-2, `crate` a CRATE, and `relu` its twin, a GPT-2 with ReLU: those two see
the same tokens in the same order.
"""

from __future__ import annotations

import argparse
import json
import math
import platform
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import Tensor, nn
from torch.nn import functional
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

from atlas_builder.corpus.documents import stdlib_documents
from atlas_builder.demo.trigram import Trigram
from atlas_builder.models import crate
from atlas_builder.models.crate import Crate, CrateShape
from atlas_builder.shipped import CRATE, MODEL, RELU

BOS = "<|endoftext|>"
HELD_OUT_DOCUMENTS = 20

RECIPES_BY_MODEL = {"gpt": MODEL, "relu": RELU, "crate": CRATE}
STEPS = {"gpt": 7000, "relu": 4000, "crate": 4000}
"""The same for CRATE and its twin."""

Tokens = NDArray[np.int64]


@dataclass(frozen=True)
class Recipe:
    """Everything the weights depend on besides the interpreter's standard library."""

    vocabulary: int = 2048
    layers: int = 4
    heads: int = 4
    width: int = 128
    context: int = 128
    batch: int = 32
    steps: int = 7000
    model: str = "gpt"
    warm_up: int = 200
    learning_rate: float = 3e-3
    weight_decay: float = 0.1
    seed: int = 0


def main(arguments: list[str] | None = None) -> None:
    """Train, evaluate and save; `arguments` are those of the command line."""
    parser = argparse.ArgumentParser(description="Train the demo model on the standard library.")
    parser.add_argument("--model", choices=list(RECIPES_BY_MODEL), default="gpt")
    parser.add_argument("--output", type=Path, help="by default, the place of the shipped one")
    parser.add_argument("--steps", type=int)
    options = parser.parse_args(arguments)
    recipe = Recipe(model=options.model, steps=options.steps or STEPS[options.model])

    started = time.monotonic()
    texts = [document.text for document in stdlib_documents() if document.text.strip()]
    tokenizer = train_tokenizer(_training(texts), recipe.vocabulary)
    encoded = [np.array(encoding.ids, dtype=np.int64) for encoding in tokenizer.encode_batch(texts)]
    bos = int(tokenizer.token_to_id(BOS) or 0)  # the first special token
    training = join(_training(encoded), bos)
    held_out = join(encoded[::HELD_OUT_DOCUMENTS], bos)
    print(f"{len(texts)} documents, {len(training):,} training and {len(held_out):,} held-out tokens", flush=True)

    trigram = Trigram(training, recipe.vocabulary).loss(held_out)
    print(f"held-out loss of a trigram model: {trigram:.3f} nats a token", flush=True)

    model = train_model(training, held_out, bos, recipe)
    record = {
        "recipe": asdict(recipe),
        "corpus": {
            "source": "stdlib",
            "python": platform.python_version(),
            "documents": len(texts),
            "training_tokens": len(training),
            "held_out_tokens": len(held_out),
        },
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "loss": {
            "unit": "nats a token",
            "training": round(evaluate(model, training[: len(held_out)], bos, recipe.context), 4),
            "held_out": round(evaluate(model, held_out, bos, recipe.context), 4),
            "held_out_trigram": round(trigram, 4),
        },
        "minutes": round((time.monotonic() - started) / 60, 1),
        "processor_minutes": round(time.process_time() / 60, 1),
        "sample": sample_text(model, tokenizer, "def read_lines(path):\n", recipe),
    }
    save_model(model, tokenizer, record, options.output or RECIPES_BY_MODEL[options.model])
    print(json.dumps(record, indent=2))


T = TypeVar("T")


def _training(items: list[T]) -> list[T]:
    return [item for place, item in enumerate(items) if place % HELD_OUT_DOCUMENTS]


def train_tokenizer(texts: list[str], vocabulary: int) -> Tokenizer:
    """A byte-level BPE whose vocabulary has every byte, so that any text can be encoded."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=[BOS],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def join(documents: list[Tokens], bos: int) -> Tokens:
    """One stream, each document preceded by the beginning-of-sequence token."""
    return np.concatenate([part for document in documents for part in (np.array([bos]), document)])


def fresh(recipe: Recipe, bos: int) -> nn.Module:
    """A new model with random weights."""
    torch.manual_seed(recipe.seed)
    if recipe.model == "crate":
        return Crate(CrateShape(recipe.vocabulary, recipe.layers, recipe.heads, recipe.width, recipe.context))
    twin: nn.Module = GPT2LMHeadModel(
        GPT2Config(
            vocab_size=recipe.vocabulary,
            n_positions=recipe.context,
            n_embd=recipe.width,
            n_layer=recipe.layers,
            n_head=recipe.heads,
            activation_function="relu" if recipe.model == "relu" else "gelu_new",
            resid_pdrop=0.0,
            embd_pdrop=0.0,
            attn_pdrop=0.0,
            bos_token_id=bos,
            eos_token_id=bos,
        )
    )
    return twin


def logits_of(model: nn.Module, tokens: Tensor) -> Tensor:
    """Logits of (batch, context) tokens: (batch, context, vocabulary)."""
    output = model(tokens)
    logits: Tensor = output if isinstance(output, Tensor) else output.logits
    return logits


def loss_of(model: nn.Module, batch: Tensor) -> Tensor:
    """Mean loss in nats over the tokens after the first of each context."""
    logits = logits_of(model, batch)
    return functional.cross_entropy(logits[:, :-1].flatten(0, 1), batch[:, 1:].flatten())


def train_model(training: Tokens, held_out: Tokens, bos: int, recipe: Recipe) -> nn.Module:
    """AdamW with a cosine schedule over random windows of the training stream."""
    model = fresh(recipe, bos)
    matrices = [parameter for parameter in model.parameters() if parameter.ndim >= 2]
    vectors = [parameter for parameter in model.parameters() if parameter.ndim < 2]
    optimizer = torch.optim.AdamW(
        [{"params": matrices, "weight_decay": recipe.weight_decay}, {"params": vectors, "weight_decay": 0.0}],
        lr=recipe.learning_rate,
        betas=(0.9, 0.95),
    )
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: _cosine(step, recipe))
    started = time.monotonic()
    running = 0.0
    for step, batch in enumerate(_batches(training, bos, recipe), start=1):
        loss: Any = loss_of(model, batch)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        running += loss.item()
        if step % 100 == 0:
            rate = step * batch.numel() / (time.monotonic() - started)
            print(f"step {step:5d}  training loss {running / 100:.3f}  {rate:,.0f} tokens/s", flush=True)
            running = 0.0
        if step % 1000 == 0:
            print(f"step {step:5d}  held-out loss {evaluate(model, held_out, bos, recipe.context):.3f}", flush=True)
    return model.eval()


def _cosine(step: int, recipe: Recipe) -> float:
    """Linear warm-up, then a cosine from 1 to 0.1."""
    if step < recipe.warm_up:
        return (step + 1) / recipe.warm_up
    progress = (step - recipe.warm_up) / max(1, recipe.steps - recipe.warm_up)
    return 0.1 + 0.45 * (1 + math.cos(math.pi * min(1.0, progress)))


def _batches(stream: Tokens, bos: int, recipe: Recipe) -> Iterator[Tensor]:
    """Random windows, each beginning with the beginning-of-sequence token, as contexts of an atlas do."""
    generator = np.random.default_rng(recipe.seed)
    tokens = torch.from_numpy(stream)
    for _ in range(recipe.steps):
        starts = generator.integers(0, len(stream) - recipe.context, recipe.batch)
        batch = torch.stack([tokens[start : start + recipe.context] for start in starts])  # (batch, context)
        batch[:, 0] = bos
        yield batch


@torch.no_grad()
def evaluate(model: nn.Module, stream: Tokens, bos: int, context: int) -> float:
    """Mean loss over consecutive contexts of the stream, in nats a token."""
    width = context - 1
    whole = len(stream) // width * width
    contexts = torch.from_numpy(stream[:whole].reshape(-1, width))
    contexts = torch.cat([torch.full((len(contexts), 1), bos), contexts], dim=1)  # (contexts, context)
    model.eval()
    total = 0.0
    for first in range(0, len(contexts), 64):
        batch = contexts[first : first + 64]
        total += loss_of(model, batch).item() * len(batch)
    model.train()
    return total / len(contexts)


@torch.no_grad()
def sample_text(model: nn.Module, tokenizer: Tokenizer, prompt: str, recipe: Recipe, temperature: float = 0.7) -> str:
    """The prompt with the model's continuation, up to the length of its context."""
    generator = torch.Generator().manual_seed(recipe.seed)
    tokens = [int(tokenizer.token_to_id(BOS) or 0), *tokenizer.encode(prompt).ids]
    while len(tokens) < recipe.context:
        logits = logits_of(model, torch.tensor([tokens]))[0, -1] / temperature
        token = int(torch.multinomial(logits.softmax(-1), 1, generator=generator))
        if token == tokens[0]:
            break
        tokens.append(token)
    return str(tokenizer.decode(tokens[1:]))


def save_model(model: nn.Module, tokenizer: Tokenizer, record: dict[str, object], output: Path) -> None:
    """Write weights as safetensors, the tokenizer and the record of the training into a folder."""
    output.mkdir(parents=True, exist_ok=True)
    if isinstance(model, Crate):
        crate.save_crate(model, output)
    elif isinstance(model, GPT2LMHeadModel):
        model.save_pretrained(output)
    wrapped = PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token=BOS, eos_token=BOS)
    wrapped.save_pretrained(output)
    (output / "training.json").write_text(json.dumps(record, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
