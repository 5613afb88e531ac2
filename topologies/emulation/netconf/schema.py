"""The YANG modules of a device: what libyang checks, what a client may fetch, and the data tree that edits follow."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from lxml import etree

from topologies.emulation.netconf import yang
from topologies.emulation.netconf.fault import FaultError

try:
    import oopt_gnpy_libyang as libyang
except ImportError as missing:
    raise ImportError(
        "emulated NETCONF devices check their data with libyang, which this Python lacks: install oopt-gnpy-libyang, or use Python 3.11 to 3.13"
    ) from missing

Element = etree._Element

_DIRECTORY = Path(__file__).parent.parent / "yang"
_SERVER_MODULES = ("ietf-netconf-monitoring@2010-10-04", "ietf-netconf-notifications@2012-02-06")
_STEP = re.compile(r"""/(?:([^:/\[]+):)?([^/\[]+)((?:\[(?:[^'"\]]|'[^']*'|"[^"]*")*\])*)""")
_KEY = re.compile(r"\[([^=\[\]]+)=")
_TAGS = (  # libyang's sentences, which is all its binding gives, and the error-tags of RFC 6241 appendix A and RFC 7950 section 15
    ("Invalid leafref", "data-missing"),
    ("Mandatory", "missing-element"),
    ("List instance is missing", "missing-element"),
    ("Duplicate instance", "data-exists"),
    ("Invalid", "invalid-value"),
    ("Unsatisfied", "invalid-value"),
    ("Value", "invalid-value"),
    ("When condition", "unknown-element"),
)


@dataclass(frozen=True, slots=True)
class Module:
    name: str
    revision: str
    namespace: str
    prefix: str
    text: str

    @property
    def capability(self) -> str:
        return f"{self.namespace}?module={self.name}&revision={self.revision}"


class Schema:
    """What devices of one kind have. It is made once for all of them and not changed; its libyang context belongs to one thread."""

    def __init__(self, files: Iterable[str]) -> None:
        texts = [(_DIRECTORY / f"{file}.yang").read_text(encoding="utf-8") for file in files]
        parsed = [yang.parse(text) for text in texts]
        self.modules = tuple(
            Module(module.argument, module.get("revision"), module.get("namespace"), module.get("prefix"), text)
            for module, text in zip(parsed, texts, strict=True)
        )
        self.root = yang.data_tree(parsed)
        self.prefixes: Mapping[str, str] = {module.prefix: module.namespace for module in self.modules}
        """The prefixes of error paths, each with its namespace."""
        self._prefix_of = {module.name: module.prefix for module in self.modules}
        libyang.set_log_options(libyang.LogOptions.StoreLast)
        self._context = libyang.Context(None, libyang.ContextOptions.NoYangLibrary)
        for text in texts:
            self._context.parse_module(text, libyang.SchemaFormat.YANG)
        self._context.clean_all_errors()

    def check(self, config: Element, *, whole: bool = True) -> None:
        """Raise FaultError when what is in `config` breaks a module; without `whole` only by its names and values, not by what it lacks."""
        text = b"".join(etree.tostring(child, with_tail=False) for child in config).decode()
        parsing = libyang.ParseOptions.Strict if whole else libyang.ParseOptions.Strict | libyang.ParseOptions.ParseOnly
        try:
            self._context.parse_data(text, libyang.DataFormat.XML, parsing)
        except libyang.ErrorWithCode as broken:
            errors = list(self._context.errors())
            self._context.clean_all_errors()
            if not errors:
                raise FaultError("operation-failed", f"the YANG library failed: {broken}") from None
            message = errors[-1].message
            path = self._path(errors[-1].data_path or "")
            tag = next((tag for start, tag in _TAGS if message.startswith(start)), "operation-failed")
            if tag == "missing-element" and (quoted := re.search('"([^"]+)"', message)):
                raise FaultError(tag, message, path, bad_element=quoted[1]) from None
            raise FaultError(tag, message, path) from None

    def _path(self, data_path: str) -> str:
        """libyang's path, whose names inherit their module, with the module's prefix before each name."""
        path, prefix = "", ""
        for module, name, keys in _STEP.findall(data_path):
            prefix = self._prefix_of.get(module, module) if module else prefix
            path += f"/{prefix}:{name}" + _KEY.sub(rf"[{prefix}:\1=", keys).replace(f"[{prefix}:.=", "[.=")
        return path


@cache
def schema(*files: str) -> Schema:
    """The schema of these modules (`name@revision`, what is imported first) and the server's own."""
    return Schema((*files, *_SERVER_MODULES))
