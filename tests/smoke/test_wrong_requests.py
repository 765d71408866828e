"""What a user gets wrong: one clear message, the right exit code, nothing half-written."""

from __future__ import annotations

import json
import os

import pytest
import torch

from tiny import tiny_model, tiny_tokenizer


def refused(result, code: int, *parts: str) -> None:
    """Check exit code, one message without a traceback, and what it has to say."""
    assert result.code == code, (result.code, result.err)
    assert "Traceback" not in result.err + result.out
    for part in parts:
        assert part in result.err, result.err


def stored(pkt) -> list[str]:
    """Finished or half-written artifacts; lock files, and what is remembered of rows and models, are none."""
    store = pkt.outputs / "store"
    files = [path for path in store.rglob("*") if path.is_file()] if store.exists() else []
    small = ("rows", "models", "probes")
    return [str(path) for path in files if path.suffix != ".lock" and path.parent.name not in small]


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        (["transfr"], ["unknown verb 'transfr'", "transfer"]),
        (["run", "mehtod=sft"], ["mehtod", "method"]),
        (["run", "method=semaling"], ["semaling", "semalign"]),
        (["run", "mapping=critcal"], ["critcal", "critical"]),
        (["run", "optim.lrr=1"], ["optim.lrr", "lr"]),
        (["run", "optim.lr=fast"], ["optim.lr", "number", "fast"]),
        (["run", "method.update.rank=abc"], ["rank", "integer", "abc"]),
        (["run", "optim.schedule=step"], ["optim.schedule", "cosine", "linear"]),
        (["run", "method.interface=mpl"], ["interface", "mlp"]),
        (["run", "method.update.kind=lorra"], ["kind", "lora"]),
        (["run", "objective.label_share=0.5"], ["objective.label_share", "objective.terms.ce.weight"]),
        (["run", "+objective.top_k=3"], ["objective.top_k", "objective.terms.kl.top_k"]),
        (["run", "objective.terms.layer.position=all"], ["objective.terms.layer.position", "positions"]),
        (["run", "task=custom"], ["benchmark.tasks=[...]"]),
        (["run", "data.columns=prompt:q", "data.columns=answer:a"], ["data.columns: a mapping", "in quotes"]),
        (
            ["run", "model.student.init=prune", "model.student.layers=[1]"],
            ["student.checkpoint=package:pkt/assets/nano/student is set too"],
        ),
        (["run", "term@objective.terms.layr=fisher"], ["objective.terms.layr", "+term@", "geometry"]),
        (["run", "term@objective.terms.layer=fischer"], ["fischer", "fisher"]),
    ],
)
def test_wrong_words(pkt, words, parts):
    refused(pkt(*words), 2, *parts)
    assert stored(pkt) == []


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        (["optim.lrr=1", "seed=2", "optim.steps=x"], ["'optim.lrr'", "optim.steps: an integer"]),
        (["method=kd", "method.nope=1", "data.also=2"], ["'method.nope'", "'data.also'"]),
        (["method=sfft", "optim.lrr=1", "mapping=nil"], ["method=sfft", "'optim.lrr'", "mapping=nil"]),
        (["optim.lrr=1", "optim.lrr=2", "~dataa", "seed=a"], ["'optim.lrr'", "'dataa'", "seed: an integer"]),
        (
            ["-m", "optim.lrr=1,2", "method=sft,kd", "seed=range(0,3)", "optim.lr=a,b"],
            ["'optim.lrr'", "optim.lr: a"],
        ),
    ],
)
def test_all_words_that_do_not_fit_are_told_at_once(pkt, words, parts):
    result = pkt("run", *words)
    refused(result, 2, f"{len(parts)} things are wrong", *parts)
    assert stored(pkt) == []


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["data.train=rows.jsonl", "data.test=rows.jsonl"], "data.train=rows.jsonl, data.test=rows.jsonl"),
        (["data.columns={prompt: question}"], "data.columns={'prompt': 'question'}"),
        (["data.supervise=all"], "data.supervise=all"),
        (["benchmark=gsm8k", "data.validation=rows.jsonl"], "data.validation=rows.jsonl"),
        (["benchmark.data_dir=."], "benchmark.data_dir=."),
        (
            ["benchmark=gsm8k", "benchmark.code_set=pystdlib", "benchmark.data_dir=."],
            "benchmark.code_set=pystdlib",
        ),
        (
            [
                "benchmark=custom",
                "benchmark.train=[nano_math]",
                "benchmark.tasks=[nano_math]",
                "data.supervise=all",
            ],
            "data",
        ),
    ],
)
@pytest.mark.parametrize("verb", ["run", "rows"])
def test_files_that_no_task_reads_are_refused(pkt, tmp_path, verb, words, named):
    (tmp_path / "rows.jsonl").write_text('{"prompt": "a", "answer": " b"}\n', encoding="utf-8")
    refused(
        pkt(verb, *words), 2, f"pkt: {named}", "does not read that. For rows of your own add benchmark=custom"
    )
    assert stored(pkt) == []


