"""The types of events: what consumers may choose from."""

#: About an endpoint; their `job_id` is null, and the endpoint is their data.
ENDPOINT_EVENTS = ("endpoint.disabled", "endpoint.test")
JOB_EVENTS = (
    "job.accepted", "job.submitted", "job.uncertain", "job.queued", "job.running", "job.succeeded", "job.failed",
    "job.blocked", "job.canceled", "job.expired", "job.archived", "job.late_result",
)  # fmt: skip
EVENT_TYPES = (*JOB_EVENTS, *ENDPOINT_EVENTS)
