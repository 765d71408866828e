"""Where configs are looked for: the user's folders first, then pkt's own, then the typed schema.

    PKT_CONFIG_DIR (os.pathsep list) -> ./conf of the working folder -> conf/ of pkt -> plugins -> structured://schema

A user's file wins over a built-in one of the same name; a plugin's options carry the plugin's name (`mylab/kd`).
The module imports Hydra only inside `register`, so that `pkt --help` can list groups without it.
"""

from __future__ import annotations

import os
from pathlib import Path

from pkt import plugins


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


def groups() -> dict[str, list[str]]:
    """Return every config group with its options, as files lie on disk (no Hydra needed)."""
    found: dict[str, set[str]] = {}
    for root in [builtin_conf_dir(), *user_conf_dirs()]:
        for file in root.rglob("*.yaml"):
            group = file.parent.relative_to(root).as_posix()
            if group != "." and not group.startswith("hydra"):
                found.setdefault(group, set()).add(file.stem)
    return {group: sorted(options) for group, options in sorted(found.items())}


def option_file(group: str, name: str) -> Path | None:
    """Return the file of an option: the user's, pkt's or a plugin's; None: there is none.

    Args:
        group: such as ``task``.
        name: such as ``nano_math``, or ``mylab/sums`` of a plugin.

    Raises:
        RequestError: it is a plugin's, and the plugin breaks a rule (see `pkt.plugins.option`).
    """
    for root in [*user_conf_dirs(), builtin_conf_dir()]:
        if (file := root / group / f"{name}.yaml").is_file():
            return file
    return plugins.option(group, name) if "/" in name else None


def register() -> None:
    """Tell Hydra about the user's folders, plugins and the typed root; safe to call again in one process."""
    from hydra.core.config_search_path import ConfigSearchPath
    from hydra.core.config_store import ConfigStore
    from hydra.core.plugins import Plugins
    from hydra.plugins.search_path_plugin import SearchPathPlugin

    from pkt.config import Config, ReportConfig
    from pkt.plugin_options import PluginOptions

    class PktSearchPath(SearchPathPlugin):  # type: ignore[misc]  # hydra is followed as Any
        def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
            for folder in reversed(user_conf_dirs()):
                search_path.prepend(provider="pkt-user", path=f"file://{folder}")
            search_path.append(provider="pkt", path=f"{PluginOptions.scheme()}://{builtin_conf_dir()}")

    known = Plugins.instance().discover(SearchPathPlugin)
    if not any(plugin.__name__ == PktSearchPath.__name__ for plugin in known):
        Plugins.instance().register(PktSearchPath)
        Plugins.instance().register(PluginOptions)
    ConfigStore.instance().store(name="schema", node=Config)
    ConfigStore.instance().store(name="report_schema", node=ReportConfig)
