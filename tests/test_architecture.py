"""The shape of the tree: who imports whom, what node processes may load, how long files are.

Everything is read from the source with `ast`; nothing of xiatb is imported.
"""

import ast
import sys
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "xiatb"
MAX_LINES = 400
MAX_FUNCTION_LINES = 55  # 40 is the aim; long lists of arguments and docstrings count too

# What each room may import besides itself and `xiatb.errors` (design.md section 1, with "above"
# and "below" spelled out).
ALLOWED = {
    "wire": set(),
    "identity": {"wire"},
    "transport": {"wire", "identity"},
    "click": {"wire"},
    "fastpath": {"wire"},
    "node": {"wire", "identity", "transport", "click", "fastpath"},
    "lab": {"wire", "identity", "transport", "click", "fastpath", "node"},
    "guests": {"wire", "identity", "transport", "click", "fastpath", "node", "lab"},
    "migration": {"wire", "identity", "transport", "click", "fastpath", "node", "lab", "guests"},
    "experiments": {
        *("wire", "identity", "transport", "click", "fastpath", "node", "lab", "guests", "migration"),
    },
}
ALLOWED["cli"] = {*ALLOWED, "cli"}

# Too slow to load in a node process: in a guest under TCG Python runs some 25 times slower.
HEAVY = {
    "scapy",
    "pydantic",
    "rich",
    "click",
    "jinja2",
    "pyroute2",
    "matplotlib",
    "networkx",
    "numpy",
    "yaml",
}
NODE_PROCESS_ROOMS = {"wire", "identity", "transport", "click", "fastpath", "node"}
GUEST_CODE = ("guests/agent/", "guests/services/")
SCAPY_HOME = "wire/scapy_"
# Reading capture files back is the one other use.
SCAPY_USERS = (SCAPY_HOME, "experiments/")

FILES = sorted(path for path in PACKAGE.rglob("*.py") if "__pycache__" not in path.parts)
NAMES = [path.relative_to(PACKAGE).as_posix() for path in FILES]


def room_of(name: str) -> str | None:
    """Return the room of a file or dotted module below xiatb, None for what lies outside rooms."""
    head = name.replace(".", "/").split("/")[0]
    return head if head in ALLOWED else None


@cache
def tree_of(name: str) -> ast.Module:
    return ast.parse((PACKAGE / name).read_text(), filename=name)


@cache
def imports_of(name: str) -> tuple[tuple[int, str, bool], ...]:
    """Return (line, dotted module, whether only for type checkers) of every import in a file.

    `from x import y` counts as x.y, which covers both a submodule and a name.
    """
    found = []
    typing_only = {
        id(node)
        for branch in ast.walk(tree_of(name))
        if isinstance(branch, ast.If) and "TYPE_CHECKING" in ast.dump(branch.test)
        for child in branch.body
        for node in ast.walk(child)
    }
    package = ["xiatb", *name.split("/")[:-1]]
    for node in ast.walk(tree_of(name)):
        if isinstance(node, ast.Import):
            modules = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                above = package[: len(package) - node.level + 1]
                base = ".".join([*above, base]) if base else ".".join(above)
            modules = [f"{base}.{alias.name}" for alias in node.names]
        else:
            continue
        found += [(node.lineno, module, id(node) in typing_only) for module in modules]
    return tuple(found)


def files_of_module(module: str) -> list[str]:
    """Return the files of our tree that importing a dotted name runs: packages on the way and itself."""
    parts = module.split(".")[1:]
    found = ["__init__.py"]
    for depth in range(1, len(parts) + 1):
        path = "/".join(parts[:depth])
        found += [name for name in (f"{path}/__init__.py", f"{path}.py") if (PACKAGE / name).is_file()]
    return found


def loaded_with(name: str) -> dict[str, str]:
    """Return every file of ours that importing `name` runs at once, and who imports it first."""
    todo = [name]
    first = {name: "-"}
    while todo:
        here = todo.pop()
        for _, module, typing_only in top_level_imports(here):
            if typing_only or module.split(".")[0] != "xiatb":
                continue
            for other in files_of_module(module):
                if other not in first:
                    first[other] = here
                    todo.append(other)
    return first


