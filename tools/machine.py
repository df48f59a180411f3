"""`make machine`: one line on the processor and the versions that results depend on. CI keys its run cache on it."""

from stages.runtime.cli import run
from stages.runtime.numerics import machine


def describe(environment: dict[str, str]) -> str:
    """A recorded environment as text, without the facts that are not the machine's."""
    return ", ".join(f"{key} {value}" for key, value in environment.items() if key not in ("threads", "compute_dtype"))


def show() -> None:
    """Print this machine."""
    print(describe(machine()))


if __name__ == "__main__":
    run(show)
