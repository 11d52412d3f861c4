"""Result files: which are wanted, which are kept, which are gone."""

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import bindparam, select, update

from service.storage.database import Tx
from service.storage.statements import Row, Statement, insert_many
from service.storage.tables import ArtifactRow, table

ARTIFACT = table(ArtifactRow)
_INSERT = insert_many(ARTIFACT, unless=["job_id", "position"])
_OF_JOB = Statement(
    select(ARTIFACT).where(ARTIFACT.c.job_id == bindparam("of_job")).order_by(ARTIFACT.c.position)
)
_ONE = Statement(
    select(ARTIFACT).where(ARTIFACT.c.tenant == bindparam("of_tenant"), ARTIFACT.c.id == bindparam("of_id"))
)
_UPDATE = Statement(
    update(ARTIFACT)
    .where(ARTIFACT.c.id == bindparam("of_id"))
    .values(
        {
            name: bindparam(name)
            for name in ["state", "source_url", "content_type", "sha256", "size_bytes", "kept_ms"]
        }
    )
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Artifact:
    """A result file. Its bytes are stored under its SHA-256 once `state` is `kept`."""

    id: str
    job_id: str
    attempt_id: str
    tenant: str
    position: int
    state: str
    source_url: str
    created_ms: int
    content_type: str | None = None
    sha256: str | None = None
    size_bytes: int | None = None
    kept_ms: int | None = None


def want(tx: Tx, artifacts: Sequence[Artifact]) -> None:
    """This function will note files to be kept; those noted before stay as they are."""
    tx.run_later(_INSERT, [{name: getattr(item, name) for name in Artifact.__slots__} for item in artifacts])


def of_job(tx: Tx, job_id: str) -> list[Artifact]:
    """This function will list a job's files in the order of its output."""
    return [_artifact(row) for row in tx.rows(_OF_JOB, of_job=job_id)]


def one(tx: Tx, *, tenant: str, artifact_id: str) -> Artifact | None:
    """This function will find one file of a tenant."""
    rows = tx.rows(_ONE, of_tenant=tenant, of_id=artifact_id)
    return _artifact(rows[0]) if rows else None


def save(tx: Tx, artifact: Artifact) -> None:
    """This function will write what became of a file."""
    tx.run(
        _UPDATE,
        of_id=artifact.id,
        state=artifact.state,
        source_url=artifact.source_url,
        content_type=artifact.content_type,
        sha256=artifact.sha256,
        size_bytes=artifact.size_bytes,
        kept_ms=artifact.kept_ms,
    )


def _artifact(row: Row) -> Artifact:
    return Artifact(**row)
