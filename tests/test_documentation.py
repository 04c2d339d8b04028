"""The documentation says what the program does: options, commands, links and tables are checked against it."""

import re
import shlex
from itertools import pairwise
from pathlib import Path

import pytest
import typer

import command_pages
import concept_figures
import json_keys
import options_page
import support_table
from command_line import run_main
from mscvt.cli.app import app
from mscvt.cli.command_table import BY_NAME, COMMANDS
from mscvt.cli.original import ORIGINAL
from mscvt.cli.words import read_words
from mscvt.plugins.registry import load_registry

ROOT = Path(__file__).parents[1]
PAGES = sorted([ROOT / "README.md", *ROOT.glob("docs/**/*.md"), *ROOT.glob("core/*.md"), *ROOT.glob("plugins/*/*.md")])
PROGRAM = typer.main.get_command(app)
FLAG = re.compile(r"(?<![\w*-])--[a-z][a-z0-9-]*")


PROGRAM_FLAGS = {"--help", "-h", "--version", "-V", "--install-completion", "--show-completion"}


def flags_of(name):
    """What a command takes, with every other spelling."""
    command = BY_NAME[name]
    own = {flag for row in command.rows.values() for flag in row.flags}
    return own | {"--help"} | (set(ORIGINAL) if command.takes_original else set())


def all_flags():
    return PROGRAM_FLAGS.union(*map(flags_of, BY_NAME))


def name_of(page):
    return str(page.relative_to(ROOT))


def commands_in(text):
    """Every line of code that begins with `mscvt`, with the lines that continue it."""
    joined = re.sub(r"\\\n\s*", "", text)
    return [line.strip(" $") for line in joined.splitlines() if re.match(r"( {4}|\$ )\s*\$?\s*mscvt\s", line)]


def fenced_as_indented(text):
    """Fenced blocks of code, indented as the others are."""
    return re.sub(
        r"^```[^\n]*\n(.*?)^```$",
        lambda match: re.sub(r"(?m)^", "    ", match[1]),
        text,
        flags=re.DOTALL | re.MULTILINE,
    )


def test_every_option_is_in_a_table_of_the_options_page_and_every_one_there_exists():
    text = (ROOT / "docs" / "options.md").read_text(encoding="utf-8")
    described = {FLAG.search(line)[0] for line in text.splitlines() if line.startswith("| `--")}
    own = {row.flag for command in COMMANDS for row in command.rows.values()}
    assert described == own | set(ORIGINAL)
    assert set(FLAG.findall(text)) == {flag for flag in all_flags() if flag.startswith("--")}


def test_options_page_is_what_the_rows_say_now():
    said = options_page.PAGE.read_text(encoding="utf-8")
    assert options_page.render(said) == said, "docs/options.md is out of date; `make docs` writes it anew"


def test_pages_of_commands_are_what_their_rows_say_now():
    made = command_pages.pages()
    assert set(command_pages.FOLDER.glob("*.md")) == made.keys() - {command_pages.NAVIGATION}
    for path, text in made.items():
        said = path.read_text(encoding="utf-8")
        assert text == said, f"{name_of(path)} is out of date; `make docs` writes it anew"
    assert command_pages.RELATED.keys() <= BY_NAME.keys()


def test_figures_of_the_concepts_are_what_plan_shows_now(tmp_path):
    said = concept_figures.PAGE.read_text(encoding="utf-8")
    assert said.count("$ mscvt plan") == said.count(": written by `make docs` -->") > 5
    shown = concept_figures.render(said, concept_figures.save_models(tmp_path))
    assert shown == said, "docs/concepts.md is out of date; `make docs` writes its figures anew"


def test_navigation_of_the_site_lists_every_page_once():
    _, _, listed = (ROOT / "mkdocs.yml").read_text(encoding="utf-8").partition("\nnav:\n")
    pages = {str(page.relative_to(ROOT / "docs")) for page in PAGES if page.is_relative_to(ROOT / "docs")}
    assert sorted(re.findall(r"- (?:.+: )?(\S+\.md)$", listed, flags=re.MULTILINE)) == sorted(pages)


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_lists_of_a_page_begin_behind_an_empty_line_as_the_site_needs_it(page):
    lines = fenced_as_indented(page.read_text(encoding="utf-8")).splitlines()
    bullet = re.compile(r"(?:-|\d+\.) ")
    for before, line in pairwise(lines):
        goes_on = not before or before.startswith(("#", "  ")) or bullet.match(before)
        assert goes_on or not bullet.match(line), line


@pytest.mark.parametrize("page", sorted(ROOT.glob("docs/zh/*.md")), ids=name_of)
def test_page_in_chinese_has_the_commands_and_options_of_its_original(page):
    texts = [path.read_text(encoding="utf-8") for path in (page, page.parents[1] / page.name)]
    chinese, english = map(commands_in, texts)
    assert chinese == english
    chinese, english = ([row.split(" | ")[0] for row in re.findall(r"(?m)^\| (`--.*)$", text)] for text in texts)
    assert [FLAG.findall(row) for row in chinese] == [FLAG.findall(row) for row in english]
    chinese, english = (len(re.findall(r"(?m)^## ", text)) for text in texts)
    assert page.name == "index.md" or chinese == english


