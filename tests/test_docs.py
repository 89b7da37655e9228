"""The documents name only commands and options that exist, and their Python runs."""

import re
import shlex
from pathlib import Path

import pytest

import headstart
from headstart.cli import app
from journey import spawn

ROOT = Path(__file__).parent.parent
PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").glob("*.md"), *ROOT.glob("CONTRIBUTING.md")])
BLOCK = re.compile(r"(?P<mark><!-- run this -->\s*)?^```(?P<kind>\w*)\n(?P<text>.*?)^```", re.MULTILINE | re.DOTALL)


def tree():
    """Every command in words, and its options."""
    import typer

    def walk(command, words):
        names = {name for each in command.params for name in (*each.opts, *each.secondary_opts)} | {"--help"}
        yield words, {name for name in names if name.startswith("-")}
        for name, inner in getattr(command, "commands", {}).items():
            yield from walk(inner, (*words, name))

    return dict(walk(typer.main.get_command(app), ()))


COMMANDS = tree()


def lines_of(page):
    """The lines that call headstart: in blocks that are no Python, and between backquotes."""
    text = page.read_text(encoding="utf-8")
    blocks = list(BLOCK.finditer(text))
    for block in blocks:
        if block["kind"] != "python":
            joined = block["text"].replace("\\\n", " ")
            yield from (line.strip().removeprefix("$ ") for line in joined.splitlines())
    for block in reversed(blocks):
        text = text[: block.start()] + text[block.end() :]
    yield from re.findall(r"`(headstart [^`]+)`", text)


def check(line):
    """The words after headstart, up to what the shell or a comment begins; what is wrong with them, or None."""
    words = shlex.split(re.split(r"[|>;&]|\s#", line)[0], posix=True)[1:]
    command = ()
    for word in words:
        if (*command, word) in COMMANDS:
            command = (*command, word)
        else:
            break
    if not command and words[:1] not in (["--help"], ["--version"]):
        return f"there is no command {words[:1]}"
    options = {word.partition("=")[0] for word in words if word.startswith("-") and len(word) > 1}
    unknown = options - COMMANDS[command]
    return f"there is no option {unknown}" if unknown else None


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_and_options_exist(page):
    lines = [line for line in lines_of(page) if re.match(r"headstart(\s|$)", line)]
    wrong = {line: problem for line in lines if (problem := check(line.replace("[", " ").replace("]", " ")))}
    assert not wrong


def test_readme_shows_the_line_of_commands():
    lines = list(lines_of(ROOT / "README.md"))
    assert any(line.startswith("headstart fit") for line in lines)
    assert any("make demo" in line for line in lines)
    assert any("make test" in line for line in lines)


@pytest.mark.parametrize(
    "line", ["headstart ftt photos/", "headstart fit photos/ --bogus", "headstart weights fetch -x"]
)
def test_the_check_finds_what_is_wrong(line):
    assert check(line)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_python_blocks_are_python_and_name_what_exists(page):
    for block in BLOCK.finditer(page.read_text(encoding="utf-8")):
        if block["kind"] == "python":
            compile(block["text"], f"{page.name}: {block['text'][:40]!r}", "exec")
            for name in re.findall(r"\bheadstart\.(\w+)", block["text"]):
                assert hasattr(headstart, name), f"{page.name}: headstart.{name}"


def test_marked_blocks_run(tmp_path):
    marked = [
        block["text"]
        for page in PAGES
        for block in BLOCK.finditer(page.read_text(encoding="utf-8"))
        if block["mark"] and block["kind"] == "python"
    ]
    for text in marked:
        answer = spawn(code=text, cwd=tmp_path)
        assert answer.code == 0, answer.err


def test_links_between_documents_lead_somewhere():
    for page in PAGES:
        for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8")):
            if "://" not in target:
                assert (page.parent / target).exists(), f"{page.name} links to {target}"
