"""Wrong requests by kind, and right ones beside them: what `requests` tries.

    kind -> (name, words of the command line, files of the working folder, environment)

`$W` in words and variables stands for the working folder.
"""

from __future__ import annotations

import dataclasses
import json
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_args, get_type_hints

from pkt.config import Config
from pkt.searchpath import builtin_conf_dir, groups
from pkt.settings import known

POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 16060522496\n"
HUGE = "1" + "0" * 30


@dataclass(frozen=True, kw_only=True)
class Request:
    """One command line with what lies around it.

    Attributes:
        name: its kind and what is wrong with it.
        words: after `pkt`.
        files: of the working folder, by name.
        variables: of the environment.
        model: file of a sound model in the folder `model` -> its content instead; None: the file is taken out.
        code: the exit code that it has to end with.
    """

    name: str
    words: tuple[str, ...]
    files: Mapping[str, str | bytes] = field(default_factory=dict)
    variables: Mapping[str, str] = field(default_factory=dict)
    model: Mapping[str, bytes | None] | None = None
    code: int = 2


def bad() -> Iterator[Request]:
    """Yield every wrong request."""
    for kind in (
        _options,
        _keys,
        _values,
        _config_files,
        _folders,
        _words,
        _models,
        _named,
        _interpolations,
        _sweeps,
    ):
        for number, request in enumerate(kind()):
            yield dataclasses.replace(request, name=f"{kind.__name__[1:]} {number}: {request.name}")


def good() -> Iterator[Request]:
    """Yield right requests, of which only the config is asked for."""
    show = ("--cfg", "job")
    for group, options in groups().items():
        if group not in ("task", "term"):
            for option in options:
                yield Request(
                    name=f"control: {group}={option}", words=("run", f"{group}={option}", *show), code=0
                )
    pair = {"conf/model/mine.yaml": "name: mine\nteacher: {checkpoint: a/b}\nstudent: {checkpoint: c/d}\n"}
    yield Request(name="control: own pair", words=("run", "model=mine", *show), files=pair, code=0)
    merged = {"conf/optim/mine.yaml": "x: &x 0.9\nbetas: [*x, 0.99]\n".replace("x: &x 0.9\n", "lr: &x 0.5\n")}
    yield Request(name="control: an alias", words=("run", "optim=mine", *show), files=merged, code=0)
    foreign = {"conf/config.yaml": "- 1\n", "conf/run.yaml": "a: 1\n", "conf/model/nano.yaml": "hidden: 3\n"}
    yield Request(name="control: a foreign ./conf", words=("run", *show), files=foreign, code=0)
    yield Request(
        name="control: overlays", words=("run", "experiment=[real,none]", "debug=tiny", *show), code=0
    )
    yield Request(name="control: large seed", words=("run", "seed=9223372036854775807", *show), code=0)


def _options() -> Iterator[Request]:
    """Options of every group that are misspelt, several, or none at all."""
    for group in sorted(path.name for path in builtin_conf_dir().iterdir() if path.is_dir()):
        if group in ("hydra", "term", "task"):
            continue
        first = groups()[group][0]
        typos = [f"{first}x", f"{first[:-1]}~", first.upper() + "1", "7", "", "null", "true", "{a:1}"]
        lists = [] if group in ("experiment", "debug") else [f"[{first},{first}]", f"{first},{first}"]
        for value in (*typos, *lists):
            yield Request(name=f"{group}={value}", words=("run", f"{group}={value}"))
        yield Request(name=f"+{group}", words=("run", f"+{group}={first}"))
        yield Request(name=f"{group}@x", words=("run", f"{group}@x={first}"))


def _leaves(cls: type[Any], prefix: str = "") -> Iterator[tuple[str, Any, Any]]:
    hints = get_type_hints(cls)
    for leaf in dataclasses.fields(cls):
        if dataclasses.is_dataclass(hints[leaf.name]):
            yield from _leaves(hints[leaf.name], f"{prefix}{leaf.name}.")
        elif hints[leaf.name] is not Any:
            yield prefix + leaf.name, hints[leaf.name], known(leaf)


