"""What the local server answers, and to whom."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from atlas_builder.site.hosting.serve import is_here, path_of, server

Ask = Callable[..., tuple[int, bytes]]


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """A site of four files, with links out of it and within it, a pipe, and a folder without a page."""
    (tmp_path / "secret.txt").write_text("a secret", encoding="utf-8")
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "index.html").write_text("a secret", encoding="utf-8")
    folder = tmp_path / "site"
    for place in ("L0", "tables", "linked"):
        (folder / place).mkdir(parents=True)
    for place in ("index.html", "L0/index.html", "tables/units.parquet", "L0/caf\u00e9.js"):
        (folder / place).write_text("a page", encoding="utf-8")
    (folder / "404.html").write_text("There is no such page", encoding="utf-8")
    (folder / "within.html").symlink_to("index.html")
    (folder / "out.txt").symlink_to(tmp_path / "secret.txt")
    (folder / "up").symlink_to("..")
    (folder / "elsewhere").symlink_to(tmp_path / "outside")
    (folder / "linked" / "index.html").symlink_to(tmp_path / "outside" / "index.html")
    (folder / "circle").symlink_to("circle")
    os.mkfifo(folder / "pipe.html")
    return folder


@pytest.fixture
def ask(site: Path) -> Iterator[Ask]:
    """Sends a request as it is, byte for byte, and returns status and answer."""
    with server(site, 0) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()

        def send(target: str, *hosts: str, method: str = "GET") -> tuple[int, bytes]:
            head = f"{method} {target} HTTP/1.1\r\n" + "".join(f"Host: {host}\r\n" for host in hosts)
            with socket.create_connection(("127.0.0.1", running.server_port), timeout=5) as connection:
                connection.sendall(f"{head}Connection: close\r\n\r\n".encode("latin-1"))
                answer = b"".join(iter(lambda: connection.recv(65536), b""))
            return int(answer.split()[1]), answer

        yield send
        running.shutdown()


HERE = "127.0.0.1:8000"


@pytest.mark.parametrize(
    "host",
    ["localhost", "localhost:8000", "LOCALHOST:1", "127.0.0.1", HERE, "127.1.2.3", "[::1]", "[::1]:8000"],
)
def test_a_browser_on_this_machine_is_answered(ask: Ask, host: str) -> None:
    assert ask("/", host)[0] == 200
    assert is_here(host)


@pytest.mark.parametrize(
    "host",
    [
        "evil.example", "evil.example:8000", "localhost.evil.example", "127.0.0.1.evil.example", "192.168.0.1",
        "[2001:db8::1]:8000", "0.0.0.0", "", " ", "localhost@evil.example", "evil.example#localhost",
        "localhost:port", "[::1", "::1", "localhost/x", "localhost:99999",
    ],
)  # fmt: skip
def test_a_name_that_only_resolves_to_this_machine_is_refused(ask: Ask, host: str) -> None:
    status, answer = ask("/", host)
    assert status == 421
    assert b"a page" not in answer


def test_no_host_and_two_hosts_are_refused(ask: Ask) -> None:
    assert ask("/")[0] == 421
    assert ask("/", HERE, "evil.example")[0] == 421
    assert ask("/", HERE, HERE)[0] == 421


@pytest.mark.parametrize(
    "target",
    ["/", "/index.html", "/?q=%zz#%00", "/L0/", "/L0/index.html", "/L0/caf%C3%A9.js", "/within.html",
     "/tables/units.parquet"],
)  # fmt: skip
def test_a_file_of_the_site_is_served(ask: Ask, target: str) -> None:
    status, answer = ask(target, HERE)
    assert status == 200
    assert answer.endswith(b"a page")
    assert not ask(target, HERE, method="HEAD")[1].endswith(b"a page")


@pytest.mark.parametrize(
    "target",
    [
        "/nothing.html", "/tables/", "/tables", "/index.html/", "/out.txt", "/up/secret.txt", "/up/site/index.htm",
        "/elsewhere/", "/elsewhere/index.html", "/linked/", "/circle", "/pipe.html", "/" + "x" * 300, "/L0/%20",
        "//evil.example/",
    ],
)  # fmt: skip
def test_what_is_no_file_in_the_folder_is_missing(ask: Ask, target: str) -> None:
    status, answer = ask(target, HERE)
    assert status == 404
    assert b"There is no such page" in answer
    assert b"secret" not in answer
    assert not ask(target, HERE, method="HEAD")[1].endswith(b"page")


@pytest.mark.parametrize(
    "target",
    [
        "/%00", "/index.html%00.js", "/%", "/%2", "/%zz", "/%ff", "/%c0%ae%c0%ae/", "/%ed%a0%80", "/..",
        "/../secret.txt",
        "/%2e%2e/secret.txt", "/L0/..%2f..%2fsecret.txt", "/L0%2findex.html", "/..%5csecret.txt",
        "/L0//index.html", "/.", "/%0d%0aSet-Cookie:x", "index.html", "http://evil.example/", "*",
    ],
)  # fmt: skip
def test_what_is_no_path_is_a_bad_request(ask: Ask, target: str) -> None:
    status, answer = ask(target, HERE)
    assert status == 400
    assert b"secret" not in answer
    assert b"Set-Cookie" not in answer


def test_a_folder_leads_to_its_page_on_the_same_host(ask: Ask) -> None:
    status, answer = ask("/L0", HERE)
    assert status == 301
    assert b"Location: /L0/\r\n" in answer


def test_a_path_is_decoded_once() -> None:
    assert path_of("/%2541") == "%41"
    assert path_of("/a%3Fb?c") == "a?b"


def test_types_do_not_depend_on_the_machine(ask: Ask) -> None:
    assert b"text/javascript" in ask("/L0/caf%C3%A9.js", HERE)[1]
    assert b"X-Content-Type-Options: nosniff" in ask("/", HERE)[1]
