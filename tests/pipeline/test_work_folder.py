"""The work folder holds what it says, whatever happened to it or to the build that wrote it."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Executor
from contextlib import suppress
from pathlib import Path

import pytest

from atlas_builder import files
from atlas_builder.files import MARK, Store, read_json, write_json
from atlas_builder.pipeline.build import build
from atlas_builder.pipeline.stages import STAGES
from atlas_builder.system import folders
from atlas_builder.workspace import work_folder
from tests.support.atlases import Configure, Listener, digests

SOURCES = {"settings": "1", "code": "2"}


class _KilledError(BaseException):
    """Stands for a process that ends here."""


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """A work folder with a finished stage of two files."""
    store = Store(tmp_path)
    with store.making("stage", SOURCES) as folder:
        _write(folder, "first")
    return store


def _write(folder: Path, content: str) -> None:
    (folder / "L0").mkdir(exist_ok=True)
    (folder / "L0" / "inputs.f32").write_text(content)
    (folder / "facts.json").write_text(content)


@pytest.mark.parametrize(
    ("harm", "objection"),
    [
        (lambda stage: (stage / "facts.json").write_text("First"), "its file facts.json is not what was written"),
        (lambda stage: (stage / "facts.json").write_text(""), "its file facts.json is not what was written"),
        (lambda stage: (stage / "L0" / "inputs.f32").unlink(), "its file L0/inputs.f32 is missing"),
        (lambda stage: (stage / "L0" / "more.npy").touch(), "its file L0/more.npy is none of its results"),
        (lambda stage: (stage / MARK).unlink(), "its file stage.json is not what was written"),
        (lambda stage: (stage / MARK).write_text("{"), "its file stage.json is not what was written"),
        (lambda stage: (stage / MARK).write_text("[]"), "its file stage.json is not what was written"),
        (
            lambda stage: write_json(stage / MARK, {**read_json(stage / MARK), "fingerprint": "0"}),
            "its file stage.json is not what was written",
        ),
        (
            lambda stage: write_json(stage / MARK, {**read_json(stage / MARK), "files": ["facts.json"]}),
            "an earlier version made its results",
        ),
    ],
)
def test_harm_to_any_file_is_seen_and_said(store: Store, harm: Callable[[Path], object], objection: str) -> None:
    assert store.objection("stage", SOURCES) is None
    assert store.holds("stage", SOURCES)
    harm(store.folder("stage"))
    assert store.objection("stage", SOURCES) == objection
    assert not store.holds("stage", SOURCES)


def test_every_single_bit_counts(store: Store) -> None:
    path = store.folder("stage") / "L0" / "inputs.f32"
    whole = path.read_bytes()
    for bit in range(8 * len(whole)):
        flipped = bytearray(whole)
        flipped[bit // 8] ^= 1 << bit % 8
        path.write_bytes(flipped)
        assert not store.holds("stage", SOURCES)
    path.write_bytes(whole)
    assert store.holds("stage", SOURCES)


def test_hidden_files_of_a_file_manager_do_no_harm(store: Store) -> None:
    (store.folder("stage") / "L0" / ".DS_Store").touch()
    assert store.holds("stage", SOURCES)


def test_a_folder_or_a_link_in_place_of_a_file_is_no_file_of_a_stage(store: Store, tmp_path: Path) -> None:
    path = store.folder("stage") / "facts.json"
    path.unlink()
    path.symlink_to(tmp_path / "nowhere")
    assert store.objection("stage", SOURCES) == "its file facts.json is missing"
    path.unlink()
    path.mkdir()
    assert store.objection("stage", SOURCES) == "its file facts.json is missing"


@pytest.mark.parametrize("exchanges", [True, False])
@pytest.mark.parametrize("moment", ["mark_finished", "rename", "exchange", "unlink", "remove"])
def test_a_crash_after_the_work_is_done_loses_none_of_it(
    store: Store, monkeypatch: pytest.MonkeyPatch, exchanges: bool, moment: str
) -> None:
    """Before and after each step by which a finished draft takes the place of former results."""
    if not exchanges:
        monkeypatch.setattr(folders, "exchange", lambda one, other: False)
    for after in (False, True):
        other = {**SOURCES, "settings": f"{moment} {after}"}
        with monkeypatch.context() as patched:
            _kill_at(patched, moment, after)
            try:
                with store.making("stage", other, resumes=True) as folder:
                    _write(folder, "second")
            except _KilledError:
                pass
        with store.alone("stage"):
            pass
        done = moment != "mark_finished" or after
        assert store.holds("stage", other) == done
        if done:
            assert not [path for path in store.root.iterdir() if path.name not in ("stage", ".lock")]
            assert not (store.folder("stage") / "begun.json").exists()
        else:  # the draft is complete, and goes on
            with store.making("stage", other, resumes=True) as folder:
                assert (folder / "L0" / "inputs.f32").read_text() == "second"


def _kill_at(patched: pytest.MonkeyPatch, moment: str, after: bool) -> None:
    place, name = {
        "mark_finished": (files, "mark_finished"),
        "rename": (Path, "rename"),
        "exchange": (folders, "exchange"),
        "unlink": (Path, "unlink"),
        "remove": (folders, "remove"),
    }[moment]
    original = getattr(place, name)

    def killed(*arguments: object, **options: object) -> object:
        begun = str(arguments[0]).endswith("begun.json") if moment == "unlink" else True
        source = Path(str(arguments[0]))
        drafted = source.name == ".stage.draft" and (source / MARK).exists() if moment == "rename" else True
        if not (begun and drafted):
            return original(*arguments, **options)
        if after:
            original(*arguments, **options)
        raise _KilledError

    patched.setattr(place, name, killed)


def test_a_draft_that_was_begun_from_something_else_is_not_taken_up(store: Store) -> None:
    with suppress(_KilledError), store.making("stage", {"settings": "2"}, resumes=True) as folder:
        _write(folder, "half")
        raise _KilledError
    with store.making("stage", {"settings": "3"}, resumes=True) as folder:
        assert not (folder / "facts.json").exists()


@pytest.mark.parametrize("stage", ["collect", "describe"])
def test_a_stage_that_was_damaged_is_made_again_to_the_same_bytes(
    configure: Configure, pool: Executor, built: Path, stage: str
) -> None:
    work = work_folder(built)
    before = digests(work / stage)
    file = max((work / stage).rglob("*.np[yz]"), key=lambda path: path.stat().st_size)
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    listener = Listener()
    build(configure(), built, progress=listener, executor=pool)
    name = file.relative_to(work / stage).as_posix()
    assert f"{stage}: runs again, since its file {name} is not what was written" in listener.lines
    assert listener.unchanged() == [other for other in STAGES if other != stage]
    assert digests(work / stage) == before
