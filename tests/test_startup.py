"""What each command imports: nothing that it does not use, told by the modules that it leaves loaded."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

BUILDS = {"torch", "transformers", "transformer_lens", "datasets", "openTSNE", "networkx", "mkdocs"}
"""What only builds, or runs the model again."""
ONE_METHOD = {"hdbscan", "sklearn", "pandas"}
"""What one method of clustering of four loads."""
ARRAYS = {"numpy", "scipy", "numba", "pyarrow"}
SETTINGS = {"pydantic", "yaml"}
PAGES = {"jinja2", "rich", "jsonschema", "jsonschema_rs", "selectolax", "regex", "multiprocessing", "urllib.request"}
ALL = BUILDS | ONE_METHOD | ARRAYS | SETTINGS | PAGES


def _loaded(code: str, *arguments: str) -> set[str]:
    """Which of the heavy modules another process has loaded after some code."""
    ended = f"import sys\n{code}\nprint('\\n', *{ALL!r} & sys.modules.keys())"
    done = subprocess.run([sys.executable, "-c", ended, *arguments], capture_output=True, text=True, check=True)
    return set(done.stdout.splitlines()[-1].split())


def _run(*arguments: str | Path) -> set[str]:
    code = (
        "from atlas_builder.cli import main\n"
        "try:\n    main(sys.argv[1:])\n"
        "except SystemExit as ended:\n    print('exit status', ended.code)"
    )
    return _loaded(code, *map(str, arguments))


def test_the_help_of_every_command_loads_none_of_what_commands_use() -> None:
    code = (
        "from atlas_builder.cli import main\n"
        "below = [[name, one] for name, group in main.commands.items() for one in getattr(group, 'commands', ())]\n"
        "for arguments in ([], *([name] for name in main.commands), *below):\n"
        "    try:\n        main([*arguments, '--help'])\n"
        "    except SystemExit as ended:\n        assert not ended.code\n"
    )
    assert _loaded(code) == set()


def test_the_package_alone_loads_nothing() -> None:
    assert _loaded("import atlas_builder") == set()


@pytest.mark.parametrize("command", ["build", "merge"])
def test_a_refused_configuration_is_refused_without_what_builds(tmp_path: Path, command: str) -> None:
    wrong = tmp_path / "wrong.yml"
    wrong.write_text("model: {name: demo}\ncorpus: {source: stdlib, contxt: 3}\n", encoding="utf-8")
    assert _run(command, wrong) <= SETTINGS


def test_a_site_is_served_by_the_standard_library_alone(tmp_path: Path) -> None:
    assert _run("serve", tmp_path / "no-folder") == set()
    assert _loaded("import atlas_builder.site.hosting.serve") == set()


def test_a_site_is_checked_without_what_builds(tiny_site: Path) -> None:
    assert not (BUILDS | ONE_METHOD) & _run("check", tiny_site)


def test_a_site_is_archived_without_what_builds_or_checks(tiny_site: Path, tmp_path: Path) -> None:
    used = _run("archive", tiny_site, "--output", tmp_path / "tiny.zip")
    assert not (BUILDS | ONE_METHOD | {"scipy", "numba", "pyarrow", "jinja2", "jsonschema", "yaml"}) & used


def test_sites_are_compared_without_what_builds(tiny_site: Path, tmp_path: Path) -> None:
    # pyarrow loads pandas, where it is installed, to compute with numbers of Python's.
    assert not (BUILDS | ONE_METHOD - {"pandas"}) & _run(
        "compare", tiny_site, tiny_site, "--output", tmp_path / "compared"
    )


@pytest.mark.parametrize(
    "module", ["cluster.run", "describe.run", "link.run", "site.publish", "site.hosting.checks.units"]
)
def test_a_worker_of_a_stage_loads_no_model_and_no_method_that_is_not_asked_for(module: str) -> None:
    assert not (BUILDS | ONE_METHOD) & _loaded(f"import atlas_builder.{module}")
