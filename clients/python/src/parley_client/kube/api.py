"""Reading from a Kubernetes API server, by the `kubernetes` client or by kubectl.

Contract: `get` gives an object or a list as the server's JSON, None where there is nothing, and
raises `LocalError` where it may not be read or nobody answers. Nothing is ever written. Which of
the two ways it takes depends on what is installed, and changes nothing else.
"""

import json
import os
import shutil
import subprocess
from typing import Any, Protocol

from parley_client.local.errors import LocalError

_TIMEOUT_S = 15
_HOW = "set KUBECONFIG, or make a cluster: `kind create cluster --config k8s/kind.yaml`"


class Api(Protocol):
    """A cluster that can be read."""

    @property
    def server(self) -> str:
        """Which cluster, for people."""
        ...

    def get(self, path: str) -> dict[str, Any] | None:
        """The JSON at a path such as ``/api/v1/nodes``; None when there is none.

        Raises:
            LocalError: KUBE_FORBIDDEN, KUBE_UNREACHABLE.
        """
        ...


def connect(context: str | None = None) -> Api:
    """The cluster of a context of the kubeconfig.

    Args:
        context: its name; None takes the current one.

    Raises:
        LocalError: KUBE_UNCONFIGURED when there is no kubeconfig or no such context,
            PACKAGE_MISSING when neither the client nor kubectl is there.
    """
    try:
        return ClientApi(context)
    except ModuleNotFoundError:
        if shutil.which("kubectl"):
            return KubectlApi(context)
        raise LocalError(
            "reading a cluster needs kubectl or the kubernetes client: pip install 'parley[kube]'",
            reason="PACKAGE_MISSING",
        ) from None


class ClientApi:
    """By the `kubernetes` client; inside a pod without a kubeconfig, by its service account."""

    def __init__(self, context: str | None):
        from kubernetes import client, config

        settings = client.Configuration()
        # One try is an answer for a person who waits.
        settings.retries = False
        # The client takes the place of the file from the environment once, when it is imported.
        file = os.environ.get("KUBECONFIG") or config.kube_config.KUBE_CONFIG_DEFAULT_LOCATION
        try:
            if context is None and _in_cluster():
                config.load_incluster_config(  # type: ignore[no-untyped-call]
                    client_configuration=settings
                )
            else:
                config.load_kube_config(  # type: ignore[no-untyped-call]
                    file, context=context, client_configuration=settings
                )
        except Exception as error:
            # A kubeconfig that is none fails in as many ways as YAML can be wrong.
            raise _unconfigured(error) from None
        self._client = client.ApiClient(settings)
        self.server = str(self._client.configuration.host)

    def get(self, path: str) -> dict[str, Any] | None:
        """See `Api`."""
        from kubernetes.client.exceptions import ApiException
        from urllib3.exceptions import HTTPError

        method, url, headers, *_ = self._client.param_serialize(
            "GET", path, header_params={"Accept": "application/json"}, auth_settings=["BearerToken"]
        )
        try:
            answer = self._client.call_api(method, url, headers, _request_timeout=_TIMEOUT_S)
            status, text = answer.status, answer.read()  # type: ignore[no-untyped-call]
        except ApiException as error:
            status, text = error.status or 0, error.body or ""
        except (HTTPError, OSError) as error:
            raise _unreachable(self.server, error) from None
        if status == 404:
            return None
        if status in (401, 403):
            raise _forbidden(path, _message(text))
        if status != 200:
            raise _unreachable(self.server, _message(text))
        return _parse(text, self.server)


class KubectlApi:
    """By ``kubectl get --raw``."""

    def __init__(self, context: str | None):
        self._command = ["kubectl", *(["--context", context] if context else [])]
        found = self._run(["config", "view", "--minify", "-o", "jsonpath={..server}"])
        if found.returncode or not found.stdout.strip():
            raise _unconfigured(found.stderr.strip() or "there is no current context")
        self.server = found.stdout.strip()

    def get(self, path: str) -> dict[str, Any] | None:
        """See `Api`."""
        done = self._run(["get", "--raw", path])
        told = " ".join(done.stderr.split())
        if not done.returncode:
            return _parse(done.stdout, self.server)
        if "NotFound" in told or "could not find the requested resource" in told:
            return None
        if "Forbidden" in told or "Unauthorized" in told or "must be logged in" in told:
            raise _forbidden(path, told)
        raise _unreachable(self.server, told)

    def _run(self, arguments: list[str]) -> subprocess.CompletedProcess[str]:
        try:
            return subprocess.run(
                [*self._command, *arguments],
                capture_output=True, text=True, timeout=_TIMEOUT_S, check=False,
            )  # fmt: skip
        except (OSError, subprocess.TimeoutExpired) as error:
            raise _unreachable("the cluster", error) from None


def _in_cluster() -> bool:
    return bool(os.environ.get("KUBERNETES_SERVICE_HOST")) and not os.environ.get("KUBECONFIG")


def _parse(text: str | bytes, server: str) -> dict[str, Any]:
    try:
        loaded = json.loads(text)
    except ValueError:
        loaded = None
    if not isinstance(loaded, dict):
        raise _unreachable(server, "what answers there is no Kubernetes API server")
    return loaded


def _message(text: str | bytes) -> str:
    try:
        return str(json.loads(text)["message"])
    except (ValueError, KeyError, TypeError):
        return "it answered with an error"


def _unconfigured(cause: object) -> LocalError:
    told = " ".join(str(cause).split())
    return LocalError(f"no cluster is configured ({told}); {_HOW}", reason="KUBE_UNCONFIGURED")


def _unreachable(server: str, cause: object) -> LocalError:
    told = " ".join(str(cause).split())
    return LocalError(
        f"{server} does not answer: {told}; is the cluster up, and the right context chosen?",
        reason="KUBE_UNREACHABLE",
    )


def _forbidden(path: str, cause: str) -> LocalError:
    return LocalError(f"{path} may not be read: {cause}", reason="KUBE_FORBIDDEN")
