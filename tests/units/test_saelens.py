"""What a cfg.json says of an SAE: obeyed with SAELens's numbers, by a build and by `verify` alike, or refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import AutoModelForCausalLM

from atlas_builder.config import Configuration, ModelSettings, UnitSettings
from atlas_builder.config_file import validate
from atlas_builder.errors import ConfigurationError, ModelError
from atlas_builder.models import language_model, sae
from atlas_builder.models.saelens import HOOKS
from atlas_builder.rerun.models import second_reading
from atlas_builder.rerun.saes import PlainSAE
from atlas_builder.units.open import load_saes, open_units
from tests.support.families import save_family
from tests.support.saes import LATENTS, WIDTH, slow_latents, write_sae

Tensors = dict[str, Tensor]
TOKENS = torch.tensor([[0, 5, 99, 1000, 7, 311]])
HOOK = {"hook_name": "blocks.1.hook_resid_post"}


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def plain_tensors(**more: Tensor) -> Tensors:
    """W_enc, W_dec, b_dec and b_enc, and whatever else."""
    plain = {
        "W_enc": drawn(WIDTH, LATENTS),
        "W_dec": drawn(LATENTS, WIDTH, seed=1),
        "b_dec": 0.5 * drawn(WIDTH, seed=2),
        "b_enc": drawn(LATENTS, seed=3),
    }
    return {**plain, **more}


def gated_tensors() -> Tensors:
    tensors = plain_tensors(**{name: 0.3 * drawn(LATENTS, seed=len(name)) for name in ("b_gate", "b_mag", "r_mag")})
    del tensors["b_enc"]
    return tensors


THRESHOLD = {"threshold": drawn(LATENTS, seed=4)}  # some are negative
OBEYED: dict[str, tuple[dict[str, Any], Tensors]] = {
    "nothing but a hook": ({}, plain_tensors()),
    "topk by its old function": ({"activation_fn_str": "topk", "activation_fn_kwargs": {"k": 4}}, plain_tensors()),
    "topk by its function": ({"activation_fn": "topk", "activation_fn_kwargs": {"k": 4}}, plain_tensors()),
    "topk by its function and k": ({"activation_fn": "topk", "k": 4}, plain_tensors()),
    "topk of version 5": (
        {"architecture": "topk", "activation_fn": "topk", "activation_fn_kwargs": {"k": 3}, "k": 3}, plain_tensors()
    ),
    "topk of version 6": ({"architecture": "topk", "k": 4}, plain_tensors()),
    "topk of all": ({"architecture": "topk", "k": LATENTS}, plain_tensors()),
    "topk by decoder norm": (
        {"architecture": "topk", "k": 4, "rescale_acts_by_decoder_norm": True}, plain_tensors()
    ),
    "gated": ({"architecture": "gated"}, gated_tensors()),
    "jumprelu": ({"architecture": "jumprelu", "activation_fn": "relu"}, plain_tensors(**THRESHOLD)),
    "jumprelu by a logarithm": (
        {"architecture": "jumprelu"}, plain_tensors(log_threshold=0.5 * drawn(LATENTS, seed=4))
    ),
    "batchtopk": ({"architecture": "batchtopk", "k": 7.5}, plain_tensors(topk_threshold=torch.tensor(1.5))),
    "batchtopk in training": (
        {"architecture": "batchtopk", "k": 7, "rescale_acts_by_decoder_norm": True, "topk_threshold_lr": 0.01},
        plain_tensors(topk_threshold=torch.tensor(4.0, dtype=torch.float64)),
    ),
    "matryoshka": (
        {"architecture": "matryoshka_batchtopk", "k": 7, "matryoshka_widths": [10, 40]},
        plain_tensors(threshold=torch.tensor(1.5)),
    ),
    "no b_dec": ({"apply_b_dec_to_input": False}, plain_tensors()),
    "not normalised, false": ({"normalize_activations": False}, plain_tensors()),
    "not normalised, null": ({"normalize_activations": None}, plain_tensors()),
    "layer norm": ({"normalize_activations": "layer_norm"}, plain_tensors()),
    "constant norm": ({"normalize_activations": "constant_norm_rescale"}, plain_tensors()),
    "scaling factor of one": (
        {"finetuning_scaling_factor": True}, plain_tensors(scaling_factor=torch.ones(LATENTS))
    ),
    "half precision": ({"dtype": "torch.bfloat16"}, {n: t.bfloat16() for n, t in plain_tensors().items()}),
}  # fmt: skip


@pytest.mark.parametrize("case", OBEYED)
@pytest.mark.parametrize("nested", [False, True], ids=["flat", "metadata"])
def test_what_an_sae_says_is_obeyed_with_the_numbers_of_saelens(case: str, nested: bool, tmp_path: Path) -> None:
    cfg, tensors = OBEYED[case]
    cfg = {**cfg, "metadata": HOOK} if nested else {**cfg, **HOOK}
    write_sae(tmp_path, cfg, tensors)
    x = 2 * drawn(30, WIDTH, seed=9)
    expected = slow_latents(cfg, tensors, x)
    assert 0 < (expected > 0).float().mean() < 1
    found = sae.load_sae(tmp_path)
    torch.testing.assert_close(found.encode(found.read(x)).double(), expected, atol=1e-4, rtol=1e-4)
    inputs, latents = PlainSAE(tmp_path).latents(x.double().numpy())
    torch.testing.assert_close(torch.from_numpy(latents), expected, atol=1e-9, rtol=1e-9)
    torch.testing.assert_close(torch.from_numpy(inputs), found.read(x).double(), atol=1e-4, rtol=1e-4)
    second = PlainSAE(tmp_path)
    torch.testing.assert_close(torch.from_numpy(second.encoder), found.encoder().double(), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(torch.from_numpy(second.decoder), found.written().double(), atol=1e-5, rtol=1e-5)


def test_topk_by_its_old_function_keeps_four_a_token(tmp_path: Path) -> None:
    cfg, tensors = OBEYED["topk by its old function"]
    found = sae.load_sae(write_sae(tmp_path, {**cfg, **HOOK}, tensors))
    latents = found.encode(found.read(drawn(50, WIDTH, seed=8)))
    assert ((latents > 0).sum(1) <= 4).all()
    assert (latents > 0).sum(1).float().mean() > 3.9


def test_old_names_of_hooks_are_read(tmp_path: Path) -> None:
    for cfg in (
        {"hook_point": "blocks.1.hook_mlp_out", "hook_point_layer": 1, "hook_point_head_index": None},
        {"hook_point": "blocks.{layer}.hook_mlp_out", "hook_point_layer": 1},
        {"hook_name": "blocks.1.hook_mlp_out", "hook_layer": 1, "hook_head_index": None},
    ):
        found, second = sae.load_sae(write_sae(tmp_path, cfg, plain_tensors())), PlainSAE(tmp_path)
        assert (found.layer, found.place) == (second.layer, second.hook) == (1, "hook_mlp_out")


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "normalised, true": ({"normalize_activations": True}, "normalize_activations in cfg.json is True: fold it"),
    "whitening": ({"normalize_activations": "covariance_whitening"}, "normalize_activations .* fold it"),
    "unknown norm": ({"normalize_activations": "unit"}, "normalize_activations .* 'unit', which SAELens does not"),
    "topk without k": ({"activation_fn_str": "topk"}, "k is 0, with 40 latents: set k"),
    "two k": (
        {"architecture": "topk", "k": 3, "activation_fn_kwargs": {"k": 4}}, "k in cfg.json is 3, but 4 in activation_fn"
    ),
    "k of none": ({"k": 4}, "k in cfg.json is given, but architecture 'standard' has none"),
    "topk of jumprelu": ({"architecture": "jumprelu", "activation_fn": "topk"}, "activation_fn .* 'topk', which arch"),
    "argument": ({"activation_fn_kwargs": {"beta": 2}}, "activation_fn_kwargs in cfg.json has beta"),
    "head": ({"hook_point_head_index": 3}, "hook_point_head_index in cfg.json names a head"),
    "another layer": ({"hook_layer": 3}, "hook_layer in cfg.json is 3, but"),
    "two hooks": ({"hook_point": "blocks.0.hook_mlp_out"}, "says two things of hook_name"),
    "heads": ({"reshape_activations": "hook_z"}, "reshape_activations in cfg.json is 'hook_z'"),
    "transcoder": ({"hook_name_out": "blocks.1.hook_mlp_out"}, "hook_name_out .* transcoders"),
    "outputs": ({"d_in": WIDTH, "d_out": 9}, "d_out in cfg.json is not d_in"),
    "scaled": ({"rescale_acts_by_decoder_norm": True}, "rescale_acts_by_decoder_norm in cfg.json is true"),
    "dtype": ({"dtype": "int8"}, "dtype in cfg.json is 'int8'"),
    "bos": ({"prepend_bos": "no"}, "prepend_bos in cfg.json must be true or false"),
    "loading": ({"model_from_pretrained_kwargs": {"load_in_4bit": True}}, "kwargs in cfg.json has load_in_4bit"),
    "width": ({"d_in": 17}, "d_in is 17, but W_enc has 16"),
    "latents": ({"d_sae": 41}, "d_sae is 41, but W_enc has 40"),
    "unknown architecture": ({"architecture": "abstopk", "k": 4}, "k in cfg.json is given|architecture 'abstopk'"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_obeyed_is_refused_by_its_key(case: str, tmp_path: Path) -> None:
    cfg, match = REFUSED[case]
    write_sae(tmp_path, {**HOOK, **cfg}, plain_tensors())
    with pytest.raises(ModelError, match=match) as caught:
        sae.load_sae(tmp_path)
    assert len(str(caught.value)) < 300
    assert caught.value.exit_status == 2


@pytest.mark.parametrize(
    ("architecture", "name"),
    [("standard", "threshold"), ("jumprelu", "log_threshold"), ("topk", "b_mag"), ("standard", "scaling_factor")],
)
def test_tensors_that_an_architecture_has_no_use_for_are_refused(architecture: str, name: str, tmp_path: Path) -> None:
    tensors = plain_tensors(**{name: drawn(LATENTS)})
    if architecture == "jumprelu":
        tensors["threshold"] = drawn(LATENTS)
    write_sae(tmp_path, {**HOOK, "architecture": architecture, **({"k": 4} if architecture == "topk" else {})}, tensors)
    with pytest.raises(ModelError, match=f"contains the tensor {name}, which architecture {architecture} does not"):
        sae.load_sae(tmp_path)


def test_keys_of_training_are_left_alone_and_any_other_is_named(tmp_path: Path) -> None:
    known = {"lr": 3e-4, "wandb_project": "x", "context_size": 128, "training_tokens": 10, "seqpos_slice": [None]}
    assert sae.load_sae(write_sae(tmp_path, {**HOOK, **known}, plain_tensors())).notes == ()
    (note,) = sae.load_sae(write_sae(tmp_path, {**HOOK, **known, "leak": 0.1}, plain_tensors())).notes
    assert "nothing reads leak of cfg.json" in note
    for folder in sorted(Path(sae.__file__).parents[1].glob("demo/saes/*/*")):
        assert sae.load_sae(folder).notes == ()


def test_latents_of_no_numbers_are_dead_and_the_others_as_before(tmp_path: Path) -> None:
    whole = plain_tensors()
    broken = {name: tensor.clone() for name, tensor in whole.items()}
    broken["W_enc"][3, 7] = float("nan")
    broken["b_enc"][9] = float("inf")
    broken["W_enc"][:, 11] = 0
    write_sae(tmp_path, HOOK, broken)
    x = drawn(20, WIDTH, seed=5)
    found = sae.load_sae(tmp_path)
    assert "2 latents are read as dead" in found.notes[0]
    whole["W_enc"][:, 11] = 0
    expected = slow_latents(HOOK, whole, x)
    expected[:, [7, 9]] = 0
    torch.testing.assert_close(found.encode(found.read(x)).double(), expected, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(torch.from_numpy(PlainSAE(tmp_path).latents(x.double().numpy())[1]), expected)


def settings_of(model: Path, saes: Path, **model_settings: Any) -> Configuration:
    made = {"kind": "sae", "path": str(saes)}
    corpus = {"source": "stdlib", "context": 16}
    return validate({"model": {"name": str(model), **model_settings}, "corpus": corpus, "units": made})


def both_readings(model: Path, folder: Path) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """Inputs and latents of layer 1, by the units of a build and by the second reading."""
    settings = settings_of(model, folder)
    loaded = language_model.load_model(settings.model)
    seen: dict[int, tuple[Tensor, Tensor]] = {}
    open_units(loaded, settings).run(TOKENS, lambda layer, x, latents: seen.update({layer: (x.clone(), latents)}))
    return seen[1], second_reading(settings, loaded)(TOKENS, [1])[1]


def normed(norm: Any, x: Tensor) -> Tensor:
    """What a norm makes of its input before its gain."""
    x = x - x.mean(-1, keepdim=True) if isinstance(norm, torch.nn.LayerNorm) else x
    little = norm.eps if hasattr(norm, "eps") else norm.variance_epsilon
    made: Tensor = x / (x.square().mean(-1, keepdim=True) + little).sqrt()
    return made


def hook_values(model: Path, change: Callable[[Any], None] = lambda plain: None) -> dict[str, Tensor]:
    """What stands at each hook of layer 1, by hooks on transformers' own modules."""
    plain = AutoModelForCausalLM.from_pretrained(str(model)).eval()
    change(plain)
    base = plain.base_model
    block = (base.h if hasattr(base, "h") else base.layers)[1]
    names = {name for name, _ in block.named_children()}
    norms = {"pre_feedforward_layernorm", "ln_2", "post_attention_layernorm"}
    norm = next(getattr(block, name) for name in sorted(norms & names, reverse="pre_feedforward_layernorm" in names))
    attn = block.attn if hasattr(block, "attn") else block.attention if hasattr(block, "attention") else block.self_attn
    mlp_out = block.post_feedforward_layernorm if "post_feedforward_layernorm" in names else block.mlp
    attn_out = block.post_attention_layernorm if "post_feedforward_layernorm" in names else attn
    at: dict[str, Tensor] = {}

    def keep(name: str, module: Any, is_output: bool) -> None:
        def before(module: Any, given: Any, named: Any) -> None:
            at[name] = (given[0] if given else next(iter(named.values()))).detach().clone()

        def after(module: Any, given: Any, out: Any) -> None:
            at[name] = (out[0] if isinstance(out, tuple) else out).detach().clone()

        if is_output:
            module.register_forward_hook(after)
        else:
            module.register_forward_pre_hook(before, with_kwargs=True)

    keep("hook_resid_pre", block, False)
    keep("hook_resid_post", block, True)
    keep("hook_resid_mid", norm, False)
    keep("mlp.hook_in", block.mlp, False)
    keep("mlp.hook_out", block.mlp, True)
    keep("hook_mlp_out", mlp_out, True)
    keep("hook_attn_out", attn_out, True)
    with torch.no_grad():
        base(TOKENS)
        at["ln2.hook_normalized"] = normed(norm, at["hook_resid_mid"])
    return at


