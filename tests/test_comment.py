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


def post(github: GitHub, path: Path, **environment: str) -> tuple[int, str, str]:
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
    done = run(ROOT, sys.executable, "-S", "-m", "tools.comment", str(path), **settings)  # without any package
    return done.returncode, done.stdout, done.stderr


def test_the_comment_is_posted_once_and_then_replaced(github: GitHub, tmp_path: Path) -> None:
    review, before = tmp_path / "review.md", len(github.comments)
    for text, outcome in (("first", "posted"), ("second", "replaced")):
        review.write_text(text)
        assert post(github, review) == (0, f"{outcome}: the review of pull request 7\n", "")
        assert len(github.comments) == before + 1
        body = github.comments[before + 1]["body"]
        assert body.startswith(f"{comment.MARK}\n{text}\n")
        assert "(https://example.com/run)" in body
    assert github.comments[1]["body"].endswith("not the bot's")


def test_a_review_of_an_older_commit_is_not_posted(github: GitHub, tmp_path: Path) -> None:
    (tmp_path / "review.md").write_text("late")
    before = len(github.comments)
    for other in ({"HEAD_SHA": "2" * 40}, {"HEAD_OWNER": "us"}):
        code, said, _ = post(github, tmp_path / "review.md", **other)
        assert code == 0
        assert said.startswith("no open pull request has ")
    assert len(github.comments) == before


def test_a_refusal_is_one_line(github: GitHub, tmp_path: Path) -> None:
    (tmp_path / "review.md").write_text("text")
    code, _, said = post(github, tmp_path / "review.md", GITHUB_TOKEN="wrong")
    assert (code, said) == (1, "error: GET pulls: HTTP Error 403: Forbidden; see the permissions of the workflow\n")


def test_a_text_of_a_stranger_is_cut_and_no_link_is_followed(tmp_path: Path) -> None:
    review, secret = tmp_path / "review.md", tmp_path / "secret"
    review.write_bytes(b"\xff" + b"x" * 10**6)
    assert len(comment.text(review)) < comment.LIMIT + 100
    assert comment.text(review).endswith("(cut: it is too long for a comment)")
    secret.write_text("token")
    review.unlink()
    review.symlink_to(secret)
    with pytest.raises(OSError, match="symbolic"):
        comment.text(review)
