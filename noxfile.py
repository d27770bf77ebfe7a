"""What is checked, a session each: `nox -l` lists them, `nox` runs the quick ones, `nox -s tests` the tests.

Each session makes an environment of its own; `nox --no-venv -s lint types` uses the one that is active.
"""

from __future__ import annotations

import nox

nox.needs_version = ">=2024.10"
nox.options.sessions = ["lint", "types", "frontend", "docs"]
nox.options.reuse_existing_virtualenvs = True

CONSTRAINTS = ("-c", "constraints.txt")


def _install(session: nox.Session, *packages: str) -> None:
    """Install at the tested versions; `--no-venv` takes the active environment as it is."""
    if session.virtualenv.is_sandboxed:
        session.install(*CONSTRAINTS, *packages)


@nox.session
def lint(session: nox.Session) -> None:
    """Style, and imports that go one way."""
    _install(session, "ruff", "import-linter", ".")
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")
    session.run("lint-imports", "--no-logo")


@nox.session
def types(session: nox.Session) -> None:
    """Types of the package and of its tests."""
    _install(session, ".[tests]")
    session.run("mypy")


@nox.session
def frontend(session: nox.Session) -> None:
    """Scripts and style sheets of the theme."""
    session.run("npm", "ci", "--silent", "--no-audit", "--no-fund", external=True)
    session.run("npm", "run", "--silent", "check", external=True)


@nox.session
def docs(session: nox.Session) -> None:
    """The builders' guide, built strictly into output/guide."""
    _install(session, ".[docs]")
    session.run("mkdocs", "build", "--quiet", "--strict", "-f", "site_config/guide.yml", *session.posargs)


@nox.session
def tests(session: nox.Session) -> None:
    """All tests, on all cores; arguments go to pytest: `nox -s tests -- tests/collect`."""
    _install(session, ".[tests]")
    if session.virtualenv.is_sandboxed:  # judges exports by one file; what it requires is not
        session.install("--no-deps", "circuit-tracer==0.5.0")
    session.run("pytest", *(session.posargs or ["-n", "auto"]))


@nox.session
def browser(session: nox.Session) -> None:
    """The tests that need Chromium or Firefox only."""
    _install(session, ".[tests]")
    session.run("pytest", "-n", "auto", "tests/browser", *session.posargs)


@nox.session
def bench(session: nox.Session) -> None:
    """A benchmark by name, with its arguments: `nox -s bench -- planted`; without one, their names."""
    _install(session, ".[tests]")
    if session.posargs:
        session.run("python", "-m", f"tests.benchmarks.{session.posargs[0]}", *session.posargs[1:])
    else:
        session.run("python", "-m", "tests.benchmarks")
