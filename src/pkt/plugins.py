"""Other people's code: which packages a request may use, where their options lie, and which version they are.

    entry point `pkt.plugins` of an installed package ─┐             options  <package>/conf/<group>/<name>/*.yaml
                                                       ├─> Plugin ─> targets  `_target_: <package>...`
    plugins=[mylab.kd] of the request ─────────────────┘             origins  version and digest of its code

A plugin's options carry its name (`method=mylab/kd`). Installed packages are searched, once per process, when a
request names something that neither pkt nor the user's folders have. A plugin's code is imported only where a request
names it, so a broken plugin does no harm to requests that do not use it.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import importlib
import importlib.util
import traceback
from collections.abc import Iterable, Iterator, Mapping
from importlib.machinery import EXTENSION_SUFFIXES, SOURCE_SUFFIXES
from pathlib import Path
from types import ModuleType
from typing import Any

from pkt.errors import PktError, RequestError, nearest
from pkt.packages import version_of

GROUP = "pkt.plugins"
HOW_TO_ADMIT = f"install a package that declares the entry point group '{GROUP}', or add plugins=[<module>]"
_asked: list[str] = []  # the modules that the request names in `plugins`


@dataclasses.dataclass(frozen=True, kw_only=True)
class Plugin:
    """A package whose strategies and options a request may use.

    Attributes:
        name: the first part of its options' names.
        package: the Python package (or single module) that its code is in.
        version: of the installed distribution; None where it is not installed as one.
    """

    name: str
    package: str
    version: str | None

    @property
    def conf(self) -> Path | None:
        """Its folder of options; None for a single module."""
        folders = _spec_of(self.package).submodule_search_locations
        return Path(next(iter(folders))) / "conf" if folders else None

    def options(self, group: str) -> dict[str, Path]:
        """Return its options of a config group, by the name that a request has for them."""
        files = sorted((self.conf / group / self.name).glob("*.yaml")) if self.conf else []
        return {f"{self.name}/{file.stem}": file for file in files}

    def misplaced(self) -> list[str]:
        """Name the files of its conf folder that are in no folder of its own name."""
        files = (
            [file.relative_to(self.conf) for file in sorted(self.conf.rglob("*.yaml"))] if self.conf else []
        )
        return [str(file) for file in files if file.parent.name != self.name or len(file.parts) < 3]


def ask_for(modules: Iterable[str]) -> None:
    """Admit the packages of these modules, and no others beside the installed plugins.

    Args:
        modules: the request's `plugins`.

    Raises:
        RequestError: no such package.
    """
    named = list(modules)
    for module in named:
        _spec_of(module.partition(".")[0])
    _asked[:] = named


def asked() -> tuple[str, ...]:
    """Return the modules that the request names in `plugins`."""
    return tuple(_asked)


def load_asked() -> None:
    """Import the modules that the request names in `plugins`.

    Raises:
        RequestError: a module is not there, or broken.
        PktError: a module needs a package that is not installed.
    """
    for module in _asked:
        load(module, f"plugins: {module}")


def load(module: str, where: str) -> ModuleType:
    """Import a module; if that fails, the error says why in one line.

    Args:
        module: dotted name.
        where: what asks for it, the first words of the message.

    Raises:
        RequestError: there is no such module, or it raises.
        PktError: it needs a package that is not installed.
    """
    package = module.partition(".")[0]
    try:
        return importlib.import_module(module)
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # such as SystemExit
        missing = (error.name if isinstance(error, ModuleNotFoundError) else None) or package
        if f"{module}.".startswith(f"{missing}.") and missing != package:
            raise RequestError(f"{where}: {package} has no module '{module}'") from error
        if missing.partition(".")[0] != package:
            raise PktError(
                f"{where}: {module} needs the package '{missing}': pip install {missing}"
            ) from error
        raise RequestError(f"{where}: {module} cannot be imported: {_last_line(error)}") from error


def _last_line(error: BaseException) -> str:
    """Return the last line of a traceback, and the file and line that raised it."""
    frame = traceback.extract_tb(error.__traceback__)[-1]
    place = (
        (error.filename, error.lineno) if isinstance(error, SyntaxError) else (frame.filename, frame.lineno)
    )
    return f"{traceback.format_exception_only(error)[-1].strip()} ({place[0]}, line {place[1]})"


def admits(dotted: str) -> bool:
    """Return whether a dotted name lies in pkt, or in a plugin that the request may use."""
    package = dotted.partition(".")[0]
    return package == "pkt" or package in {plugin.package for plugin in _all()}


def option(group: str, name: str) -> Path | None:
    """Return the file of a plugin's option, or None where there is no such plugin or option.

    Args:
        group: config group, such as ``method``.
        name: such as ``mylab/kd``.

    Raises:
        RequestError: two plugins have that name, or this one has options outside a folder of its own name.
    """
    found = [plugin for plugin in _all() if plugin.name == name.partition("/")[0]]
    if len(found) > 1:
        packages = " and ".join(sorted(plugin.package for plugin in found))
        raise RequestError(
            f"{group}={name}: {packages} are both called '{found[0].name}'; uninstall one of them"
        )
    if not found:
        return None
    if misplaced := found[0].misplaced():
        raise RequestError(
            f"{group}={name}: the plugin '{found[0].name}' has options outside conf/<group>/{found[0].name}/, "
            f"where they could replace others: {', '.join(misplaced)}; move them there"
        )
    return found[0].options(group).get(name)


def options(group: str) -> list[str]:
    """Name every option of a config group that plugins have."""
    return sorted({name for plugin in _all() for name in plugin.options(group)})


def unknown(name: str) -> str:
    """Return a hint about an option whose plugin is missing; empty where the name has no plugin's name in it.

    Args:
        name: such as ``mylab/kd``.
    """
    plugin, slash, _ = name.partition("/")
    names = [known.name for known in _all()]
    if not slash or plugin in names:
        return ""
    return f"; there is no plugin '{plugin}'{nearest(plugin, names)}: {HOW_TO_ADMIT}"


def origins(*strategies: object) -> dict[str, dict[str, str | None]]:
    """Return version and code digest of every foreign package that strategies come from.

    Strategies inside strategies (fields, lists, mappings) count, and so do the modules that the request names in
    `plugins`: importing them may have changed anything. Keys, manifests and cards hold the result.
    """
    held = [type(inner).__module__ for outer in strategies for inner in _inside(outer)]
    packages = {module.partition(".")[0] for module in (*held, *_asked)}
    return {name: _origin(name) for name in sorted(packages) if name != "pkt" and admits(name)}


def _inside(value: object) -> Iterator[object]:
    """Yield an object and all that it holds."""
    yield value
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        held: Iterable[Any] = [getattr(value, field.name) for field in dataclasses.fields(value)]
    elif isinstance(value, Mapping):
        held = value.values()
    else:
        held = value if isinstance(value, list | tuple | set | frozenset) else ()
    for item in held:
        yield from _inside(item)


@functools.cache
def installed() -> tuple[Plugin, ...]:
    """Return the plugins that installed distributions declare; a package that is declared twice counts once."""
    from importlib.metadata import entry_points

    found = {
        Plugin(
            name=point.name,
            package=point.module.partition(".")[0],
            version=point.dist.version if point.dist else None,
        )
        for point in entry_points(group=GROUP)
    }
    return tuple(sorted(found, key=lambda plugin: (plugin.name, plugin.package)))


def _all() -> list[Plugin]:
    """Return the installed plugins whose package can be found, and the packages named in the request's `plugins`."""
    there = [plugin for plugin in installed() if importlib.util.find_spec(plugin.package)]
    known = {plugin.package for plugin in there}
    packages = dict.fromkeys(module.partition(".")[0] for module in _asked)
    named = [
        Plugin(name=name, package=name, version=version_of(name)) for name in packages if name not in known
    ]
    return [*there, *named]


def _spec_of(package: str) -> Any:
    """Find a top-level package without importing it."""
    found = importlib.util.find_spec(package) if package.isidentifier() else None
    if found is None:
        raise RequestError(
            f"plugins: there is no package '{package}'; install it, or put its folder on PYTHONPATH"
        )
    return found


@functools.cache
def _origin(package: str) -> dict[str, str | None]:
    """Return a package's version and the digest of its code; once per process, which has imported it by then."""
    spec = _spec_of(package)
    digest = hashlib.sha256()
    for root in map(Path, spec.submodule_search_locations or [spec.origin]):
        for file in sorted(root.rglob("*")) if root.is_dir() else [root]:
            if file.name.endswith((*SOURCE_SUFFIXES, *EXTENSION_SUFFIXES)):
                content = file.read_bytes()
                digest.update(
                    f"{file.relative_to(root.parent).as_posix()}:{len(content)}\n".encode() + content
                )
    versions = [plugin.version for plugin in _all() if plugin.package == package]
    return {"version": next(iter(versions), None), "code": digest.hexdigest()[:16]}
