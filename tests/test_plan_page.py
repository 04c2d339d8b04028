"""The page of `mscvt plan --html`: read as a parser, a browser and a hostile author would."""

import itertools
import re
import shutil
import subprocess
from html.parser import HTMLParser

import pytest

from command_line import make_source, run_main

BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
LAYOUT = ["--tp", 2, "--pp", 2, "--ep", 2, "--noop-layers", "0,3,5,7", "--schedules-method", "dualpipev"]
VOID = {"meta", "link", "br", "input"}
ERRORS = """<script>
addEventListener("error", (event) => document.documentElement.dataset.failed = event.message);
addEventListener("securitypolicyviolation", (event) => document.documentElement.dataset.failed = event.blockedURI);
</script>"""
VISIT = """<script>
const grid = document.querySelector("table.grid"), first = grid.querySelector("button");
first.focus();
for (const key of ["ArrowDown", "ArrowDown", "ArrowRight", "ArrowUp"])
  document.activeElement.dispatchEvent(new KeyboardEvent("keydown", { key, bubbles: true, cancelable: true }));
const input = document.querySelector("input.expert");
input.value = "6";
input.dispatchEvent(new Event("input"));
document.documentElement.dataset.scrolls = String(document.documentElement.scrollWidth > innerWidth);
</script>"""


class Page(HTMLParser):
    """Elements as they are opened, with what is wrong with how they are closed."""

    def __init__(self, text):
        super().__init__()
        self.open, self.elements, self.texts = [], [], []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.texts.append(data)

    def all(self, tag):
        return [attributes for name, attributes in self.elements if name == tag]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pages")
    make_source("deepseek32", folder / "hf")
    outcome = run_main("plan", "hf2mg", "--load-dir", folder / "hf", *LAYOUT, "--html", folder / "plan.html")
    assert f"\nwrote {folder / 'plan.html'}\ngo on with: mscvt hf2mg --load-dir " in outcome.out, outcome.err
    return folder


@pytest.fixture(scope="module")
def text(folder):
    return (folder / "plan.html").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def page(text):
    return Page(text)


def test_page_is_whole_and_nothing_of_it_is_loaded_from_anywhere(page, text):
    assert [tag for tag, _ in page.elements[:2]] == ["html", "head"]
    addresses = [value for _, found in page.elements for name, value in found.items() if name in ("src", "href")]
    assert all(address.startswith("#") or address == "data:," for address in addresses)
    assert re.findall(r"(?:https?:)?//(?!\s)|url\(|@import", re.sub(r"(?m)^// .*$", "", text)) == []
    assert "default-src 'none'" in next(meta["content"] for meta in page.all("meta") if "http-equiv" in meta)


def test_marks_are_unique_and_links_lead_to_them(page):
    marks = [found["id"] for _, found in page.elements if "id" in found]
    assert len(marks) == len(set(marks))
    links = {found["href"][1:] for found in page.all("a")}
    used = {
        found[name] for _, found in page.elements for name in ("aria-labelledby", "for", "data-pane") if name in found
    }
    assert links | used <= set(marks)
    assert {"main", "pipeline-0", "experts-0", "files", "tensors-0"} <= links


def test_page_can_be_read_without_seeing_it(page):
    assert page.all("html")[0]["lang"] == "en"
    assert all(found["aria-label"] for found in page.all("svg"))
    assert all(found.get("role") == "img" for found in page.all("svg"))
    cells = [found["aria-label"] for found in page.all("button")]
    assert "layer with experts (MoE) 2 of Hugging Face, attention + moe, stage 1, chunk model1, " in " ".join(cells)
    assert sum(cell.startswith("noop, no layer, stage") for cell in cells) == 4
    headings = [int(tag[1]) for tag, _ in page.elements if re.fullmatch(r"h\d", tag)]
    assert headings[0] == 1
    assert all(after - before <= 1 for before, after in itertools.pairwise(headings))


def test_tensors_are_drawn_as_they_are_cut(page):
    labels = [found["aria-label"] for found in page.all("svg")]
    assert "model.embed_tokens.weight 96 x 48: [0:48, :] on tp 0 ep {0-1}; [48:96, :] on tp 1 ep {0-1}" in " ".join(
        labels
    )
    down = next(label for label in labels if label.startswith("model.layers.1.mlp.experts.0.down_proj.weight"))
    assert down.endswith("[:, 0:12] on tp 0 ep 0; [:, 12:24] on tp 1 ep 0")
    assert len(page.all("rect")) > 2 * len(labels)


def test_names_of_folders_and_tensors_are_text(folder, tmp_path):
    hostile = tmp_path / "<script>alert(1)<"
    shutil.copytree(folder / "hf", hostile)
    out = tmp_path / "page.html"
    assert run_main("plan", "hf2mg", "--load-dir", hostile, "--html", out).code == 0
    page = Page(out.read_text(encoding="utf-8"))
    assert len(page.all("script")) == 1
    assert "<script>alert(1)<" in "".join(page.texts)


def test_way_of_a_tensor_and_a_rank_are_sections(folder, tmp_path):
    name = "model.layers.1.self_attn.o_proj.weight"
    words = ["--tensor", name, "--rank", "tp=0,pp=1,ep=1", "--html", tmp_path / "way.html"]
    assert run_main("plan", "hf2mg", "--load-dir", folder / "hf", *LAYOUT, *words).code == 0
    page = Page((tmp_path / "way.html").read_text(encoding="utf-8"))
    assert [found["id"] for found in page.all("section")] == ["way-0", "rank", "pipeline-0", "experts-0", "files"]
    assert {found["aria-label"].split()[0] for found in page.all("svg")} >= {name}


def test_page_replaces_an_earlier_one_and_nothing_that_is_no_page(folder, tmp_path):
    arguments = ["plan", "hf2mg", "--load-dir", folder / "hf", "--html"]
    out = tmp_path / "plan.html"
    out.write_text("earlier")
    assert run_main(*arguments, out).code == 0
    assert out.read_text().startswith("<!doctype html>")
    assert [path.name for path in tmp_path.iterdir()] == ["plan.html"]
    other = tmp_path / "config.json"
    other.write_text("{}")
    outcome = run_main(*arguments, other)
    assert (outcome.code, other.read_text()) == (1, "{}")
    assert "is no name of a page" in outcome.err


if BROWSER is not None:

    def visit(text, tmp_path):
        """What a browser makes of a page after somebody used it."""
        visited = tmp_path / "visited.html"
        visited.write_text(text.replace("<title>", f"{ERRORS}<title>", 1).replace("</body>", f"{VISIT}</body>"))
        command = [BROWSER, "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path / 'profile'}"]
        command += ["--window-size=500,900", "--dump-dom", visited.as_uri()]
        return subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout

    def test_page_works_in_a_browser_with_the_keyboard_and_no_script_fails(text, tmp_path):
        page = Page(re.sub(r"(?s)<(style|script)>.*?</\1>", "", visit(text, tmp_path)))
        root = page.all("html")[0]
        assert "data-failed" not in root
        assert root["data-scrolls"] == "false"
        stops = [found for found in page.all("button") if found["tabindex"] == "0"]
        assert [found["aria-pressed"] for found in stops] == ["true"]
        assert stops[0]["aria-label"] in page.texts
        assert stops[0]["aria-label"].startswith("layer with experts (MoE) 1 of Hugging Face")
        assert [found for found in page.all("li") if found.get("class") == "found"]
        assert "Expert 6 lies on tp {0-1} ep 1." in page.texts
