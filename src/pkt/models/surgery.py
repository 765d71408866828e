"""Change a model's structure: cut layers out, and say where adapters go."""

from __future__ import annotations

import copy
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pkt.errors import RequestError, first_line
from pkt.late import Conv1D, LoraLayer, Tensor, nn, peft, torch, transformers
from pkt.models.architecture import Architecture
from pkt.models.behaviour import distance
from pkt.models.cut_config import built, cut_config
from pkt.models.quiet import quiet_transformers
from pkt.models.roles import roles_of
from pkt.models.structure import adopt
from pkt.models.taps import entering_state, like

_FUSED = ("q", "k", "v")  # what `qkv` stands for where a family computes the three in one map
ENDS = ("embed", "head")  # matrices outside the layers that can get an adapter too
_TOKENS = 12  # that a cut model is tried on
NEAR = {"float32": 1e-4, "bfloat16": 5e-2, "float16": 1e-2}  # by how much logits may differ, by their type


@dataclass(frozen=True, kw_only=True)
class Site:
    """A matrix of a model: a projection of a layer, or ``embed`` or ``head`` (layer None)."""

    role: str
    layer: int | None = None


def prune(model: Any, layers: Sequence[int], *, roles: Mapping[str, Any] | None = None) -> Any:
    """Keep only some layers of a model; the embedding, final norm and head stay.

    The model is changed in place and returned; its config and the layers' own numbering follow, so that generation with
    a KV cache and saving work. What transformers loads with that config and these weights has to compute what the model
    computed with its other layers bypassed.

    Args:
        model: a causal language model.
        layers: the layers that stay, numbered from 1, in ascending order.
        roles: declared module roles, see `Architecture.of`.

    Raises:
        RequestError: no layer to keep, one that does not exist, or no ascending order; or layers that no config
            describes, or that need those that go.
    """
    arch = Architecture.of(model, roles)
    check_kept(layers, arch.depth)
    if len(layers) == arch.depth:
        return model
    path, make = arch.roles.layers, type(model)
    text = cut_config(model.config, layers, lambda config: (built(config, make), path))
    expected = _bypassed(arch, layers)
    stack = arch.layers
    kept = [stack[number - 1] for number in layers]
    del stack[:]
    stack.extend(kept)
    for config in _configs(model):
        vars(config).update(vars(copy.deepcopy(text)))
    with quiet_transformers():
        again = make.from_pretrained(  # shares the weights
            None, config=copy.deepcopy(model.config), state_dict=model.state_dict(), dtype=model.dtype
        ).eval()
    adopt(model, again)
    for own in (again, model):
        _check_same(own, expected, layers)
    return model


def pruned_config(config: Any, layers: Sequence[int], *, roles: Mapping[str, Any] | None = None) -> Any:
    """Return the text config that describes the model after `prune`; no weights are needed.

    Raises:
        RequestError: see `prune`.
    """
    check_kept(layers, config.get_text_config().num_hidden_layers)
    if len(layers) == config.get_text_config().num_hidden_layers:
        return copy.deepcopy(config.get_text_config())

    def build(own: Any) -> tuple[Any, str]:
        made: nn.Module = built(own, transformers.AutoModelForCausalLM.from_config)
        return made, roles_of(own, roles).layers

    return cut_config(config, layers, build)


