"""scripts/setup, which scripts/serve, scripts/test and scripts/check begin with."""

import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
SETUP_SECONDS = 60


def stub(folder: Path, name: str, text: str) -> None:
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(f"#!/bin/sh\n{text}\n")
    (folder / name).chmod(0o755)


def copy_of_the_scripts(folder: Path) -> Path:
    shutil.copytree(ROOT / "scripts", folder / "scripts")
    for name in ("requirements.lock", "requirements-dev.lock", "pyproject.toml"):
        shutil.copy(ROOT / name, folder / name)
    return folder


@pytest.mark.parametrize("form", [(), ("--dev",)])
def test_what_is_set_up_needs_no_network_again(form: tuple[str, ...]) -> None:
    if not (ROOT / ".venv/installed-requirements-dev.lock").exists():
        pytest.skip("this environment was not made by scripts/setup")
    nowhere = {"PATH": "/usr/bin:/bin", "PIP_INDEX_URL": "http://127.0.0.1:9/"}
    done = subprocess.run(
        [ROOT / "scripts/setup", *form], env=nowhere, capture_output=True, text=True, timeout=SETUP_SECONDS
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_a_python_without_environments_says_what_to_install(tmp_path: Path) -> None:
    programs = tmp_path / "programs"
    stub(programs, "python3.11", 'case "$2" in *ensurepip*) exit 1;; *venv*) echo python3.11-venv;; esac')
    stub(programs, "id", "echo 1000")
    root = copy_of_the_scripts(tmp_path)
    done = subprocess.run(
        [root / "scripts/setup"],
        env={"PATH": f"{programs}:/usr/bin:/bin"},
        capture_output=True,
        text=True,
        timeout=SETUP_SECONDS,
    )
    assert done.returncode == 1
    assert "sudo apt-get install python3.11-venv" in done.stderr
    assert not (root / ".venv").exists()


def test_the_lock_for_development_holds_everything_that_a_server_needs() -> None:
    def pinned(name: str) -> set[str]:
        return {line.split(" ")[0] for line in (ROOT / name).read_text().splitlines() if "==" in line}

    assert pinned("requirements.lock") < pinned("requirements-dev.lock")
