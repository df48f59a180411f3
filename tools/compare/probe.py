"""`make probe`: does today's code still compute what the measured results were trained with?"""

import json

from stages.config import params
from stages.reporting import measured
from stages.runtime import paths
from stages.runtime.cli import run
from stages.runtime.errors import UserError
from tools.compare.measure import update_probes


def probe() -> None:
    """Probe the trainings of all models, store their digests and name what changed.

    Raises:
        UserError: the result of a model with measured results would change.
    """
    values = params.load()
    before = json.loads(paths.PROBES.read_text(encoding="utf-8")) if paths.PROBES.exists() else {}
    digests = update_probes(list(values.models))
    for name, digest in digests.items():
        if digest != before.get(name):
            print(f"{name}: {'other results than before' if name in before else 'a new model'}")
    if marked := sorted(measured.outdated(values)):
        raise UserError(
            f"{', '.join(marked)}: the measured results are of another computation; undo the change, or run "
            "`make measure` for them"
        )
    print(f"{len(digests)} models compute what they computed when they were measured")


if __name__ == "__main__":
    run(probe)
