"""The pass with model.engine device: the bytes of the compiled loops, for every kind of unit, and what crosses."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from atlas_builder.collect import device, device_candidates, device_counts, run, second_run
from atlas_builder.collect.checkpoints import Collectors
from atlas_builder.collect.layer import LayerShape
from atlas_builder.collect.results import Collected
from atlas_builder.config import Configuration, ExampleSettings
from atlas_builder.errors import AtlasError
from atlas_builder.models import memory
from atlas_builder.pipeline import shards
from atlas_builder.pipeline.build import build
from atlas_builder.workspace import portable_configuration, work_folder
from tests.support.atlases import Configure, Listener, digests
from tests.support.crossings import Crossings
from tests.support.engines import compare_engines
from tests.support.saes import trained_units

KINDS = ("mlp", "gated", "sae", "crate", "basis", "logits", "associations")


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest, configure: Configure, tmp_path: Path) -> Configuration:
    """Settings of a tiny model with units of one kind."""
    if request.param in ("sae", "crate"):
        return trained_units(request, configure, tmp_path)
    if request.param == "basis":
        return configure(units={"kind": "basis"}, interaction={"max_tokens": 2000})
    if request.param == "logits":
        return configure(units={"kind": "logits", "top": 8}, examples={"association_draws": 5, "per_band": 2})
    if request.param == "associations":
        return configure(describe={"associations": True}, examples={"association_draws": 5, "policy": "robust"})
    return configure(
        model={"name": str(request.getfixturevalue("llama_folder" if request.param == "gated" else "gpt2_folder"))}
    )


@pytest.fixture
def small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "BATCH_TOKENS", 128)
    monkeypatch.setattr(run, "_CONTEXTS_BETWEEN_CHECKPOINTS", 8)


def on(engine: str, settings: Configuration) -> Configuration:
    return settings.model_copy(update={"model": settings.model.model_copy(update={"engine": engine})})


def collected(settings: Configuration, output: Path, **more: Any) -> dict[str, str]:
    """The digests of all files of the stage."""
    build(settings, output, until="collect", **more)
    return digests(work_folder(output) / "collect")


def read_again(patch: pytest.MonkeyPatch, again: bool) -> None:
    patch.setattr(run, "reads_again", lambda *_: again)


@pytest.mark.usefixtures("small_batches")
def test_every_kind_of_unit_has_the_bytes_of_the_loops(
    kind: Configuration, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With inputs logged as the pass goes, read by a second run, and divided into three shards."""
    wanted = collected(on("loops", kind), tmp_path / "loops")
    assert wanted
    settings = on("device", kind)
    read_again(monkeypatch, False)
    assert collected(settings, tmp_path / "logged") == wanted
    read_again(monkeypatch, True)
    assert collected(settings, tmp_path / "again") == wanted
    if kind.units.kind != "basis":
        for number in (1, 2, 3):
            shards.collect_shard(settings, tmp_path / "parts", number, 3)
        shards.merge_shards(settings, tmp_path / "parts")
        assert digests(work_folder(tmp_path / "parts") / "collect") == wanted


def test_a_hundred_thousand_tokens_have_the_same_bytes_and_few_leave_the_device(tmp_path: Path) -> None:
    """The shipped model. Of 8,192 bytes of activations a token, and as many again of inputs and windows."""
    text = {"source": "stdlib", "max_tokens": 100_000}
    found = compare_engines({"model": {"name": "demo"}, "corpus": text}, tmp_path)
    assert found.differing == []
    assert found.files > 40
    assert (found.units, found.tokens) == (2048, 100_000)
    assert found.bytes_a_token < 2500
    ends = [0, *(stretch.tokens for stretch in found.crossed[:-2])]
    crossed = [0, *(stretch.bytes for stretch in found.crossed[:-2])]
    by_stretch = np.diff(crossed) / np.diff(ends)
    assert (np.diff(by_stretch) < 0).all()  # falling with length
    assert by_stretch[-1] < 200


WAYS: dict[str, Callable[[torch.Tensor], object]] = {
    "cpu": lambda x: x.cpu(),
    "to": lambda x: x.to("cpu"),
    "to by name": lambda x: x.to(device="cpu", dtype=torch.float64),
    "numpy": lambda x: x.numpy(),
    "an array": lambda x: np.asarray(x),
    "item": lambda x: x[0].item(),
    "bool": lambda x: bool(x[0]),
    "float": lambda x: float(x[1]),
    "an index": lambda x: range(x.long()[0]),
    "tolist": lambda x: (x + 1).tolist(),
    "its text": lambda x: repr(x),
    "into an array": lambda x: torch.from_numpy(np.ones(3, np.float32)).copy_(x[:3]),
    "how many are not zero": lambda x: x.nonzero(),
    "a mask": lambda x: x[x > 0],
}


