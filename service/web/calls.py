"""The table of calls: everything that the service answers to; those about events stand in `calls_events`."""

from collections.abc import Sequence

from service.web import artifacts, callbacks, evidence, health, jobs, schemas
from service.web.calls_events import EVENT_CALLS
from service.web.operations import Answer, Operation
from service.web.parameters import JOB_FILTERS, LIMIT, WAIT, position
from service.web.submission import JobRequest

_READ_JOBS = ("jobs:read", "audit:read")
_LOCATION = {"Location": "The path of the job."}
_REPLAYED = {"Idempotent-Replayed": "`true`: this job was there before."}
_JOB = Answer(description="The job.", model=schemas.Job)
_IDEMPOTENCY_KEY = (
    "Idempotency-Key",
    {"type": "string", "minLength": 1, "maxLength": 255, "pattern": "^[!-~]([ -~]*[!-~])?$"},
    "The same key with the same body gives the same job, however often it is sent.",
)

#: In the order in which paths are tried: the busiest first.
CALLS: Sequence[Operation] = (
    Operation(
        method="POST",
        path="/callbacks/{provider}/{token}",
        name="receiveCallback",
        summary="Take a provider's callback. The URL is given to the provider and belongs to one attempt.",
        handle=callbacks.receive,
        strict=False,
        raw_body=True,
        answers={200: Answer(description="Kept.", model=schemas.Received)},
        problems=(400, 401, 404, 413),
    ),
    Operation(
        method="POST",
        path="/v1/jobs",
        name="submitJob",
        summary="Submit a job.",
        handle=jobs.submit,
        scopes=("jobs:write",),
        headers=(_IDEMPOTENCY_KEY,),
        body=JobRequest,
        answers={
            202: Answer(description="Accepted and committed.", model=schemas.Job, headers=_LOCATION),
            200: Answer(description="The job of the same key.", model=schemas.Job, headers=_REPLAYED),
        },
        problems=(409,),
    ),
    Operation(
        method="GET",
        path="/v1/jobs",
        name="listJobs",
        summary="List jobs, newest first.",
        handle=jobs.listed,
        scopes=_READ_JOBS,
        parameters=(*JOB_FILTERS, LIMIT, position("jobs")),
        metadata=True,
        answers={200: Answer(description="A page of jobs.", model=schemas.JobPage)},
    ),
    Operation(
        method="GET",
        path="/v1/jobs/{job_id}",
        name="getJob",
        summary="Read a job, or wait for its end.",
        handle=jobs.one,
        scopes=_READ_JOBS,
        parameters=(WAIT,),
        answers={200: _JOB},
    ),
    Operation(
        method="POST",
        path="/v1/jobs/{job_id}/cancel",
        name="cancelJob",
        summary="End a job that is not final.",
        handle=jobs.cancel,
        scopes=("jobs:write",),
        answers={200: _JOB},
        problems=(409, 413, 415),
    ),
    Operation(
        method="POST",
        path="/v1/jobs/{job_id}/retry",
        name="retryJob",
        summary="Submit a failed or expired job anew, once.",
        handle=jobs.retry,
        scopes=("jobs:write",),
        answers={
            202: Answer(description="The new job.", model=schemas.Job, headers=_LOCATION),
            200: Answer(
                description="The successor that it has already.", model=schemas.Job, headers=_REPLAYED
            ),
        },
        problems=(409, 413, 415),
    ),
    Operation(
        method="GET",
        path="/v1/jobs/{job_id}/history",
        name="listHistory",
        summary="Read every fact about a job, oldest first.",
        handle=evidence.history,
        scopes=_READ_JOBS,
        parameters=(LIMIT, position("history")),
        answers={200: Answer(description="A page of facts.", model=schemas.HistoryPage)},
    ),
    Operation(
        method="GET",
        path="/v1/jobs/{job_id}/callbacks",
        name="listCallbacks",
        summary="Read what providers sent for a job, oldest first.",
        handle=evidence.callbacks,
        scopes=_READ_JOBS,
        parameters=(LIMIT, position("callbacks")),
        answers={200: Answer(description="A page of callbacks.", model=schemas.CallbackPage)},
    ),
    Operation(
        method="GET",
        path="/v1/jobs/{job_id}/callbacks/{callback_id}/body",
        name="getCallbackBody",
        summary="Read the raw bytes of a callback.",
        handle=evidence.callback_body,
        scopes=("audit:read",),
        answers={200: Answer(description="The bytes as they came.", media_type="application/octet-stream")},
    ),
    Operation(
        method="GET",
        path="/v1/artifacts/{artifact_id}",
        name="getArtifact",
        summary="Read a result file.",
        handle=artifacts.one,
        scopes=_READ_JOBS,
        headers=(("Range", {"type": "string"}, "One range of bytes."),),
        answers={
            200: Answer(description="The kept file.", media_type="*/*", headers={"ETag": "Its SHA-256."}),
            206: Answer(description="A range of it.", media_type="*/*", headers={"Content-Range": "Which."}),
            302: Answer(description="Not kept yet.", headers={"Location": "The provider's URL."}),
            304: Answer(description="The caller has it: `If-None-Match` names it."),
        },
        problems=(416,),
    ),
    *EVENT_CALLS,
    Operation(
        method="GET",
        path="/healthz",
        name="isAlive",
        summary="Answer while the process lives.",
        handle=health.healthz,
        strict=False,
        answers={200: Answer(description="It lives.", model=schemas.Status)},
    ),
    Operation(
        method="GET",
        path="/readyz",
        name="isReady",
        summary="Tell whether the service can do its work; a 503 names each failing check in `errors`.",
        handle=health.readyz,
        strict=False,
        answers={200: Answer(description="It can.", model=schemas.Status)},
    ),
    Operation(
        method="GET",
        path="/metrics",
        name="readMetrics",
        summary="Read all measures, for Prometheus. The operator may open this to everybody.",
        handle=health.metrics,
        scopes=("admin",),
        opened=lambda service: service.settings.metrics_open,
        strict=False,
        answers={200: Answer(description="The measures.", media_type="text/plain")},
    ),
)
