"""Load configs, tokenizers and models from every form of checkpoint.

    CheckpointSpec -> Source (hub | folder | gguf) -> [gguf: converted to safetensors once] -> transformers

A student with `init=prune` is a part of its teacher, so for a student every function also takes the spec of the
teacher. `cache_dir` is the folder of converted GGUF files; without one, the file is read anew each time.
"""

from __future__ import annotations

import copy
import importlib.util
import io
import logging
import shutil
import sys
from collections.abc import Mapping
from contextlib import redirect_stderr
from functools import lru_cache
from pathlib import Path
from typing import Any, get_args

from filelock import FileLock

from pkt.config import INITS, CheckpointSpec, Dtype
from pkt.durable import move, set_aside, sync_tree, unique
from pkt.errors import PktError, RequestError, nearest
from pkt.late import torch, transformers
from pkt.manifest import verified, write_manifest
from pkt.models.architecture import Architecture
from pkt.models.fingerprint import content_digest, state
from pkt.models.finite import check_finite
from pkt.models.hub import commit, explained, reach
from pkt.models.kept import Kept, kept_by, recording
from pkt.models.kinds import check_kind
from pkt.models.narrow import narrow, narrow_config, text_alone
from pkt.models.outline import known_context
from pkt.models.precision import too_slow
from pkt.models.quiet import quiet_transformers
from pkt.models.source import Source, check_one_source, check_weights, locate
from pkt.models.surgery import prune, pruned_config

log = logging.getLogger(__name__)

_DTYPES = get_args(Dtype)


def load_config(
    spec: CheckpointSpec, *, teacher: CheckpointSpec | None = None, cache_dir: Path | None = None
) -> Any:
    """Return the config of the language model, without reading weights, and without converting a GGUF file for it.

    Raises:
        PktError: the hub does not give it.
        RequestError: a checkpoint or layer that does not exist.
    """
    source, kept = _source(spec, teacher), kept_by(spec)
    if source.kind == "gguf" and cache_dir is not None and _whole(_conversion(source, cache_dir)):
        source = _converted(source, cache_dir)
    with explained(source), quiet_transformers():
        config = transformers.AutoConfig.from_pretrained(**_arguments(source))
    check_kind(config, f"model.{source.who}.checkpoint={source.name}")
    if kept is None:
        return config.get_text_config()
    roles = declared_roles(spec, teacher)
    with explained(source):
        cut = pruned_config(config, kept.layers, roles=roles)
        if kept.widths:
            text_alone(config)
            cut = narrow_config(cut, kept, roles=roles)
    return recording(cut, kept, config)


def place(spec: CheckpointSpec, *, cache_dir: Path | None = None) -> tuple[str, str | None]:
    """Return the folder of a model's files, or its name and revision on the hub, for an engine that loads it itself."""
    source = _converted(locate(spec, "teacher"), cache_dir)
    if source.kind == "hub":
        return source.name, commit(source) or spec.revision
    return str(source.local), None


def load_generation(spec: CheckpointSpec, *, teacher: CheckpointSpec | None = None) -> Any:
    """Return the generation settings that a checkpoint's model is loaded with, without its weights.

    They are in a file of their own; older checkpoints have them in the model's config, and GGUF files have none.
    """
    source = _source(spec, teacher)
    if source.kind == "gguf":
        return transformers.GenerationConfig()
    named = _arguments(source)
    where = named.pop("pretrained_model_name_or_path")
    with explained(source), quiet_transformers():
        try:
            return transformers.GenerationConfig.from_pretrained(where, **named)
        except OSError:  # as its models do
            return transformers.GenerationConfig.from_pretrained(
                where, **named, config_file_name="config.json", _from_model_config=True
            )


def load_tokenizer(
    spec: CheckpointSpec, *, teacher: CheckpointSpec | None = None, cache_dir: Path | None = None
) -> Any:
    """Return the tokenizer of a checkpoint (the teacher's, for a student that is cut from it)."""
    source = _converted(_source(spec, teacher), cache_dir)
    with explained(source), quiet_transformers():
        return transformers.AutoTokenizer.from_pretrained(**_arguments(source))


