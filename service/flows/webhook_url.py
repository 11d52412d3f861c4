"""A job's own webhook URL: judged before the job is taken in."""

from service.domain.targets import UrlRefused
from service.flows.errors import Refused
from service.flows.runtime import Runtime
from service.storage import idempotency


async def judge(runtime: Runtime, url: str, *, tenant: str, idempotency_key: str | None) -> None:
    """This function will see that events may be sent to a URL.

    What stands in the way may be of today only, a name that cannot be resolved, say. Then a request whose key made a
    job before still passes, so that its caller learns of that job and does not submit another.

    :raises Refused: under the path `webhook_url`, if nothing may be sent there.
    """
    try:
        await runtime.egress.check(url)
    except UrlRefused as error:
        if not await _was_accepted(runtime, tenant, idempotency_key):
            raise Refused("webhook_url", error.reason) from error


async def _was_accepted(runtime: Runtime, tenant: str, key: str | None) -> bool:
    if key is None:
        return False
    return await runtime.door.read(lambda tx: idempotency.is_taken(tx, tenant=tenant, key=key))
