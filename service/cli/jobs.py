"""`fluxgate jobs`: lists, shows, cancels and retries jobs, as the API does, with the operator as the cause."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from service.cli.failing import Failed, wrong_use

if TYPE_CHECKING:
    from service.domain.job import Job
    from service.flows.accept import Accepted
    from service.flows.read import Whole
    from service.wiring import Service

app = typer.Typer(
    name="jobs",
    help="List, show, cancel and retry jobs.",
    rich_markup_mode=None,
    epilog="Example: fluxgate jobs list --state queued,running",
)
Tenant = Annotated[str, typer.Option(help="Whose jobs.")]
JobArgument = Annotated[str, typer.Argument(metavar="ID", help="The job's id, as in 'jobs list'.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, as the API would.")]
_OF_ATTEMPT = (
    "id", "state", "provider_request_id", "submitted_at", "completed_at", "learned_by", "lag_ms",
)  # fmt: skip
_COLUMNS = ("id", "state", "provider", "model", "learned_by", "created_at", "completed_at")


@app.command("list", epilog="Example: fluxgate jobs list --state failed,expired --limit 20 --json")
def list_jobs(
    *,
    tenant: Tenant = "default",
    state: Annotated[str, typer.Option(metavar="A,B", help="Only these states, comma-separated.")] = "",
    provider: Annotated[str | None, typer.Option(help="Only this provider.")] = None,
    model: Annotated[str | None, typer.Option(help="Only this model.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=200, help="At most so many.")] = 50,
    cursor: Annotated[str | None, typer.Option(help="Go on behind this one: next_cursor of --json.")] = None,
    as_json: AsJson = False,
) -> None:
    """List jobs, newest first: id, state, provider, model, how it was learned, when it was made and when it ended."""
    from service.cli import showing
    from service.cli.opening import briefly
    from service.domain.job_object import job_object
    from service.flows import read
    from service.storage.search import Filters

    filters = Filters(tenant=tenant, states=_states(state), provider=provider, model=model)

    async def act(service: "Service") -> tuple[list["Job"], str]:
        found = await read.listed(service.runtime, filters, before_id=cursor, most=limit + 1)
        return found, service.settings.public_url or ""

    found, base = briefly(act)
    shown = [job_object(job, artifacts_url=base) for job in found[:limit]]
    if as_json:
        showing.listing(shown, shown[-1]["id"] if len(found) > limit else None)
    else:
        showing.rows(_COLUMNS, [[job[column] for column in _COLUMNS] for job in shown])


def _states(text: str) -> list[str]:
    from service.domain.states import JobState

    states = [part.strip() for part in text.split(",") if part.strip()]
    unknown = [state for state in states if state not in list(JobState)]
    if unknown:
        raise wrong_use(f"{unknown[0]!r} is no state of a job", f"choose from {', '.join(JobState)}")
    return states


@app.command(epilog="Example: fluxgate jobs show job_0199… --json")
def show(job_id: JobArgument, tenant: Tenant = "default", as_json: AsJson = False) -> None:
    """Show one job with its attempts; with --json everything that the API tells of it."""
    from service.cli import showing
    from service.cli.opening import briefly
    from service.flows import read

    async def act(service: "Service") -> tuple["Whole", str]:
        whole = await read.job(service.runtime, tenant=tenant, job_id=job_id)
        return whole, service.settings.public_url or ""

    whole, base = briefly(act)
    shown = _whole(whole, base)
    if as_json:
        showing.document(shown)
    else:
        _print(shown)


def _whole(whole: "Whole", base: str) -> dict[str, Any]:
    """The job as the API shows it; integers are Python's, so that none loses a digit."""
    from service.domain import exact_json
    from service.domain.job_object import job_object

    shown = job_object(whole.job, artifacts_url=base)
    shown["input"] = exact_json.loads(whole.large.input)
    if shown["output"] is not None and whole.large.output_raw is not None:
        shown["output"]["raw"] = exact_json.loads(whole.large.output_raw)
    for attempt in shown["attempts"]:
        raw = whole.large.attempt_outputs_raw.get(attempt["id"])
        if attempt["output"] is not None and raw is not None:
            attempt["output"]["raw"] = exact_json.loads(raw)
    return shown


def _print(shown: dict[str, Any]) -> None:
    """One fact a line, for people; what is absent is left out."""
    from service.cli.showing import facts

    output = shown.pop("output")
    attempts = shown.pop("attempts")
    facts(shown)
    for image in output["images"] if output else ():
        facts({"image": image["url"]})
    facts({"seed": output and output["seed"]})
    for attempt in attempts:
        facts({f"attempt {attempt['number']} {name}": attempt[name] for name in _OF_ATTEMPT})


@app.command(epilog="Example: fluxgate jobs cancel job_0199…")
def cancel(job_id: JobArgument, tenant: Tenant = "default") -> None:
    """Cancel a job that is not final; the provider is asked to cancel it too."""
    from service.cli.opening import briefly
    from service.domain.facts import CAUSE_OPERATOR
    from service.flows.cancel import cancel as flow

    job = briefly(
        lambda service: flow(
            service.runtime, service.advance, tenant=tenant, job_id=job_id, cause=CAUSE_OPERATOR
        )
    )
    print(f"{job.id}: {job.state}")


@app.command(epilog="Example: fluxgate jobs retry job_0199…")
def retry(job_id: JobArgument, tenant: Tenant = "default") -> None:
    """Send a failed or expired job again, as a new job that names the old one; a repeat names the same new job."""
    from service.cli.opening import briefly
    from service.flows.accept import InputRefused
    from service.flows.retry import retry as flow

    async def act(service: "Service") -> "Accepted":
        try:
            return await flow(service.runtime, service.accept, tenant=tenant, job_id=job_id, cause="operator")
        except InputRefused as error:
            first = error.errors[0]
            raise Failed(
                f"the model refuses the input now: {first.path} {first.message}", "submit a new job"
            ) from None

    accepted = briefly(act)
    print(f"{accepted.job.id}: {accepted.job.state}")
