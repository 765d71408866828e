"""Other people's packages: found without being imported, loaded where a request names them, refused with a reason."""

from __future__ import annotations

import importlib
import pickle
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

from pkt import plugins
from pkt.build import build
from pkt.errors import PktError, RequestError
from pkt.mapping import Depth
from pkt.plugin_options import PluginOptions
from pkt.searchpath import builtin_conf_dir, option_files, register
from pkt.words import named_plugins

CODE = """
from dataclasses import dataclass
@dataclass(frozen=True, kw_only=True)
class Map:
    rank: int = 4
    inner: object = None
"""
Lab = Callable[..., Path]


@pytest.fixture
def lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Lab]:
    """Write a package into a folder on the path; with `plugin`, as pip would leave one that declares it."""
    before = set(sys.modules)
    monkeypatch.syspath_prepend(str(tmp_path))
    forget()

    def write(package: str, code: str = CODE, *, plugin: str | None = None, **options: str) -> Path:
        root = tmp_path / package
        root.mkdir()
        (root / "__init__.py").write_text("")
        (root / "maps.py").write_text(code)
        for name, text in options.items():
            file = (root / "conf" / name.replace("__", "/")).with_suffix(".yaml")
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text)
        if plugin:
            info = tmp_path / f"{package}-1.2.dist-info"
            info.mkdir()
            (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.2\n")
            (info / "entry_points.txt").write_text(f"[pkt.plugins]\n{plugin} = {package}\n")
        importlib.invalidate_caches()
        return root

    yield write
    forget()
    for name in set(sys.modules) - before:
        if name.startswith("lab"):
            del sys.modules[name]


def forget() -> None:
    plugins.installed.cache_clear()
    plugins._origin.cache_clear()
    plugins.ask_for([])


def node(target: str, **values: Any) -> Any:
    return OmegaConf.create({"semantics": {"_target_": target, **values}}).semantics


def composed(*words: str) -> Any:
    from hydra import compose, initialize_config_dir

    register()
    with initialize_config_dir(str(builtin_conf_dir()), version_base="1.3"):
        return compose("run", list(words))


def test_an_installed_plugin_is_found_and_not_imported(lab: Lab):
    root = lab("lab1", "1 / 0", plugin="rotations", semantics__rotations__spin="_target_: lab1.maps.Map\n")
    assert plugins.option("semantics", "rotations/spin") == root / "conf/semantics/rotations/spin.yaml"
    assert plugins.option("semantics", "rotations/spun") is None
    assert "rotations/spin" in plugins.options("semantics")
    assert plugins.options("mapping") == []
    assert "lab1" not in sys.modules


def test_its_options_compose_like_ours_and_are_built_strictly(lab: Lab):
    lab("lab1", plugin="lab1", semantics__lab1__spin="_target_: lab1.maps.Map\nrank: 2\n")
    assert composed("semantics=lab1/spin").semantics == {"_target_": "lab1.maps.Map", "rank": 2}
    built = build(composed("semantics=lab1/spin", "semantics.rank=3").semantics)
    assert (type(built).__name__, built.rank) == ("Map", 3)
    with pytest.raises(RequestError, match=r"unknown key 'semantics.rnk'.*did you mean 'rank'"):
        build(node("lab1.maps.Map", rnk=1))
    with pytest.raises(
        RequestError, match=r"no strategy 'Mop' in lab1.maps; it has: Map \(did you mean 'Map'"
    ):
        build(node("lab1.maps.Mop"))


def test_a_file_of_the_users_wins_and_foreign_names_are_looked_up_where_asked_for(
    lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    lab("lab1", plugin="lab1", semantics__lab1__spin="{}", semantics__lab1__turn="{}")
    mine = tmp_path / "user" / "semantics" / "lab1" / "spin.yaml"
    mine.parent.mkdir(parents=True)
    mine.write_text("_target_: pkt.semantics.Ridge\n")
    monkeypatch.setenv("PKT_CONFIG_DIR", str(tmp_path / "user"))
    found = option_files("semantics", ["lab1/spin", "lab1/turn", "ridge", "lab1/none"])
    assert found["lab1/spin"] == mine
    assert found["lab1/turn"].parts[-5:] == ("lab1", "conf", "semantics", "lab1", "turn.yaml")
    assert "lab1/turn" not in option_files("semantics")
    assert "lab1/none" not in found
    assert composed("semantics=lab1/spin").semantics._target_ == "pkt.semantics.Ridge"


def test_a_request_without_foreign_names_looks_through_nothing(lab: Lab, monkeypatch: pytest.MonkeyPatch):
    def looked() -> tuple[plugins.Plugin, ...]:
        raise AssertionError("installed packages were looked through")

    with monkeypatch.context() as patch:
        patch.setattr(plugins, "installed", looked)
        cfg = composed("seed=3", "method=sft", "optim.lr=1e-4", "experiment=tune", "debug=tiny")
        assert build(cfg.mapping) == Depth()
        with pytest.raises(AssertionError, match="looked through"):
            composed("method=lab1/spin")


def test_types_that_only_a_checker_sees_are_told(lab: Lab):
    lab(
        "lab1",
        "from __future__ import annotations\n" + CODE.replace("rank: int", "rank: Sequence[int]"),
        plugin="lab1",
    )
    with pytest.raises(
        RequestError, match=r"semantics: a type of Map cannot be read .*'Sequence' is not defined"
    ):
        build(node("lab1.maps.Map"))


def test_a_single_module_serves_too_with_options_in_the_users_folder(lab: Lab, tmp_path: Path):
    (tmp_path / "lab5.py").write_text(CODE)
    plugins.ask_for(["lab5"])
    plugins.load_asked()
    assert build(node("lab5.Map", rank=3)).rank == 3
    assert plugins.option("semantics", "lab5/spin") is None


def test_targets_outside_are_refused_with_how_to_admit_them(lab: Lab):
    lab("lab1")
    refusal = r"got 'lab1.maps.Map'; to admit 'lab1': install .* 'pkt.plugins', or add plugins=\[<module>\]"
    with pytest.raises(RequestError, match=refusal):
        build(node("lab1.maps.Map"))
    assert "lab1" not in sys.modules
    plugins.ask_for(["lab1"])
    assert build(node("lab1.maps.Map", rank=1)).rank == 1
    plugins.ask_for([])  # the next job of a sweep does not inherit it
    with pytest.raises(RequestError, match=refusal):
        build(node("lab1.maps.Map"))


@pytest.mark.parametrize(
    ("code", "kind", "reason"),
    [
        ("x = nowhere", RequestError, r"cannot be imported: NameError: name 'nowhere' .*maps.py, line 1\)"),
        ("def f(:", RequestError, r"SyntaxError: .*maps.py, line 1\)"),
        ("raise SystemExit(3)", RequestError, "SystemExit: 3"),
        ("raise GeneratorExit", RequestError, "GeneratorExit"),
        ("import lab1.missing", RequestError, "No module named 'lab1.missing'"),
        ("import captin", PktError, "needs the package 'captin': pip install captin"),
    ],
)
def test_a_broken_plugin_is_refused_with_its_reason_where_it_is_asked_for(
    lab: Lab, code: str, kind: type[PktError], reason: str
):
    lab("lab1", code)
    plugins.ask_for(["lab1.maps"])
    for ask in (plugins.load_asked, lambda: build(node("lab1.maps.Map"))):
        with pytest.raises(PktError, match=reason) as refused:
            ask()
        assert type(refused.value) is kind


def test_a_launchers_process_knows_what_the_command_line_named(lab: Lab):
    lab("lab1", semantics__lab1__spin="{}")
    source = PluginOptions("pkt", f"pkt-plugins://{builtin_conf_dir()}#lab1.maps")
    sent = pickle.loads(pickle.dumps(source))
    assert plugins.asked() == ()
    assert sent.is_config("semantics/lab1/spin")
    assert plugins.asked() == ("lab1.maps",)
    assert not sent.is_config("semantics/lab1/none")
    assert not sent.is_group("semantics/lab1")


def test_modules_that_are_not_there_are_refused(lab: Lab):
    lab("lab1")
    with pytest.raises(RequestError, match="there is no package 'lab2'"):
        plugins.ask_for(["lab1", "lab2.maps"])
    plugins.ask_for(["lab1.mops"])
    with pytest.raises(RequestError, match=r"plugins: lab1.mops: lab1 has no module 'lab1.mops'"):
        plugins.load_asked()


def test_two_plugins_of_one_name_are_refused_where_the_name_is_asked_for(lab: Lab):
    lab("lab1", plugin="spins", semantics__spins__a="{}")
    lab("lab2", plugin="spins", semantics__spins__b="{}")
    lab("lab3", plugin="lab3", semantics__lab3__c="{}")
    assert plugins.option("semantics", "lab3/c")
    for name in ("spins/a", "spins/b"):
        with pytest.raises(RequestError, match=f"semantics={name}: lab1 and lab2 are both called 'spins'"):
            plugins.option("semantics", name)


def test_a_package_named_in_the_request_collides_too_and_an_installed_one_is_itself(lab: Lab):
    lab("lab1", plugin="lab2", semantics__lab2__a="{}")
    plugins.ask_for(["lab1.maps"])
    assert plugins.option("semantics", "lab2/a")
    lab("lab2", semantics__lab2__a="{}")
    plugins.ask_for(["lab2"])
    with pytest.raises(RequestError, match="lab1 and lab2 are both called 'lab2'"):
        plugins.option("semantics", "lab2/a")


@pytest.mark.parametrize("where", ["semantics__ridge", "semantics__other__a", "lab1__a", "_base"])
def test_options_outside_a_folder_of_the_plugins_name_are_refused(lab: Lab, where: str):
    lab("lab1", plugin="lab1", semantics__lab1__a="{}", **{where: "{}"})
    misplaced = rf"outside conf/<group>/lab1/.*: {where.replace('__', '/')}.yaml; move"
    with pytest.raises(RequestError, match=misplaced):
        plugins.option("semantics", "lab1/a")


def test_origin_is_package_version_and_a_digest_of_all_its_code(lab: Lab):
    root = lab("lab1", plugin="lab1", semantics__lab1__a="{}")
    strategy = build(node("lab1.maps.Map"))
    first = plugins.origins(strategy)["lab1"]
    assert (first["version"], len(first["code"])) == ("1.2", 16)
    (root / "conf/semantics/lab1/a.yaml").write_text("rank: 5\n")
    assert after_edit(strategy) == first
    (root / "more.py").write_text("a = 1\n")
    second = after_edit(strategy)
    (root / "more.py").rename(root / "moved.py")
    third = after_edit(strategy)
    assert len({origin["code"] for origin in (first, second, third)}) == 3


def after_edit(strategy: object) -> Any:
    forget()
    return plugins.origins(strategy)["lab1"]


def test_origins_are_those_of_strategies_what_they_hold_and_the_modules_asked_for(lab: Lab, tmp_path: Path):
    lab("lab1", plugin="lab1")
    lab("lab2", plugin="lab2")
    (tmp_path / "lab4.py").write_text("")

    @dataclass
    class Holder:
        terms: dict[str, Any]

    inner = build(node("lab2.maps.Map"))
    assert plugins.origins(Depth()) == {}
    assert list(plugins.origins(build(node("lab1.maps.Map")), Holder({"a": [inner]}))) == ["lab1", "lab2"]
    plugins.ask_for(["lab4"])
    assert plugins.origins(Depth())["lab4"]["version"] is None
    code = plugins.origins()["lab4"]["code"]
    (tmp_path / "lab4.py").write_text("a = 1\n")
    forget()
    plugins.ask_for(["lab4"])
    assert plugins.origins()["lab4"]["code"] != code


@pytest.mark.parametrize(
    ("word", "modules"),
    [
        ("plugins=[lab1.maps,lab2]", ["lab1.maps", "lab2"]),
        ("plugins=['lab1']", ["lab1"]),
        ("+plugins=[]", []),
        ("plugin=[lab1]", []),
    ],
)
def test_modules_are_read_from_the_command_line(word: str, modules: list[str]):
    assert named_plugins(["seed=1", word]) == modules
