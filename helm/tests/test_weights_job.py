"""How weights come into a cluster: the job that fills their claim, and the claims."""

import pytest
import typer
from chart import VARIANTS, container
from parley_client.command.main import app
from typer.testing import CliRunner

pytestmark = pytest.mark.unit


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"source": "seeded"}, ["parley", "weights", "seed", "/weights/models"]),
        ({"source": "claim", "existingClaim": "models"}, ["parley", "weights", "check"]),
        ({"source": "image", "image": "weights:1"}, ["parley weights copy", "/weights/models"]),
        (
            {"source": "hub"},
            ["parley weights pull", "Step-Audio-Chat=stepfun-ai/Step-Audio-Chat@main"],
        ),
        (
            {"source": "s3", "s3": {"url": "s3://models/parley"}},
            ["parley weights pull", "--from s3://models/parley"],
        ),
    ],
)
def test_weights_come_by_a_job_that_verifies_them(values, words, render):
    (job,) = render(values={"weights": values}).all("Job")
    command = " ".join(container(job["spec"]["template"])["command"])
    assert all(word in command for word in words)
    assert job["spec"]["template"]["spec"]["restartPolicy"] == "Never"


@pytest.mark.parametrize("variant", ["hub", "s3", "claim", "image", "seeded"], indirect=False)
def test_the_weights_job_calls_a_command_as_it_is(variant, render):
    """The words that the chart says are parsed by the command that they are said to."""
    values = {
        "s3": VARIANTS["s3"]["values"]["weights"],
        "claim": VARIANTS["claim"]["values"]["weights"],
        "image": {"source": "image", "image": "weights:1"},
    }.get(variant, {"source": variant})
    (job,) = render(values={"weights": values}).all("Job")
    command = container(job["spec"]["template"])["command"]
    calls = [each.split() for each in command[2].split(" && ")] if command[0] == "sh" else [command]
    for program, *words in calls:
        assert program == "parley"
        context = typer.main.get_command(app).make_context("parley", list(words))
        group = context.command.commands[words[0]]
        leaf = group.commands[words[1]]
        leaf.make_context(words[1], list(words[2:]), parent=context)


def test_bucket_credentials_come_by_secret_and_its_port_is_open(render):
    rendered = render(**VARIANTS["s3"])
    (job,) = rendered.all("Job")
    names = {
        each["name"]: each["valueFrom"]["secretKeyRef"]
        for each in container(job["spec"]["template"])["env"]
        if "valueFrom" in each
    }
    assert names["AWS_SECRET_ACCESS_KEY"] == {"name": "minio", "key": "AWS_SECRET_ACCESS_KEY"}
    assert names["AWS_SESSION_TOKEN"]["optional"] is True
    egress = rendered.one("NetworkPolicy", "parley-weights")["spec"]["egress"]
    assert egress == [{"ports": [{"port": 9000, "protocol": "TCP"}]}]


def test_other_weights_are_another_job(render):
    def name(seed):
        return render(values={"weights": {"seed": seed}}).all("Job")[0]["metadata"]["name"]

    assert name(1) == name(1)
    assert name(1) != name(2)


@pytest.mark.parametrize(
    "changed",
    [
        {"weights": {"job": {"resources": {"limits": {"memory": "4Gi"}}}}},
        {"weights": {"job": {"nodeSelector": {"pool": "a"}}}},
        {"weights": {"job": {"tolerations": [{"operator": "Exists"}]}}},
        {"weights": {"existingClaim": "other"}},
        {"weights": {"hub": {"endpoint": "https://mirror"}}},
        {"weights": {"hub": {"tokenSecret": "token"}}},
        {"image": {"pullSecrets": ["registry"]}},
        {"image": {"pullPolicy": "Always"}},
        {"weights": {"job": {"backoffLimit": 9}}},
    ],
)
def test_a_job_whose_pod_differs_has_another_name(changed, render):
    """Kubernetes refuses another pod template for a Job: the upgrade would fail."""

    def job(values):
        weights = {"source": "hub", **values.get("weights", {})}
        return render(values={**values, "weights": weights}).all("Job")[0]

    before, after = job({}), job(changed)
    same = before["spec"]["template"] == after["spec"]["template"]
    assert (before["metadata"]["name"] == after["metadata"]["name"]) == same


def test_claims_of_weights_and_voices_outlive_an_uninstall(render):
    claims = render().all("PersistentVolumeClaim")
    assert {each["metadata"]["name"] for each in claims} == {"parley-weights", "parley-voices"}
    assert all(
        each["metadata"]["annotations"] == {"helm.sh/resource-policy": "keep"} for each in claims
    )


def test_an_existing_claim_is_used_and_none_is_made(render):
    rendered = render(values={"voices": {"existingClaim": "mine"}, **VARIANTS["claim"]["values"]})
    assert rendered.all("PersistentVolumeClaim") == []


def test_weights_commands_of_the_job_exist():
    for command, option in (("seed", "--seed"), ("check", "--json")):
        output = (
            CliRunner(env={"COLUMNS": "200"}).invoke(app, ["weights", command, "--help"]).output
        )
        assert option in output
