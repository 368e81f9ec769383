"""README and docs do what they say: their commands and Python run, their configurations are valid.

Each page is read from top to bottom in an empty directory that holds the example configurations
under `configs/`, as the repository does:

- sh: `lrtool …` and `torchrun … -m lrtool …` must succeed; of other programs only what they name
  must exist.
- console: `$ ` begins a command, and the lines below it must be among what it prints, in this order
  and up to the numbers; `…` stands for anything. `$ echo $?` shows another exit code than 0.
- python: runs, in one namespace a page.
- yaml: `lrtool check` takes it; of a workflow, its `run` steps do what a sh block does.

A block whose first line is a comment with a file's name is written there. A comment before a block
says what else is to know: `run with: --set …` (more flags, for a shorter run), `refused` (`check`
must not take it), or `not run: why`.
"""

import importlib.util
import re
import runpy
import shlex
import shutil
import sys
import tomllib
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
import yaml
from forks import import_what_they_need, start_ranks
from torch.distributed.run import get_args_parser

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
LANGUAGES = {"sh", "console", "python", "yaml", "text"}


BLOCK = re.compile(
    r"(?:^<!-- (?P<mark>[^\n]+) -->\n)?^```(?P<language>\w*)\n(?P<text>.*?)^```$",
    re.MULTILINE | re.DOTALL,
)
FILE = re.compile(r"# (?P<name>[\w./-]+\.(?:py|ya?ml))\n")
NUMBER = re.compile(r"\d[\d.,]*(?:e[+-]?\d+)?")


@dataclass
class Block:
    place: str
    language: str
    text: str
    mark: str

    @property
    def file(self):
        """The file that the block is written to, if its first line names one."""
        named = FILE.match(self.text)
        return named["name"] if named else None

    @property
    def flags(self):
        """More flags for the commands of this block."""
        return shlex.split(self.mark.removeprefix("run with: ")) if "run with:" in self.mark else []


def blocks(page):
    text = page.read_text(encoding="utf-8")
    for found in BLOCK.finditer(text):
        line = text.count("\n", 0, found.start("language")) + 1
        place = f"{page.relative_to(ROOT)}:{line}"
        yield Block(place, found["language"], found["text"], found["mark"] or "")


class Reader:
    """Somebody who does what a page says."""

    def __init__(self, folder, capture):
        self.folder = folder
        self.capture = capture
        self.names = {"__name__": "__main__"}
        self.code = 0

    def do(self, block):
        if block.mark.startswith("not run:"):
            return
        if block.file:
            path = self.folder / block.file
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(block.text, encoding="utf-8")
        if block.language == "sh":
            self._script(block.text, block)
        elif block.language == "console":
            self._session(block)
        elif block.language == "yaml":
            self._configuration(block)
        elif block.language == "python" and not block.file:
            exec(compile(block.text, block.place, "exec"), self.names)  # noqa: S102  (ours)

    def _script(self, text, block):
        for line in text.replace("\\\n", " ").splitlines():
            self._command(line, block)
            assert self.code == 0, f"{block.place}: {line}: exit code {self.code}"

    def _session(self, block):
        first, *commands = re.split(r"^\$ ", block.text, flags=re.MULTILINE)
        assert not first, f"{block.place}: begins without a command"
        for number, command in enumerate(commands):
            line, *shown = command.splitlines()
            printed = self._command(line, block)
            assert_among(shown, printed.splitlines(), block.place)
            ended = number + 1 == len(commands) or not commands[number + 1].startswith("echo $?")
            assert self.code == 0 or not ended, f"{block.place}: {line}: exit code {self.code}"

    def _command(self, line, block):
        """Run one command and return what it prints; others than ours are only looked up."""
        program, *arguments = shlex.split(line, comments=True) or [None]
        if program == "lrtool":
            return self._lrtool([*arguments, *block.flags])
        if program == "torchrun":
            return self._torchrun([*arguments, *block.flags])
        if program == "echo":
            printed, self.code = line.removeprefix("echo ").replace("$?", str(self.code)), 0
            return printed
        if program == "make":
            targets = (ROOT / "Makefile").read_text(encoding="utf-8")
            for target in arguments:
                assert re.search(rf"^{target}:", targets, re.MULTILINE), f"{block.place}: {line}"
        elif program == "python":
            there = exists(arguments)
            assert there, f"{block.place}: {line}: there is no such program"
        elif program == "pip":
            extras = re.findall(r"\[(\w+)\]", line)
            project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
            assert set(extras) <= set(project["project"]["optional-dependencies"])
        elif program not in {None, "mkdir"}:
            pytest.fail(f"{block.place}: {line}: mark what cannot be run as such")
        return ""

    def _lrtool(self, arguments):
        target = None
        if ">" in arguments:
            *arguments, _, target = arguments
        self.capture.readouterr()
        sys.argv = ["lrtool", *arguments]
        try:
            runpy.run_module("lrtool", run_name="__main__")
            self.code = 0
        except SystemExit as end:
            self.code = end.code or 0
        seen = self.capture.readouterr()
        if target is not None:
            (self.folder / target).write_text(seen.out, encoding="utf-8")
            return seen.err
        return seen.out + seen.err

    def _torchrun(self, arguments):
        """Read the arguments as torchrun does; start the ranks as forks, which have torch already.

        The real torchrun is in tests/cli/test_torchrun.py.
        """
        options = get_args_parser().parse_args(arguments)
        assert (options.module, options.training_script) == (True, "lrtool")
        import_what_they_need()
        ranks = start_ranks(
            self.folder, int(options.nproc_per_node), options.training_script_args, lambda _: None
        )
        done = [rank.wait(240) for rank in ranks]
        self.code = max((rank.returncode for rank in done), key=abs)
        return "".join(rank.stdout + rank.stderr for rank in done)

    def _configuration(self, block):
        if block.file and block.file.startswith(".github"):
            for job in yaml.safe_load(block.text)["jobs"].values():
                for step in job["steps"]:
                    self._script(step.get("run", ""), block)
            return
        path = block.file or "block.yaml"
        (self.folder / path).write_text(block.text, encoding="utf-8")
        said = self._lrtool(["check", path])
        assert self.code == (2 if block.mark == "refused" else 0), f"{block.place}: {said}"