@pytest.mark.parametrize("family", ["gpt2", "llama", "gemma2", "gpt_neox"])
def test_hooks_mean_what_transformerlens_means(family: str, tiny_model: Callable[[str], Path], tmp_path: Path) -> None:
    model, tensors = tiny_model(family), plain_tensors()
    at = hook_values(model)
    for hook in HOOKS:
        if (family, hook) == ("gpt_neox", "hook_resid_mid"):
            continue
        cfg = {"hook_name": f"blocks.1.{hook}"}
        (inputs, latents), (again, latents_again) = both_readings(model, write_sae(tmp_path / hook, cfg, tensors))
        torch.testing.assert_close(inputs, at[hook] - tensors["b_dec"], atol=1e-3, rtol=1e-3)
        expected = slow_latents(cfg, tensors, at[hook].flatten(0, 1))
        torch.testing.assert_close(latents[0].double(), expected, atol=1e-2, rtol=1e-2)
        torch.testing.assert_close(again.float(), inputs, atol=1e-3, rtol=1e-3)
        torch.testing.assert_close(latents_again.float(), latents, atol=1e-2, rtol=1e-2)


@pytest.mark.parametrize("hook", ["hook_resid_pre", "hook_resid_mid", "mlp.hook_in", "hook_mlp_out"])
def test_hooks_of_a_model_without_a_module_for_its_mlp(hook: str, tmp_path: Path) -> None:
    save_family("opt", tmp_path / "opt")
    tensors = plain_tensors()
    folder = write_sae(tmp_path / "sae", {"hook_name": f"blocks.1.{hook}"}, tensors)
    (inputs, latents), (again, latents_again) = both_readings(tmp_path / "opt", folder)
    plain = AutoModelForCausalLM.from_pretrained(str(tmp_path / "opt")).eval()
    block = plain.model.decoder.layers[1]
    module = {"hook_resid_pre": block, "hook_resid_mid": block.final_layer_norm, "mlp.hook_in": block.fc1}.get(hook)
    seen: list[Tensor] = []
    if module is None:
        block.fc2.register_forward_hook(lambda module, given, out: seen.append(out))
    else:
        module.register_forward_pre_hook(lambda module, given: seen.append(given[0]))
    with torch.no_grad():
        plain(TOKENS)
    expected = seen[0].reshape(again.shape) - tensors["b_dec"]
    torch.testing.assert_close(inputs.reshape(again.shape), expected, atol=1e-3, rtol=1e-3)
    torch.testing.assert_close(again.float(), expected, atol=1e-3, rtol=1e-3)
    torch.testing.assert_close(latents_again.float(), latents.reshape(latents_again.shape), atol=1e-2, rtol=1e-2)


