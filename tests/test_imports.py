"""The house's rules: imports go one way, light parts stay light, files and functions stay short."""

from __future__ import annotations

import ast
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

SRC = Path(__file__).parents[1] / "src" / "litee"
FOLDERS = ["collect", "curate", "encode", "finetune", "predict", "score", "serve"]
ROOTS = {"errors", "records", "amounts", "config", "rundir", "progress"}
#: May use everything and are used by nobody but each other and `litee/__init__.py`.
TOPS = {"pipeline", "cli", "cluster"}
FILES = sorted(SRC.rglob("*.py"))


def part(file: Path) -> str:
    """Folder or root module of a file: `collect`, `records`, `__init__`."""
    return file.relative_to(SRC).parts[0].removesuffix(".py")


def imported(tree: ast.Module) -> set[str]:
    """Full names of all modules that a file imports from litee, wherever in the file."""
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"relative import in line {node.lineno}"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return {n for n in names if n == "litee" or n.startswith("litee.")}


def allowed(own: str) -> set[str]:
    """Parts of the project that a part may import."""
    if own in TOPS or own == "__init__":
        return {*ROOTS, *FOLDERS, *TOPS}
    if own in FOLDERS:
        return {*ROOTS, *FOLDERS[: FOLDERS.index(own) + 1]}
    return ROOTS


def broken(file: Path, source: str) -> list[str]:
    """Imports of a file that go the wrong way."""
    own = part(file)
    found = []
    for name in sorted(imported(ast.parse(source))):
        other = name.split(".")[1] if "." in name else ""
        if other not in allowed(own):
            found.append(name)
    return found


def test_the_house_was_found():
    assert len(FILES) > 40
    assert {part(f) for f in FILES} <= {*FOLDERS, *ROOTS, *TOPS, "__init__", "__main__"}
    assert {"collect", "encode", "finetune", "predict", "score"} <= {part(f) for f in FILES}


@pytest.mark.parametrize("file", FILES, ids=lambda f: str(f.relative_to(SRC)))
def test_imports_go_one_way(file):
    assert broken(file, file.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize(
    ("file", "source", "wrong"),
    [
        ("collect/x.py", "from litee.encode.budget import TokenBudget", 1),
        ("collect/x.py", "from litee.collect.rows import Row\nimport litee.errors", 0),
        ("predict/x.py", "def f():\n    from litee.score.table import t", 1),
        ("predict/x.py", "from litee import score", 1),
        ("records.py", "from litee.collect import votes", 1),
        ("records.py", "from litee.errors import LiteeError", 0),
        ("score/x.py", "import litee.cli", 1),
        ("score/x.py", "from litee import pipeline", 1),
        ("cli/fit.py", "from litee.predict.fit import fit", 0),
        ("collect/x.py", "import litee", 1),
    ],
)
def test_the_check_sees_wrong_imports(file, source, wrong):
    assert len(broken(SRC / file, source)) == wrong


def fresh(code: str) -> set[str]:
    """Top-level names of the modules that are loaded after `code` ran in a new interpreter."""
    script = f"{code}\nimport sys\nsys.stdout.write(' '.join(sys.modules))"
    run = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60
    )
    return {name.split(".")[0] for name in run.stdout.split()}


LIGHT = [
    ".".join(("litee", *file.relative_to(SRC).with_suffix("").parts))
    for file in FILES
    if part(file) in {"collect", "encode", *ROOTS} and file.name != "__init__.py"
]
#: Of `score`, what works on outcomes, tables and ranks; scoring with models may need torch.
SCORE_LIGHT = [
    f"litee.score.{name}"
    for name in ("outcomes", "intervals", "evaluation", "ceiling", "agreement", "ranking")
    if (SRC / "score" / f"{name}.py").exists()
]


@pytest.mark.parametrize(
    "modules",
    [LIGHT, SCORE_LIGHT, ["litee.predict.artifact"]],
    ids=["collect, encode and roots", "score", "artifact"],
)
def test_light_parts_import_no_torch(modules):
    loaded = fresh("".join(f"import {name}\n" for name in modules))
    assert "litee" in loaded
    assert not loaded & {"torch", "transformers", "peft"}


def test_records_import_the_standard_library_only():
    loaded = fresh("import litee.records, litee.errors")
    assert not loaded & {"numpy", "torch", "pydantic", "rich", "yaml"}


def test_the_package_itself_is_light():
    assert not fresh("import litee") & {"torch", "transformers", "sklearn", "matplotlib", "scipy"}


HELP = """
import sys
sys.argv = ['litee', *{args}]
from litee.cli import main
try:
    main()
except SystemExit as end:
    assert not end.code, end.code
"""


@pytest.mark.parametrize("args", [["--help"], ["fit", "--help"]], ids=" ".join)
def test_help_imports_nothing_heavy(args):
    code = "import contextlib, io\nwith contextlib.redirect_stdout(io.StringIO()):\n"
    code += "".join(f"    {line}\n" for line in HELP.format(args=args).strip().splitlines())
    loaded = fresh(code)
    assert "typer" in loaded
    heavy = {"torch", "transformers", "peft", "sklearn", "matplotlib", "pyarrow", "datasketch"}
    assert not loaded & {*heavy, "scipy", "pandas"}


def code_lines(node: ast.FunctionDef | ast.AsyncFunctionDef, *, command: bool) -> int:
    """Lines of a function without its docstring, and for commands without their options."""
    first = node.body[0].lineno if command else node.lineno
    length = node.end_lineno - first + 1
    if ast.get_docstring(node) is not None:
        length -= node.body[0].end_lineno - node.body[0].lineno + 1
    return length


@pytest.mark.parametrize("file", FILES, ids=lambda f: str(f.relative_to(SRC)))
def test_files_and_functions_are_short(file):
    source = file.read_text(encoding="utf-8")
    assert len(source.splitlines()) <= 400
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            assert code_lines(node, command=is_command(file)) <= 60, node.name
            plain = [*node.args.posonlyargs, *node.args.args]
            own = [a for a in plain if a.arg not in ("self", "cls")]
            assert len(own) <= 6 or is_command(file), f"{node.name} has {len(own)} plain arguments"


def test_lines_are_counted_right():
    source = 'def f(\n    a,\n):\n    """Doc.\n\n    More.\n    """\n    b = a\n    return b\n'
    (function,) = ast.parse(source).body
    assert code_lines(function, command=False) == 5
    assert code_lines(function, command=True) == 2


def is_command(file: Path) -> bool:
    """Typer turns plain arguments of a command into its options."""
    return part(file) == "cli"


@pytest.mark.parametrize("file", FILES, ids=lambda f: str(f.relative_to(SRC)))
def test_every_module_says_what_it_does(file):
    tree = ast.parse(file.read_text(encoding="utf-8"))
    assert ast.get_docstring(tree)
    assert file.stem not in {"utils", "common", "helpers", "misc", "base"}


def test_the_libraries_of_light_parts_are_declared():
    """What collect, encode and the root modules import is among the core dependencies."""
    project = tomllib.loads((SRC.parents[1] / "pyproject.toml").read_text())["project"]
    names = {"PyYAML": "yaml", "scikit-learn": "sklearn"}
    declared = {
        names.get(dependency.split(">")[0], dependency.split(">")[0])
        for dependency in project["dependencies"]
    }
    used = set()
    for file in FILES:
        if part(file) not in {"collect", "encode", *ROOTS}:
            continue
        for node in ast.parse(file.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.Import):
                used |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                used.add(node.module.split(".")[0])
    outside = used - set(sys.stdlib_module_names) - {"litee"}
    assert "numpy" in outside
    assert outside <= declared
