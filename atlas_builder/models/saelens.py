"""What a cfg.json of SAELens says of an SAE or a transcoder, in the layouts of its versions 1 to 6.

Every key that SAELens 6 reads is obeyed or refused; keys of training are left alone, and any other is named in a note.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from atlas_builder.errors import ModelError
from atlas_builder.models.wording import and_more, shortened

CONFIG = "cfg.json"

HOOKS = (
    "ln2.hook_normalized",
    "mlp.hook_in",
    "mlp.hook_out",
    "hook_mlp_out",
    "hook_attn_out",
    "hook_resid_pre",
    "hook_resid_mid",
    "hook_resid_post",
)
"""Hooks of a block that an SAE may read, by TransformerLens's names."""
TRANSCODERS = ("transcoder", "skip_transcoder", "jumprelu_transcoder", "jumprelu_skip_transcoder")
"""Architectures of SAELens that read what enters an MLP and write what leaves it."""
_MLP_INPUTS = ("mlp.hook_in", "ln2.hook_normalized")
_MLP_OUTPUTS = ("hook_mlp_out", "mlp.hook_out")

_OLD_NAMES = {
    "hook_point": "hook_name",
    "hook_point_layer": "hook_layer",
    "hook_point_head_index": "hook_head_index",
    "activation_fn_str": "activation_fn",
}
_READ = """
architecture d_in d_sae d_out dtype device k hook_name hook_layer hook_head_index hook_name_out hook_head_index_out
activation_fn activation_fn_kwargs apply_b_dec_to_input normalize_activations reshape_activations
rescale_acts_by_decoder_norm finetuning_scaling_factor model_name model_from_pretrained_kwargs prepend_bos
sae_lens_version metadata
"""
_OF_TRAINING_NOW = """
act_store_device adam_beta1 adam_beta2 autocast autocast_lm aux_loss_coefficient begin_batch_token
begin_sequence_token cached_activations_path checkpoint_path compile_llm compile_sae context_size data_dir data_files
dataset_name dataset_path dataset_trust_remote_code dead_feature_threshold dead_feature_window decoder_init_norm
disable_concat_sequences eval_batch_size_prompts exclude_special_tokens feature_sampling_window from_pretrained_path
hf_hook_name hf_hook_name_out hook_eval is_dataset_tokenized jumprelu_bandwidth jumprelu_init_threshold
jumprelu_sparsity_loss_mode jumprelu_ste_to_input jumprelu_tanh_scale l0_coefficient l0_warm_up_steps l1_coefficient
l1_warm_up_steps llm_compilation_mode logger lp_norm lr lr_decay_steps lr_end lr_scheduler_name lr_warm_up_steps
matryoshka_widths model_class_name model_kwargs n_batches_in_buffer n_checkpoints n_eval_batches n_restart_cycles
neuronpedia_id pre_act_loss_coefficient resume_from_checkpoint run_name sae_compilation_mode sae_lens_training_version
save_final_checkpoint seed seqpos_slice sequence_separator_token store_batch_size_prompts streaming topk_threshold_lr
tokenizer_name train_batch_size_tokens training_architecture training_architecture_details training_tokens
use_cached_activations use_matryoshka_aux_loss use_sparse_activations verbose
"""
"""Facts of the run and its text, in SAELens 6: `matryoshka_widths` and the like say what the loss was."""
_OF_TRAINING_BEFORE = """
b_dec_init_method d_sae_factor decoder_heuristic_init decoder_orthogonal_init eval_every_n_wandb_logs expansion_factor
finetuning_method finetuning_tokens ghost_grads init_encoder_as_decoder_transpose log_activations_store_to_wandb
log_optimizer_state_to_wandb log_to_wandb mse_loss_normalization noise_scale normalize_sae_decoder resume
scale_sparsity_penalty_by_decoder_norm sparsity_penalty_type tokens_per_buffer total_training_steps
total_training_tokens use_ghost_grads wandb_entity wandb_id wandb_log_frequency wandb_project
"""
_OWN = "recipe tokens"
"""What this package's own training writes."""
_KNOWN = frozenset(f"{_READ} {_OF_TRAINING_NOW} {_OF_TRAINING_BEFORE} {_OWN}".split())
"""Keys that are obeyed or refused here, and those that change no activation of a trained SAE."""