def exists(arguments):
    """Tell whether `python …` names a program of the repository, or a module."""
    if arguments[0] != "-m":
        return (ROOT / arguments[0]).is_file()
    module = arguments[1].replace(".", "/")
    ours = (ROOT / f"{module}.py", ROOT / module / "__main__.py")
    top = arguments[1].partition(".")[0]
    foreign = not (ROOT / top).is_dir() and importlib.util.find_spec(top) is not None
    return foreign or any(path.is_file() for path in ours)


def assert_among(shown, printed, place):
    """Hold the lines of a page against what was printed: in order, numbers aside."""
    rest = iter(plain(line) for line in printed)
    for line in shown:
        if line.strip() == "…":
            continue
        wanted = re.compile(".*".join(map(re.escape, plain(line).split("…"))))
        assert any(wanted.fullmatch(line) for line in rest), (
            f"{place}: {line!r} is not printed (there) in\n" + "\n".join(printed)
        )


def plain(line):
    return " ".join(NUMBER.sub("0", line).split())


@pytest.fixture
def reader(tmp_path, monkeypatch, capfd):
    shutil.copytree(ROOT / "configs", tmp_path / "configs")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", sys.argv)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("MPLBACKEND", "agg")
    # plots are drawn, but no pictures made of them: those take most of a short run's time
    monkeypatch.setattr("matplotlib.figure.Figure.savefig", lambda *_, **__: None)
    yield Reader(tmp_path, capfd)
    torch.use_deterministic_algorithms(mode=False)  # a block may show runtime.deterministic
    for name, module in list(sys.modules.items()):
        file = getattr(module, "__file__", None)
        if file is not None and Path(file).is_relative_to(tmp_path):
            del sys.modules[name]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_a_page_does_what_it_says(page, reader):
    for block in blocks(page):
        assert block.language in LANGUAGES, f"{block.place}: say which language this is"
        reader.do(block)


def test_the_readme_is_short():
    assert len(PAGES[0].read_text(encoding="utf-8").splitlines()) <= 200


def test_every_page_is_reached_from_the_readme():
    seen, ahead = set(), [PAGES[0]]
    while ahead:
        page = ahead.pop()
        seen.add(page)
        ahead += [path for path, _ in links(page) if path.suffix == ".md" and path not in seen]
    assert set(PAGES) <= seen


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_and_pictures_lead_somewhere(page):
    for path, anchor in links(page):
        assert path.exists(), path
        if anchor:
            heads = re.findall(r"^#+ (.+)$", path.read_text(encoding="utf-8"), re.MULTILINE)
            assert anchor in {slug(head) for head in heads}, f"{path}#{anchor}"


def links(page):
    """Yield the path and the anchor of each link of a page to another file or to itself."""
    prose = BLOCK.sub("", page.read_text(encoding="utf-8"))
    for target in re.findall(r"\]\(([^)\s]+)\)", prose):
        if "://" not in target:
            path, _, anchor = target.partition("#")
            yield (page.parent / path).resolve() if path else page, anchor


def slug(head):
    """Return the anchor that a heading gets."""
    return re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_numbers_are_spelled_with_their_zero(page):
    text = page.read_text(encoding="utf-8")
    assert not re.findall(r".*(?<![\w.*/~`\]])\.\d.*", text)


def test_the_exit_codes_of_the_readme_are_those_of_the_reference():
    readme, reference = (
        page.read_text(encoding="utf-8")
        for page in (PAGES[0], ROOT / "docs" / "reference" / "command-line.md")
    )
    table = re.findall(r"^\| ([\d, ]+) \| (.+) \|$", reference, re.MULTILINE)
    assert len(table) == 9
    section = " ".join(readme.partition("## Exit codes")[2].partition("##")[0].split())
    said = dict(re.findall(r"([\d, ]+): (.+?)\.(?= |$)", section))
    assert len(said) == 7
    for codes, meaning in dict(table).items():
        assert meaning.startswith(said.get(codes.strip(), meaning))
