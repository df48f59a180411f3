"""One comment on a pull request, posted through a `gh` that only records what it is asked for."""

import json
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT, run
from tools.compare import comment

SHA = "1" * 40
GH = """#!/bin/sh
printf '%s\\n' "$*" >> calls
[ "$GH_TOKEN" = token ] || { echo "HTTP 403: Forbidden" >&2; exit 1; }
if [ "$1" = api ]; then cat pulls.json; else cat > body; echo posted; fi
"""


def post(folder: Path, **environment: str) -> tuple[int, str, str]:
    """Call the tool in a folder, without any package, when GitHub has one open pull request at SHA."""
    binary = folder / "bin/gh"
    binary.parent.mkdir(exist_ok=True)
    binary.write_text(GH, encoding="utf-8")
    binary.chmod(0o755)
    (folder / "pulls.json").write_text(json.dumps([{"number": 7, "head": {"sha": SHA}}]), encoding="utf-8")
    settings = {
        "GH_TOKEN": "token",
        "HEAD_OWNER": "them",
        "HEAD_BRANCH": "topic#1",
        "HEAD_SHA": SHA,
        "RUN_URL": "https://example.com/run",
        "PYTHONPATH": str(ROOT),
        **environment,
    }
    command = f'PATH="$PWD/bin:$PATH" exec "{sys.executable}" -S -m tools.compare.comment .'
    done = run(folder, "sh", "-c", command, **settings)
    return done.returncode, done.stdout, done.stderr


def test_comment_replaces_the_last_one_and_says_where_its_texts_come_from(tmp_path: Path) -> None:
    (tmp_path / "review.md").write_text("by @someone", encoding="utf-8")
    (tmp_path / "real.md").write_text("on real data", encoding="utf-8")
    assert post(tmp_path) == (0, "posted\n", "")
    assert (tmp_path / "calls").read_text(encoding="utf-8").splitlines() == [
        "api --method GET repos/{owner}/{repo}/pulls -f state=open -f head=them:topic#1",
        "pr comment 7 --edit-last --create-if-none --body-file -",
    ]
    origin, real, review = (tmp_path / "body").read_text(encoding="utf-8").split("\n\n")
    assert f"the code of this pull request at {SHA}, in [this run](https://example.com/run)" in origin
    assert (real, review) == ("on real data", "by @\u200bsomeone")


def test_nothing_is_posted_without_a_text_or_for_an_older_commit(tmp_path: Path) -> None:
    assert post(tmp_path) == (0, "the run left neither real.md nor review.md\n", "")
    (tmp_path / "review.md").write_text("late", encoding="utf-8")
    assert post(tmp_path, HEAD_SHA="2" * 40) == (0, f"no open pull request has {'2' * 40} as its head\n", "")
    assert not (tmp_path / "body").exists()


def test_refused_request_is_one_line(tmp_path: Path) -> None:
    message = "error: gh api: HTTP 403: Forbidden; see the permissions of the workflow\n"
    assert post(tmp_path, GH_TOKEN="wrong") == (1, "", message)


def test_long_text_is_cut_and_symbolic_link_is_not_followed(tmp_path: Path) -> None:
    review, secret = tmp_path / "review.md", tmp_path / "secret"
    review.write_bytes(b"\xff" + b"x" * 10**6)
    assert len(comment.text(review)) < comment.LIMIT + 100
    assert comment.text(review).endswith("(cut: too long for a comment)")
    secret.write_text("token", encoding="utf-8")
    review.unlink()
    review.symlink_to(secret)
    with pytest.raises(OSError, match="symbolic"):
        comment.text(review)


@pytest.mark.parametrize(
    ("hostile", "inert"),
    [
        ("@octocat and @org/team", "@|octocat and @|org/team"),
        ("a@b.example", "a@|b.example"),
        ("#12, us/project#3, GH-4", "#|12, us/project#|3, GH|-4"),
        ("deadbee us/project@0123456789abcdef", "deadbe|e us/project@|012345|6789ab|cdef"),
        ("0" + "f" * 40, "|".join(["0fffff", *["ffffff"] * 5, "fffff"])),
        ("https://evil.example www.evil.example", "https:|//evil.example www|.evil.example"),
        ("_https://evil.example_ 1https://evil.example", "_https:|//evil.example_ 1https:|//evil.example"),
        ("[click](/x) ![](/y) [z][r]", "[click]|(/x) ![]|(/y) [z]|[r]"),
        ("[r]: /x", "[r]|: /x"),
        ("<img src=x> </p> <!-- x", "<|img src=x> <|/p> <|!-- x"),
        ("<HTTP://evil.example>", "<|HTTP:|//evil.example>"),
        ("&#64;octocat &commat;octocat", "&|#|64;octocat &|commat;octocat"),
        ("```mermaid", "`|``mermaid"),
        ("$\\href{x}$", "$\\|href{x}$"),
        ("\u202eevil\u200b\x00", "evil"),
    ],
)
def test_active_markdown_becomes_inert(hostile: str, inert: str) -> None:
    assert comment.inert(hostile).replace("\u200b", "|") == inert


def test_review_of_this_project_stays_readable() -> None:
    text = "## The workspace against `main` (1234567)\n\n| Model | p |\n| :--- | ---: |\n| **better** | < 0.001 |"
    assert comment.inert(text).replace("\u200b", "") == text