_HARMLESS = """
attn_implementation cache_dir center_unembed default_padding_side default_prepend_bos device device_map dtype
first_n_layers fold_value_biases local_files_only low_cpu_mem_usage move_to_device n_ctx n_devices
refactor_factored_attn_matrices token torch_dtype trust_remote_code use_safetensors
"""
"""Arguments of loading a model that change nothing of what the hooks read: neither the stream nor what is added."""
_PROCESSING = ("center_writing_weights", "fold_ln")
_CHECKPOINT = ("revision", "checkpoint_value", "checkpoint_index")
_DTYPES = ("float64", "float32", "float16", "bfloat16")
_MATRYOSHKA = "matryoshka_batchtopk"


@dataclass(frozen=True)
class SAEDescription:
    """What a cfg.json says of an SAE besides its tensors; fields are those of `SAE`, but for the widths."""

    architecture: str
    layer: int
    place: str
    k: int
    b_dec_first: bool
    normalization: str
    by_decoder_norm: bool
    centred: bool
    folded: bool
    prepends_bos: bool
    model: str | None
    checkpoint: str | None
    notes: tuple[str, ...]
    writes: str | None
    """The hook of the layer that a transcoder writes; None for an SAE, which writes what it reads."""
    widths: Mapping[str, int]
    """`d_in`, `d_sae` and `d_out`, as far as they are given."""


def parse_description(config: Mapping[str, Any], whose: str) -> SAEDescription:
    """Read a cfg.json; raises `ModelError`, a sentence that names the key, for what cannot be obeyed."""
    settings = _merged(config, whose)
    architecture, k = _activation(settings)
    if "clt" in architecture or "cross_layer" in architecture:
        raise settings.refuse(
            "architecture",
            f"is {architecture!r}, and SAELens has no format for cross-layer transcoders: use those of one layer each",
        )
    hook = settings.get("hook_name", str, "")
    is_transcoder = architecture in TRANSCODERS
    if hook.endswith(".hook_mlp_in"):
        raise settings.refuse(
            "hook_name",
            "is hook_mlp_in, in some files the stream before the norm, in others what the MLP reads: set it to "
            "mlp.hook_in where it is the latter",
        )
    layer, place = _place(hook, settings, _MLP_INPUTS if is_transcoder else HOOKS)
    writes = _written_place(layer, settings) if is_transcoder else None
    centred, folded, checkpoint = _loading(settings)
    _refuse_others(settings, hook, is_transcoder)
    return SAEDescription(
        architecture=architecture,
        layer=layer,
        place=place,
        k=k,
        b_dec_first=settings.get("apply_b_dec_to_input", bool, not is_transcoder),
        normalization=_normalization(settings),
        by_decoder_norm=_scaled(settings, architecture),
        centred=centred,
        folded=folded,
        prepends_bos=settings.get("prepend_bos", bool, True),
        model=settings.get("model_name", str, None),
        checkpoint=checkpoint,
        notes=tuple(_notes(settings, whose)),
        writes=writes,
        widths={key: size for key in ("d_in", "d_sae", "d_out") if (size := settings.get(key, int, None)) is not None},
    )


class _Settings:
    """Values of a cfg.json by their names in SAELens 6, each of the type that it must be."""

    def __init__(self, values: Mapping[str, Any], written: Mapping[str, str], whose: str) -> None:
        self.values, self._written, self.whose = values, written, whose

    def name(self, key: str) -> str:
        """The key as it is written in the file."""
        return self._written.get(key, key)

    def refuse(self, key: str, why: str) -> ModelError:
        """The error about a key."""
        return ModelError(f"{self.whose}: {self.name(key)} in {CONFIG} {why}.")

    def get(self, key: str, kind: type, default: Any) -> Any:
        """A value; the default where it is absent or null. Raises `ModelError` for another type."""
        value = self.values.get(key)
        if value is None:
            return default
        if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
            wanted = {str: "text", int: "a whole number", bool: "true or false", dict: "a map"}[kind]
            raise self.refuse(key, f"must be {wanted}, not {_kind(value)}")
        return shortened(value) if kind is str else value


