"""What a wrong field of a body is told: one sentence for each kind of mistake, under the field's dotted path."""

from collections.abc import Callable
from typing import Any

from pydantic import ValidationError

from service.domain.failures import FieldError
from service.web.problems import Problem, invalid

#: What is wrong, by pydantic's name for it; braces are filled from the error's context.
_MESSAGES = {
    "missing": "is required",
    "extra_forbidden": "is not a field of {thing}",
    "string_type": "must be a string",
    "string_too_short": "must have at least {min_length} character(s)",
    "string_too_long": "must have at most {max_length} characters",
    "int_type": "must be an integer",
    "int_parsing_size": "is too large",
    "bool_type": "must be true or false",
    "dict_type": "must be an object",
    "list_type": "must be a list",
    "too_long": "must have at most {max_length} entries",
    "greater_than_equal": "must be at least {ge}",
    "less_than_equal": "must be at most {le}",
    "literal_error": "must be {expected}",
    "value_error": "{error}",
}


def refused(
    error: ValidationError, *, thing: str, special: Callable[[str, Any], str | None] = lambda path, item: None
) -> Problem:
    """This function will make the problem of a body that does not fit its model.

    `thing` is what the body describes ("a job"). `special` may say something better of a path and pydantic's error.
    """
    return invalid(*(_field_error(item, thing, special) for item in error.errors(include_url=False)))


def _field_error(item: Any, thing: str, special: Callable[[str, Any], str | None]) -> FieldError:
    # `[key]` is how pydantic says that the key of a mapping is wrong and not its value.
    path = ".".join(str(part) for part in item["loc"] if part != "[key]")
    return FieldError(path=path, message=special(path, item) or _plain(item, thing))


def _plain(item: Any, thing: str) -> str:
    template = _MESSAGES.get(item["type"])
    return template.format(thing=thing, **item.get("ctx", {})) if template else str(item["msg"])