@cache
def top_level_imports(name: str) -> tuple[tuple[int, str, bool], ...]:
    """Return the imports that run when the module does, that is those outside functions."""
    inside = {
        node.lineno
        for function in ast.walk(tree_of(name))
        if isinstance(function, (ast.FunctionDef, ast.AsyncFunctionDef))
        for node in ast.walk(function)
        if isinstance(node, (ast.Import, ast.ImportFrom))
    }
    return tuple(found for found in imports_of(name) if found[0] not in inside)


LIGHT = [
    name
    for name in NAMES
    if (room_of(name) in NODE_PROCESS_ROOMS or name.startswith(GUEST_CODE))
    and not name.startswith(SCAPY_HOME)
]


def heavy(module: str) -> bool:
    return module.split(".")[0] in HEAVY


@pytest.mark.parametrize("name", NAMES)
def test_rooms_are_imported_downwards_only(name):
    room = room_of(name)
    wrong = []
    for line, module, _ in imports_of(name):
        if module.split(".")[0] != "xiatb":
            continue
        target = room_of(".".join(module.split(".")[1:]) or "-")
        allowed = set() if room is None else ALLOWED[room] | {room}
        if target is not None and target not in allowed:
            wrong.append(f"xiatb/{name}:{line}: {room or 'the root'} may not import {module}")
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("name", LIGHT)
def test_node_process_code_imports_nothing_heavy(name):
    wrong = [
        f"xiatb/{name}:{line}: {module}"
        for line, module, typing_only in imports_of(name)
        if heavy(module) and not typing_only
    ]
    wrong += [
        f"xiatb/{name} loads xiatb/{other} (by xiatb/{by}), which imports {module}"
        for other, by in loaded_with(name).items()
        for _, module, typing_only in top_level_imports(other)
        if heavy(module) and not typing_only
    ]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("name", NAMES)
def test_scapy_stays_in_its_place(name):
    uses = [module for _, module, _ in imports_of(name) if module.split(".")[0] == "scapy"]
    assert not uses or name.startswith(SCAPY_USERS), f"xiatb/{name} imports {uses}"


@pytest.mark.parametrize("name", NAMES)
def test_every_module_says_what_it_is_for(name):
    docstring = ast.get_docstring(tree_of(name))
    assert docstring, f"xiatb/{name} has no docstring"


@pytest.mark.parametrize("name", NAMES)
def test_files_stay_short(name):
    lines = len((PACKAGE / name).read_text().splitlines())
    assert lines <= MAX_LINES, f"xiatb/{name} has {lines} lines, at most {MAX_LINES} are allowed"


@pytest.mark.parametrize("name", NAMES)
def test_functions_stay_short(name):
    long = [
        f"xiatb/{name}:{node.lineno}: {node.name} has {node.end_lineno - node.lineno + 1} lines"
        for node in ast.walk(tree_of(name))
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))
        and node.end_lineno - node.lineno + 1 > MAX_FUNCTION_LINES
    ]
    assert not long, "\n".join(long)


@pytest.mark.parametrize("name", NAMES)
def test_public_functions_have_docstrings(name):
    """In public classes and at the top of modules; what a base class or protocol describes may be brief."""
    bare = [
        f"xiatb/{name}:{node.lineno}: {node.name}"
        for scope in (tree_of(name), *(n for n in tree_of(name).body if isinstance(n, ast.ClassDef)))
        if not getattr(scope, "name", "").startswith("_")
        for node in scope.body
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef))
        and not node.name.startswith("_")
        and ast.get_docstring(node) is None
        and not any("setter" in ast.dump(decorator) for decorator in node.decorator_list)
    ]
    assert not bare, "\n".join(bare)


def test_every_package_is_a_known_room():
    packages = {path.parent.name for path in PACKAGE.glob("*/__init__.py")}
    assert packages <= set(ALLOWED), f"unknown rooms: {sorted(packages - set(ALLOWED))}"


def test_this_test_would_notice():
    """The rules bite: a downward import passes, an upward and a heavy one do not."""
    assert "node" not in ALLOWED["wire"]
    assert room_of("node/aio.py") == "node"
    assert room_of("errors.py") is None
    assert heavy("scapy.packet")
    assert heavy("click")
    assert not heavy("xiatb.click.parser")
    assert "wire/dag.py" in loaded_with("wire/xip.py")
    assert sys.version_info >= (3, 11)
