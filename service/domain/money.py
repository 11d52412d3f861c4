"""Money: decimal US dollars, never binary floats."""

from decimal import Decimal, InvalidOperation

#: One BFL credit in US dollars. Source: https://docs.bfl.ai/quick_start/pricing.md (read 2026-11-20).
BFL_CREDIT_USD = Decimal("0.01")
#: No price of a request has more digits before the point, or after it; `1e999999` would fill a page.
_MAX_WHOLE_DIGITS = 9
_MAX_DECIMALS = 24


def usd_text(amount: Decimal | None) -> str | None:
    """This function will write an amount as a plain decimal string without exponent or needless zeros."""
    if amount is None:
        return None
    text = format(amount, "f")
    if "." in text:
        text = text.rstrip("0").rstrip(".")
    return "0" if text == "-0" else text


def parse_usd(value: object) -> Decimal | None:
    """This function will read a non-negative amount of sensible size from a JSON number or text.

    Returns None for anything else: what a provider says of money is never a reason to fail a job.
    """
    if not isinstance(value, (int, float, str)):
        return None
    try:
        amount = Decimal(str(value))
    except (InvalidOperation, ValueError):
        return None
    if not amount.is_finite() or amount < 0:
        return None
    decimals = -int(amount.as_tuple().exponent)
    return amount if amount.adjusted() < _MAX_WHOLE_DIGITS and decimals <= _MAX_DECIMALS else None


def total(amounts: list[Decimal | None]) -> Decimal | None:
    """This function will add the known amounts, or return None when none is known."""
    known = [amount for amount in amounts if amount is not None]
    return sum(known, Decimal(0)) if known else None
