"""Rooms: each package imports only those before it, and none but a dialect speaks a training stack's words."""

import ast
import io
import tokenize
from pathlib import Path

import pytest

import mscvt

ROOT = Path(mscvt.__file__).parent
ROOMS = (
    "records",
    "errors",
    "layout",
    "tensors",
    "model",
    "parallel",
    "plugins",
    "dialects",
    "description",
    "plan",
    "formats",
    "hubs",
    "engine",
    "output",
    "executors",
    "authoring",
    "views",
    "jobs",
    "testing",
    "cli",
)
"""Lowest first."""
PUBLIC = {"__init__": "the face of the package for plugins", "__main__": "python -m mscvt"}
"""Modules outside of the rooms, which may import any of them."""


def modules():
    for path in sorted(ROOT.rglob("*.py")):
        relative = path.relative_to(ROOT)
        yield relative.as_posix(), ast.parse(path.read_text(encoding="utf-8"))


def imports(tree):
    """The modules of mscvt that a module imports, also inside of functions and for types alone."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.split(".")[0] == "mscvt")
        elif isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "mscvt":
            for alias in node.names:
                yield f"{node.module}.{alias.name}" if is_package(node.module) else node.module


def without_types(tree):
    """The module without what it imports for its annotations alone."""

    def is_for_types(node):
        return isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"

    return ast.Module([node for node in tree.body if not is_for_types(node)], [])


def is_package(module):
    return (ROOT.parent / Path(*module.split(".")) / "__init__.py").is_file()


def room_of(path):
    return path.split("/")[0].removesuffix(".py")


def edges():
    """(Module, module that it imports, its room) between rooms."""
    for path, tree in modules():
        for imported in sorted(set(imports(tree))):
            room = imported.split(".")[1]
            if room in ROOMS and room != room_of(path):
                yield path, imported, room


def test_every_module_is_in_a_room():
    assert {room_of(path) for path, _ in modules()} - {*ROOMS, *PUBLIC} == set()


def test_each_room_imports_only_rooms_that_stand_before_it():
    found = {
        (path, imported)
        for path, imported, room in edges()
        if room_of(path) in ROOMS and ROOMS.index(room) > ROOMS.index(room_of(path))
    }
    assert found == set()


def test_rooms_import_each_other_in_no_circle():
    graph = {}
    for path, _, room in edges():
        if room_of(path) in ROOMS:
            graph.setdefault(room_of(path), set()).add(room)
    done: set[str] = set()

    def visit(room, above):
        assert room not in above, " -> ".join([*above, room])
        if room not in done:
            for other in sorted(graph.get(room, ())):
                visit(other, [*above, room])
            done.add(room)

    for room in sorted(graph):
        visit(room, [])


def test_modules_inside_of_a_room_import_each_other_in_no_circle():
    graph = {path: set() for path, _ in modules()}
    for path, tree in modules():
        for imported in imports(without_types(tree)):
            name = "/".join(imported.split(".")[1:])
            others = (f"{name}.py", f"{name}/__init__.py", f"{name.rpartition('/')[0]}.py")
            graph[path] |= {other for other in others if other in graph and other != path}
    done: set[str] = set()

    def visit(path, above):
        assert path not in above, " -> ".join([*above[above.index(path) :], path])
        if path not in done:
            for other in sorted(graph[path]):
                visit(other, [*above, path])
            done.add(path)

    for path in graph:
        visit(path, [])


WORDS = (
    *("mindspeed", "megatron"),
    *("noop_layers", "dualpipev", "moe_tp_extend_ep", "tp_extend", "mla_mm_split", "moe_grouped_gemm", "vpp"),
    *("num_layer_list", "schedules_method", "transformer_impl", "transformer_engine", "make_vocab_size_divisible_by"),
    *("num_layers_per_virtual_pipeline_stage", "_parallel_size"),
    *(
        "linear_qkv",
        "linear_fc1",
        "linear_fc2",
        "linear_proj",
        "embedding.word_embeddings",
        "output_layer",
        "final_layernorm",
    ),
    *("local_experts", "pre_mlp_layernorm", "decoder.layers", "mtp.layers", "eh_proj", "mp_rank"),
)
"""Names of training stacks, of their options and of their tensors."""
AT_HOME = ("dialects/", "formats/megatron_", "testing/", "cli/")
"""Where they may stand: in the dialect, in its files' format, and where options are given and shown."""
STRANGERS = {
    "plugins/blocks.py": ({"eh_proj"}, "public checkpoints have the name too"),
    "model/fields.py": ({"local_experts"}, "a field of config.json is called num_local_experts"),
    "authoring/config_fields.py": ({"local_experts"}, "a field of config.json is called num_local_experts"),
    "authoring/endings.py": (
        {"eh_proj", "final_layernorm", "output_layer", "pre_mlp_layernorm"},
        "public checkpoints have the names too",
    ),
    "formats/huggingface/folders.py": ({"megatron", "mp_rank"}, "says what a folder is that is no such checkpoint"),
    "jobs/models.py": (
        {"make_vocab_size_divisible_by", "_parallel_size", "noop_layers"},
        "places layers in slots, and pads the vocabulary",
    ),
    "jobs/recorded_models.py": ({"megatron"}, "chooses the dialect and its version"),
    "jobs/reshard.py": ({"make_vocab_size_divisible_by", "_parallel_size"}, "chooses the dialect"),
    "formats/peft/config.py": ({"megatron"}, "fields of adapter_config.json are called megatron_config and so on"),
    "jobs/inspect_shards.py": ({"megatron", "_parallel_size"}, "opens shards and says what they recorded"),
    "jobs/prepare.py": ({"megatron"}, "chooses the format"),
    "jobs/opened.py": ({"megatron"}, "chooses the format"),
    "jobs/sources.py": ({"megatron"}, "chooses the format"),
    "jobs/prepare_plain.py": ({"megatron"}, "chooses the format"),
    "jobs/megatron_files.py": ({"megatron"}, "chooses the format"),
    "jobs/shards_written.py": ({"megatron"}, "chooses the format"),
    "jobs/trained_factors.py": ({"megatron"}, "chooses the format"),
    "jobs/prepare_factors.py": ({"megatron"}, "chooses the format"),
    "jobs/plans.py": ({"megatron"}, "chooses the format"),
    "jobs/verify.py": ({"megatron"}, "chooses the format"),
}
"""Module -> words that it may say, and why."""


def code_of(path):
    """The module without docstrings and comments, which may say where a fact comes from."""
    text = (ROOT / path).read_text(encoding="utf-8")
    lines = text.splitlines()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            for number in range(node.lineno - 1, node.end_lineno):
                lines[number] = ""
    kept = "\n".join(lines) + "\n"
    for token in tokenize.generate_tokens(io.StringIO(kept).readline):
        if token.type == tokenize.COMMENT:
            row = token.start[0] - 1
            lines[row] = lines[row][: token.start[1]]
    return "\n".join(lines).lower()


@pytest.mark.parametrize("path", [path for path, _ in modules() if not path.startswith(AT_HOME)])
def test_no_room_but_a_dialect_speaks_a_training_stacks_words(path):
    code = code_of(path)
    allowed, _ = STRANGERS.get(path, (set(), ""))
    found = {word for word in WORDS if word in code}
    assert found - allowed == set()
    assert allowed - found == set(), "no longer said: take it off the list"
