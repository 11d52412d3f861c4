"""Between events and what a broker gets: the bytes of the feed, cut into portions."""

from collections.abc import Sequence
from dataclasses import replace

from service.domain.event_object import event_text
from service.sinks.base import Message
from service.storage.events import Event

#: A set of messages is cut at about this size: it is in memory more than once on its way.
PORTION_BYTES = 4 * 1024 * 1024


def message_of(event: Event) -> Message:
    """This function will make the message of an event: its bytes as the feed shows them."""
    body = event_text(
        id=event.id,
        seq=event.seq,
        type=event.type,
        at_ms=event.at_ms,
        job_id=event.job_id,
        job_seq=event.job_seq,
        data=event.data,
    )
    return Message(
        seq=event.seq,
        id=event.id,
        tenant=event.tenant,
        type=event.type,
        job_id=event.job_id,
        job_seq=event.job_seq,
        at_ms=event.at_ms,
        body=body,
    )


def thinned(message: Message) -> Message:
    """This function will make the same message with `data` null: who needs the rest reads the feed."""
    body = event_text(
        id=message.id,
        seq=message.seq,
        type=message.type,
        at_ms=message.at_ms,
        job_id=message.job_id,
        job_seq=message.job_seq,
        data="null",
    )
    return replace(message, body=body, thinned=True)


def portion(messages: Sequence[Message]) -> Sequence[Message]:
    """This function will give as many messages, from the first on, as are not too much at once: at least one."""
    size = 0
    for place, message in enumerate(messages):
        size += len(message.body)
        if size > PORTION_BYTES and place:
            return messages[:place]
    return messages
