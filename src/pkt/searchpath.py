"""Where configs are looked for: the user's folders first, then pkt's own, then the typed schema.

    PKT_CONFIG_DIR (os.pathsep list) -> pkt's conf/ -> --config-dir -> ./conf of the working folder -> plugins

Of two files of one name the first in this order wins; a plugin's options carry the plugin's name (`mylab/kd`). `./conf`
is used without being asked for, and may be another program's, so it adds options and never replaces pkt's.
Hydra and plugins are imported inside functions, so that `pkt --help` can list groups without them.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from pkt.errors import PktError, RequestError


def builtin_conf_dir() -> Path:
    """Return pkt's own config folder: inside the package (wheel) or beside `src` (checkout).

    Raises:
        PktError: the installation has no config folder.
    """
    here = Path(__file__).resolve().parent
    for folder in (here / "conf", here.parents[1] / "conf"):
        if (folder / "_base.yaml").is_file():
            return folder
    raise PktError(f"pkt's config folder is not beside {here}: reinstall pkt-llm")


def named_conf_dirs() -> list[Path]:
    """Return the folders that `PKT_CONFIG_DIR` names, the strongest first."""
    entries = [entry for entry in os.environ.get("PKT_CONFIG_DIR", "").split(os.pathsep) if entry]
    own = builtin_conf_dir().resolve()
    folders = dict.fromkeys(Path(entry).expanduser().resolve() for entry in entries)
    return [folder for folder in folders if folder != own]


def found_conf_dir() -> Path | None:
    """Return `./conf`, if it is there and neither pkt's own nor named by `PKT_CONFIG_DIR`."""
    folder = Path("conf").resolve()
    known = (builtin_conf_dir().resolve(), *named_conf_dirs())
    return folder if folder.is_dir() and folder not in known else None


def conf_dirs(more: Iterable[Path] = ()) -> list[Path]:
    """Return every folder of config files, the strongest first.

    Args:
        more: the folder of `--config-dir`, where there is one.
    """
    found = found_conf_dir()
    return [*named_conf_dirs(), builtin_conf_dir(), *more, *([found] if found else [])]


def check_conf_dirs(more: str | None, searched: Iterable[str] = ()) -> None:
    """Check the folders that the user names, and tell which files of `./conf` are not used.

    Args:
        more: the folder of `--config-dir`, if there is one.
        searched: folders of `hydra.searchpath`.

    Raises:
        RequestError: a folder that no request could use.
    """
    for folder in named_conf_dirs():
        _check_conf_dir(folder, "PKT_CONFIG_DIR")
    if more is not None:
        _check_conf_dir(Path(more).expanduser().absolute(), "--config-dir")
    for named in searched:
        _check_conf_dir(Path(named).absolute(), "hydra.searchpath")


def _check_conf_dir(folder: Path, named_by: str) -> None:
    """Refuse a config folder that holds no configs.

    Args:
        folder: the folder.
        named_by: what names it, the first words of the message.

    Raises:
        RequestError: no folder, or nothing in it that a request could use.
    """
    if not folder.is_dir():
        what = "a file" if folder.exists() else "not there"
        raise RequestError(
            f"{named_by}: {folder} is {what}; name a folder that holds groups, such as model/mine.yaml"
        )
    if any(folder.glob("*/*.yaml")) or any(folder.glob("*/*/*.yaml")):
        return
    roots = [
        file for file in folder.glob("*.yaml") if "defaults:" in file.read_text("utf-8", errors="replace")
    ]
    if not roots:
        above = f"; name the folder above it: {folder.parent}" if folder.name in groups() else ""
        raise RequestError(
            f"{named_by}: {folder} holds no config group (a folder such as model/, with YAML files){above}"
        )


def shadowed() -> str | None:
    """Say which files of `./conf` are not used because pkt has others of that name; None where there are none."""
    folder, own = found_conf_dir(), builtin_conf_dir()
    if folder is None:
        return None
    named = [file.relative_to(folder) for file in sorted(folder.rglob("*.yaml")) if file.is_file()]
    both = [file for file in named if (own / file).is_file()]
    other = [str(file) for file in both if (own / file).read_bytes() != (folder / file).read_bytes()]
    if not other:
        return None
    return (
        f"{folder} has {len(other)} files of names that pkt's own have ({', '.join(other[:3])}); pkt's are used. "
        "PKT_CONFIG_DIR=conf puts yours first"
    )


