"""Cut a model's widths: key-value heads with their queries, intermediate channels, channels of the residual stream.

model, Kept -> rows and columns of every tensor -> config that counts them -> model of these weights
            -> logits of the whole model with the rest masked: the same? -> that model; else refused

No list of model types: projections are known by their roles, norms and embeddings by their width, and a tensor that is
neither is refused by its name. What is not seen there (another order of a fused map's rows) is seen in the logits.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import Any

from pkt.errors import RequestError, in_a_line
from pkt.late import Conv1D, Tensor, nn, torch, transformers
from pkt.models.architecture import Architecture
from pkt.models.behaviour import distance
from pkt.models.cut_config import built, made
from pkt.models.kept import NAMES, Kept, Sizes, spread_out
from pkt.models.quiet import quiet_transformers
from pkt.models.surgery import few_logits, near, oriented

Rows = Tensor | slice
"""Indices along an axis."""
_ALL = slice(None)
_ALIKE = " (where heads are hidden / heads channels wide, cut both by the same share)"
_REMEDY = "Cut layers alone (model.student.cut.layers or model.student.layers), or choose another teacher."


def narrow(model: Any, kept: Kept, *, roles: Mapping[str, Any] | None = None) -> Any:
    """Return a model with some of the heads and channels of another one, whose layers are those that stay.

    Every weight is the rows and columns that stay of the given model's. What a family computes of its width follows the
    new one (Gemma's scale of the embedding).

    Args:
        model: a causal language model; it is left as it is.
        kept: what stays.
        roles: declared module roles, see `Architecture.of`.

    Raises:
        RequestError: see `narrow_config`; or what stays computes something else than it did in the model.
    """
    arch, make = Architecture.of(model, roles), type(model)
    config = narrow_config(model.config, kept, roles=roles)
    weights = _cut(arch, kept)
    with quiet_transformers():
        found = make.from_pretrained(None, config=config, state_dict=weights, dtype=model.dtype)
    found = found.eval().to(arch.device)
    found.generation_config = copy.deepcopy(model.generation_config)
    try:
        with _masked(arch, found, kept):
            expected = few_logits(model)
        error = distance(few_logits(found), expected)
    except Exception as failure:  # whatever a model's own code says of sizes that it does not expect
        raise _refusal(config, f"what stays cannot be computed ({in_a_line(failure)})") from failure
    if not error <= near(model.dtype):
        raise _refusal(
            config,
            f"what stays computes something else than it did (relative error of the logits {error:.2g})",
        )
    return found


def narrow_config(config: Any, kept: Kept, *, roles: Mapping[str, Any] | None = None) -> Any:
    """Return the config of a model after `narrow`; no weights are needed.

    Args:
        config: of the model whose layers are those that stay.
        kept: what stays of its widths.
        roles: declared module roles.

    Raises:
        RequestError: a model with tensors that are no projection, norm or embedding, or for which no config says what
            stays.
    """
    text_alone(config)
    make = transformers.AutoModelForCausalLM.from_config
    arch = Architecture.of(built(config, make), roles)
    wanted = {name: tuple(tensor.shape) for name, tensor in _cut(arch, kept).items()}
    new = _resized(config, kept)
    alike = "" if new.hidden == new.heads * new.head else _ALIKE
    try:
        candidate = made(config, _named(config, new))
        found = {name: tuple(tensor.shape) for name, tensor in built(candidate, make).state_dict().items()}
    except Exception as error:  # whatever a model's own code says of sizes that make no sense
        raise _refusal(config, f"{in_a_line(error)}{alike}") from error
    for name, shape in wanted.items():
        if found.get(name) != shape:
            raise _refusal(
                config, f"with a config of that size {name} is {found.get(name)}, not {shape}{alike}"
            )
    return candidate


def text_alone(config: Any) -> None:
    """Refuse a language model inside one that reads more than text.

    Raises:
        RequestError: it is one.
    """
    if config.get_text_config() is not config:
        raise _refusal(config, "it is a language model inside one that reads more than text")


def sizes(config: Any) -> Sizes:
    """Return the sizes of a model.

    Raises:
        RequestError: its config does not say them.
    """
    found = Sizes.read(lambda name: _value(config, name))
    if found is None:
        raise _refusal(config, "its sizes do not stand in its config as one number each")
    return found


def _value(config: Any, name: str) -> Any:
    try:
        return getattr(config, name, None)
    except Exception:  # a config may refuse to say one number for all layers (Gemma 4)
        return None


def _resized(config: Any, kept: Kept) -> Sizes:
    """Return the sizes of a model after it is cut."""
    whole = sizes(config)
    groups = len(kept.groups[0]) if kept.groups else whole.groups
    return replace(
        whole,
        groups=groups,
        heads=groups * whole.queries,
        mlp=len(kept.mlp[0]) if kept.mlp else whole.mlp,
        hidden=len(kept.hidden) if kept.hidden else whole.hidden,
    )


def _named(config: Any, new: Sizes) -> dict[str, Any]:
    """Return a config's values with other widths; the size of a head is always written out."""
    values: dict[str, Any] = config.to_dict()
    for size in ("hidden", "heads", "groups", "mlp"):
        values |= {name: getattr(new, size) for name in NAMES[size] if name in values}
    return values | {"head_dim": new.head}


def _cut(arch: Architecture, kept: Kept) -> dict[str, Tensor]:
    """Return what stays of every tensor.

    Raises:
        RequestError: a projection has fewer rows than the config says: layers of several widths, or maps that are fused
            in another way (one key-value head for all queries, in GPT-BigCode).
    """
    try:
        return _sliced(arch, kept)
    except IndexError as failure:
        raise _refusal(
            arch.model.config, f"a projection has fewer rows than its config says ({in_a_line(failure)})"
        ) from failure


def _sliced(arch: Architecture, kept: Kept) -> dict[str, Tensor]:
    """Return the rows and columns that stay of every tensor, by its name."""
    projections, found = _projections(arch, kept), {}
    for name, tensor in arch.model.state_dict().items():
        path = name.rpartition(".")[0]
        module = arch.model.get_submodule(path)
        rows, columns = projections.get(path) or _others(arch, kept, module, name, tensor)
        if tensor.dim() == 2:
            tensor = oriented(module, oriented(module, tensor)[rows][:, columns])
        elif tensor.dim() == 1:
            tensor = tensor[rows]
        found[name] = tensor.contiguous()
    return found


def _projections(arch: Architecture, kept: Kept) -> dict[str, tuple[Rows, Rows]]:
    """Return, by path, which outputs and inputs stay of the projections of all layers."""
    whole, found = sizes(arch.model.config), {}
    for index in range(arch.depth):
        axes = _axes(kept, index, whole)
        for name in _roles(arch):
            if not isinstance(arch.projection(index + 1, name), nn.Linear | Conv1D):
                raise _refusal(arch.model.config, f"'{name}' of layer {index + 1} is no linear map")
            found[f"{arch.roles.layers}.{index}.{arch.projection_path(name)}"] = axes[name]
    return found


def _roles(arch: Architecture) -> Sequence[str]:
    """Return the projections of a layer: attention and one MLP, in every layer."""
    names = arch.projection_names()
    needed = ["qkv"] if "qkv" in names else ["q", "k", "v"]
    needed += ["o", *(["gate"] if "gate" in names else []), "up", "down"]
    for name in needed:
        having = arch.layers_with(arch.projection_path(name)) if name in names else []
        if len(having) < arch.depth:
            where = f"only in layers {', '.join(map(str, having))}" if having else "in no layer"
            raise _refusal(arch.model.config, f"it has a linear map '{name}' {where}")
    return needed


def _axes(kept: Kept, index: int, whole: Sizes) -> dict[str, tuple[Rows, Rows]]:
    """Return which outputs and inputs stay of each projection of a layer (counted from 0)."""
    stream, mlp = _rows(kept.hidden), _rows(None if kept.mlp is None else kept.mlp[index])
    queries = pairs = fused = _rows(None)
    if kept.groups is not None:
        chosen = kept.groups[index]
        of_queries = spread_out(chosen, whole.queries * whole.head)
        of_pairs = spread_out(chosen, whole.head)
        keys, values = whole.heads * whole.head, (whole.heads + whole.groups) * whole.head  # where they start
        queries, pairs = _rows(of_queries), _rows(of_pairs)
        fused = _rows([*of_queries, *(keys + row for row in of_pairs), *(values + row for row in of_pairs)])
    return {
        "q": (queries, stream),
        "k": (pairs, stream),
        "v": (pairs, stream),
        "qkv": (fused, stream),
        "o": (stream, queries),
        "gate": (mlp, stream),
        "up": (mlp, stream),
        "down": (stream, mlp),
    }


def _rows(chosen: Sequence[int] | None) -> Rows:
    return _ALL if chosen is None else torch.tensor(chosen)


def _others(
    arch: Architecture, kept: Kept, module: nn.Module, name: str, tensor: Tensor
) -> tuple[Rows, Rows]:
    """Return which rows and columns stay of a tensor that is no projection's."""
    stream = _rows(kept.hidden)
    if isinstance(module, nn.Embedding):  # (tokens, D) is stored, which is (D, tokens) as a map
        return stream, _ALL
    if module is arch.head:
        return _ALL, stream
    if kept.hidden is None or arch.width not in tensor.shape:
        return _ALL, _ALL
    if tensor.dim() != 1:
        raise _refusal(
            arch.model.config,
            f"pkt does not know what {name} {tuple(tensor.shape)} is, which has the width {arch.width}",
        )
    return stream, _ALL


@contextmanager
def _masked(arch: Architecture, cut: Any, kept: Kept) -> Iterator[None]:
    """Let a model compute what its parts that stay compute, at its own widths: the dense reference of a cut.

    Heads and channels that go give 0. Norms read the channels that stay alone, and embeddings are those of the cut
    model, as both depend on the width.
    """
    axes = [_axes(kept, index, sizes(arch.model.config)) for index in range(arch.depth)]
    with ExitStack() as stack:
        for index in range(arch.depth):
            for name in ("o", "down"):
                module = arch.projection(index + 1, name)
                stack.callback(module.register_forward_pre_hook(_entering(axes[index][name][1])).remove)
                stack.callback(module.register_forward_hook(_leaving(axes[index][name][0])).remove)
        if kept.hidden is not None:
            for path, module in arch.model.named_modules():
                if (stays := _on_stream(arch, cut, path, module, torch.tensor(kept.hidden))) is not None:
                    stack.callback(module.register_forward_hook(stays).remove)
        yield


def _entering(stay: Rows) -> Callable[..., Any]:
    return lambda _m, args: (_only(args[0], stay), *args[1:])


def _leaving(stay: Rows) -> Callable[..., Any]:
    return lambda _m, _args, output: _only(output, stay)


def _only(states: Tensor, stay: Rows) -> Tensor:
    """Return states with 0 in the channels that go."""
    found = torch.zeros_like(states)
    found[..., stay] = states[..., stay]
    return found


def _on_stream(
    arch: Architecture, cut: Any, path: str, module: nn.Module, stay: Tensor
) -> Callable[..., Any] | None:
    """Return what takes the place of an embedding's or a norm's output; None for any other module."""
    weight = getattr(module, "weight", None)
    if isinstance(module, nn.Embedding):
        own = cut.get_submodule(path)
    elif isinstance(weight, Tensor) and weight.shape == (arch.width,):
        own = copy.deepcopy(module)
        for name, parameter in module.named_parameters():
            setattr(own, name, nn.Parameter(parameter.detach()[stay]))
        if hasattr(own, "normalized_shape"):
            setattr(own, "normalized_shape", (len(stay),))  # noqa: B010  # of a LayerNorm
    else:
        return None

    def stays(_m: nn.Module, args: tuple[Any, ...], output: Tensor) -> Tensor:
        read = args[0] if isinstance(module, nn.Embedding) else args[0][..., stay]
        found = torch.zeros_like(output)
        found[..., stay] = own(read, *args[1:])
        return found

    return stays


def _refusal(config: Any, why: str) -> RequestError:
    return RequestError(
        f"model.student.cut: the widths of this {config.model_type} model cannot be cut like that: {why}. {_REMEDY}"
    )