def _keys() -> Iterator[Request]:
    """Every key of the schema with a letter too few, too many, or added by force."""
    for number, (key, _, _) in enumerate(_leaves(Config)):
        inside = "x" if key.endswith(".roles") else ".y"  # roles are an open mapping, read with the model
        for wrong in (f"{key[:-1]}=1", f"{key}s=1", f"+{key}x=1", f"++{key}{inside}=1")[number % 2 :: 2]:
            yield Request(name=wrong, words=("run", wrong))


def _values() -> Iterator[Request]:
    """Values of the wrong type or beyond all bounds, for every leaf of the schema."""
    wrong: dict[Any, tuple[str, ...]] = {
        int: ("many", "1.5", HUGE, f"-{HUGE}", "[1,2]", "nan"),
        float: ("fast", "nan", "inf", "[0.1]", "{a: 1}"),
        bool: ("maybe", "2.5", "[true]"),
        str: ('"a\\nb"', '"a\\x00b"', "[a]", "{a: b}"),
        list: ("word", '["a\\tb"]', "{a: 1}"),
        dict: ("word", "[1]"),
    }
    for key, hint, about in _leaves(Config):
        types = [getattr(choice, "__origin__", choice) for choice in (hint, *get_args(hint))]
        kind = next(kind for kind in (list, dict, bool, int, float, str) if kind in types)
        values = [value.encode().decode("unicode_escape") for value in wrong[kind]]
        if about.choices:
            values.append("[nonesuch]" if kind is list else "nonesuch")
        for value in values:
            yield Request(name=f"{key}={value!r}", words=("run", f"{key}={value}"))


def _config_files() -> Iterator[Request]:
    """Files of the user's that are no YAML, no settings, or settings of something else."""
    bomb = "a: &a [x,x,x,x,x,x,x,x,x]\n" + "".join(
        f"{new}: &{new} [{','.join([f'*{old}'] * 9)}]\n"
        for old, new in zip("abcdefgh", "bcdefghi", strict=True)
    )
    texts: dict[str, str | bytes] = {
        "tab": "name: x\n\tteacher: y\n",
        "tag": "name: !!python/object/apply:os.system [ls]\n",
        "unknown tag": "name: !thing x\n",
        "duplicate": "name: a\nname: b\n",
        "self": "defaults: [mine]\nname: a\n",
        "self by group": "defaults: [/model/mine]\nname: a\n",
        "bomb": bomb,
        "own alias": "name: &a [*a]\n",
        "no alias": "name: *a\n",
        "binary": bytes(range(256)),
        "latin": "name: é\n".encode("latin-1"),
        "utf-16": "name: x\n".encode("utf-16"),
        "list": "- a\n- b\n",
        "word": "nano\n",
        "number": "42\n",
        "deep": "name: " + "[" * 2000 + "]" * 2000,
        "deeper": "".join(" " * level + "a:\n" for level in range(300)),
        "open": "name: [a, b\n",
        "quote": "name: 'a\n",
        "two": "name: a\n---\nname: b\n",
        "long": "name: " + "x" * 300_000,
        "typo": "name: a\nteachr: {checkpoint: b}\n",
        "typo inside": "name: a\nteacher: {checkpont: b}\n",
        "type": "name: a\nchat_template: maybe\n",
        "mapping": "name: a\nteacher: 3\n",
        "header": "# @nonsense\nname: a\n",
        "interpolation": "name: ${\n",
        "lost defaults": "defaults: [nanno]\nname: a\n",
        "wrong defaults": "defaults: 3\nname: a\n",
        "number in defaults": "defaults: [3]\nname: a\n",
        "override in vain": "defaults:\n  - override /method: kd\nname: a\n",
        "key of a list": "? [a, b]\n: c\n",
    }
    for name, text in texts.items():
        yield Request(name=name, words=("run", "model=mine"), files={"conf/model/mine.yaml": text})
        variables = {"PKT_CONFIG_DIR": "$W/own"}
        own = {"own/model/mine.yaml": text}
        yield Request(
            name=f"{name}, named", words=("run", "model=mine", "--cfg", "job"), files=own, variables=variables
        )
    yield Request(name="empty", words=("run", "model=mine"), files={"conf/model/mine.yaml": ""})
    circle = {"conf/model/mine.yaml": "defaults: [b]\n", "conf/model/b.yaml": "defaults: [mine]\n"}
    yield Request(name="circle", words=("run", "model=mine"), files=circle)
    yield Request(
        name="primary", words=("run", "-cn", "mine"), files={"conf/mine.yaml": "defaults: [run, mine]\n"}
    )


