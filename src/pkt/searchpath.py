"""Where configs are looked for: the user's folders first, then pkt's own, then the typed schema.

    PKT_CONFIG_DIR (os.pathsep list) -> ./conf of the working folder -> pkt's conf/ -> --config-dir -> plugins -> schema

Of two files of one name the first in this order wins; a plugin's options carry the plugin's name (`mylab/kd`).
Hydra and plugins are imported inside functions, so that `pkt --help` can list groups without them.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path


def builtin_conf_dir() -> Path:
    """Return pkt's own config folder: inside the package (wheel) or beside `src` (checkout).

    Raises:
        FileNotFoundError: the installation has no config folder.
    """
    here = Path(__file__).resolve().parent
    for folder in (here / "conf", here.parents[1] / "conf"):
        if (folder / "_base.yaml").is_file():
            return folder
    raise FileNotFoundError(f"pkt's config folder is not beside {here}: reinstall pkt-llm")


def user_conf_dirs() -> list[Path]:
    """Return the user's config folders, the strongest first; a folder that does not exist is left out."""
    named = [Path(entry) for entry in os.environ.get("PKT_CONFIG_DIR", "").split(os.pathsep) if entry]
    own = builtin_conf_dir().resolve()
    found: list[Path] = []
    for folder in [*named, Path("conf")]:
        folder = folder.expanduser().resolve()
        if folder.is_dir() and folder != own and folder not in found:
            found.append(folder)
    return found


def _config_dir() -> list[Path]:
    """Return the folder of Hydra's `--config-dir`, if the request that runs has one."""
    from hydra.core.hydra_config import HydraConfig

    sources = HydraConfig.get().runtime.config_sources if HydraConfig.initialized() else ()
    return [Path(source.path) for source in sources if source.provider == "command-line"]


def groups() -> dict[str, list[str]]:
    """Return every config group with its options, as files lie on disk (no Hydra needed)."""
    found: dict[str, set[str]] = {}
    for root in [builtin_conf_dir(), *user_conf_dirs()]:
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
    for root in (*_config_dir(), builtin_conf_dir(), *reversed(user_conf_dirs())):
        for file in (root / group).rglob("*.yaml"):
            found[file.relative_to(root / group).with_suffix("").as_posix()] = file
    for name in foreign:
        if "/" in name and name not in found and (option := plugins.option(group, name)):
            found[name] = option
    return dict(sorted(found.items()))


def register() -> None:
    """Register the user's folders, plugins and the typed root with Hydra; calling it again is harmless."""
    from hydra.core.config_search_path import ConfigSearchPath
    from hydra.core.config_store import ConfigStore
    from hydra.core.plugins import Plugins
    from hydra.plugins.search_path_plugin import SearchPathPlugin

    from pkt import plugins
    from pkt.config import Config, ReportConfig
    from pkt.plugin_options import PluginOptions

    class PktSearchPath(SearchPathPlugin):  # type: ignore[misc]  # hydra is followed as Any
        def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
            for folder in reversed(user_conf_dirs()):
                search_path.prepend(provider="pkt-user", path=f"file://{folder}")
            own = f"{PluginOptions.scheme()}://{builtin_conf_dir()}#{','.join(plugins.asked())}"
            search_path.append(provider="pkt", path=own)

    known = Plugins.instance().discover(SearchPathPlugin)
    if not any(plugin.__name__ == PktSearchPath.__name__ for plugin in known):
        Plugins.instance().register(PktSearchPath)
        Plugins.instance().register(PluginOptions)
    ConfigStore.instance().store(name="schema", node=Config)
    ConfigStore.instance().store(name="report_schema", node=ReportConfig)
