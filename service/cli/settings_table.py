"""The README's table of settings, written from the settings themselves: `python -m service.cli.settings_table`."""

import sys

from service.settings import Settings


def table() -> str:
    """This function will write all settings as a Markdown table, for the README."""
    rows = ["| name | default | meaning |", "|---|---|---|"]
    for field in Settings.model_fields.values():
        extra = field.json_schema_extra
        shown = extra.get("shown") if isinstance(extra, dict) else None
        default = shown or ("none" if field.default is None else f"`{field.default}`")
        rows.append(f"| `{field.validation_alias}` | {default} | {field.description} |")
    return "\n".join(rows) + "\n"


if __name__ == "__main__":
    sys.stdout.write(table())
