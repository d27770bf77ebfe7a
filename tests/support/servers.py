"""Servers on this machine: any, and one with OpenAI's interface, with models that stand for real ones behind it."""

from __future__ import annotations

import json
import re
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer, ThreadingHTTPServer
from typing import Any

Answer = Callable[[str], str]
Whole = Callable[[dict[str, Any]], tuple[int, str]]


@contextmanager
def serving(answer: Answer, status: int = 200, body: bytes = b"", whole: Whole | None = None) -> Iterator[str]:
    """A server with OpenAI's interface that answers each question so, or everything with one body.

    `whole` is given all that is asked, and gives status and body.
    """

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"  # connections are kept, as by real servers
        disable_nagle_algorithm = True

        def do_POST(self) -> None:
            asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            assert self.path == "/v1/chat/completions"
            if whole is not None:
                self.reply(*whole(asked))
                return
            assert asked["temperature"] == 0
            message = {"role": "assistant", "content": answer(asked["messages"][0]["content"])}
            sent = body or json.dumps(
                {
                    "id": "1", "object": "chat.completion", "created": 0, "model": asked["model"],
                    "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
                }
            ).encode()  # fmt: skip
            self.reply(status, sent.decode())

        def reply(self, status: int, text: str) -> None:
            sent = text.encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(sent)))
            self.end_headers()
            self.wfile.write(sent)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    with running(server) as address:
        yield f"{address}/v1"


@contextmanager
def running(server: HTTPServer) -> Iterator[str]:
    """The address of a server, which answers meanwhile in a thread, and is closed afterwards."""
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def looks_up(question: str) -> str:
    """A model that explains by the tokens of activation 5 or more, and takes such words at their letter."""
    if "We study" in question:
        pairs = re.findall(r'^(".*") (\d+)$', question, re.MULTILINE)
        return json.dumps(sorted({json.loads(token) for token, level in pairs if int(level) >= 5}))
    return takes_literally(question, words_of(explanation_in(question)))


def explanation_in(question: str) -> str:
    """The explanation that a question to a judge is of."""
    text: str = json.loads(re.findall(r"said to do this: (.*)", question)[0])
    return text


def listening(asked: list[str], answer: Answer = looks_up) -> Answer:
    """The model, whose questions are kept."""

    def listens(question: str) -> str:
        asked.append(question)
        return answer(question)

    return listens


def words_of(explanation: str) -> list[str]:
    """The tokens in quotes, or the words."""
    quoted = re.findall(r'"(?:[^"\\]|\\.)*"', explanation)
    return [json.loads(one, strict=False) for one in quoted] or explanation.split()


def takes_literally(question: str, words: list[str]) -> str:
    """The answer of a judge that takes words at their letter."""
    numbered = [(number, json.loads(text)) for number, text in re.findall(r'^(\d+): (".*")$', question, re.MULTILINE)]
    if "a numbered token on each line" in question:
        return "\n".join(f"{number}: 10" for number, token in numbered if token in words) or "none"
    if "between << and >>" in question:
        fit = [number for number, text in numbered if any(part in words for part in re.findall(r"<<(.*?)>>", text))]
    else:
        fit = [number for number, text in numbered if any(word in text for word in words)]
    return ", ".join(fit) or "none"


def main() -> None:
    """Serve until standard input ends; the address is printed."""
    with serving(looks_up) as address:
        print(address, flush=True)
        sys.stdin.read()


if __name__ == "__main__":
    main()