def test_a_hook_that_a_model_lacks_is_said_before_the_pass(tiny_model: Callable[[str], Path], tmp_path: Path) -> None:
    write_sae(tmp_path, {"hook_name": "blocks.1.hook_resid_mid"}, plain_tensors())
    settings = settings_of(tiny_model("gpt_neox"), tmp_path)
    match = r"reads blocks\.1\.hook_resid_mid, which a model of this architecture \(GPTNeoX\w*\) does not have"
    with pytest.raises(ConfigurationError, match=match) as caught:
        open_units(language_model.load_model(settings.model), settings)
    assert caught.value.exit_status == 2


def centre_writing_weights(plain: Any) -> None:
    """TransformerLens's `center_writing_weights` on a GPT-2: what writes to the stream less its mean over it."""
    with torch.no_grad():
        for embedding in (plain.transformer.wte, plain.transformer.wpe):
            embedding.weight -= embedding.weight.mean(-1, keepdim=True)
        for block in plain.transformer.h:
            for module in (block.attn.c_proj, block.mlp.c_proj):
                module.weight -= module.weight.mean(-1, keepdim=True)
                module.bias -= module.bias.mean()


@pytest.mark.parametrize("hook", [hook for hook in HOOKS if hook != "mlp.hook_out"])  # no name of TransformerLens's
def test_centred_writing_weights_take_the_mean_off_the_stream(hook: str, gpt2_folder: Path, tmp_path: Path) -> None:
    cfg = {"hook_name": f"blocks.1.{hook}", "model_from_pretrained_kwargs": {"center_writing_weights": True}}
    tensors = plain_tensors()
    (inputs, _), (again, _) = both_readings(gpt2_folder, write_sae(tmp_path, cfg, tensors))
    expected = hook_values(gpt2_folder, centre_writing_weights)[hook] - tensors["b_dec"]
    torch.testing.assert_close(inputs, expected, atol=1e-3, rtol=1e-3)
    torch.testing.assert_close(again.float(), expected, atol=1e-3, rtol=1e-3)
    if "resid" in hook:
        plain = hook_values(gpt2_folder)[hook] - tensors["b_dec"]
        assert (inputs - plain).abs().max() > 0.05


