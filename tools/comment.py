"""`python3 -m tools.comment FOLDER`, for .github/workflows/comment.yml: one comment on a pull request, edited in place.

The texts come from a run of the pull request's code, which may be a stranger's, and the token may write: a text is
data, and GitHub says which pull request it belongs to. Standard library only: no package is installed there.
"""

import json
import os
import re
import unicodedata
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path
from typing import Any

from stages.runtime.cli import run
from stages.runtime.errors import UserError

MARK = "<!-- review -->"  # finds the comment again
LIMIT = 30_000  # bytes of a text; GitHub takes 65,536 characters
TEXTS = ("real.md", "review.md")
# After each of these a zero-width space keeps GitHub from making a mention, a reference to an issue, a link, an image,
# an HTML tag, a character entity, a block of code or a LaTeX command of what follows.
ACTIVE = re.compile(
    r"@|#(?=\d)|GH(?=-\d)|(?:https?|ftp|mailto|xmpp):|www(?=\\?\.)|\](?=\s*[(\[:])|<(?=[a-z/!?])|&(?=[#\w])|"
    r"`(?=``)|~(?=~~)|\\(?=[a-z])",
    re.IGNORECASE,
)


def comment(folder: str) -> None:
    """Post the texts of a folder to the pull request whose head is the reviewed commit, or replace the last comment.

    Reads HEAD_OWNER, HEAD_BRANCH, HEAD_SHA and RUN_URL, and GitHub's own GITHUB_API_URL, GITHUB_REPOSITORY and
    GITHUB_TOKEN from the environment.

    Raises:
        UserError: GitHub refuses or cannot be reached.
    """
    head = f"{os.environ['HEAD_OWNER']}:{os.environ['HEAD_BRANCH']}"
    found = [
        pull["number"]
        for pull in _ask("GET", f"pulls?{urllib.parse.urlencode({'state': 'open', 'head': head})}")
        if pull["head"]["sha"] == os.environ["HEAD_SHA"]
    ]
    if not found:
        print(f"no open pull request has {os.environ['HEAD_SHA']} as its head")
        return
    texts = [text(path) for path in (Path(folder) / name for name in TEXTS) if os.path.lexists(path)]
    if not texts:
        print(f"the run left neither {' nor '.join(TEXTS)}")
        return
    origin = (
        f"<sub>Written by the code of this pull request at {os.environ['HEAD_SHA']}, in [this run]"
        f"({os.environ['RUN_URL']}), which also has the plots. It is not verified; mentions and links in it are "
        "inactive.</sub>"
    )
    body = {"body": "\n\n".join([MARK, origin, *texts])}
    own = _own(found[0])
    if own:
        _ask("PATCH", f"issues/comments/{own}", body)
    else:
        _ask("POST", f"issues/{found[0]}/comments", body)
    print(f"{'replaced' if own else 'posted'}: the review of pull request {found[0]}")


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


def _own(pull: int) -> int | None:
    """The id of the comment that was posted for a pull request before."""
    for page in range(1, 11):
        comments = _ask("GET", f"issues/{pull}/comments?per_page=100&page={page}")
        for found in comments:
            if found["user"]["type"] == "Bot" and found["body"].startswith(MARK):
                return int(found["id"])
        if len(comments) < 100:
            break
    return None


def _ask(method: str, path: str, body: dict[str, str] | None = None) -> Any:
    request = urllib.request.Request(
        f"{os.environ['GITHUB_API_URL']}/repos/{os.environ['GITHUB_REPOSITORY']}/{path}",
        json.dumps(body).encode() if body else None,
        {"Authorization": f"Bearer {os.environ['GITHUB_TOKEN']}", "Accept": "application/vnd.github+json"},
        method=method,
    )
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            return json.load(answer)
    except urllib.error.URLError as error:
        raise UserError(f"{method} {path.partition('?')[0]}: {error}; see the permissions of the workflow") from None


if __name__ == "__main__":
    run(comment, "folder")
