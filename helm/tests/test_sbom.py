"""The bill of materials that images carry, made here of this interpreter."""

import json
import subprocess
import sys
from importlib import metadata

import jsonschema
import pytest
from chart import REPOSITORY

pytestmark = pytest.mark.unit

SCRIPT = REPOSITORY / "images" / "sbom.py"
# The parts of CycloneDX 1.6 that the script writes, with what the standard demands of them.
REF = {"type": "string", "minLength": 1}
SCHEMA = {
    "type": "object",
    "required": ["bomFormat", "specVersion", "version", "metadata", "components", "dependencies"],
    "properties": {
        "bomFormat": {"const": "CycloneDX"},
        "specVersion": {"const": "1.6"},
        "components": {
            "type": "array", "uniqueItems": True,
            "items": {
                "type": "object", "additionalProperties": False,
                "required": ["type", "bom-ref", "name", "version", "purl"],
                "properties": {
                    "type": {"const": "library"}, "bom-ref": REF, "name": REF, "version": REF,
                    "purl": {"type": "string", "pattern": r"^pkg:(pypi|deb)/[^\s]+@[^\s@]+$"},
                    "licenses": {
                        "type": "array", "maxItems": 1,
                        "items": {
                            "oneOf": [
                                {"required": ["expression"], "properties": {"expression": REF}},
                                {
                                    "required": ["license"],
                                    "properties": {
                                        "license": {
                                            "required": ["name"], "properties": {"name": REF},
                                        }
                                    },
                                },
                            ]
                        },
                    },
                },
            },
        },
    },
}  # fmt: skip


@pytest.fixture(scope="module")
def bill():
    done = subprocess.run(
        [sys.executable, str(SCRIPT), "parley-test", "1.2.3"], capture_output=True, text=True
    )
    assert (done.returncode, done.stderr) == (0, "")
    return json.loads(done.stdout)


def test_it_has_the_form_that_cyclonedx_demands(bill):
    jsonschema.validate(bill, SCHEMA)
    assert bill["metadata"]["component"] == {
        "type": "container", "bom-ref": "image", "name": "parley-test", "version": "1.2.3",
    }  # fmt: skip


def test_every_installed_distribution_is_in_it_with_its_version(bill):
    told = {
        each["name"]: each["version"]
        for each in bill["components"]
        if each["purl"].startswith("pkg:pypi/")
    }
    for each in metadata.distributions():
        name = each.metadata["Name"].lower().replace("_", "-").replace(".", "-")
        assert name in told, name
    for name in ("grpcio", "pydantic", "parley-core"):
        assert told[name] == metadata.version(name)


def test_references_lead_somewhere_and_stand_once(bill):
    refs = [each["bom-ref"] for each in bill["components"]]
    assert len(refs) == len(set(refs))
    nodes = {each["ref"]: each["dependsOn"] for each in bill["dependencies"]}
    assert set(nodes["image"]) == set(refs)
    assert all(below in refs for each in nodes.values() for below in each)
    (pydantic,) = [ref for ref in nodes if ref.startswith("pkg:pypi/pydantic@")]
    assert any(ref.startswith("pkg:pypi/pydantic-core@") for ref in nodes[pydantic])


def test_the_same_image_gives_the_same_file(bill, tmp_path):
    again = tmp_path / "again.json"
    subprocess.run([sys.executable, str(SCRIPT), "parley-test", "1.2.3", str(again)], check=True)
    assert json.loads(again.read_text()) == bill


def test_a_wrong_call_is_told():
    assert subprocess.run([sys.executable, str(SCRIPT)], capture_output=True).returncode == 2
