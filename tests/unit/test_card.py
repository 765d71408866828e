"""Cards as the hub reads them: parsed by its own library, with what is known and nothing that is not."""

from __future__ import annotations

import json

import pytest
from huggingface_hub import ModelCard
from transformers import AutoModelForCausalLM, AutoTokenizer

from pkt.config import BenchmarkConfig, CheckpointSpec, DataConfig
from pkt.models.ancestry import address, handed_on, hub_id
from pkt.reporting.card import header, model_card, row_counts
from pkt.tasks.splits import published
from tiny import CHAT_TEMPLATE

SCORES = {
    "gsm8k": {"task": "gsm8k", "metric": "exact_match", "value": 0.25, "stderr": 0.01, "n": 10},
    "gsm8k (strict)": {"task": "gsm8k", "metric": "strict_match", "value": 0.125, "stderr": 0.01, "n": 10},
    "mbpp": {"task": "mbpp", "metric": "pass_at_1", "value": float("nan"), "stderr": 0.01, "n": 10},
}
KNOWN = {
    "method": "kd", "adapter": False, "base_model": "org/student", "teacher": "org/teacher",
    "datasets": ["openai/gsm8k"],
    "more": {"license": "apache-2.0", "language": ["en"]}, "name": "pair-kd", "scores": SCORES,
}  # fmt: skip
PARTS = {"method": "kd", "student": "org/student", "teacher": "org/teacher", "how": "Load it.", "recipe": {}, "command": "pkt run", "scores": None}  # fmt: skip  # noqa: E501


def test_the_hub_reads_what_was_meant():
    data = ModelCard(model_card(header=header(**KNOWN), **PARTS)).data
    assert data.base_model == "org/student"
    assert data.pipeline_tag == "text-generation"
    assert (data.license, data.language, data.datasets) == ("apache-2.0", ["en"], ["openai/gsm8k"])
    assert data.to_dict()["teacher_model"] == "org/teacher"
    scores = [(one.dataset_type, one.metric_type, one.metric_value) for one in data.eval_results]
    assert scores == [("gsm8k", "exact_match", 0.25), ("gsm8k", "strict_match", 0.125)]
    assert [(one.dataset_split, one.metric_args) for one in data.eval_results] == [("test", {"rows": 10})] * 2
    assert row_counts(SCORES) == "Rows scored: gsm8k 10, mbpp 10."
    assert data.model_name == "pair-kd"


def test_what_is_not_known_is_not_said():
    nothing = KNOWN | {"base_model": None, "teacher": None, "datasets": [], "more": {}, "scores": {}}
    found = header(**nothing)
    assert set(found) == {"library_name", "pipeline_tag", "tags"}
    assert header(**nothing | {"adapter": True})["library_name"] == "peft"
    ModelCard(model_card(header=found, **PARTS))


@pytest.mark.parametrize(
    ("card", "expected"),
    [
        (
            "---\nlicense: mit\nlanguage: de\ntags: [x]\n---\n# A model\n",
            {"license": "mit", "language": "de"},
        ),
        (
            "---\nlicense: other\nlicense_name: ours\nlicense_link: L\n---\n",
            {"license": "other", "license_name": "ours", "license_link": "L"},
        ),
        ("---\r\nlicense: mit\r\n---\r\n", {"license": "mit"}),
        ("# A model\n---\nlicense: mit\n---\n", {}),
        ("---\n- a list\n---\n", {}),
        ("---\nlicense: [mit\n---\n", {}),
        ("", {}),
    ],
)
def test_a_license_is_carried_over_from_the_card_of_the_base(tmp_path, card, expected):
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "README.md").write_text(card)
    assert handed_on(CheckpointSpec(checkpoint=str(tmp_path)), "student") == expected


def test_only_names_on_the_hub_are_names_on_the_hub(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    here = CheckpointSpec(checkpoint=str(tmp_path))
    package = CheckpointSpec(checkpoint="package:pkt/assets/nano/student")
    assert [hub_id(spec, "student") for spec in (here, package)] == [None, None]
    assert hub_id(CheckpointSpec(checkpoint="org/name"), "student") == "org/name"
    assert address(CheckpointSpec(checkpoint="org/name"), "student") == "org/name"
    assert address(here, "student") == str(tmp_path.resolve())


def test_published_sets_are_those_that_rows_are_drawn_from():
    def of(tasks: list[str], **more: object) -> list[str]:
        return published(BenchmarkConfig(tasks=tasks, **more), DataConfig())

    assert of(["gsm8k", "mbpp"]) == ["google-research-datasets/mbpp", "openai/gsm8k"]
    assert of(["humaneval"], code_set="org/code") == ["org/code"]  # it has no train rows
    assert of(["humaneval"], code_set="pystdlib") == []
    assert of(["nano_math"]) == []
    assert published(BenchmarkConfig(tasks=["custom"]), DataConfig(train="hub:org/rows:de")) == ["org/rows"]


def test_an_adapter_loads_by_itself_and_nothing_tells_of_this_machine(pkt, tiny_request):
    """The chat template and the generation settings of the student are carried along too."""
    from peft import AutoPeftModelForCausalLM

    done = pkt("run", *tiny_request, "method=sft", "method.update.kind=lora")
    assert done.code == 0, done.err
    (model,) = pkt.outputs.glob("store/transfer/*/model")
    told = json.loads((model / "tokenizer_config.json").read_text())
    assert not {"local_files_only", "is_local"} & set(told)
    assert AutoTokenizer.from_pretrained(model).chat_template == CHAT_TEMPLATE
    adapter = model.parent / "adapter"
    for folder, library in ((model, "transformers"), (adapter, "peft")):
        card = ModelCard.load(folder / "README.md")
        assert card.data.library_name == library
        assert card.data.base_model is None
        assert card.data.eval_results[0].dataset_type == "custom"
    loaded = AutoPeftModelForCausalLM.from_pretrained(str(adapter))
    merged = AutoModelForCausalLM.from_pretrained(model)
    ids = AutoTokenizer.from_pretrained(model)("Ada has", return_tensors="pt")["input_ids"]
    assert loaded(input_ids=ids).logits.sub(merged(input_ids=ids).logits).abs().max() < 1e-4


def test_a_readme_beside_a_gguf_file_says_nothing_of_its_license(tmp_path):
    (tmp_path / "model.gguf").write_bytes(b"GGUF")
    (tmp_path / "README.md").write_text("---\nlicense: mit\n---\n# My models\n")
    assert handed_on(CheckpointSpec(checkpoint=str(tmp_path / "model.gguf")), "teacher") == {}
