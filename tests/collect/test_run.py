"""The pass as a whole: killed, sharded, short of memory, watched."""

from __future__ import annotations

import multiprocessing
import os
import random
import shutil
import time
from collections.abc import Callable
from concurrent.futures import Executor
from pathlib import Path
from typing import Any

import pytest
import torch

from atlas_builder.collect import run
from atlas_builder.collect.checkpoints import Collectors
from atlas_builder.config import Configuration
from atlas_builder.errors import ConfigurationError, OutOfMemoryError
from atlas_builder.models import language_model, memory
from atlas_builder.pipeline import shards
from atlas_builder.pipeline.build import build
from atlas_builder.units import open as open_module
from atlas_builder.units.mlp import MLPUnits
from atlas_builder.units.open import open_units
from atlas_builder.workspace import work_folder
from tests.support.atlases import Configure, Listener, digests


def collected(output: Path) -> dict[str, str]:
    return digests(work_folder(output) / "collect")


def make_batches_small(patch: pytest.MonkeyPatch) -> None:
    """Many batches and checkpoints of a small corpus."""
    patch.setattr(memory, "BATCH_TOKENS", 128)
    patch.setattr(run, "_CONTEXTS_BETWEEN_CHECKPOINTS", 8)


@pytest.fixture
def small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    make_batches_small(monkeypatch)


def collect_only(settings: Configuration, output: Path) -> None:
    """What a process does that may be killed; with the engine of the device, a second run is part of it."""
    with pytest.MonkeyPatch.context() as patch:
        make_batches_small(patch)
        patch.setattr(run, "reads_again", lambda *_: True)
        build(settings, output, until="collect")


@pytest.mark.parametrize("engine", ["loops", "device"])
def test_a_pass_killed_at_ten_random_moments_goes_on_to_the_same_bytes(
    configure: Configure, llama_folder: Path, tmp_path: Path, engine: str
) -> None:
    # A server that has imported everything forks processes which are at work at once.
    server = multiprocessing.get_context("forkserver")
    preloaded = ["tests.collect.test_run", "tests.support.preloaded", "transformer_lens.model_bridge"]
    server.set_forkserver_preload(preloaded)
    settings = configure(model={"name": str(llama_folder), "engine": engine})

    def start(output: Path) -> Any:
        process = server.Process(target=collect_only, args=(settings, output))
        process.start()
        return process

    for _ in range(2):  # the first run also starts the server
        shutil.rmtree(work_folder(tmp_path / "whole"), ignore_errors=True)
        begun = time.monotonic()
        whole = start(tmp_path / "whole")
        whole.join()
        lasts = time.monotonic() - begun
        assert whole.exitcode == 0
    wanted = collected(tmp_path / "whole")

    chance, halfway = random.Random(0), 0
    killed = tmp_path / "killed"
    for number in range(10):
        process = start(killed)
        if number % 2:  # in the midst of the pass, however long it takes to begin
            _await_checkpoint(process, killed)
            time.sleep(chance.uniform(0, 0.2))
        else:
            time.sleep(chance.uniform(0.2, 0.9) * lasts)
        process.kill()
        process.join()
        if (work_folder(killed) / "collect").exists():
            assert collected(killed) == wanted
            shutil.rmtree(work_folder(killed))
        halfway += (work_folder(killed) / ".collect.draft" / "pass" / "pass.json").exists()
    assert halfway >= 3
    last = start(killed)
    last.join()
    assert last.exitcode == 0
    assert collected(killed) == wanted


def _await_checkpoint(process: Any, output: Path) -> None:
    """Wait until the process has written one, or has ended."""
    mark = work_folder(output) / ".collect.draft" / "pass" / "pass.json"

    def written() -> float:
        try:
            return mark.stat().st_mtime
        except OSError:
            return 0.0

    before = written()
    while process.is_alive() and written() == before:
        time.sleep(0.002)


