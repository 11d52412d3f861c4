"""Identifiers as distinct types, so that a job id is never passed where a provider's id belongs."""

import re
from collections.abc import Callable
from typing import NewType

JobId = NewType("JobId", str)
AttemptId = NewType("AttemptId", str)

#: Makes an id from its prefix (`"job"` -> `"job_…"`); ids of one prefix sort by creation.
MakeId = Callable[[str], str]

#: What a tenant may be called.
TENANT = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
