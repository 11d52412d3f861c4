"""How a command fails: in one line that says what is wrong and what to do, and with the exit code for it."""


class Failed(Exception):
    """The thing that was asked for cannot be done. Each pair of `problems` is printed as one line."""

    def __init__(self, what: str, to_do: str, *more: tuple[str, str], code: int = 1) -> None:
        super().__init__(what)
        self.problems = ((what, to_do), *more)
        self.code = code


def wrong_use(what: str, to_do: str) -> Failed:
    """This function will make the failure of a command that was called wrongly."""
    return Failed(what, to_do, code=2)


def line(what: str, to_do: str) -> str:
    """This function will write one problem as one line, whatever it quotes."""
    said = " ".join(f"{what}: {to_do}".split())
    return "fluxgate: " + "".join(sign if sign.isprintable() else "?" for sign in said)
