"""`python -m parley_gateway`: runs the gateway."""

from parley_core.server import run_service
from parley_core.settings import load_settings

from parley_gateway.server import serve
from parley_gateway.settings import GatewaySettings


def main() -> None:
    """Runs the gateway until a signal ends it."""
    run_service(serve(load_settings(GatewaySettings)))


if __name__ == "__main__":
    main()
