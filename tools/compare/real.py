"""`make real BASE=main`: review and gate of fast models on real data, for a workspace whose data are synthetic.

BASE and the workspace run with `source: real` in worktrees of their own; the workspace's files stay as they are.
"""

import subprocess
import sys

from stages.runtime.cli import run
from stages.runtime.errors import UserError
from tools.compare.base import reproduce, snapshot
from tools.compare.gate import judge
from tools.compare.review import comment
from tools.lib.revision import Revision

SOURCE = "real"


def real(base: str, models: str) -> None:
    """Print review, gate and all metrics of some models, named with spaces between; exit with 1 if the gate fails."""
    names = models.split()
    if not names:
        raise UserError("REAL: empty; name models")
    sides = [(Revision(base).commit, base), (snapshot(), "workspace")]
    for commit, name in sides:
        reproduce(commit, name, SOURCE, names)
    before, after = (Revision(commit, SOURCE, name) for commit, name in sides)
    passed, lines = judge(before, after)
    gate = "\n".join(f"- {line}" for line in lines)
    print(f"# On real data: {', '.join(names)}\n\n{comment(before, after)}\n\n## Gate\n\n{gate}", flush=True)
    print("\n## All metrics that differ\n", flush=True)
    subprocess.run(["dvc", "metrics", "diff", "--md", before.ref, after.ref])
    if not passed:
        sys.exit(1)


if __name__ == "__main__":
    run(real, "base", "models")