def load_model(
    spec: CheckpointSpec,
    cache_dir: Path | None = None,
    device: torch.device | str = "cpu",
    *,
    teacher: CheckpointSpec | None = None,
) -> Any:
    """Return a causal language model in eval mode, on `device` unless `spec.device_map` says otherwise.

    Which parameters require gradients is left as it is.

    Raises:
        PktError: the hub does not give it, or weights are missing in it.
        RequestError: a checkpoint that does not exist, pickled weights only, or layers out of range.
    """
    source, kept = _source(spec, teacher), kept_by(spec)
    if kept is not None:
        load_config(spec, teacher=teacher, cache_dir=cache_dir)  # refuses bad layers first
    if source.kind == "folder":
        check_weights(source.local, source.name, source.who)
    source = _converted(source, cache_dir)
    placement = {"device_map": spec.device_map} if spec.device_map else {}
    name = dtype_name(spec.dtype, torch.device(device).type, spread=bool(spec.device_map))
    dtype: torch.dtype = getattr(torch, name)
    if not spec.device_map and (why := too_slow(dtype, torch.device(device))):
        log.warning("the %s is loaded in %s, and %s (dtype: auto chooses)", source.who, spec.dtype, why)
    with explained(source), quiet_transformers():
        model, report = transformers.AutoModelForCausalLM.from_pretrained(
            **_arguments(source, weights=True), dtype=dtype, output_loading_info=True, **placement
        )
    if missing := sorted(report["missing_keys"]):
        raise PktError(
            f"the {source.who} '{source.name}' lacks {len(missing)} weights, for example {missing[0]}; its files "
            "are incomplete: fetch them anew."
        )
    check_finite(
        model,
        f"the {source.who} '{source.name}'",
        _not_finite(source.who, dtype),
    )
    if unused := sorted(report["unexpected_keys"]):
        log.warning(
            "the %s '%s' has %d weights that its config has no place for, such as %s: they are not used",
            *(source.who, source.name, len(unused), unused[0]),
        )
    if kept is not None:
        model = _cut(model, kept, roles=declared_roles(spec, teacher))
    return model.eval() if spec.device_map else model.eval().to(device)


def _cut(model: Any, kept: Kept, *, roles: Mapping[str, Any] | None) -> Any:
    """Return a student that is cut from its teacher, which is used up."""
    whole = copy.deepcopy(model.config)
    model = prune(model, kept.layers, roles=roles)
    if kept.widths:
        model = narrow(model, kept, roles=roles)
    recording(model.config.get_text_config(), kept, whole)
    return model


def _not_finite(who: str, dtype: torch.dtype) -> str:
    """Say what to do about weights that are not finite."""
    narrow = "They do not fit into float16 (largest number 65504): load it in float32 or bfloat16 "
    remedy = (
        f"{narrow}(model.{who}.dtype). If they are not finite there either, its"
        if dtype == torch.float16
        else "Its"
    )
    return f"{remedy} files are damaged, or its training diverged: fetch or train it anew."


def skeleton(config: Any, declared: Mapping[str, Any] | None = None) -> Architecture:
    """Return the architecture that a config describes, without weights: its parameters are on the meta device.

    Shapes, layers and roles are those of the real model; a module's path may differ where the checkpoint is a
    multimodal one around the language model.

    Args:
        config: a transformers config, as `load_config` returns it.
        declared: module roles, see `Architecture.of`.
    """
    with quiet_transformers(), torch.device("meta"):
        model = transformers.AutoModelForCausalLM.from_config(config)
    return Architecture.of(model, declared or None)


def context_length(config: Any) -> int:
    """Return the number of positions that a model was made for (no limit in its config: `sys.maxsize`)."""
    return known_context(config) or sys.maxsize


def dtype_name(name: str, device_type: str, *, spread: bool = False) -> str:
    """Return the name of a torch dtype; ``auto`` is bfloat16 on a GPU that has it, float32 elsewhere.

    Args:
        name: ``auto``, ``float32``, ``bfloat16`` or ``float16``.
        device_type: of the device that the model goes to.
        spread: whether a device_map decides instead.

    Raises:
        RequestError: any other name.
    """
    if name not in _DTYPES:
        raise RequestError(
            f"dtype={name} is not allowed{nearest(name, _DTYPES)}; allowed are {', '.join(_DTYPES)}."
        )
    if name != "auto":
        return name
    on_gpu = device_type == "cuda" or (spread and torch.cuda.is_available())
    return "bfloat16" if on_gpu and torch.cuda.is_bf16_supported() else "float32"


