"""`python3 -m tools.comment FILE`, for .github/workflows/comment.yml: one comment on a pull request, edited in place.

The text comes from a run of the pull request's code, which may be a stranger's, and the token may write: the text is
data, and which pull request it is for is asked of GitHub. Standard library only, because no package is installed there.
"""

import json
import os
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path
from typing import Any

from stages.console import UserError, run

MARK = "<!-- review -->"  # by which the comment is found again
LIMIT = 60_000  # bytes; GitHub takes 65,536 characters


def comment(path: str) -> None:
    """Post the text of a file to the pull request whose head is the commit that was reviewed, or replace its last one.

    Reads HEAD_OWNER, HEAD_BRANCH, HEAD_SHA and RUN_URL beside GitHub's own GITHUB_API_URL, GITHUB_REPOSITORY and
    GITHUB_TOKEN from the environment.

    Raises:
        UserError: GitHub refuses, or is not there.
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
    body = {"body": f"{MARK}\n{text(Path(path))}\n\n<sub>Made by [this run]({os.environ['RUN_URL']}).</sub>"}
    own = _own(found[0])
    if own:
        _ask("PATCH", f"issues/comments/{own}", body)
    else:
        _ask("POST", f"issues/{found[0]}/comments", body)
    print(f"{'replaced' if own else 'posted'}: the review of pull request {found[0]}")


def text(path: Path) -> str:
    """The file's text, cut where it is too long. A link is not followed: it could lead to what is not for everyone."""
    with open(os.open(path, os.O_RDONLY | os.O_NOFOLLOW), "rb") as file:
        content = file.read(LIMIT + 1)
    cut = "\n\n(cut: it is too long for a comment)" if len(content) > LIMIT else ""
    return content[:LIMIT].decode(errors="replace") + cut


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
    run(comment, "file")
