"""A teacher and a student that share no vocabulary: what runs, what the user is told, and what it comes to."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import load_file
from tokenizers import Tokenizer
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast

from tiny import tiny_model, tiny_tokenizer
from vocabularies import vocabulary

TRAINED = {
    "sft": (),
    "pissa": ("method.update.rank=4", "method.update.alpha=8"),
    "seqkd": ("answer.max_new_tokens=4",),
    "kd": (),
    "kd in a chat template": ("model.chat_template=true",),
    "kd live": ("objective.terms.kl.teacher=live", "objective.terms.kl.top_k=null"),
    "kd by chunks": ("objective=alm",),
    "kd by sorted": ("objective=uld", "objective.terms.uld.top_k=null"),
    "kd by attention": ("objective=dskd",),
    "kd by attention live": ("+term@objective.terms.attended=attended", "objective.terms.kl.teacher=live"),
    "kd by attention beside": ("objective=dskd", "capture.mode=live"),
    "kd by chunks live": ("+term@objective.terms.chunk=chunk", "objective.terms.kl.teacher=live"),
    "hidden_kd": (),
    "hidden_kd beside": ("capture.mode=live",),
    "semalign": ("method.update.rank=4",),
    "semalign_joint": (),
    "semalign_joint refitted": ("semantics=ridge_refit", "optim.epochs=2"),
    "semalign_fisher": ("semantics=procrustes", "mapping=depth"),
    "semalign_geometry": ("semantics=logit_lstsq", "mapping=monotone"),
    "semalign_joint by cka": ("semantics=cosine", "mapping=cka"),
    "seeking": ("method.update.rank=4", "method.update.alpha=8"),
    "laten": ("method.rho=0.25", "method.steps=2", "method.align_rows=4"),
}
SLOW = set(TRAINED) - {"kd", "semalign_joint"}


@pytest.fixture(scope="session")
def strangers(pair, tmp_path_factory):
    """The tiny student, and a teacher with pieces instead of byte-level BPE."""
    folder = tmp_path_factory.mktemp("strangers")
    tokenizer = vocabulary("unigram", begins=True)
    tiny_model(
        "llama", depth=5, width=48, seed=1, vocab=len(tokenizer), bos_token_id=2, eos_token_id=1
    ).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture
def asked(tiny_request, strangers) -> list[str]:
    kept = [word for word in tiny_request if not word.startswith("model.teacher.checkpoint")]
    return [*kept, f"model.teacher.checkpoint={strangers}", "optim.epochs=1"]


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow) if name in SLOW else name for name in TRAINED]
)
def test_methods_run(pkt, asked, name):
    done = pkt("run", f"method={name.split()[0]}", *asked, *TRAINED[name])
    assert done.code == 0, done.err
    (scores,) = pkt.outputs.glob("runs/run/*/scores.json")
    found = json.loads(scores.read_text())
    assert found
    again = pkt("run", f"method={name.split()[0]}", *asked, *TRAINED[name])
    assert again.code == 0
    assert "computed" not in again.out
    if name in ("kd", "semalign_joint"):
        assert "have two vocabularies" in done.err
        assert "and are compared there" in done.err + done.out


def test_a_plan_says_how_the_teacher_reads_the_rows(pkt, asked):
    told = pkt("plan", "method=kd", *asked)
    assert told.code == 0, told.err
    assert "times as many" in told.out + told.err
    assert "and are compared there" in told.out + told.err
    alone = pkt("plan", "method=sft", *asked)
    assert "times as many" not in alone.out + alone.err


@pytest.fixture(scope="session")
def renumbered(pair, tmp_path_factory):
    """The tiny teacher with other ids for the same tokens: another vocabulary of the same texts."""
    folder = tmp_path_factory.mktemp("renumbered")
    order = torch.randperm(320, generator=torch.Generator().manual_seed(3)).tolist()  # old id -> new id
    content = json.loads(tiny_tokenizer().backend_tokenizer.to_str())
    content["model"]["vocab"] = {token: order[index] for token, index in content["model"]["vocab"].items()}
    for token in content["added_tokens"]:
        token["id"] = order[token["id"]]
    content["added_tokens"].sort(key=lambda token: token["id"])
    names = {f"{mark}_token": name for mark, name in (("pad", "<pad>"), ("bos", "<s>"), ("eos", "</s>"))}
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=Tokenizer.from_str(json.dumps(content)), **names)
    tokenizer.save_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(pair["teacher"], dtype=torch.float32)
    with torch.no_grad():
        for matrix in (model.get_input_embeddings().weight, model.get_output_embeddings().weight):
            matrix[order] = matrix.clone()
    for mark in ("pad", "bos", "eos"):
        setattr(model.config, f"{mark}_token_id", getattr(tokenizer, f"{mark}_token_id"))
        setattr(model.generation_config, f"{mark}_token_id", getattr(tokenizer, f"{mark}_token_id"))
    model.save_pretrained(folder)
    return folder


@pytest.mark.parametrize(
    "words",
    [
        ("method=kd",),
        pytest.param(
            ("method=kd", "objective.terms.kl.top_k=null", "objective.terms.kl.teacher=live"),
            marks=pytest.mark.slow,
        ),
        pytest.param(("method=kd", "objective=alm"), marks=pytest.mark.slow),
        pytest.param(("method=kd", "objective=uld"), marks=pytest.mark.slow),
        pytest.param(("method=kd", "objective=dskd"), marks=pytest.mark.slow),
        ("method=semalign_joint", "mapping=cka", "semantics=ridge"),
        pytest.param(("method=hidden_kd", "objective.terms.layer.positions=all"), marks=pytest.mark.slow),
        pytest.param(("method=seqkd", "answer.max_new_tokens=4"), marks=pytest.mark.slow),
        pytest.param(
            ("method=seeking", "method.update.rank=4", "method.update.alpha=8"), marks=pytest.mark.slow
        ),
    ],
    ids=" ".join,
)
def test_other_numbers_for_the_same_tokens_change_nothing(pkt, tiny_request, renumbered, words):
    """The student is what it is with one vocabulary, but for the order of sums."""
    found = []
    for teacher in ((), (f"model.teacher.checkpoint={renumbered}",)):
        done = pkt("transfer", *words, *tiny_request, *teacher)
        assert done.code == 0, done.err
        (new,) = {*pkt.outputs.glob("store/transfer/*/model/model.safetensors")} - {file for file, _ in found}
        found.append((new, load_file(new)))
    assert "two vocabularies" in done.err or "method=seeking" in words
    for name, value in found[0][1].items():
        torch.testing.assert_close(found[1][1][name], value, rtol=1e-3, atol=2e-4, msg=name)


@pytest.mark.slow
@pytest.mark.parametrize("word", ["meeting.share=0.5", "meeting.anchors=shuffled"])
def test_what_is_left_out_or_shuffled_is_another_result(pkt, asked, tiny_request, word):
    words = ("transfer", "method=kd", *asked)
    done = [pkt(*words, *more) for more in ((), (word,), (word, "seed=1"), (word,))]
    assert [own.code for own in done] == [0, 0, 0, 0], done[1].err
    found = [load_file(file) for file in pkt.outputs.glob("store/transfer/*/model/model.safetensors")]
    assert len(found) == 3
    assert len({float(sum(value.sum() for value in own.values())) for own in found}) == 3
    refused = pkt("transfer", "method=kd", *tiny_request, word)
    assert refused.code == 2
    assert "have one vocabulary" in refused.err
    assert "Traceback" not in refused.err


def test_rows_say_where_both_are_compared(pkt, asked):
    done = pkt("rows", *asked, "rows.show=0")
    assert done.code == 0, done.err
    (file,) = pkt.outputs.glob("runs/rows/*/rows.json")
    lengths = json.loads(file.read_text())["lengths"]
    assert 0 < lengths["train"]["met"] <= 1
    assert lengths["test custom"]["met"] is None
    assert "compared with the teacher" in " ".join(done.out.split())


@pytest.mark.slow
def test_analyses_run(pkt, asked):
    done = pkt("analyze", "method=sft", "analyze.models=[teacher,student]", *asked)
    assert done.code == 0, done.err
    assert "two vocabularies" in done.err


@pytest.mark.parametrize("method", ["kd", "semalign_joint"])
def test_where_nothing_is_compared_there_is_nothing_to_learn(pkt, asked, method):
    done = pkt("transfer", *asked, f"method={method}", "meeting.share=0.0001")
    assert done.code == 2
    assert "nowhere in the " in done.err
    assert "meeting.share=0.0001" in done.err
    assert not list(pkt.outputs.rglob("transfer/*/manifest.json"))
