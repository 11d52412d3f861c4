"""Pages: lists of whole jobs, bounded in rows and in bytes."""

from dataclasses import dataclass

from service.flows.read import Whole
from service.flows.runtime import Runtime
from service.storage import jobs, search
from service.storage.database import Tx
from service.storage.jobs import Large
from service.storage.search import Filters

#: Inputs have up to 1 MiB and raw outputs up to 8: a page that would hold more than this ends sooner.
PAGE_BYTES = 8 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Page:
    """Jobs of a list, and whether more of them follow."""

    jobs: list[Whole]
    more: bool


async def page(runtime: Runtime, filters: Filters, *, before_id: str | None, most: int) -> Page:
    """This function will list jobs that fit, newest first, as one snapshot; at least one if there is any."""

    def look(tx: Tx) -> Page:
        found = search.jobs(tx, filters, before_id=before_id, most=most + 1)
        wholes: list[Whole] = []
        size = 0
        for stored in found[:most]:
            large = jobs.large(tx, stored.job.id)
            assert large is not None, "one snapshot"
            size += _size(large)
            if wholes and size > PAGE_BYTES:
                break
            wholes.append(Whole(stored.job, large))
        return Page(wholes, more=len(wholes) < len(found))

    return await runtime.door.read(look)


def _size(large: Large) -> int:
    raws = sum(len(raw) for raw in large.attempt_outputs_raw.values())
    return len(large.input) + len(large.output_raw or "") + raws