def test_a_build_that_ends_while_it_tidies_up_has_lost_nothing(
    configure: Configure, pool: Executor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    build(configure(), tmp_path / "whole", until="collect", executor=pool)

    remove = shutil.rmtree

    def half_removed(folder: Path | str, **options: Any) -> None:
        if (read := Path(folder) / "L0" / "read.npy").exists() and Path(folder).name == "pass":
            read.unlink()
            raise KeyboardInterrupt
        remove(folder, **options)

    with monkeypatch.context() as patch:
        patch.setattr(shutil, "rmtree", half_removed)
        with pytest.raises(KeyboardInterrupt):
            build(configure(), tmp_path / "stopped", until="collect", executor=pool)
    assert not (work_folder(tmp_path / "stopped") / "collect").exists()
    build(configure(), tmp_path / "stopped", until="collect", executor=pool)
    assert collected(tmp_path / "stopped") == collected(tmp_path / "whole")


@pytest.mark.parametrize(
    ("pattern", "harm", "said"),
    [
        (
            "after-*/L1.npz",
            lambda path: path.write_bytes(path.read_bytes()[:-1] + b"x"),
            "is not what was written after",
        ),
        ("after-*/L0.npz", lambda path: path.unlink(), "is not what was written after"),
        ("L0/inputs.*.f32", lambda path: os.truncate(path, path.stat().st_size - 4), "is missing or has lost its end"),
        ("L1/windows.*.f32", lambda path: path.unlink(), "is missing or has lost its end"),
        ("pass.json", lambda path: path.write_text("{"), "pass.json is not what was written"),
    ],
)
def test_a_pass_whose_checkpoint_was_damaged_begins_again_to_the_same_bytes(
    configure: Configure,
    pool: Executor,
    tmp_path: Path,
    small_batches: None,
    monkeypatch: pytest.MonkeyPatch,
    pattern: str,
    harm: Callable[[Path], object],
    said: str,
) -> None:
    checkpoint = Collectors.checkpoint

    def stop_after(collectors: Collectors) -> None:
        checkpoint(collectors)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Collectors, "checkpoint", stop_after)
        with pytest.raises(KeyboardInterrupt):
            build(configure(), tmp_path / "site", until="collect", executor=pool)
    (damaged,) = (work_folder(tmp_path / "site") / ".collect.draft" / "pass").glob(pattern)
    harm(damaged)
    listener = Listener()
    build(configure(), tmp_path / "site", until="collect", executor=pool, progress=listener)
    build(configure(), tmp_path / "whole", until="collect", executor=pool)
    assert listener.lines[0].startswith("collect: begins again, since ")
    assert said in listener.lines[0]
    assert collected(tmp_path / "site") == collected(tmp_path / "whole")


