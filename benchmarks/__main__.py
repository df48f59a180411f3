"""`make bench`: measure one topic after the other, write results/TOPIC.json and the tables in README.md."""

import importlib
import sys

from benchmarks import common, readme
from stages.console import UserError

TOPICS = ("training", "extraction", "preprocessing", "growth", "pipeline")
ON_DEMAND = ("accuracy", "scaling")  # hours and the published data; requirements-cluster.txt


def main(arguments: list[str]) -> None:
    """Measure the named topics, or all but what is on demand. With --quick: print the tables, write nothing."""
    quick = "--quick" in arguments
    topics = [argument for argument in arguments if argument != "--quick"] or list(TOPICS)
    for topic in topics:
        if topic not in TOPICS + ON_DEMAND:
            raise UserError(f"benchmarks: there is no {topic!r}; topics are {', '.join(TOPICS + ON_DEMAND)}")
    for topic in topics:
        before = common.machine()
        common.log(f"{topic}, on {before['cores']} cores with a load of {before['load_before']}")
        found = common.content(topic, importlib.import_module(f"benchmarks.{topic}").measure(quick), before)
        print(readme.section(topic, found))
        if not quick:
            common.save(topic, found)
            readme.write(TOPICS + ON_DEMAND)


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except UserError as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        sys.exit("interrupted")
