"""`make real BASE=main`: review and gate of fast models on real data, for a workspace whose data are synthetic.

BASE and the workspace run with `source: published` in worktrees of their own; the workspace's files stay as they are.
"""

import subprocess
import sys

from stages.runtime.cli import run
from stages.runtime.errors import UserError
from tools.base import reproduce, snapshot
from tools.gate import judge
from tools.review import comment
from tools.revision import Revision, reference

SOURCE = "published"


def real(base: str, models: str) -> None:
    """Print the review, then the gate; exit with 1 if the gate does not pass.

    Args:
        base: the revision to compare with.
        models: names of the models to run, with spaces between.
    """
    names = models.split()
    if not names:
        raise UserError("REAL: empty; name models")
    before, after = Revision(base).commit, snapshot()
    reproduce(before, base, SOURCE, names)
    reproduce(after, "workspace", SOURCE, names)
    sides = Revision(before, SOURCE, base), Revision(after, SOURCE, "workspace")
    passed, lines = judge(*sides)
    revisions = [reference(before, SOURCE), reference(after, SOURCE)]
    metrics = subprocess.run(["dvc", "metrics", "diff", "--md", *revisions], stdout=subprocess.PIPE, text=True).stdout
    sections = {"Gate": "\n".join(f"- {line}" for line in lines), "All metrics that differ": metrics.strip()}
    print(f"# On real data: {', '.join(names)}\n\n{comment(*sides)}")
    for title, text in sections.items():
        if text:
            print(f"\n## {title}\n\n{text}")
    if not passed:
        sys.exit(1)


if __name__ == "__main__":
    run(real, "base", "models")
