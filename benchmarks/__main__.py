"""`make bench`: run one benchmark after the other; write results/NAME.json and the tables in README.md."""

import importlib
import sys

from benchmarks import common, readme
from stages.runtime.errors import UserError

BENCHMARKS = ("training", "extraction", "preprocessing", "growth", "pipeline", "serving")
# Hours on the real data, PyTorch, or minutes that few need
ON_DEMAND = ("repro", "accuracy", "profile", "scaling", "recipes", "audit", "transfer")


def main(arguments: list[str]) -> None:
    """Run the named benchmarks, or all that are not on demand. With --quick: print the tables, write nothing."""
    quick = "--quick" in arguments
    names = [argument for argument in arguments if argument != "--quick"] or list(BENCHMARKS)
    for name in names:
        if name not in BENCHMARKS + ON_DEMAND:
            raise UserError(f"benchmarks: there is no {name!r}; choose from {', '.join(BENCHMARKS + ON_DEMAND)}")
    for name in names:
        before = common.machine()
        common.log(f"{name}, on {before['cores']} cores with a load of {before['load_before']}")
        found = common.content(name, importlib.import_module(f"benchmarks.{name}").measure(quick), before)
        print(readme.section(name, found))
        if not quick:
            common.save(name, found)
            readme.write(BENCHMARKS + ON_DEMAND)


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except UserError as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        sys.exit("interrupted")
