"""`fluxgate serve --no-work`, on SQLite too: what accepting and receiving cost when nothing else goes on.

The command refuses that on SQLite, because jobs would never be sent; here they need not be.
"""

import asyncio
import sys

import uvloop

from service import wiring
from service.cli.collector import look_less_often
from service.cli.listening import Listener, listening, stop_on_signals, until_stopped
from service.cli.opening import read_settings
from service.web.app import create_app


async def main(port: int) -> None:
    """This function will serve until SIGTERM, as the command does."""
    stop = stop_on_signals()
    async with (
        wiring.running(read_settings(), work=False) as service,
        listening(create_app(service), Listener("127.0.0.1", port), service) as server,
    ):
        look_less_often()
        await until_stopped(stop, server)


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main(int(sys.argv[1])))