def declared_roles(spec: CheckpointSpec, teacher: CheckpointSpec | None) -> dict[str, Any] | None:
    """Return the module roles that the request declares for a model, or for the teacher that it is cut from."""
    inherited = teacher.roles if teacher is not None and spec.init == "prune" else None
    return spec.roles or inherited or None


def _source(spec: CheckpointSpec, teacher: CheckpointSpec | None) -> Source:
    """Return the source whose files are read: the teacher's, for a student that is cut from it."""
    if spec.init not in INITS:
        raise RequestError(
            f"model.student.init={spec.init} is not allowed; allowed are {' and '.join(INITS)}."
        )
    if spec.init == "load":
        return locate(spec, "teacher" if teacher is None else "student")
    if teacher is None:
        raise RequestError("init=prune cuts a student from its teacher; a teacher itself is always loaded.")
    check_one_source(spec)
    return _source(teacher, None)


def _arguments(source: Source, *, weights: bool = False) -> dict[str, Any]:
    """Return transformers' arguments for a source."""
    if source.kind == "gguf":
        named = {"pretrained_model_name_or_path": str(source.local.parent), "gguf_file": source.local.name}
        # without it, whether weights stay packed (and untrainable) depends on an optional package
        packed = {"quantization_config": transformers.GgufConfig(dequantize=True)} if weights else {}
        return named | packed
    # False: transformers would ask on the terminal whether to run a checkpoint's own code
    safe = {"trust_remote_code": False} | ({"use_safetensors": True} if weights else {})
    if source.kind == "hub":
        return reach(source) | safe
    return {"pretrained_model_name_or_path": str(source.local), "local_files_only": True} | safe


def _converted(source: Source, cache_dir: Path | None) -> Source:
    """Return the safetensors folder of a GGUF file, made on first use; any other source as it is."""
    if source.kind != "gguf" or cache_dir is None:
        return source
    folder = _conversion(source, cache_dir)
    if not _whole(folder):
        folder.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{folder}.lock"):
            if not _whole(folder, aside=True):
                log.info("converting %s to safetensors, once", source.local.name)
                _convert(source, folder)
    return Source(who=source.who, name=source.name, kind="folder", path=folder)


def _whole(folder: Path, *, aside: bool = False) -> bool:
    """Whether a conversion is there as it was written; a damaged one is moved aside where that is asked for."""
    if not folder.exists():
        return False
    files = sorted(file for file in folder.iterdir() if file.is_file())
    try:
        return _verified(folder, tuple((file, *state(file)) for file in files))
    except (OSError, ValueError, KeyError, TypeError) as error:
        if aside:
            set_aside(folder, error, "converted anew")
        return False


@lru_cache(maxsize=8)  # config, tokenizer and weights are asked for one after the other
def _verified(folder: Path, _files: tuple[tuple[Path, int, int], ...]) -> bool:
    return bool(verified(folder))


def _conversion(source: Source, cache_dir: Path) -> Path:
    return cache_dir / "gguf" / content_digest(source.local)[:16]


def _convert(source: Source, folder: Path) -> None:
    if importlib.util.find_spec("gguf") is None:
        raise PktError(f"reading {source.local.name} needs the gguf package: pip install gguf.")
    building = folder.with_name(f"{folder.name}.tmp-{unique()}")
    building.mkdir()
    try:
        # the GGUF reader's own progress bar cannot be switched off
        with explained(source), quiet_transformers(), redirect_stderr(io.StringIO()):
            model = transformers.AutoModelForCausalLM.from_pretrained(
                **_arguments(source, weights=True), dtype=torch.float32
            )
            model.save_pretrained(building)
            transformers.AutoTokenizer.from_pretrained(**_arguments(source)).save_pretrained(building)
        write_manifest(building, folder.parent.name, folder.name, {"source": source.name}, {})
        sync_tree(building)
        move(building, folder)
    finally:
        shutil.rmtree(building, ignore_errors=True)
