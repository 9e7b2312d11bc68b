"""A service process for the lifecycle and trace tests: its one call hangs until half-closed."""

import asyncio
import signal
import sys

from parley.tokenizer.v1 import tokenizer_pb2 as pb
from parley.tokenizer.v1 import tokenizer_pb2_grpc as rpc
from parley_core.clients import connect
from parley_core.errors import FailedPrecondition
from parley_core.server import Server, run_service
from parley_core.settings import ServiceSettings, load_settings


class DemoSettings(ServiceSettings, env_prefix="PARLEY_DEMO_"):
    """Settings of the demo service."""

    warm_up: str = "works"
    relay_to: str = ""


class Hanging(rpc.TokenizerServiceServicer):
    def __init__(self, relay_to: str) -> None:
        self.next = connect(relay_to) if relay_to else None

    async def StreamingTokenize(self, request_iterator, context):
        if self.next is not None:
            call = rpc.TokenizerServiceStub(self.next).StreamingTokenize()
            await call.done_writing()
            async for response in call:
                yield response
            return
        yield pb.StreamingTokenizeResponse(ready=pb.StreamReady())
        async for _ in request_iterator:
            pass


async def main(settings: DemoSettings) -> None:
    async def warm_up() -> None:
        if settings.warm_up == "fails":
            raise FailedPrecondition("tensor a.b\nis missing", reason="WEIGHTS_INCOMPLETE")
        if settings.warm_up == "hangs":
            print("warming", flush=True)
            await asyncio.Event().wait()

    async def stopped() -> None:
        print("stop hook", flush=True)

    server = Server(settings, name="demo")
    server.add(
        rpc.add_TokenizerServiceServicer_to_server,
        Hanging(settings.relay_to),
        "parley.tokenizer.v1.TokenizerService",
    )
    server.on_stop(stopped)
    gone = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, gone.set)

    async def lost() -> None:
        await gone.wait()

    server.needs("the engine", lost)
    await server.run(warm_up=warm_up)


if __name__ == "__main__":
    run_service(main(load_settings(DemoSettings, sys.argv[1:])))
