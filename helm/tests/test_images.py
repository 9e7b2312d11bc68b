"""The images' recipes: clean, shared, and agreeing with what the services declare."""

import re
import subprocess
import sys
import tomllib

import pytest
import yaml
from chart import CHART, REPOSITORY, SERVICES

pytestmark = pytest.mark.unit

DOCKERFILES = sorted(
    [
        *REPOSITORY.glob("services/*/Dockerfile"),
        *REPOSITORY.glob("images/**/Dockerfile"),
        *REPOSITORY.glob("images/**/*.Dockerfile"),
    ]
)
SCRIPTS = [
    *(REPOSITORY / "scripts" / name for name in ("images.sh", "helm-test.sh", "kube-tools.sh")),
    *sorted(REPOSITORY.glob("k8s/**/*.sh")),
]
OURS = {"parley-core", "parley-protos", "parley-paraformer", "step1", "parley"}


def tool(name):
    return f"{sys.prefix}/bin/{name}"


def name_of(requirement):
    return re.match(r"[A-Za-z0-9._-]+", requirement)[0].lower().replace("_", "-")


def listed(file):
    lines = (REPOSITORY / "images" / file).read_text().splitlines()
    return {name_of(line) for line in lines if line and not line.startswith("#")}


def declared(package):
    """Third-party packages of one of ours, those of its libraries of ours included."""
    project = tomllib.loads((REPOSITORY / package / "pyproject.toml").read_text())["project"]
    found = set()
    for name in map(name_of, project["dependencies"]):
        if name in OURS:
            found |= declared(f"libs/{name.replace('parley-paraformer', 'paraformer')}")
        else:
            found.add(name)
    return found


def stages(path):
    return re.findall(r"^FROM .*?(?=^FROM |\Z)", path.read_text(), re.M | re.S)


@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda path: str(path.relative_to(REPOSITORY)))
def test_hadolint_finds_nothing(path):
    done = subprocess.run([tool("hadolint"), str(path)], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "")


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.name)
def test_shellcheck_finds_nothing(path):
    done = subprocess.run([tool("shellcheck"), str(path)], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("service", SERVICES)
def test_the_base_of_a_service_has_every_package_that_it_declares(service):
    has = listed("base.txt") | {"silero-vad"}
    if service != "gateway":
        has |= listed("torch.txt")
    assert declared(f"services/{service}") <= has


def test_every_package_of_the_images_is_pinned():
    pins = (REPOSITORY / "requirements" / "constraints.txt").read_text().splitlines()
    pinned = {name_of(line) for line in pins if "==" in line}
    assert listed("base.txt") | listed("torch.txt") | listed("tools.txt") <= pinned


def test_the_tools_have_every_package_of_the_command():
    extra = tomllib.loads((REPOSITORY / "clients/python/pyproject.toml").read_text())["project"]
    has = listed("base.txt") | listed("torch.txt") | listed("tools.txt")
    assert {name_of(each) for each in extra["dependencies"]} - OURS - {"parley-protos"} <= has


@pytest.mark.parametrize("service", SERVICES)
def test_a_service_image_runs_its_module_on_a_shared_base(service):
    path = REPOSITORY / "services" / service / "Dockerfile"
    build, inventory, last = stages(path)
    assert last.startswith("FROM ${BASE}")
    # The bill of materials is made of the same base and the same packages as the image.
    assert inventory.startswith("FROM ${BASE} AS inventory")
    packages = "COPY --from=build /opt/parley/service /opt/parley/service"
    assert packages in inventory
    assert packages in last
    assert f'"parley-{service}"' in inventory
    assert "COPY --from=inventory /tmp/sbom.cdx.json /opt/parley/" in last
    assert f'ENTRYPOINT ["python3", "-m", "parley_{service.replace("-", "_")}"]' in last
    # Nothing is installed in the last stage, so nothing can need a compiler there.
    assert "RUN " not in last
    project = tomllib.loads((path.parent / "pyproject.toml").read_text())["project"]
    for name in map(name_of, project["dependencies"]):
        if name in OURS:
            folder = f"libs/{name.replace('parley-paraformer', 'paraformer')}"
            assert f"COPY {folder} {folder}" in build
            assert f"./{folder}" in build


def test_every_base_runs_without_privileges():
    for stage in stages(REPOSITORY / "images" / "Dockerfile"):
        if re.match(r"FROM \S+ AS (runtime|gpu)", stage):
            assert "USER 10001:10001" in stage


def test_the_default_tag_is_the_charts():
    version = yaml.safe_load((CHART / "Chart.yaml").read_text())["appVersion"]
    for path in DOCKERFILES:
        for tag in re.findall(r"^ARG BASE=parley-\w+:(\S+)$", path.read_text(), re.M):
            assert tag == version


def test_bills_of_materials_tell_the_charts_version():
    version = yaml.safe_load((CHART / "Chart.yaml").read_text())["appVersion"]
    told = [
        tuple(found)
        for path in DOCKERFILES
        for found in re.findall(r'sbom.py", "([\w-]+)", "([^"]+)"', path.read_text())
    ]
    assert sorted(told) == sorted((f"parley-{each}", version) for each in (*SERVICES, "tools"))


def test_images_of_the_chart_are_images_that_are_built():
    script = (REPOSITORY / "scripts" / "images.sh").read_text()
    built = set(re.search(r"^all=\(([^)]*)\)", script, re.M)[1].split())
    assert built == set(SERVICES)
    assert all((REPOSITORY / "services" / each / "Dockerfile").is_file() for each in built)


def test_without_an_engine_the_reason_is_told(tmp_path):
    (tmp_path / "sed").symlink_to("/usr/bin/sed")
    (tmp_path / "dirname").symlink_to("/usr/bin/dirname")
    done = subprocess.run(
        ["/bin/bash", str(REPOSITORY / "scripts" / "images.sh")],
        capture_output=True, text=True, env={"PATH": str(tmp_path)},
    )  # fmt: skip
    assert done.returncode == 1
    assert "none of docker, podman and buildah works here" in done.stderr


def test_kind_maps_the_port_that_its_documentation_installs():
    config = yaml.safe_load((REPOSITORY / "k8s" / "kind.yaml").read_text())
    assert [node["role"] for node in config["nodes"]] == ["control-plane", "worker", "worker"]
    (mapping,) = config["nodes"][0]["extraPortMappings"]
    text = (REPOSITORY / "docs" / "install-kind.md").read_text()
    assert f"gateway.service.nodePort={mapping['containerPort']}" in text
    assert f"localhost:{mapping['hostPort']}" in text