def _merged(config: Mapping[str, Any], whose: str) -> _Settings:
    """Settings of both levels of a file, by their names in SAELens 6, which moved the model's facts to `metadata`."""
    metadata = config.get("metadata") or {}
    if not isinstance(metadata, dict):
        raise ModelError(f"{whose}: metadata in {CONFIG} must be a map, not {_kind(metadata)}.")
    values: dict[str, Any] = {}
    written: dict[str, str] = {}
    for key, value in [*config.items(), *metadata.items()]:
        name = _OLD_NAMES[key] if key in _OLD_NAMES else str(key)
        if name == "metadata" or (value is None and name in values):
            continue
        former = values.get(name)
        if former is not None and not _same(former, value):
            given = f"{_kind(former)} and {_kind(value)}"
            raise ModelError(f"{whose}: {CONFIG} says two things of {shortened(name, 40)}, {given}: keep one of them.")
        values[name], written[name] = value, key
    return _Settings(values, written, whose)


def _same(one: Any, other: Any) -> bool:
    """Whether two values say the same, by type too: true is not 1."""
    return type(one) is type(other) and bool(one == other)


def _kind(value: object) -> str:
    return "a list" if isinstance(value, list) else "a map" if isinstance(value, dict) else shortened(repr(value), 30)


def _activation(settings: _Settings) -> tuple[str, int]:
    """The architecture, which an old file says by its activation function, and the latents active at a token."""
    architecture = given = settings.get("architecture", str, "standard")
    function = settings.get("activation_fn", str, None)
    arguments = settings.get("activation_fn_kwargs", dict, None) or {}
    if function == "topk" and given in ("standard", "topk"):
        architecture = "topk"
    elif function not in (None, "relu", architecture):
        raise settings.refuse("activation_fn", f"is {function!r}, which architecture {given!r} does not have")
    if surplus := arguments.keys() - {"k"}:
        raise settings.refuse("activation_fn_kwargs", f"has {and_more(surplus)}, which no known activation takes")
    more = _Settings(arguments, {"k": "k of activation_fn_kwargs"}, settings.whose)
    if architecture in ("batchtopk", _MATRYOSHKA):
        return "batchtopk", 0  # k was an average in training; the threshold decides
    k, other = settings.get("k", int, None), more.get("k", int, None)
    if k is not None and other is not None and k != other:
        raise settings.refuse("k", f"is {shortened(k, 20)}, but {shortened(other, 20)} in activation_fn_kwargs")
    k = other if k is None else k
    if k is not None and architecture != "topk":
        raise settings.refuse("k", f"is given, but architecture {architecture!r} has none: set it to topk, or remove k")
    return architecture, k or 0


def _normalization(settings: _Settings) -> str:
    value = settings.values.get("normalize_activations")
    if value in (None, False, "none"):
        return "none"
    if value in ("layer_norm", "constant_norm_rescale"):
        return str(value)
    if value in (True, "expected_average_only_in", "covariance_whitening"):
        raise settings.refuse("normalize_activations", f"is {_kind(value)}: fold it into the weights first")
    raise settings.refuse("normalize_activations", f"is {_kind(value)}, which SAELens does not have: correct it")


def _scaled(settings: _Settings, architecture: str) -> bool:
    scaled: bool = settings.get("rescale_acts_by_decoder_norm", bool, False)
    if scaled and architecture not in ("topk", "batchtopk"):
        raise settings.refuse("rescale_acts_by_decoder_norm", f"is true, which architecture {architecture} cannot obey")
    return scaled