def _config_dir() -> list[Path]:
    """Return the folder of Hydra's `--config-dir`, if the request that runs has one."""
    if "hydra" not in sys.modules:
        return []  # no request runs
    from hydra.core.hydra_config import HydraConfig

    sources = HydraConfig.get().runtime.config_sources if HydraConfig.initialized() else ()
    return [Path(source.path) for source in sources if source.provider == "command-line"]


def groups() -> dict[str, list[str]]:
    """Return every config group with its options, as files lie on disk (no Hydra needed)."""
    found: dict[str, set[str]] = {}
    for root in conf_dirs():
        for file in root.rglob("*.yaml"):
            group = file.parent.relative_to(root).as_posix()
            if group != "." and not group.startswith("hydra"):
                found.setdefault(group, set()).add(file.stem)
    return {group: sorted(options) for group, options in sorted(found.items())}


def option_files(group: str, foreign: Iterable[str] = ()) -> dict[str, Path]:
    """Return the files of a group's options by name, from all folders that the request may use.

    Args:
        group: such as ``task``.
        foreign: names in the request; those of plugins (`mylab/sums`) are looked up too.

    Raises:
        RequestError: a plugin that breaks a rule (see `pkt.plugins.option`).
    """
    from pkt import plugins

    found: dict[str, Path] = {}
    for root in reversed(conf_dirs(_config_dir())):
        for file in (root / group).rglob("*.yaml"):
            found[file.relative_to(root / group).with_suffix("").as_posix()] = file
    for name in foreign:
        if "/" in name and name not in found and (option := plugins.option(group, name)):
            found[name] = option
    return dict(sorted(found.items()))


@contextmanager
def mode_by_flags(words: Sequence[str], more: str | None) -> Iterator[None]:
    """Let Hydra compose once: it would compose all files a first time to see whether one of them asks for a sweep.

    None of pkt's does, so `-m` alone decides where no file or word of the user's can.

    Args:
        words: as `hydra_words` returns them.
        more: the folder of `--config-dir`, if there is one.
    """
    from hydra._internal.hydra import Hydra

    from pkt import plugins

    foreign = named_conf_dirs() or found_conf_dir() or plugins.asked() or more
    if foreign or any("hydra" in word or word.startswith("--experimental") for word in words):
        yield
        return
    before, Hydra.get_mode = Hydra.get_mode, lambda *_, **__: None
    try:
        yield
    finally:
        Hydra.get_mode = before


def register() -> None:
    """Register the user's folders, plugins and the typed root with Hydra; calling it again is harmless."""
    from hydra._internal.sources_registry import SourcesRegistry
    from hydra.core.config_search_path import ConfigSearchPath
    from hydra.core.config_store import ConfigStore
    from hydra.core.plugins import Plugins
    from hydra.plugins.search_path_plugin import SearchPathPlugin

    from pkt import plugins
    from pkt.config import Config, ReportConfig
    from pkt.config_files import FileConfigSource
    from pkt.plugin_options import PluginOptions

    class PktSearchPath(SearchPathPlugin):  # type: ignore[misc]  # hydra is followed as Any
        def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
            for folder in reversed(named_conf_dirs()):
                search_path.prepend(provider="pkt-user", path=f"file://{folder}")
            if found := found_conf_dir():
                search_path.append(provider="pkt-found", path=f"file://{found}")
            own = f"{PluginOptions.scheme()}://{builtin_conf_dir()}#{','.join(plugins.asked())}"
            search_path.append(provider="pkt", path=own)

    known = Plugins.instance().discover(SearchPathPlugin)
    if not any(plugin.__name__ == PktSearchPath.__name__ for plugin in known):
        Plugins.instance().register(PktSearchPath)
        Plugins.instance().register(PluginOptions)
    SourcesRegistry.instance().types[FileConfigSource.scheme()] = FileConfigSource  # in the place of Hydra's
    # Hydra copies its sources, and this store with them, for each list of options of a help page; the store copies what
    # is loaded from it
    ConfigStore.__deepcopy__ = lambda store, _memo: store
    ConfigStore.instance().store(name="pkt_schema", node=Config)
    ConfigStore.instance().store(name="pkt_report_schema", node=ReportConfig)