def _folders() -> Iterator[Request]:
    """Config and output folders that are none."""
    files = {
        "file": "x",
        "empty/file": "x",
        "conf/model/x.yaml": "name: x\n",
        "broken/model/nano.yaml": "a: [\n",
    }
    for folder in ("/nope", "$W/file", "$W/empty", "$W/conf/model", "$W/broken", "$W/conf:/nope"):
        yield Request(name=folder, words=("run",), files=files, variables={"PKT_CONFIG_DIR": folder})
    for folder in ("/nope", "$W/file", "$W/empty", "$W/conf/model"):
        yield Request(name=f"-cd {folder}", words=("run", "-cd", folder), files=files)
    yield Request(name="launcher", words=("run",), variables={"PKT_LAUNCHER": "slrum"})
    yield Request(
        name="output a file", words=("run",), files=files, variables={"PKT_OUTPUT_DIR": "$W/file"}, code=1
    )


def _words() -> Iterator[Request]:
    """Verbs, flags and words that are none."""
    lines = [
        ["rnu"], ["-m"], ["run", "--foo"], ["run", "--multrun"], ["run", "-x"], ["run", "--cfg"],
        ["run", "--cfg", "foo"],
        ["run", "-p"], ["run", "-m", "--cfg", "job"], ["run", "-r", "-m"], ["run", "--resolve=1"],
        ["run", "-cn", "nope"],
        ["run", "-cp", "/nope"], ["run", "seed"], ["run", "=3"], ["run", ""], ["run", "a b=3"], ["run", "seed=[1"],
        ["run", "seed=" + "[" * 5000], ["run", "seed=" + "x" * 50_000], ["run", "a=" + "{b:" * 200], ["run", "@=1"],
        ["run", "~seed"], ["run", "~model"], ["run", "~method"], ["run", "~optim.lr"], ["run", "+foo=1"],
        ["run", "--seed=1"],
        ["run", "hydra.mode=foo"], ["run", "hydra.foo=1"], ["run", "hydra/launcher=typo"],
        ["run", "hydra.job.chdir=x"],
        ["run", "plugins=[nope]"], ["run", "plugins=[../x]"], ["run", "method=nope/kd"],
        ["run", "term@objective.terms.x=ce"],
        ["run", "objective.terms.layer.weigth=2"], ["run", "objective.terms.layer.weight=inf"],
        ["run", "mapping.depth=3"], ["run", "semantics._target_=os.system"],
        ["run", "method._target_=pkt.nope.X"],
        ["analyze", "cak"], ["analyze", "analyze.parts=[]"], ["report"], ["report", "runs=/nope"],
        ["report", "-m", "runs=a"],
        ["env", "--jsno"], ["env", "seed=1"],
    ]  # fmt: skip
    for words in lines:
        yield Request(name=" ".join(words)[:40], words=tuple(words))