def _place(hook: str, settings: _Settings, hooks: Sequence[str]) -> tuple[int, str]:
    """Layer and place of a hook; the oldest files have `{layer}` in its name, and the number beside it."""
    layer = settings.get("hook_layer", int, None)
    match = re.fullmatch(r"blocks\.(\d{1,6}|\{layer\})\.(.+)", hook)
    if not match or match[2] not in hooks:
        known = f"blocks.N.{', .'.join(hooks)}"
        name = settings.name("hook_name")
        raise ModelError(
            f"{settings.whose}: {name} {shortened(hook, 28)!r} is not supported: it must be one of {known}."
        )
    if match[1] == "{layer}":
        if layer is None:
            raise settings.refuse("hook_name", "leaves the layer open: write its number")
        return int(layer), match[2]
    if layer is not None and layer != int(match[1]):
        raise settings.refuse("hook_layer", f"is {shortened(layer, 20)}, but {shortened(hook, 40)} is another layer")
    return int(match[1]), match[2]


def _written_place(layer: int, settings: _Settings) -> str:
    """The place of the layer's MLP that a transcoder writes; raises `ModelError` for any other."""
    given = settings.get("hook_name_out", str, "")
    for place in _MLP_OUTPUTS:
        if given == f"blocks.{layer}.{place}":
            return place
    known = " or ".join(f"blocks.{layer}.{place}" for place in _MLP_OUTPUTS)
    raise settings.refuse("hook_name_out", f"is {shortened(given, 40)!r}: a transcoder of layer {layer} writes {known}")


def _loading(settings: _Settings) -> tuple[bool, bool, str | None]:
    """How the model was loaded: whether what writes to the stream was centred, norms folded, and which checkpoint."""
    arguments = settings.get("model_from_pretrained_kwargs", dict, None) or {}
    loading = _Settings(arguments, {key: f"{key} of model_from_pretrained_kwargs" for key in arguments}, settings.whose)
    unknown = {key for key, value in arguments.items() if value} - {*_PROCESSING, *_CHECKPOINT, *_HARMLESS.split()}
    if unknown:
        raise settings.refuse(
            "model_from_pretrained_kwargs",
            f"has {and_more(unknown)}, which may change what the SAE reads: remove it where it does not",
        )
    centred, folded = (loading.get(key, bool, False) for key in _PROCESSING)
    checkpoints = (loading.values.get(key) for key in _CHECKPOINT)
    return centred, folded, next((shortened(given, 40) for given in checkpoints if given is not None), None)


def _refuse_others(settings: _Settings, hook: str, is_transcoder: bool) -> None:
    """Refuse what is known to SAELens and cannot be obeyed."""
    if settings.get("hook_head_index", int, None) is not None:
        raise settings.refuse("hook_head_index", "names a head of attention, which no supported hook has")
    if not is_transcoder and (out := settings.get("hook_name_out", str, None)) not in (None, hook):
        raise settings.refuse("hook_name_out", f"is {shortened(out, 40)!r}: only transcoders write another hook")
    if is_transcoder and settings.get("apply_b_dec_to_input", bool, False):
        raise settings.refuse("apply_b_dec_to_input", "is true, which no transcoder can obey: set it to false")
    if settings.get("hook_head_index_out", int, None) is not None:
        raise settings.refuse("hook_head_index_out", "names a head of attention, which no supported hook has")
    if not is_transcoder and settings.get("d_out", int, None) not in (None, settings.values.get("d_in")):
        raise settings.refuse("d_out", "is not d_in, but an SAE writes what it reads")
    if (shape := settings.get("reshape_activations", str, "none")) != "none":
        raise settings.refuse("reshape_activations", f"is {shape!r}, but no supported hook has heads: it must be none")
    if (dtype := settings.get("dtype", str, "float32")).removeprefix("torch.") not in _DTYPES:
        raise settings.refuse("dtype", f"is {dtype!r}, which SAELens does not have: correct it")


def _notes(settings: _Settings, whose: str) -> Iterable[str]:
    """What the user should know of the file."""
    if unknown := settings.values.keys() - _KNOWN:
        yield f"{whose}: nothing reads {and_more(unknown)} of {CONFIG}: check that it changes no activation"
    version = settings.get("sae_lens_version", str, "") or ""
    if (match := re.match(r"\d{1,4}", version)) and int(match[0]) > 6:
        yield f"{whose} was written by SAELens {shortened(version, 20)}, and is read as SAELens 6 reads it"