def test_the_pass_stops_before_the_unembedding(
    configure: Configure, pool: Executor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = open_units

    def without_unembedding(loaded: language_model.LanguageModel, config: Configuration) -> Any:
        def refuse(*_: Any) -> None:
            raise AssertionError("the unembedding ran")

        assert loaded.has_direct_logits  # looks at the logits of a few tokens, once
        loaded.bridge.original_model.get_output_embeddings().register_forward_pre_hook(refuse)
        with pytest.raises(AssertionError):
            loaded.bridge(torch.zeros((1, 2), dtype=torch.long))
        return opened(loaded, config)

    monkeypatch.setattr(open_module, "open_units", without_unembedding)
    build(configure(), tmp_path / "site", until="collect", executor=pool)


@pytest.mark.usefixtures("small_batches")
@pytest.mark.parametrize("of", [1, 3, 7])
def test_the_number_of_shards_leaves_no_trace(of: int, configure: Configure, pool: Executor, tmp_path: Path) -> None:
    settings = configure()
    build(settings, tmp_path / "whole", until="collect", executor=pool)
    folders = [shards.collect_shard(settings, tmp_path / "parts", number, of) for number in range(1, of + 1)]
    (tmp_path / "moved").mkdir()
    moved = [Path(shutil.move(folder, tmp_path / "moved" / folder.name)) for folder in folders]
    moved.reverse()
    shards.merge_shards(settings, tmp_path / "parts", moved)
    assert collected(tmp_path / "parts") == collected(tmp_path / "whole")
    # The build goes on from there.
    listener = Listener()
    build(settings, tmp_path / "parts", until="cluster", executor=pool, progress=listener)
    assert "collect: unchanged" in listener.lines


def test_shards_run_through_an_executor(configure: Configure, pool: Executor, tmp_path: Path) -> None:
    shards.collect_shards(configure(), tmp_path / "parts", 2, pool)
    build(configure(), tmp_path / "whole", until="collect", executor=pool)
    assert collected(tmp_path / "parts") == collected(tmp_path / "whole")


def test_shards_that_do_not_fit_are_refused(configure: Configure, tmp_path: Path) -> None:
    settings, output = configure(), tmp_path / "site"
    with pytest.raises(ConfigurationError, match="no shards to merge"):
        shards.merge_shards(settings, output)
    first = shards.collect_shard(settings, output, 1, 2)
    with pytest.raises(ConfigurationError, match="shard 2/2 is missing"):
        shards.merge_shards(settings, output)
    shards.collect_shard(configure(examples={"seed": 5}), output, 2, 2)
    with pytest.raises(ConfigurationError, match=r"different configuration.*run build --shard 2/2 again"):
        shards.merge_shards(settings, output)
    shutil.rmtree(first / "shard")
    with pytest.raises(ConfigurationError, match="incomplete"):
        shards.merge_shards(settings, output)
    (tmp_path / "mine").mkdir()
    with pytest.raises(ConfigurationError, match="name a folder like 2-of-7"):
        shards.merge_shards(settings, output, [tmp_path / "mine"])
    for text in ("0/2", "3/2", "x", "1/", "1/2/3", "-1/2", "²/3"):
        with pytest.raises(ConfigurationError, match="--shard"):
            shards.parse_shard(text)
    assert shards.parse_shard("2/7") == (2, 7)


def test_a_batch_that_does_not_fit_is_halved_and_nothing_is_lost(
    configure: Configure, pool: Executor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A device that holds two contexts, and says so in the middle of a run, after a layer has been seen."""
    settings = configure(corpus={"context": 16})
    build(settings, tmp_path / "whole", until="collect", executor=pool)
    whole_run = MLPUnits.run

    def small_device(self: MLPUnits, tokens: torch.Tensor, visit: Callable[..., None], **more: Any) -> None:
        seen = 0

        def narrow(layer: int, inputs: torch.Tensor, activations: torch.Tensor) -> None:
            nonlocal seen
            if seen and len(tokens) > 2:
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 1.00 GiB")
            seen += 1
            visit(layer, inputs, activations)

        whole_run(self, tokens, narrow, **more)

    monkeypatch.setattr(MLPUnits, "run", small_device)
    listener = Listener()
    build(settings, tmp_path / "halved", until="collect", executor=pool, progress=listener)
    said = [line for line in listener.lines if "out of memory" in line]
    assert said
    assert "continuing with" in said[0]
    assert "continuing with 2" in said[-1]
    # Other shapes of the same products round otherwise in the last bit, so places are compared, not bytes.
    _same_places(tmp_path / "whole", tmp_path / "halved")


def _same_places(one: Path, other: Path) -> None:
    from atlas_builder.collect.results import Collected

    pairs = zip(*(Collected(work_folder(path) / "collect").layers for path in (one, other)), strict=True)
    for left, right in pairs:
        assert left.tokens == right.tokens
        same = left.examples[["unit", "context", "position"]] == right.examples[["unit", "context", "position"]]
        assert same.mean() > 0.99
        assert abs(left.examples["value"] - right.examples["value"]).max() < 1e-4
        assert (left.histogram.sum(1) == right.histogram.sum(1)).all()


def test_a_context_that_does_not_fit_at_all_is_said(
    configure: Configure, pool: Executor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole_run = MLPUnits.run

    def no_room(self: MLPUnits, tokens: torch.Tensor, visit: Callable[..., None], **more: Any) -> None:
        if not more:  # a pass, not a look at a few tokens
            raise RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory")
        whole_run(self, tokens, visit, **more)

    monkeypatch.setattr(MLPUnits, "run", no_room)
    with pytest.raises(OutOfMemoryError, match=r"smaller corpus\.context"):
        build(configure(), tmp_path / "site", until="collect", executor=pool)


def test_the_batch_fits_the_memory_that_is_free(
    configure: Configure, pool: Executor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes: list[int] = []
    whole_run = MLPUnits.run

    def watched(self: MLPUnits, tokens: torch.Tensor, visit: Callable[..., None], **more: Any) -> None:
        sizes.extend([tokens.numel()] if not more else [])  # of the pass
        whole_run(self, tokens, visit, **more)

    monkeypatch.setattr(MLPUnits, "run", watched)
    build(configure(), tmp_path / "much", until="collect", executor=pool)
    much = max(sizes)
    sizes.clear()
    monkeypatch.setattr(memory, "free_memory", lambda device: 2**21)
    build(configure(), tmp_path / "little", until="collect", executor=pool)
    assert max(sizes) < much
    _same_places(tmp_path / "much", tmp_path / "little")
    assert memory.free_memory("cpu") > 0


def test_bfloat16_is_read_as_float32_numbers(configure: Configure, pool: Executor, tmp_path: Path) -> None:
    from atlas_builder.collect.results import Collected

    build(configure(model={"dtype": "bfloat16"}), tmp_path / "site", until="cluster", executor=pool)
    layer = Collected(work_folder(tmp_path / "site") / "collect").layers[0]
    assert len(layer.examples)
    values = torch.from_numpy(layer.examples["value"].copy())
    assert torch.equal(values, values.bfloat16().float())