def _models() -> Iterator[Request]:
    """A sound model with one file damaged, taken out, or beside another one."""
    header = b"[1, 2]"
    damaged: dict[str, dict[str, bytes | None]] = {}
    for file in (
        "config.json",
        "generation_config.json",
        "tokenizer.json",
        "tokenizer_config.json",
        "model.safetensors",
    ):
        for name, content in {
            "empty": b"",
            "pointer": POINTER,
            "page": b"<!DOCTYPE html>",
            "cut": b'{"a": ',
        }.items():
            damaged[f"{file} {name}"] = {file: content}
    damaged |= {
        "no config": {"config.json": None},
        "no weights": {"model.safetensors": None},
        "pickles": {"model.safetensors": None, "pytorch_model.bin": b"PK\x03\x04"},
        "list": {"config.json": b"[]"},
        "no type": {"config.json": b"{}"},
        "unknown type": {"config.json": b'{"model_type": "zork"}'},
        "own code": {"config.json": b'{"model_type": "zork", "auto_map": {"AutoConfig": "own.C"}}'},
        "encoder": {"config.json": b'{"model_type": "bert"}'},
        "two halves": {"config.json": b'{"model_type": "t5"}'},
        "images": {"config.json": b'{"model_type": "llava"}'},
        "quantised": {
            "config.json": b'{"model_type": "llama", "quantization_config": {"quant_method": "awq"}}'
        },
        "adapter": {"adapter_config.json": b'{"base_model_name_or_path": "a/b"}'},
        "adapter only": {"config.json": None, "adapter_config.json": b'{"base_model_name_or_path": "a/b"}'},
        "header": {"model.safetensors": struct.pack("<Q", len(header)) + header},
        "shards": {
            "model.safetensors": None,
            "model.safetensors.index.json": json.dumps({"weight_map": {"a": "x.safetensors"}}).encode(),
            "y.safetensors": struct.pack("<Q", 2) + b"{}",
        },
    }
    for number, (name, model) in enumerate(damaged.items()):
        who = ("teacher", "student")[number % 2]
        yield Request(name=name, words=("run", f"model.{who}.checkpoint=$W/model"), model=model)
    for name, content in {"empty": b"", "pointer": POINTER, "text": b"hello" * 9, "cut": b"GGUF\3"}.items():
        words = ("run", "model.teacher.checkpoint=$W/m.gguf")
        yield Request(name=f"gguf {name}", words=words, files={"m.gguf": content})
    yield Request(name="eval", words=("eval", "eval.checkpoint=$W/model"), model={"config.json": POINTER})


def _named() -> Iterator[Request]:
    """Files and folders that are not there."""
    for key in (
        "model.teacher.checkpoint", "model.student.checkpoint",
        "eval.checkpoint", "data.train", "data.test",
        "data.extract", "data.align", "data.validation", "benchmark.task_path",
        "benchmark.data_dir", "benchmark.code_set",
    ):  # fmt: skip
        for place in ("/no/such", "./near", "'~/nothing/here'", "'~nobodyhere/x'"):
            yield Request(name=f"{key}={place}", words=("run", f"{key}={place}"), files={"nearby": "x"})
    for checkpoint in ("package:nope/x", "package:pkt/nope", "x.gguf", "a b", "nearby"):
        words = ("run", f"model.teacher.checkpoint='{checkpoint}'")
        yield Request(name=checkpoint, words=words, files={"nearby": "x"})


def _interpolations() -> Iterator[Request]:
    """References that lead nowhere, or back."""
    for key in ("optim.lr", "model.name", "seed", "tracker.group", "data.train"):
        for text in (
            f"${{{key}}}",
            "${nope}",
            "${optim.nope}",
            "${nope:1}",
            "${oc.env:NO_SUCH_VARIABLE}",
            "${",
        ):
            yield Request(name=f"{key}={text}", words=("run", f"{key}={text}"))


def _sweeps() -> Iterator[Request]:
    """Sweeps over nothing, or over what is not there."""
    for word in (
        "seed=range(1,0)",
        "method=glob(zzz*)",
        "seed=choice()",
        "tracker=none,nine",
        "method=sft,",
        "seed=range(a)",
    ):
        yield Request(name=word, words=("run", "-m", word))


def sound_model() -> Path:
    """Return the folder of a model without a fault."""
    import pkt

    return Path(pkt.__file__).parent / "assets" / "nano" / "student"
