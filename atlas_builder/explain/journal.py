"""Answers of servers, kept on disk while a run lasts, so that one that was killed asks nothing twice."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from threading import Lock
from typing import TextIO

from atlas_builder.explain.client import NoAnswerError, Server
from atlas_builder.records.explanations import kept_name

_IN_VAIN = 20
"""Questions after which a server that answered none is given up."""


class Journal:
    """A file of answers, a line of JSON each, by the SHA-256 of model and question; used from several threads.

    A question without an answer has an empty one. Lines that are damaged or unfinished are not counted.
    """

    def __init__(self, file: Path) -> None:
        self._file = file
        self._answers: dict[str, str] = {}
        self._lock = Lock()
        self._lines: TextIO | None = None
        if file.exists():
            for line in file.read_text(encoding="utf-8", errors="replace").split("\n"):
                self._read(line)

    def _read(self, line: str) -> None:
        try:
            found = json.loads(line)
            self._answers[str(found["question"])] = str(found["answer"])
        except (ValueError, KeyError, TypeError, RecursionError):
            return

    def get(self, key: str) -> str | None:
        """What was answered to a question; None if it has not been asked."""
        return self._answers.get(key)

    def put(self, key: str, answer: str) -> None:
        """Keep an answer, on disk when this returns."""
        # ASCII, so that no part of a character is cut where a line is.
        line = json.dumps({"question": key, "answer": answer})
        with self._lock:
            if self._lines is None:
                self._lines = self._file.open("a", encoding="utf-8")
                self._lines.write("\n")  # ends a line that a kill left unfinished
            self._lines.write(line + "\n")
            self._lines.flush()
            self._answers[key] = answer

    def close(self) -> None:
        """Close the file, and leave it for a later run."""
        if self._lines is not None:
            self._lines.close()

    def remove(self) -> None:
        """Close and remove the file: the run is complete."""
        self.close()
        self._file.unlink(missing_ok=True)


class JournalledServer:
    """A server whose answers are kept in a journal."""

    def __init__(self, server: Server, journal: Journal) -> None:
        self.name = kept_name(server.name)
        """As lines have it, so that those that are there are known again."""
        self._server, self._journal = server, journal
        self.answered = self.unanswered = 0
        self.refusal: NoAnswerError | None = None
        """Why a question had no answer."""

    def ask(self, question: str) -> str | None:
        """The answer; None if there is none. Raises `ServerError` where no question is answered."""
        key = hashlib.sha256(f"{self._server.name}\0{question}".encode(errors="replace")).hexdigest()
        if (known := self._journal.get(key)) is not None:
            return known or None
        try:
            answer = self._server.ask(question)
        except NoAnswerError as error:
            self.unanswered, self.refusal = self.unanswered + 1, error
            if not self.answered:
                # Perhaps the server is wrong: nothing is kept that a better one would be asked again.
                if self.unanswered >= _IN_VAIN:
                    raise
                return None
            answer = ""
        else:
            self.answered += 1
        self._journal.put(key, answer)
        return answer or None
