"""`make machine`: one line on the processor and the versions that results depend on. CI keys its run cache on it."""

from stages.reporting.environments import describe
from stages.runtime.cli import run
from stages.runtime.numerics import machine


def show() -> None:
    """Print this machine."""
    print(describe(machine()))


if __name__ == "__main__":
    run(show)