def test_commonest_mistakes_are_quoted_as_the_program_says_them(tmp_path):
    model = concept_figures.save_models(tmp_path) / "small-moe"
    refused = [run_main("plan", "hf2mg", "--load-dir", model, option, 4).err for option in ("--pp", "--tp")]
    for page in ("docs/getting-started.md", "docs/zh/getting-started.md"):
        table = (ROOT / page).read_text(encoding="utf-8").rpartition("|---|---|\n")[2]
        quotes = re.findall(r"`(\d[^`]+)`", table)
        assert [quote in said for quote, said in zip(quotes, refused, strict=True)] == [True, True]


@pytest.mark.parametrize("page", ["docs/migrating.md", "docs/zh/migrating.md"])
def test_every_option_of_the_original_is_on_the_page_for_those_who_come_from_it(page):
    used = "".join(
        (ROOT / "tests" / name).read_text(encoding="utf-8") for name in ("original_command_lines.tsv", "recipes.tsv")
    )
    text = (ROOT / page).read_text(encoding="utf-8")
    assert {*FLAG.findall(used), *ORIGINAL} <= {*FLAG.findall(text)}


def test_json_page_names_every_key_that_is_printed():
    text = (ROOT / "docs" / "json.md").read_text(encoding="utf-8")
    assert set(re.findall(r"^\| `(\w+)` \|", text, flags=re.MULTILINE)) == set().union(*json_keys.KEYS.values())


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_commands_of_a_page_parse(page):
    for line in commands_in(fenced_as_indented(page.read_text(encoding="utf-8"))):
        check_command(line.partition("#")[0])


@pytest.mark.parametrize("name", [None, *PROGRAM.commands])
def test_examples_of_the_help_parse(name):
    command = PROGRAM.commands[name] if name else PROGRAM
    examples = commands_in(re.sub("(?m)^", "    ", command.epilog))
    assert examples
    for line in examples:
        check_command(line)


def test_commands_are_found_in_the_pages_that_have_them():
    found = {name_of(page): commands_in(fenced_as_indented(page.read_text(encoding="utf-8"))) for page in PAGES}
    assert [line.split()[1] for line in found["README.md"]] == [
        *("download", "plan", "hf2mg", "mg2hf", "mg2mg", "verify", "inspect"),
    ]
    assert len(found["docs/options.md"]) > 10


def check_command(line):
    """Parse a command as the program would, without running it; whatever is wrong is raised."""
    program, name, *arguments = shlex.split(line)
    assert program == "mscvt"
    if name.startswith("-"):
        assert name in PROGRAM_FLAGS, line
        return
    assert name in BY_NAME, line
    if arguments != ["--help"]:
        given = read_words(BY_NAME[name], arguments)
        assert given.error is None, line


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_inline_code_of_a_page_names_commands_and_options_that_exist(page):
    known = {"COMMAND", "help", *BY_NAME}
    for code in re.findall(r"`(mscvt [^`\n]+)`", page.read_text(encoding="utf-8")):
        _, name, *rest = code.split()
        if name.startswith("-"):
            assert name in PROGRAM_FLAGS, code
            continue
        assert name in known, code
        flags = flags_of(name) if name in BY_NAME else all_flags()
        assert {word for word in rest if word.startswith("--")} <= flags, code


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_links_of_a_page_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8")):
        if target.startswith("https://"):
            continue
        path, _, anchor = target.partition("#")
        there = (page.parent / path).resolve() if path else page
        assert there.is_relative_to(ROOT), target
        assert there.exists(), target
        if anchor:
            assert anchor in anchors_of(there), target


def anchors_of(page):
    headings = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return set(map(command_pages.anchor_of, headings))


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_targets_of_make_that_a_page_names_exist(page):
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for target in re.findall(r"(?:`|^ {4})make ([a-z]+)", page.read_text(encoding="utf-8"), flags=re.MULTILINE):
        assert re.search(rf"^{target}:", makefile, flags=re.MULTILINE), target


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_page_has_no_words_that_mean_nothing_to_its_readers(page):
    text = page.read_text(encoding="utf-8")
    assert re.findall(r"(?i)\bissues?\b|\bsessions?\b|(?<![\w.])/(?:work|root|home)\b\S*|\bTODO\b", text) == []


def test_support_page_is_what_plugins_and_tests_say_now():
    said = support_table.PAGE.read_text(encoding="utf-8")
    assert said == support_table.render(), "docs/support.md is out of date; `make docs` writes it anew"


def test_plugin_of_the_readme_is_found_and_serves(tmp_path, monkeypatch):
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL)
    group, entry = re.search(r"entry point `(.+?)` in the group `(\w+)`", text).group(2, 1)
    folder = tmp_path / "mscvt_mine-1.0.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text("Metadata-Version: 2.1\nName: mscvt-mine\nVersion: 1.0\n")
    (folder / "entry_points.txt").write_text(f"[{group}]\n{entry.replace(chr(34), '')}\n")
    (tmp_path / "mscvt_mine.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    family = load_registry().family("mine")
    assert family.plugin.distribution == "mscvt-mine"
    assert family.names(("attention",), {})["attention.q"] == "model.layers.{layer}.self_attn.q_proj.weight"
