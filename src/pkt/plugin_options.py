"""A config source of Hydra that offers the options of plugins: `method=mylab/kd` beside `method=kd`.

It is the last of the search path. Hydra asks it only for options that neither pkt nor the user's folders have, and for
lists of options, so a request without foreign names never searches the installed packages.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from hydra.core.object_type import ObjectType
from hydra.plugins.config_source import ConfigResult, ConfigSource

from pkt import plugins
from pkt.config_files import read_config


class PluginOptions(ConfigSource):  # type: ignore[misc]  # hydra is followed as Any
    """Config files of the plugins that a request may use.

    The source's path is pkt's own config folder, `#`, and the modules that the request names in `plugins`. A launcher
    passes this path to other processes, which have not read the command line.
    """

    @staticmethod
    def scheme() -> str:
        """Return the scheme of its entries in the search path."""
        return "pkt-plugins"

    def available(self) -> bool:
        """Return True, although there may be no plugin."""
        return True

    def is_group(self, config_path: str) -> bool:
        """Return whether a path is one of pkt's groups; plugins add options to groups, but no groups."""
        return (Path(self.path.partition("#")[0]) / config_path).is_dir()

    def is_config(self, config_path: str) -> bool:
        """Return whether a plugin has this option (`method/mylab/kd`)."""
        return self._file(config_path) is not None

    def load_config(self, config_path: str) -> ConfigResult:
        """Read an option."""
        file = self._file(config_path)
        assert file is not None, config_path
        return ConfigResult(
            config=read_config(file),
            path=f"{self.scheme()}://{file.parent}",
            provider=self.provider,
            header=self._get_header_dict(file.read_text(encoding="utf-8")),
        )

    def list(self, config_path: str, results_filter: ObjectType | None) -> Sequence[str]:
        """Name the options of a group, with the plugin's name before each."""
        self._ask()
        return [] if results_filter == ObjectType.GROUP else plugins.options(config_path)

    def _file(self, config_path: str) -> Path | None:
        group, *name = config_path.rsplit("/", 2)
        if len(name) < 2 or group == "hydra" or not self.is_group(group):
            return None
        self._ask()
        return plugins.option(group, "/".join(name))

    def _ask(self) -> None:
        if modules := self.path.partition("#")[2]:
            plugins.ask_for(modules.split(","))