def test_a_model_of_rms_norms_is_not_centred(llama_folder: Path, tmp_path: Path) -> None:
    cfg = {**HOOK, "model_from_pretrained_kwargs": {"center_writing_weights": True, "center_unembed": True}}
    (inputs, _), (again, _) = both_readings(llama_folder, write_sae(tmp_path, cfg, plain_tensors()))
    expected = hook_values(llama_folder)["hook_resid_post"] - plain_tensors()["b_dec"]
    torch.testing.assert_close(inputs, expected, atol=1e-3, rtol=1e-3)
    torch.testing.assert_close(again.float(), expected, atol=1e-3, rtol=1e-3)


def test_an_mlp_of_folded_norms_reads_what_stands_before_the_gain(gpt2_folder: Path, tmp_path: Path) -> None:
    cfg = {"hook_name": "blocks.1.mlp.hook_in", "model_from_pretrained_kwargs": {"fold_ln": True}}
    (inputs, _), (again, _) = both_readings(gpt2_folder, write_sae(tmp_path, cfg, plain_tensors()))
    expected = hook_values(gpt2_folder)["ln2.hook_normalized"] - plain_tensors()["b_dec"]
    torch.testing.assert_close(inputs, expected, atol=1e-3, rtol=1e-3)
    torch.testing.assert_close(again.float(), expected, atol=1e-3, rtol=1e-3)