@torch.no_grad()
def _bypassed(arch: Architecture, layers: Sequence[int]) -> Tensor:
    """Return the logits of a few tokens with the layers that go bypassed: each gives back what enters it."""

    def give_back(_m: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> Any:
        return like(output, entering_state(args, kwargs))

    gone = [number for number in range(1, arch.depth + 1) if number not in layers]
    handles = [arch.layer(number).register_forward_hook(give_back, with_kwargs=True) for number in gone]
    try:
        return few_logits(arch.model)
    finally:
        for handle in handles:
            handle.remove()


def near(dtype: torch.dtype) -> float:
    """Return by how much logits of a model in some type may differ from those of its other form."""
    return NEAR[str(dtype).removeprefix("torch.")]


@torch.no_grad()
def few_logits(model: Any) -> Tensor:
    """Return the logits of a few tokens, by which a cut model is compared with what it was cut from."""
    ids = torch.arange(_TOKENS, device=model.get_input_embeddings().weight.device)[None] * 7 + 3
    ids = ids % model.get_input_embeddings().weight.shape[0]
    logits: Tensor = model(input_ids=ids, use_cache=False).logits.float().cpu()
    return logits


def _check_same(model: Any, expected: Tensor, layers: Sequence[int]) -> None:
    """Refuse a cut model that computes something else than its layers did."""
    error = distance(few_logits(model), expected)
    if not error <= near(model.dtype):
        raise RequestError(
            f"model.student.layers={list(layers)}: as a model of their own, these layers of the "
            f"{model.config.model_type} teacher compute something else than in it (relative error of the logits "
            f"{error:.2g}): they need the layers that go (keys and values, or counts, taken from them). Keep other "
            "layers, or load a student instead (model.student.init=load)."
        )


def check_kept(layers: Sequence[int], depth: int) -> None:
    """Refuse a list of layers that cannot be kept of a model of some depth.

    Raises:
        RequestError: it is empty, not ascending, or out of range.
    """
    numbers = list(layers)
    in_range = all(1 <= number <= depth for number in numbers)
    if not numbers or not in_range or numbers != sorted(set(numbers)):
        raise RequestError(
            f"model.student.layers={numbers}: the teacher's layers that stay have to be a non-empty "
            f"ascending list of numbers from 1 to {depth}."
        )


def _configs(model: Any) -> Iterator[Any]:
    """Yield every config object that describes the depth, each once (modules usually share one)."""
    seen: set[int] = set()
    for module in model.modules():
        config: Any = getattr(module, "config", None)
        if hasattr(config, "get_text_config"):
            config = config.get_text_config()
            if id(config) not in seen:
                seen.add(id(config))
                yield config


def sites(arch: Architecture, layers: Iterable[int], roles: Iterable[str]) -> dict[str, Site]:
    """Find the matrices that get adapters: module path -> site, in the order of the forward pass.

    Layers of a model may be of several kinds (mixtures of experts, hybrids): each gets those projections that it has.

    Args:
        arch: the model.
        layers: layer numbers, from 1.
        roles: projection names (q k v o gate up down) in each of those layers, and ``embed`` and ``head``;
            where a family fuses q, k and v, each of them means the fused map.

    Raises:
        RequestError: a layer that does not exist or has none of the projections, a projection that none of the layers
            has, or nothing at all.
    """
    numbers, wanted = sorted(set(layers)), list(dict.fromkeys(roles))
    if not numbers or not wanted:
        raise RequestError("an adapter needs at least one layer and one projection; got an empty list.")
    names = list(dict.fromkeys(_available(arch, role) for role in wanted if role not in ENDS))
    inside = [
        Site(role=name, layer=number) for number in numbers for name in names if _has_map(arch, number, name)
    ]
    bare = [number for number in numbers if names and all(site.layer != number for site in inside)]
    for name in names:
        if bare or all(site.role != name for site in inside):
            raise RequestError(_nowhere(arch, bare[0] if bare else numbers[0], names if bare else [name]))
    chosen = [Site(role=role) for role in ("embed",) if role in wanted]
    chosen += inside
    chosen += [Site(role=role) for role in ("head",) if role in wanted]
    return {site_path(arch, site): site for site in chosen}


def left_out(arch: Architecture, layers: Iterable[int], roles: Iterable[str]) -> str | None:
    """Say which layers lack which of the projections that get adapters; None where all have all."""
    found = sites(arch, layers, roles).values()
    names = dict.fromkeys(site.role for site in found if site.layer is not None)
    lacking = {
        name: [n for n in sorted(set(layers)) if Site(role=name, layer=n) not in found] for name in names
    }
    told = [f"no {name} in layers {', '.join(map(str, where))}" for name, where in lacking.items() if where]
    return "; ".join(told) or None


def site_path(arch: Architecture, site: Site) -> str:
    """Return the module path of a site.

    Raises:
        RequestError: the model has no such layer or projection.
    """
    if site.layer is None:
        return arch.roles.embed if site.role == "embed" else arch.roles.head
    if not _has_map(arch, site.layer, site.role):
        raise RequestError(_nowhere(arch, site.layer, [site.role]))
    return f"{arch.roles.layers}.{site.layer - 1}.{arch.projection_path(site.role)}"


def _has_map(arch: Architecture, number: int, name: str) -> bool:
    """Return whether a layer has a projection, as a module that can get an adapter."""
    layer, path = arch.layer(number), arch.projection_path(name)
    return _is_map(dict(layer.named_modules()).get(path))


def _is_map(module: nn.Module | None) -> bool:
    return isinstance(module, nn.Linear | Conv1D | LoraLayer)


def _nowhere(arch: Architecture, number: int, names: Sequence[str]) -> str:
    """Say that a layer has none of some projections, what it has, and what to set."""
    maps = [path for path, module in arch.layer(number).named_modules() if _is_map(module)]
    shown = ", ".join(path for path in maps if not path.endswith(("lora_A.default", "lora_B.default")))
    where = {name: arch.projection_path(name) for name in names}
    known = [name for name in arch.projection_names() if _has_map(arch, number, name)]
    return (
        f"layer {number} of this {arch.model.config.model_type} model has no linear map "
        f"{', '.join(f'{name} ({path})' for name, path in where.items())}; its linear maps are {shown or 'none'} "
        "(experts that are one fused parameter get no adapter). "
        f"{_remedy(known)}"
    )


def matrix_OI(module: nn.Module) -> Tensor:
    """Return a module's weight as a linear map, (outputs, inputs); a view: writing into it changes the module."""
    weight = getattr(module, "base_layer", module).weight
    assert isinstance(weight, Tensor)
    return oriented(module, weight)


def oriented(module: nn.Module, stored: Tensor) -> Tensor:
    """View numbers in the layout of a module's weight as (outputs, inputs).

    GPT-2's `Conv1D` stores (inputs, outputs), and so does an embedding, whose inputs are tokens.
    """
    assert stored.dim() == 2
    base = getattr(module, "base_layer", module)
    return stored.T if isinstance(base, (Conv1D, nn.Embedding)) else stored


def lora_config(
    arch: Architecture,
    layers: Iterable[int],
    roles: Iterable[str],
    *,
    rank: int,
    alpha: float,
    dropout: float = 0.0,
) -> peft.LoraConfig:
    """Describe adapters on some matrices, for any family.

    Args:
        arch: the model.
        layers: layer numbers, from 1.
        roles: see `sites`.
        rank: LoRA rank.
        alpha: LoRA alpha; the update is scaled by alpha / rank.
        dropout: on the adapters' input.

    Raises:
        RequestError: see `sites`; or the embedding or head of a model that ties them.
    """
    places = sites(arch, layers, roles)
    ends = [site.role for site in places.values() if site.layer is None]
    if ends and arch.tied:
        raise RequestError(
            f"adapters on {' and '.join(ends)} were asked for, but in this {arch.model.config.model_type} "
            "model input embedding and head are one tensor: folding an adapter into one would change the "
            "other. Leave embed and head out of the update's targets (recipe=laten in method=seeking)."
        )
    maps = [arch.model.get_submodule(path) for path in places]
    return peft.LoraConfig(
        task_type="CAUSAL_LM",
        r=rank,
        lora_alpha=alpha,
        lora_dropout=dropout,
        target_modules=list(places) if _renamed(arch) else _pattern(arch, places.values()),
        fan_in_fan_out=any(isinstance(module, Conv1D) for module in maps),
    )


def _renamed(arch: Architecture) -> bool:
    """Return whether peft translates names of modules for this type; of a pattern it would forget the layers."""
    from transformers.conversion_mapping import get_checkpoint_conversion_mapping

    return get_checkpoint_conversion_mapping(arch.model.config.model_type) is not None


def wrap(arch: Architecture, config: peft.LoraConfig, places: Iterable[str]) -> peft.PeftModel:
    """Put adapters on some modules of a model, and on no others.

    Args:
        arch: the model.
        config: of `lora_config`.
        places: the modules' paths.

    Raises:
        RequestError: peft puts them elsewhere: for some mixtures of experts it takes up, gate and down for those of
            the fused experts.
    """
    try:
        adapter = peft.get_peft_model(arch.model, config)
        named = arch.model.named_modules()
        found = {name for name, module in named if isinstance(module, LoraLayer)}
        problem = (
            "" if found == set(places) else f"it adapts {', '.join(sorted(found ^ set(places))[:4])} too"
        )
    except ValueError as error:
        problem = first_line(error).rstrip(".")
    if problem:
        attention = [name for name in ("q", "k", "v", "qkv", "o") if name in arch.projection_names()]
        raise RequestError(
            f"peft puts no adapters on exactly these projections of a {arch.model.config.model_type} model: {problem}. "
            f"{_remedy(attention)}"
        )
    return adapter


def _available(arch: Architecture, role: str) -> str:
    names = arch.projection_names()
    name = "qkv" if role in _FUSED and role not in names and "qkv" in names else role
    if name not in names:
        raise RequestError(
            f"{arch.model.config.model_type} layers have no projection '{name}'; they have "
            f"{', '.join(names) or 'none'}. {_remedy(names)}"
        )
    return name


def _remedy(names: Sequence[str]) -> str:
    targets = f"method.update.targets=[{','.join(names)}]"
    set_them = f"Set {targets} (for method=seeking with method.recipe=null), declare" if names else "Declare"
    return (
        f"{set_them} others with model.<teacher|student>.roles.projections.<name>=<path in a layer>, or train whole "
        "layers (method.update.kind=full)."
    )


def _pattern(arch: Architecture, chosen: Iterable[Site]) -> str:
    """Match exactly the chosen modules (peft compares a string with the whole module path)."""
    by_layer: dict[int, list[str]] = {}
    for site in chosen:
        if site.layer is not None:
            by_layer.setdefault(site.layer, []).append(arch.projection_path(site.role))
    alike: dict[tuple[str, ...], list[int]] = {}
    for number, paths in sorted(by_layer.items()):
        alike.setdefault(tuple(dict.fromkeys(paths)), []).append(number - 1)
    patterns = [
        rf"{re.escape(arch.roles.layers)}\.({'|'.join(map(str, indices))})\.({'|'.join(map(re.escape, paths))})"
        for paths, indices in alike.items()
    ]
    patterns += [re.escape(site_path(arch, site)) for site in chosen if site.layer is None]
    return "|".join(patterns)
