"""Writes a CycloneDX 1.6 bill of materials of the image that it runs in.

    sbom.py NAME VERSION [OUTPUT]

Contract: every Python distribution that this interpreter can import, found by its installed
metadata and not by what a requirements file hoped for, and every Debian package of the base; each
with version, package URL and, where it is told, licence. Equal images give equal files: no time, no
random number. Not for files that belong to neither, such as model weights.
"""

import json
import re
import sys
from collections.abc import Iterator, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any
from urllib.parse import quote

DPKG_STATUS = Path("/var/lib/dpkg/status")
OS_RELEASE = Path("/etc/os-release")


def main(argv: list[str] | None = None) -> int:
    """Writes the bill to OUTPUT, or to stdout."""
    arguments = sys.argv[1:] if argv is None else argv
    if len(arguments) not in (2, 3):
        print(__doc__, file=sys.stderr)
        return 2
    text = json.dumps(bill(*arguments[:2]), indent=1, sort_keys=True) + "\n"
    if len(arguments) == 3:
        Path(arguments[2]).write_text(text, encoding="utf-8")
    else:
        sys.stdout.write(text)
    return 0


def bill(name: str, version: str) -> dict[str, Any]:
    """The whole document."""
    python = list(python_components())
    debian = list(debian_components())
    return {
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {
            "component": {
                "type": "container", "bom-ref": "image", "name": name, "version": version
            }
        },
        "components": [component for component, _ in python] + debian,
        "dependencies": [
            {
                "ref": "image",
                "dependsOn": sorted(each["bom-ref"] for each in [c for c, _ in python] + debian),
            },
            *_dependencies(python),
        ],
    }  # fmt: skip


def python_components() -> Iterator[tuple[dict[str, Any], list[str]]]:
    """Each distribution once, the one that is imported, with the names that it requires."""
    found: dict[str, metadata.Distribution] = {}
    for each in metadata.distributions():
        if each.metadata["Name"]:
            found.setdefault(canonical(each.metadata["Name"]), each)
    for name in sorted(found):
        about, version = found[name].metadata, found[name].version
        purl = f"pkg:pypi/{name}@{quote(version)}"
        component: dict[str, Any] = {
            "type": "library", "bom-ref": purl, "name": name, "version": version, "purl": purl
        }  # fmt: skip
        if licence := licence_of(about):
            component["licenses"] = [licence]
        required = [
            canonical(match[0])
            for line in found[name].requires or ()
            if "extra ==" not in line and (match := re.match(r"[A-Za-z0-9._-]+", line))
        ]
        yield component, required


def licence_of(about: Mapping[str, Any]) -> dict[str, Any] | None:
    """What a distribution says of its licence: an expression, or a name."""
    if expression := about.get("License-Expression"):
        return {"expression": str(expression)}
    lines = str(about.get("License") or "").strip().splitlines()
    # Some put the whole text of the licence there.
    name = lines[0].strip() if len(lines) == 1 else ""
    if not name:
        classifiers = about.get_all("Classifier") if hasattr(about, "get_all") else None
        names = [each.rpartition(" :: ")[2] for each in classifiers or () if "License ::" in each]
        name = names[0] if names else ""
    return {"license": {"name": name[:100]}} if name else None


def debian_components() -> Iterator[dict[str, Any]]:
    """Installed packages of the base, where it is a Debian."""
    if not DPKG_STATUS.is_file():
        return
    release = re.search(r"^ID=\"?(\w+)", _read(OS_RELEASE), re.M)
    distribution = release[1] if release else "debian"
    for paragraph in _read(DPKG_STATUS).split("\n\n"):
        fields = dict(re.findall(r"^([A-Za-z-]+): (.*)$", paragraph, re.M))
        if fields.get("Status") != "install ok installed":
            continue
        name, version = fields["Package"], fields["Version"]
        purl = f"pkg:deb/{distribution}/{name}@{quote(version, safe='')}"
        purl += f"?arch={fields.get('Architecture', 'all')}"
        yield {
            "type": "library", "bom-ref": purl, "name": name, "version": version, "purl": purl
        }  # fmt: skip


def canonical(name: str) -> str:
    """A distribution's name as the index compares it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def _dependencies(
    python: list[tuple[dict[str, Any], list[str]]],
) -> Iterator[dict[str, Any]]:
    refs = {component["name"]: component["bom-ref"] for component, _ in python}
    for component, required in python:
        below = sorted({refs[name] for name in required if name in refs})
        yield {"ref": component["bom-ref"], "dependsOn": below}


def _read(path: Path) -> str:
    return path.read_text(encoding="utf-8") if path.is_file() else ""


if __name__ == "__main__":
    sys.exit(main())
