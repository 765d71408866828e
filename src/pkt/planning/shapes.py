"""The sizes of a model as its config has them, and what follows from them: parameters and work per token."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from pkt.errors import RequestError
from pkt.models.kept import Counts, Sizes
from pkt.models.outline import known_context

WIDTHS = {"float32": 4, "bfloat16": 2, "float16": 2}  # bytes of a number
UNGATED = ("gpt2", "gpt_neox", "opt", "bloom", "falcon", "mpt", "phi")  # types whose MLP has two matrices
TIED = (
    "gpt2",
    "opt",
    "bloom",
    "falcon",
    "mpt",
    "gemma",
    "gemma2",
    "gemma3_text",
)  # types that tie unless told not to
PLACED = {"gpt2": 0, "opt": 2}  # types with learned positions, and how many more than the context has
EVERYWHERE = ("gpt2", "gpt_neox", "opt", "bloom")  # types whose matrices and norms all have a bias
BIASED = ("qwen2",)  # types whose q, k and v have a bias whatever the config says
NORMED = ("qwen3",)  # types that norm queries and keys per head
TOKENIZER = 70  # bytes of a tokenizer's files per token, roughly
EXPERTS = ("num_experts", "num_local_experts", "n_routed_experts")


@dataclass(frozen=True, kw_only=True)
class Shape:
    """A model's sizes.

    Attributes:
        layers: L.
        width: D, channels of the residual stream.
        queries: channels of all query heads of a layer.
        keys: channels of its key heads, and of its value heads.
        head: channels of one head.
        mlp: intermediate channels.
        vocabulary: V, rows of the embedding.
        gated: whether the MLP has a gate beside its two matrices.
        tied: whether head and embedding are one tensor.
        biases: numbers of a layer beside its matrices and the weights of two norms.
        more: numbers outside the layers beside embedding, head and the weight of the final norm.
        context: positions that it was made for.
        bytes: of a number of its weights.
        spread: whether its weights are spread over the devices (`device_map`).
    """

    layers: int
    width: int
    queries: int
    keys: int
    head: int
    mlp: int
    vocabulary: int
    gated: bool
    tied: bool
    biases: int
    more: int
    context: int
    bytes: int
    spread: bool = False

    @classmethod
    def read(cls, config: Mapping[str, Any], dtype: str, named: str) -> Shape:
        """Return the shape that a config describes.

        Args:
            config: what its ``config.json`` holds, or only the part of the language model.
            dtype: of the weights as they are loaded.
            named: what messages call it.

        Raises:
            RequestError: a config without sizes, or a mixture of experts.
        """
        own = {**config, **config.get("text_config", {})}
        sizes, rows = Sizes.read(own.get), own.get("vocab_size")
        if sizes is None or type(rows) is not int or any(own.get(name) for name in EXPERTS):
            raise RequestError(
                f"{named}: pkt plan reads the sizes of decoders with one attention and one MLP per layer "
                "(hidden_size, num_hidden_layers, num_attention_heads, intermediate_size, vocab_size), and this config "
                f"(model_type={own.get('model_type')}) has others; run the request on few rows (data.sizes) instead"
            )
        kind, queries, keys = own.get("model_type"), sizes.heads * sizes.head, sizes.groups * sizes.head
        context = known_context(own) or 2**31
        biases = queries + 2 * keys if kind in (*BIASED, *EVERYWHERE) or own.get("attention_bias") else 0
        biases += 2 * sizes.head if kind in NORMED else 0
        biases += 4 * sizes.hidden + sizes.mlp if kind in EVERYWHERE else 0
        placed = (context + PLACED[kind]) * sizes.hidden if kind in PLACED else 0
        return cls(
            layers=sizes.layers,
            width=sizes.hidden,
            queries=queries,
            keys=keys,
            head=sizes.head,
            mlp=sizes.mlp,
            vocabulary=rows,
            gated=kind not in UNGATED,
            tied=bool(own.get("tie_word_embeddings", kind in TIED)),
            biases=biases,
            more=placed + (sizes.hidden if kind in EVERYWHERE else 0),
            context=context,
            bytes=WIDTHS[dtype],
        )

    @property
    def sizes(self) -> Sizes:
        """The sizes as cuts read them."""
        heads = {"heads": self.queries // self.head, "groups": self.keys // self.head, "head": self.head}
        return Sizes(layers=self.layers, hidden=self.width, mlp=self.mlp, **heads)

    def cut(self, counts: Counts, layers: int) -> Shape:
        """Return the shape of a student that keeps so much of this model."""
        groups = self.keys // self.head if counts.groups is None else counts.groups
        per_group = self.queries // self.keys
        return replace(
            self,
            layers=layers,
            width=counts.hidden or self.width,
            queries=groups * per_group * self.head,
            keys=groups * self.head,
            mlp=counts.mlp or self.mlp,
        )

    @property
    def projections(self) -> dict[str, tuple[int, int]]:
        """(outputs, inputs) of each matrix of a layer, by its role, and of ``embed`` and ``head``."""
        width, ends = self.width, (self.vocabulary, self.width)
        gate = {"gate": (self.mlp, width)} if self.gated else {}
        attention = {"q": (self.queries, width), "k": (self.keys, width), "v": (self.keys, width)}
        attention |= {"o": (width, self.queries)}
        return {
            **attention,
            **gate,
            "up": (self.mlp, width),
            "down": (width, self.mlp),
            "embed": ends,
            "head": ends,
        }

    @property
    def matrices(self) -> int:
        """Numbers in the matrices of a layer: what a token is multiplied with."""
        inside = (size for role, size in self.projections.items() if role not in ("embed", "head"))
        return sum(outputs * inputs for outputs, inputs in inside)

    @property
    def layer(self) -> int:
        """Parameters of a layer."""
        return self.matrices + 2 * self.width + self.biases

    @property
    def parameters(self) -> int:
        """Parameters of the model."""
        ends = self.vocabulary * self.width * (1 if self.tied else 2)
        return self.layers * self.layer + ends + self.width + self.more

    @property
    def weights(self) -> int:
        """Bytes of the loaded model."""
        return self.parameters * self.bytes

    @property
    def folder(self) -> int:
        """Bytes of the saved model, with its tokenizer."""
        return self.weights + TOKENIZER * self.vocabulary

    def adapter(self, roles: list[str], rank: int) -> int:
        """Return the parameters of the adapters of one layer."""
        known = self.projections
        inside = [role for role in roles if role in known and role not in ("embed", "head")]
        return rank * sum(sum(known[role]) for role in inside)

    def forward(self, tokens: float, length: float, layers: float | None = None) -> float:
        """Return the floating point operations of tokens through layers, attention over their rows included.

        Args:
            tokens: how many.
            length: of the rows that they are in.
            layers: how many layers run; None: all.
        """
        run = self.layers if layers is None else layers
        return tokens * run * (2 * self.matrices + 4 * length * self.queries)

    def read_out(self, positions: float) -> float:
        """Return the operations of logits at some positions."""
        return 2.0 * positions * self.vocabulary * self.width
