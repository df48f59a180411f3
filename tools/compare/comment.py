"""`python3 -m tools.compare.comment FOLDER`: one comment on a pull request, edited in place (comment.yml).

The texts come from a run of the pull request's code, which may be a stranger's, and the token may write: a text is
data, and GitHub says which pull request it belongs to. Standard library and GitHub's `gh`: no package is installed.
"""

import json
import os
import re
import subprocess
import unicodedata
from pathlib import Path

from stages.runtime.cli import run
from stages.runtime.errors import UserError

LIMIT = 30_000  # bytes of a text; GitHub takes 65,536 characters
TEXTS = ("real.md", "review.md")
# After each of these a zero-width space keeps GitHub from making a mention, a reference to an issue or a commit, a
# link, an image, an HTML tag, a character entity, a block of code or a LaTeX command of what follows.
ACTIVE = re.compile(
    r"@|#(?=\d)|GH(?=-\d)|[0-9a-f]{6}(?=[0-9a-f])|(?:https?|ftp|mailto|xmpp):|www(?=\\?\.)|\](?=\s*[(\[:])|"
    r"<(?=[a-z/!?])|&(?=[#\w])|`(?=``)|~(?=~~)|\\(?=[a-z])",
    re.IGNORECASE,
)


def comment(folder: str) -> None:
    """Post the texts of a folder to the pull request whose head is the reviewed commit, or replace the last comment.

    Reads HEAD_OWNER, HEAD_BRANCH, HEAD_SHA and RUN_URL from the environment, where `gh` reads GH_REPO and GH_TOKEN.

    Raises:
        UserError: GitHub refuses or cannot be reached.
    """
    owner, branch, sha, url = (os.environ[name] for name in ("HEAD_OWNER", "HEAD_BRANCH", "HEAD_SHA", "RUN_URL"))
    query = ["-f", "state=open", "-f", f"head={owner}:{branch}"]
    pulls = json.loads(_gh("", "api", "--method", "GET", "repos/{owner}/{repo}/pulls", *query))
    found = [str(pull["number"]) for pull in pulls if pull["head"]["sha"] == sha]
    texts = [text(path) for path in (Path(folder) / name for name in TEXTS) if os.path.lexists(path)]
    if not found or not texts:
        print(f"the run left neither {' nor '.join(TEXTS)}" if found else f"no open pull request has {sha} as its head")
        return
    origin = (
        f"<sub>Written by the code of this pull request at {sha}, in [this run]({url}), which also has the plots. It "
        "is not verified; mentions and links in it are inactive.</sub>"
    )
    # No other workflow comments: the last comment of this user is the last review.
    options = ["--edit-last", "--create-if-none", "--body-file", "-"]
    print(_gh("\n\n".join([origin, *texts]), "pr", "comment", found[0], *options))


def text(path: Path) -> str:
    """The inert text of a file, cut if it is long. Symbolic links are not followed: they could lead to secrets."""
    with open(os.open(path, os.O_RDONLY | os.O_NOFOLLOW), "rb") as file:
        content = file.read(LIMIT + 1)
    cut = "\n\n(cut: too long for a comment)" if len(content) > LIMIT else ""
    return inert(content[:LIMIT].decode(errors="replace")) + cut


def inert(markdown: str) -> str:
    """Markdown that mentions nobody, refers to nothing and links nowhere; headings, tables and code stay."""
    visible = "".join(
        letter for letter in markdown if letter in "\n\t" or unicodedata.category(letter) not in ("Cc", "Cf")
    )
    return ACTIVE.sub(lambda found: found[0] + "\u200b", visible)


def _gh(body: str, *arguments: str) -> str:
    done = subprocess.run(["gh", *arguments], input=body, capture_output=True, encoding="utf-8")
    if done.returncode:
        raise UserError(f"gh {arguments[0]}: {' '.join(done.stderr.split())}; see the permissions of the workflow")
    return done.stdout.strip()


if __name__ == "__main__":
    run(comment, "folder")