def test_an_sae_of_a_checkpoint_asks_for_it(gpt2_folder: Path, tmp_path: Path) -> None:
    loading = {"model_from_pretrained_kwargs": {"checkpoint_value": 3000, "device": "cuda"}}
    write_sae(tmp_path, {**HOOK, **loading}, plain_tensors())
    loaded = language_model.load_model(ModelSettings(name=str(gpt2_folder)))
    with pytest.raises(ConfigurationError, match=r"trained on checkpoint 3000 of its model: set model\.revision"):
        open_units(loaded, settings_of(gpt2_folder, tmp_path))
    assert open_units(loaded, settings_of(gpt2_folder, tmp_path, revision="step3000")).kind == "sae"


def test_saes_of_contexts_with_and_without_bos_are_not_of_one_atlas(gpt2_folder: Path, tmp_path: Path) -> None:
    for layer in (0, 1):
        cfg = {"hook_name": f"blocks.{layer}.hook_resid_post", "prepend_bos": bool(layer)}
        write_sae(tmp_path / str(layer), cfg, plain_tensors())
    loaded = language_model.load_model(ModelSettings(name=str(gpt2_folder)))
    with pytest.raises(ConfigurationError, match="the SAE of layer 0 has prepend_bos false, others true"):
        open_units(loaded, settings_of(gpt2_folder, tmp_path))
    assert [one.prepends_bos for one in load_saes(UnitSettings(kind="sae", path=str(tmp_path)))] == [False, True]