@pytest.mark.parametrize("way", WAYS)
def test_no_way_out_of_a_device_is_uncounted(way: str) -> None:
    numbers = torch.ones(10)
    with Crossings() as crossings:
        WAYS[way](numbers)
    assert crossings.total > 0
    with Crossings() as crossings:
        torch.from_numpy(np.ones(3)).to("cpu")  # into it, nothing is counted
    assert crossings.total == 0


# What ends it.


@pytest.mark.usefixtures("small_batches")
def test_a_pass_stopped_after_every_checkpoint_goes_on_to_the_same_bytes(
    configure: Configure, llama_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the second run as well, which has a checkpoint as often."""
    settings = configure(model={"name": str(llama_folder)})
    monkeypatch.setattr(run, "_CONTEXTS_BETWEEN_CHECKPOINTS", 40)
    wanted = collected(on("loops", settings), tmp_path / "loops")
    read_again(monkeypatch, True)
    write = Collectors.checkpoint
    stopped: list[int] = []

    def stops_after(self: Collectors) -> None:
        before = self._kept
        write(self)
        if self._kept != before:
            stopped.append(self.done)
            raise AtlasError("Full.")

    output = tmp_path / "site"
    with monkeypatch.context() as patch:
        patch.setattr(Collectors, "checkpoint", stops_after)
        for _ in range(100):
            try:
                build(on("device", settings), output, until="collect")
                break
            except AtlasError:
                continue
    assert digests(work_folder(output) / "collect") == wanted
    batches = stopped[-1] // 2
    assert sum(done > batches for done in stopped) >= 3  # in the second run
    assert stopped[-1] == 2 * batches


def test_another_engine_does_not_go_on_where_inputs_were_to_be_read_later(
    configure: Configure, tmp_path: Path, small_batches: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    read_again(monkeypatch, True)
    with monkeypatch.context() as patch:
        write = Collectors.checkpoint

        def stop_after(self: Collectors) -> None:
            write(self)
            raise KeyboardInterrupt

        patch.setattr(Collectors, "checkpoint", stop_after)
        with pytest.raises(KeyboardInterrupt):
            build(on("device", configure()), tmp_path / "site", until="collect")
    listener = Listener()
    begun_again = collected(on("loops", configure()), tmp_path / "site", progress=listener)
    assert listener.lines[0] == (
        "collect: begins again, since it was begun by model.engine device, which logs no inputs"
    )
    assert begun_again == collected(configure(), tmp_path / "whole")


def test_the_engine_leaves_no_trace(configure: Configure, tmp_path: Path) -> None:
    build(on("loops", configure()), tmp_path / "site", until="collect")
    listener = Listener()
    build(on("device", configure()), tmp_path / "site", until="collect", progress=listener)
    assert "collect: unchanged" in listener.lines
    assert not {"device", "engine"} & set(portable_configuration(on("device", configure()))["model"])


# Memory.


@pytest.mark.usefixtures("small_batches")
def test_a_block_that_does_not_fit_is_halved_and_nothing_is_counted_twice(
    configure: Configure, llama_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A device that has no room for 20 units of 128 tokens, but for 16, and says so after their statistics."""
    settings = configure(model={"name": str(llama_folder)})
    wanted = collected(on("loops", settings), tmp_path / "loops")
    cross = device_candidates.cross
    failed: list[int] = []

    def narrow(found: list[Any]) -> Any:
        if len(found) == 3:  # one block of all units
            failed.append(1)
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 1.00 GiB")
        return cross(found)

    monkeypatch.setattr(device, "cross", narrow)
    listener = Listener()
    assert collected(on("device", settings), tmp_path / "device", progress=listener) == wanted
    assert failed
    assert not [line for line in listener.lines if "out of memory" in line]


def test_contexts_that_do_not_fit_are_halved_and_nothing_is_counted_twice(
    configure: Configure, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Room for the work on two contexts, in whatever layer the device is; the second run goes in halves as well."""
    settings = configure(corpus={"context": 16})
    wanted = collected(on("loops", settings), tmp_path / "whole")
    look, calls = device.DeviceLayer._look, [0]

    def small(self: device.DeviceLayer, batch: Any, *given: Any) -> Any:
        calls[0] += 1
        if len(batch) > 2 and calls[0] % 3 == 0:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 1.00 GiB")
        return look(self, batch, *given)

    monkeypatch.setattr(device.DeviceLayer, "_look", small)
    monkeypatch.setattr(device, "_LARGEST_ON_CPU", 1)  # no smaller blocks
    read_again(monkeypatch, True)
    listener = Listener()
    build(on("device", settings), tmp_path / "halved", until="collect", progress=listener)
    assert [line for line in listener.lines if "continuing with" in line]
    whole, halved = (Collected(work_folder(tmp_path / name) / "collect").layers for name in ("whole", "halved"))
    for left, right in zip(whole, halved, strict=True):
        assert left.tokens == right.tokens
        np.testing.assert_array_equal(left.histogram.sum(1), right.histogram.sum(1))
        # Other shapes of the same products round otherwise in the last bit.
        same = left.examples[["unit", "context", "position"]] == right.examples[["unit", "context", "position"]]
        assert same.mean() > 0.99
    assert wanted.keys() == digests(work_folder(tmp_path / "halved") / "collect").keys()


# Arithmetic.


def activations(seed: int) -> torch.Tensor:
    """(batch, tokens, units) of all magnitudes that are counted, with zeros of both signs."""
    chance = np.random.default_rng(seed)
    values = chance.normal(size=(7, 13, 33)) * 2.0 ** chance.integers(-80, 29, size=(7, 13, 33))
    values[chance.random(values.shape) < 0.1] = 0.0
    values[chance.random(values.shape) < 0.1] = -0.0
    values[0, 0, :3] = [1e-45, -1e-45, 2.0**-149 * 5]
    return torch.from_numpy(values.astype(np.float32))


def test_integer_sums_are_exact_to_the_last_of_their_bits() -> None:
    """Each activation, and each square, is cut off below 2⁻⁵² and nothing else is lost."""
    values = activations(0)
    sums, bad = device_counts._integer_sums(values)
    assert not bad.any()
    grain = Fraction(2) ** -52
    for unit in range(values.shape[2]):
        exact = [Fraction(value) for value in values[:, :, unit].flatten().tolist()]
        for part, power in ((0, 1), (2, 2)):
            wanted = sum(abs(value) ** power // grain * (-1 if power == 1 and value < 0 else 1) for value in exact)
            whole, rest = sums[unit, part : part + 2].tolist()
            assert whole * 2**52 + rest == wanted
            assert 0 <= rest < 2**52


def test_sums_scanned_by_one_kernel_are_those_added_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    values = activations(1)
    stepped, _ = device_counts._float64_sums(values)
    monkeypatch.setattr(device_counts, "_scans_in_order", lambda device: True)
    scanned, _ = device_counts._float64_sums(values)
    assert torch.equal(stepped, scanned)


def test_many_short_contexts_do_not_overflow() -> None:
    """A batch of 8,192 contexts of one token: their rests alone are more than 2⁶³."""
    values = torch.full((8192, 1, 16), 1 - 2.0**-24)
    for sums in (device_counts._float64_sums(values)[0], device_counts._integer_sums(values)[0]):
        exact = 8192 * Fraction(float(values[0, 0, 0]))
        assert [Fraction(whole) + Fraction(rest, 2**52) for whole, rest in sums[:, :2].tolist()] == [exact] * 16


def test_a_device_without_float64_differs_in_the_last_bits_of_sums_alone(
    configure: Configure, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = collected(on("loops", configure()), tmp_path / "loops")
    monkeypatch.setattr(device_counts, "_has_float64", lambda device: False)
    found = collected(on("device", configure()), tmp_path / "device")
    differing = {path for path, _ in found.items() ^ wanted.items()}
    assert differing - {"stage.json"} <= {"L0/moments.npy", "L1/moments.npy"}
    layers = [Collected(work_folder(tmp_path / name) / "collect").layers for name in ("loops", "device")]
    for left, right in zip(*layers, strict=True):
        for one, other in zip(left.moments, right.moments, strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-13, atol=1e-15)


@given(st.lists(st.integers(0, 2**64 - 1), min_size=1, max_size=8), st.integers(0, 2**64 - 1))
def test_levels_are_the_zero_bits_with_which_a_chance_begins(chances: list[int], mask: int) -> None:
    as_tensor = torch.from_numpy(np.array([chances], np.uint64).view(np.int64))
    found = device_candidates.leading_zeros(as_tensor, torch.from_numpy(np.array([mask], np.uint64).view(np.int64)))
    assert found.flatten().tolist() == [min(63, 64 - (chance ^ mask).bit_length()) for chance in chances]


def test_a_second_run_is_chosen_where_it_is_less_work(tmp_path: Path) -> None:
    """GPT-2 small on a GPU: for a million tokens, inputs would be logged for longer; for a billion, for less long."""
    examples = ExampleSettings()
    shapes = [LayerShape(layer, 3072, 768, 1) for layer in range(12)]

    def chosen(tokens: int, place: str) -> bool:
        contexts = tokens // 127
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=10**13))
            return second_run.reads_again(shapes, examples, contexts, tokens, 124 * 10**6, place, tmp_path)

    assert chosen(10**6, "cuda:1")
    assert not chosen(10**9, "cuda")
    assert not chosen(10**6, "cpu")
    assert second_run.reads_again(shapes * 1000, examples, 10**7, 10**9, 10**8, "cpu", tmp_path)  # a full disk