def test_one_word_that_does_not_fit_is_told_alone(pkt):
    result = pkt("transfer", "method=kd", "objective.terms.layer.weight=3", "seed=4", "optim.lr=1e-3")
    refused(result, 2, "objective.terms.layer.weight")
    assert "things are wrong" not in result.err


def test_layer_out_of_range(pkt, tiny_request):
    result = pkt("transfer", "method=semalign", "mapping=explicit", "mapping.layers=[[9,2]]", *tiny_request)
    refused(result, 2, "9", "6")
    assert stored(pkt) == []


def test_trained_layer_out_of_range(pkt, tiny_request):
    refused(pkt("transfer", "method=sft", "method.layers=[7]", *tiny_request), 2, "layer 7", "1 to 4")
    assert stored(pkt) == []


def test_vocabularies_that_differ_are_two_and_told(pkt, tiny_request, tmp_path):
    folder = tmp_path / "other"
    tiny_model("llama", depth=6, width=48).save_pretrained(folder)
    other = tiny_tokenizer()
    vocabulary = json.loads(other.backend_tokenizer.to_str())
    model = vocabulary["model"]["vocab"]
    a, b = sorted(model, key=model.get)[100:102]
    model[a], model[b] = model[b], model[a]
    other.save_pretrained(folder)
    (folder / "tokenizer.json").write_text(json.dumps(vocabulary), encoding="utf-8")
    request = [*tiny_request, f"model.teacher.checkpoint={folder}"]
    told = pkt("transfer", "method=semalign", *request)
    assert told.code == 0, told.err
    assert "two vocabularies (2 of 320 token ids differ: id 100: teacher" in told.err
    assert "tokens stand for the same bytes" in told.err


def test_empty_train_split(pkt, tiny_request, tmp_path):
    empty = tmp_path / "empty.jsonl"
    empty.write_text("", encoding="utf-8")
    refused(pkt("transfer", "method=sft", *tiny_request, f"data.train={empty}"), 2, "empty.jsonl")
    assert stored(pkt) == []


def test_prompt_longer_than_the_context(pkt, tiny_request, tmp_path):
    rows = tmp_path / "long.jsonl"
    row = {"id": "long-one", "prompt": "apples " * 400, "answer": " 1"}
    short = [{"id": str(i), "prompt": f"Ada has {i} books.", "answer": " 1"} for i in range(60)]
    rows.write_text("\n".join(json.dumps(r) for r in [row, *short]) + "\n", encoding="utf-8")
    request = [*tiny_request, f"data.train={rows}", "data.sizes.train=40"]
    refused(pkt("transfer", "method=sft", *request), 2, "long-one", "128")
    assert stored(pkt) == []


def test_checkpoint_without_safetensors(pkt, tiny_request, tmp_path):
    folder = tmp_path / "pickled"
    model = tiny_model("llama")
    model.save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    (folder / "model.safetensors").unlink()
    torch.save(model.state_dict(), folder / "pytorch_model.bin")
    refused(
        pkt("transfer", "method=sft", *tiny_request, f"model.student.checkpoint={folder}"), 2, "safetensors"
    )
    assert stored(pkt) == []


def test_read_only_output_folder(pkt, tiny_request, tmp_path, monkeypatch):
    blocked = tmp_path / "blocked"
    if os.geteuid() == 0:  # permissions do not bind root: a path below a file is as closed
        blocked.write_text("", encoding="utf-8")
        target = blocked / "outputs"
    else:
        blocked.mkdir(mode=0o555)
        target = blocked / "outputs"
    monkeypatch.setenv("PKT_OUTPUT_DIR", str(target))
    refused(pkt("transfer", "method=sft", *tiny_request), 1, "output")


def test_hub_out_of_reach(pkt, monkeypatch, tmp_path):
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    result = pkt("transfer", "model=llama-7b-to-1b", "tracker=none")
    ways = ("hf auth login", "model.teacher.checkpoint=/path/to/folder", "HF_HOME")
    refused(result, 1, "meta-llama/Llama-2-7b-hf", "TinyLlama", *ways)
    assert not pkt.outputs.exists(), list(pkt.outputs.rglob("*"))


def test_a_loss_that_is_not_finite_says_where(pkt, tiny_request):
    request = [*tiny_request, "optim.lr=1e30", "optim.max_grad_norm=0", "method.update.kind=full"]
    result = pkt("transfer", "method=sft", *request)
    refused(result, 1, "optimiser step")
