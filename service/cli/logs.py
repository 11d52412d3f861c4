"""The logs: structlog over the standard library, so that our lines, uvicorn's and httpx's look alike.

Rule: no line holds a URL that somebody called: the tokens of callback URLs and the queries of result URLs are secrets.
"""

import logging
import sys
from typing import TextIO

import structlog

#: They log every URL at INFO.
_TALKATIVE = ("httpx", "httpcore", "aiohttp", "alembic")

#: They log every try to reach a broker that is down; the sinks say it once an outage.
_REPETITIVE = ("aiokafka", "nats")


def set_up(form: str | None, *, stream: TextIO | None = None) -> None:
    """This function will send all logs to a stream, stderr by default.

    `form` is `console`, `json` (one JSON object a line), or None: console on a terminal, else json.
    """
    stream = stream or sys.stderr
    chosen = form or ("console" if stream.isatty() else "json")
    handler = logging.StreamHandler(stream)
    handler.setFormatter(_formatter(chosen, coloured=stream.isatty()))
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(logging.INFO)
    for name in _TALKATIVE:
        logging.getLogger(name).setLevel(logging.WARNING)
    for name in _REPETITIVE:
        logging.getLogger(name).setLevel(logging.CRITICAL)
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *_common(),
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )


def only_warnings() -> None:
    """This function will keep a short command's output free of what is not a warning."""
    logging.getLogger().setLevel(logging.WARNING)


def _common() -> list[structlog.types.Processor]:
    return [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.add_log_level,
        structlog.stdlib.PositionalArgumentsFormatter(),
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]


def _formatter(form: str, *, coloured: bool) -> logging.Formatter:
    # Tracebacks are plain: the pretty ones print local variables, and those hold keys and prompts.
    last: list[structlog.types.Processor] = (
        [structlog.processors.format_exc_info, structlog.processors.JSONRenderer(default=str)]
        if form == "json"
        else [
            structlog.dev.ConsoleRenderer(colors=coloured, exception_formatter=structlog.dev.plain_traceback)
        ]
    )
    return structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=_common(),
        processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *last],
    )
