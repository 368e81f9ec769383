"""Completion in the shell: what is offered, and what is imported for it."""

import os
import subprocess
import sys

import pytest
import shellingham

from lrtool.report import marker

HEAVY = {"torch", "matplotlib", "pandas", "sklearn", "scipy"}


@pytest.fixture
def complete(tmp_path):
    """Return what is offered for a line that ends at the cursor, and what was imported for it."""

    def complete(line):
        words = line.split()
        number = len(words) - (not line.endswith(" "))
        done = subprocess.run(
            [sys.executable, "-X", "importtime", "-m", "lrtool"],
            cwd=tmp_path,
            env={
                **os.environ,
                "_LRTOOL_COMPLETE": "complete_bash",
                "COMP_WORDS": line,
                "COMP_CWORD": str(number),
            },
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        imported = {name.rpartition("|")[2].strip() for name in done.stderr.splitlines()}
        assert "lrtool.cli.app" in imported
        assert not HEAVY & imported
        return done.stdout.split()

    return complete


@pytest.fixture
def runs(tmp_path):
    for name, command in {
        "digits/base": "train",
        "digits/look": "find",
        "tabular/base": "train",
        "compare/both": "compare",
    }.items():
        directory = tmp_path / "runs" / name
        directory.mkdir(parents=True)
        marker.begin(directory, command)


def test_commands_flags_and_values_are_offered(complete):
    assert {"find", "train", "evaluate", "compare", "schema"} <= {*complete("lrtool ")}
    assert complete("lrtool tr") == ["train"]
    assert complete("lrtool train x.yaml --lr") == ["--lr", "--lr-from"]
    assert complete("lrtool list opt") == ["optimizers"]


@pytest.mark.usefixtures("runs")
def test_names_of_runs_are_offered(complete):
    assert complete("lrtool evaluate ") == ["digits/base", "tabular/base"]  # no weights in a find
    assert complete("lrtool predict t") == ["tabular/base"]
    assert complete("lrtool compare look ") == ["digits/base", "look", "tabular/base"]
    assert complete("lrtool train x.yaml --lr-from digits/") == ["digits/base", "digits/look"]
    assert complete("lrtool train x.yaml --resume a") == ["auto"]


def test_without_runs_none_are_offered(complete):
    assert complete("lrtool evaluate ") == []


def test_help_loads_neither_torch_nor_plots():
    code = (
        "import sys; from lrtool.cli import main; sys.argv = ['lrtool', '--help']\n"
        "try: main()\nexcept SystemExit: print('loaded', *sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    shown, _, loaded = done.stdout.partition("loaded")
    assert "--install-completion" in shown
    assert "lrtool.cli.app" in loaded
    assert not HEAVY & {*loaded.split()}


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_script_of_a_shell_is_shown(here, monkeypatch, shell):
    monkeypatch.setattr(shellingham, "detect_shell", lambda: (shell, f"/bin/{shell}"))
    done = here("--show-completion")
    assert (done.returncode, done.stderr) == (0, "")
    assert f"_LRTOOL_COMPLETE=complete_{shell}" in done.stdout


def test_completion_is_installed_for_bash(here, monkeypatch, tmp_path):
    monkeypatch.setattr(shellingham, "detect_shell", lambda: ("bash", "/bin/bash"))
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / ".bashrc").write_text("alias ll='ls -l'")
    done = here("--install-completion")
    assert (done.returncode, done.stderr) == (0, "")
    script = tmp_path / ".bash_completions/lrtool.sh"
    assert "complete -o default -F _lrtool_completion lrtool" in script.read_text()
    assert (tmp_path / ".bashrc").read_text() == f"alias ll='ls -l'\nsource '{script}'\n"


@pytest.mark.parametrize("flag", ["--show-completion", "--install-completion"])
def test_a_shell_that_is_not_known_is_said(here, monkeypatch, flag):
    def fail():
        raise shellingham.ShellDetectionFailure

    monkeypatch.setattr(shellingham, "detect_shell", fail)
    done = here(flag)
    assert done.returncode == 2
    assert f"error: {flag}: works in bash, zsh, fish and PowerShell; this" in done.stderr
