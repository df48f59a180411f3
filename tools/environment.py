"""Say which results in the workspace were computed elsewhere: `make repro` does this after the last stage."""

from stages.reporting.environment import differences
from stages.runtime.cli import run


def compare() -> None:
    """Print one line for each other environment; nothing where all results were computed on a machine like this."""
    for line in differences():
        print(f"note: {line}")


if __name__ == "__main__":
    run(compare)
