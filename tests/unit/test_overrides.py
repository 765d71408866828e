"""Settings as the command line has them: what a reader copies asks for the same thing again."""

from __future__ import annotations

import json
import shlex
import subprocess

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser

from pkt.reporting.overrides import as_value, overrides, typed, written_out
from pkt.reporting.page.collect import collect
from pkt.reporting.page.render import html
from pkt.reporting.runs import arms, load_runs
from run_folders import leave_run

VALUES = [
    None,
    True,
    False,
    0,
    -3,
    0.001,
    1e-10,
    2.5e22,
    [0.9, 0.999],
    ["up", "down"],
    [],
    [[18, 9], [40, 20]],
]
VALUES += [
    "answer",
    "null",
    "True",
    "nan",
    "1e3",
    "12",
    "",
    " a b",
    "a,b",
    "[x",
    "{y:",
    "it's",
    "\\",
    "a\\'",
    "'",
]
VALUES += ['"', "x=y", "a:b", "a:", "~z", "ü", "a/b.c-d", "$HOME", "`ls`", "a;b", {"k": 1, "m": "n o"}]


def read(value: str) -> object:
    (override,) = OverridesParser.create().parse_overrides([f"key={value}"])
    return override.value()


@pytest.mark.parametrize("value", VALUES, ids=repr)
def test_hydra_reads_a_value_as_it_was(value: object):
    found = read(as_value(value))
    assert json.dumps(found, default=str) == json.dumps(value)


def run(
    name: str = "kd", *, typed: str = "", choices: dict[str, str] | None = None, **settings: object
) -> dict:
    named = {key.replace("__", "."): value for key, value in settings.items()}
    score = {"task": "a", "metric": "acc", "value": 0.5, "stderr": 0.1, "higher_is_better": True}
    return {
        "method": name,
        "seed": 0,
        "model": "nano",
        "settings": {"method": name, "model": "nano", **named},
        "choices": choices or {},
        "command": f"pkt run method={name} {typed}",
        "scores": {"transferred": {"a": score}},
        "stages": [],
    }


def test_strategies_are_named_by_the_file_that_was_chosen():
    chosen = {
        "mapping": "random",
        "term@objective.terms.layer": "mean_square",
        "model": "my-pair",
        "optim": "nano",
    }
    settings = {"mapping__" + "_target_": "RandomPairs", "objective__terms__layer___target_": "MeanSquare"}
    found = overrides(run(choices=chosen, **settings, optim__lr=0.1))
    assert found == {
        "method": "kd",
        "model": "my-pair",
        "mapping": "random",
        "term@objective.terms.layer": "mean_square",
        "optim.lr": "0.1",
    }


def test_a_label_is_the_word_that_brought_the_difference_along():
    base = {
        "objective__terms__ce__weight": 0.5,
        "objective__positions": "answer",
        "method__update__kind": "full",
    }
    other = {"objective__terms__ce__weight": 1.0, "objective__positions": "all"}
    lora = {
        "method__update__kind": "lora",
        "method__update__targets": ["up", "v"],
        "method__update__rank": 16,
    }
    made = [
        run(**base),
        run(typed="objective=joint", **base | other),
        run(typed="method.update.kind=lora", **base | lora),
        run(typed="semantics=ridge seed=4", **base, semantics__alpha=0.1),
        run(typed="objective.positions=all", **base | {"objective__positions": "all"}),
        run(**base | {"method__update__targets": ["up", "v"]}),
    ]
    assert [arm.label for arm in arms(made)] == [
        "kd",
        "kd (objective=joint)",
        "kd (method.update.kind=lora)",
        "kd (semantics=ridge)",
        "kd (objective.positions=all)",
        "kd (method.update.targets=[up,v])",
    ]


def test_a_word_that_most_arms_were_given_tells_nothing():
    made = [run(typed="optim=real", optim__lr=rate) for rate in (1.0, 2.0, 3.0)]
    assert [arm.label for arm in arms(made)] == [f"kd (optim.lr={rate})" for rate in (1.0, 2.0, 3.0)]


def test_arms_that_a_word_does_not_tell_apart_have_all_that_differs():
    made = [
        run(typed="optim=real", optim__lr=1.0),
        run(typed="optim=real", optim__lr=2.0),
        run(),
        run(),
        run(),
    ]
    made += [run(optim__steps=place) for place in range(3)]
    names = [arm.label for arm in arms(made)]
    assert len(set(names)) == len(names)
    assert ["optim.lr=1.0" in names[0], "optim.lr=2.0" in names[1]] == [True, True]


def test_a_command_that_cannot_be_read_is_left_alone():
    assert typed({"command": "pkt run 'never closed"}) == {}
    assert typed({}) == {}
    assert written_out(run(choices={"model": "nano"}) | {"command": "pkt run 'never closed"}) is None


def test_nothing_is_written_out_that_would_not_run():
    assert written_out(run(typed="a=b")) is None  # an older run, which kept no choices
    assert written_out(run(typed="'tracker.key=<hidden>'", choices={"model": "nano"})) is None


def test_a_shell_gives_a_copied_command_the_words_that_it_came_from(tmp_path):
    settings = {"method": "sft", "model": "it's; $HOME `id` \"<b>&", "method.targets": ["up", "*"]}
    command = shlex.join(["pkt", "run", "data.train=/a b/$c.jsonl", "+term@objective.terms.kl=kl"])
    leave_run(tmp_path, "sft", lift=0.5, settings=settings, command=command, choices={"benchmark": "nano"})
    (found,) = load_runs([tmp_path / "runs"])
    line = written_out(found)
    assert line is not None
    told = subprocess.run(
        ["sh", "-c", f"printf '%s\\n' {line}"], capture_output=True, text=True, timeout=20, check=True
    ).stdout.splitlines()
    assert told == [*shlex.split(command), "benchmark=nano", "seed=0", *(told[6:])]
    read_back = {word.partition("=")[0]: read(word.partition("=")[2]) for word in told[6:]}
    assert read_back == settings
    (section,) = collect([found]).sections
    recipe = next(topic for topic in section.topics if topic.name == "recipe")
    assert [snippet.text for snippet in recipe.snippets] == [command, line]
    assert "<b>" not in html(collect([found]))
