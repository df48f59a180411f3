"""One comment on a pull request, posted and then replaced, through a server that keeps what GitHub's would."""

import json
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from tests.conftest import ROOT, run
from tools import comment

SHA = "1" * 40


class GitHub(ThreadingHTTPServer):
    """Two open pull requests, 7 from a fork; comments of people on it, and of bots."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.comments: dict[int, dict[str, Any]] = {}
        self.say("User", f"{comment.MARK}\nnot the bot's")
        for number in range(120):
            self.say("User", f"talk {number}")
        self.say("Bot", "another bot's")

    def say(self, kind: str, body: str) -> dict[str, Any]:
        number = len(self.comments) + 1
        self.comments[number] = {"id": number, "user": {"type": kind}, "body": body}
        return self.comments[number]

    def answer(self, method: str, url: str, body: Any) -> Any:
        parts, query = urlsplit(url), parse_qs(urlsplit(url).query)
        path = parts.path.removeprefix("/repos/us/project/")
        if (method, path) == ("GET", "pulls"):
            pulls = {"them:topic#1": [{"number": 7, "head": {"sha": SHA}}]}
            return pulls.get(query["head"][0], []) if query["state"] == ["open"] else None
        if (method, path) == ("GET", "issues/7/comments"):
            size, page = int(query["per_page"][0]), int(query["page"][0])
            return list(self.comments.values())[size * (page - 1) : size * page]
        if (method, path) == ("POST", "issues/7/comments"):
            return self.say("Bot", body["body"])
        if method == "PATCH" and path.startswith("issues/comments/"):
            self.comments[int(path.rpartition("/")[2])].update(body)
            return {}
        return None


class Handler(BaseHTTPRequestHandler):
    server: GitHub

    def handle_any(self) -> None:
        sent = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        allowed = self.headers["Authorization"] == "Bearer token"
        found = self.server.answer(self.command, self.path, json.loads(sent) if sent else None) if allowed else None
        self.send_response(200 if found is not None else 403)
        self.end_headers()
        self.wfile.write(json.dumps(found).encode())

    do_GET = do_POST = do_PATCH = handle_any

    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.fixture
def github() -> Iterator[GitHub]:
    with GitHub() as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def post(github: GitHub, folder: Path, **environment: str) -> tuple[int, str, str]:
    settings = {
        "GITHUB_API_URL": f"http://127.0.0.1:{github.server_port}",
        "GITHUB_REPOSITORY": "us/project",
        "GITHUB_TOKEN": "token",
        "HEAD_OWNER": "them",
        "HEAD_BRANCH": "topic#1",
        "HEAD_SHA": SHA,
        "RUN_URL": "https://example.com/run",
        **environment,
    }
    done = run(ROOT, sys.executable, "-S", "-m", "tools.comment", str(folder), **settings)  # without any package
    return done.returncode, done.stdout, done.stderr


def test_comment_posted_twice_is_one_comment(github: GitHub, tmp_path: Path) -> None:
    before = len(github.comments)
    for text, outcome in (("first", "posted"), ("second", "replaced")):
        (tmp_path / "review.md").write_text(text)
        (tmp_path / "real.md").write_text("on real data")
        assert post(github, tmp_path) == (0, f"{outcome}: the review of pull request 7\n", "")
        assert len(github.comments) == before + 1
        mark, origin, real, review = github.comments[before + 1]["body"].split("\n\n")
        assert (mark, real, review) == (comment.MARK, "on real data", text)
        assert f"the code of this pull request at {SHA}, in [this run](https://example.com/run)" in origin
    assert github.comments[1]["body"].endswith("not the bot's")


def test_run_without_a_text_posts_nothing(github: GitHub, tmp_path: Path) -> None:
    before = len(github.comments)
    assert post(github, tmp_path) == (0, "the run left neither real.md nor review.md\n", "")
    assert len(github.comments) == before


def test_review_of_an_older_commit_is_not_posted(github: GitHub, tmp_path: Path) -> None:
    (tmp_path / "review.md").write_text("late")
    before = len(github.comments)
    for other in ({"HEAD_SHA": "2" * 40}, {"HEAD_OWNER": "us"}):
        code, said, _ = post(github, tmp_path, **other)
        assert code == 0
        assert said.startswith("no open pull request has ")
    assert len(github.comments) == before


def test_refused_request_is_one_line(github: GitHub, tmp_path: Path) -> None:
    (tmp_path / "review.md").write_text("text")
    code, _, said = post(github, tmp_path, GITHUB_TOKEN="wrong")
    assert (code, said) == (1, "error: GET pulls: HTTP Error 403: Forbidden; see the permissions of the workflow\n")


def test_long_text_is_cut_and_symbolic_link_is_not_followed(tmp_path: Path) -> None:
    review, secret = tmp_path / "review.md", tmp_path / "secret"
    review.write_bytes(b"\xff" + b"x" * 10**6)
    assert len(comment.text(review)) < comment.LIMIT + 100
    assert comment.text(review).endswith("(cut: too long for a comment)")
    secret.write_text("token")
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
    assert comment.inert(text) == text
