"""The documentation says what is so: generated pages, links, commands, settings, code."""

import ast
import importlib
import importlib.util
import json
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from types import ModuleType

import pytest
import typer
import yaml

from litee.cli import app
from litee.config import FitSettings, load_settings
from litee.errors import ConfigError

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("results/*.md")])
#: What a wrong command line raises; typer brings its own copy of click in later versions.
USAGE_ERROR = typer.BadParameter.__mro__[1]
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```", re.M | re.S)


def _generate() -> ModuleType:
    spec = importlib.util.spec_from_file_location("generate", ROOT / "docs/generate.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _text(page: Path) -> str:
    return page.read_text(encoding="utf-8")


def _blocks(language: str) -> list[tuple[str, str]]:
    """(page, text) of every fenced block of a language; "" has none."""
    return [
        (page.relative_to(ROOT).as_posix(), text)
        for page in PAGES
        for found, text in BLOCK.findall(_text(page))
        if found == language
    ]


# generated pages


def test_generated_pages_are_fresh():
    generate = _generate()
    assert [p.relative_to(ROOT).as_posix() for p in generate.stale(generate.pages())] == []


def test_generating_needs_no_torch():
    code = (
        "import runpy, sys; sys.argv = ['generate.py', '--check']\n"
        "try: runpy.run_path('docs/generate.py', run_name='__main__')\n"
        "except SystemExit as end: assert end.code in (0, 1), end.code\n"
        "assert 'litee.cli' in sys.modules\n"
        "assert not {'torch', 'transformers'} & set(sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_every_command_and_option_is_on_the_page():
    generate = _generate()
    page = generate.cli_page()
    found = generate.commands()
    assert len(found) >= 8
    for name, command in found.items():
        section = page.split(f"\n## {name}\n")[1].split("\n## ")[0]
        for parameter in command.params:
            if parameter.param_type_name == "option":
                assert all(f"`{option}`" in section for option in parameter.opts)


def test_settings_page_has_every_setting_with_its_default():
    from litee.score.demonstration_settings import ArmSettings, DemonstrationStudySettings
    from litee.score.study_settings import StudySettings

    generate = _generate()
    rows: dict[str, str] = {}
    for line in generate.settings_page().splitlines():
        if line.startswith("| `"):
            rows.setdefault(line.split("|")[1].strip().strip("`"), line)
    studies = (StudySettings, DemonstrationStudySettings, ArmSettings)
    kinds = (FitSettings, *studies, *generate.MORE_SETTINGS.values())
    assert {name for kind in kinds for name in kind.model_fields} == set(rows)
    assert rows["max_tokens"].split(" | ")[1:4] == ["`1024`", "whole number ≥ 8", "`--max-tokens`"]
    assert rows["template"].split(" | ")[2] == "`auto`, `chat`, `plain`"
    assert rows["depth"].split(" | ")[2].endswith(" or `auto`")
    assert rows["kind"].split(" | ")[1] == "required"


def _result(name: str, metrics: dict[str, float]) -> dict[str, object]:
    receipt = {"seconds": 1.0, "tokens": 1, "peak_rss_mb": 1.0, "versions": {}, "seed": 0}
    return {
        "name": name,
        "command": f"litee study experiments/{name}.yaml",
        "date": "2026-01-02",
        "receipt": receipt,
        "metrics": metrics,
        "intervals": {"log_loss": [0.8, 1.0]} if "log_loss" in metrics else {},
        "tables": {},
        "notes": "",
    }


def test_results_table_shows_headlines_with_commands(tmp_path):
    generate = _generate()
    for name, metrics in (
        ("demo", {"seconds": 120.4, "log_loss": 0.9, "accuracy": 0.5}),
        ("in_source", {"x.log_loss": 0.7, "x.prior_log_loss": 1.0, "y.log_loss": 0.6}),
        ("speed", {"one": 1.0, "two": 1234.5, "three": 3.0, "four": 4.0, "five": 5.0}),
    ):
        (tmp_path / f"{name}.json").write_text(json.dumps(_result(name, metrics)))
    results = [generate.read_result(p) for p in sorted(tmp_path.glob("*.json"))]

    lines = generate.results_table(results).splitlines()[2:]

    assert lines == [
        "| [demo](results/README.md#demo) | log loss 0.900 (0.800 to 1.000); accuracy 0.500; "
        "seconds 120 | `litee study experiments/demo.yaml` |",
        "| [in_source](results/README.md#in_source) | x log loss 0.700; y log loss 0.600 "
        "| `litee study experiments/in_source.yaml` |",
        "| [speed](results/README.md#speed) | one 1.000; two 1,234; three 3.000; four 4.000 "
        "| `litee study experiments/speed.yaml` |",
    ]


def test_the_readme_shows_some_results_and_the_page_all(tmp_path):
    generate = _generate()
    for name in ("demo", "in_source", "mt_bench_bound"):
        (tmp_path / f"{name}.json").write_text(json.dumps(_result(name, {"log_loss": 0.9})))
    results = [generate.read_result(p) for p in sorted(tmp_path.glob("*.json"))]
    readme = generate.readme_page("<!-- results -->\n<!-- /results -->", results)
    names = [line.split("[")[1].split("]")[0] for line in readme.splitlines() if "](" in line]
    assert names == ["mt_bench_bound", "in_source"]
    page = generate.results_page(results)
    assert all(f"[{r.name}](../results/README.md#{r.name})" in page for r in results)
    shown = {path.stem for path in (ROOT / "results").glob("*.json")}
    assert set(generate.SHOWN) <= shown


def test_readme_without_results_or_markers():
    generate = _generate()
    text = "a\n<!-- results -->\nold\n<!-- /results -->\nb"
    fresh = "a\n<!-- results -->\nNo study has finished yet.\n<!-- /results -->\nb"
    assert generate.readme_page(text, []) == fresh
    with pytest.raises(ValueError, match="markers"):
        generate.readme_page("no markers", [])


def test_check_names_the_stale_file(monkeypatch, capsys, tmp_path):
    generate = _generate()
    page = tmp_path / "page.md"
    page.write_text("old")
    monkeypatch.setattr(generate, "ROOT", tmp_path)
    monkeypatch.setattr(generate, "pages", lambda: {page: "new"})
    assert generate.main(["--check"]) == 1
    assert "stale: page.md" in capsys.readouterr().err
    assert page.read_text() == "old"
    assert generate.main([]) == 0
    assert page.read_text() == "new"
    assert generate.main(["--check"]) == 0
    assert generate.main(["--wrong"]) == 2


# links


def _anchors(page: Path) -> set[str]:
    """Anchors of a page's headings, as GitHub makes them."""
    plain = BLOCK.sub("", _text(page))
    titles = re.findall(r"^#+ +(.+?) *$", plain, re.M)
    kept = (re.sub(r"[^\w\- ]", "", title.lower()) for title in titles)
    return {title.replace(" ", "-") for title in kept}


def _links() -> Iterator[tuple[Path, str]]:
    for page in PAGES:
        for target in re.findall(r"\]\(([^)\s]+)\)", BLOCK.sub("", _text(page))):
            if not target.startswith(("http:", "https:", "mailto:")):
                yield page, target


def test_links_lead_somewhere():
    links = list(_links())
    assert len(links) > 45
    broken = []
    for page, target in links:
        name, _, anchor = target.partition("#")
        file = (page.parent / name).resolve() if name else page
        if not file.exists() or (anchor and anchor not in _anchors(file)):
            broken.append(f"{page.name}: {target}")
    assert broken == []


def test_every_page_is_in_the_index():
    linked = {target for page, target in _links() if page.name == "index.md"}
    pages = {p.name for p in ROOT.glob("docs/*.md")} - {"index.md"}
    assert len(pages) >= 9
    assert pages - linked == set()


def test_every_decision_is_in_the_list():
    folder = ROOT / "docs/decisions"
    listed = {target for page, target in _links() if page == folder / "README.md"}
    records = {p.name for p in folder.glob("0*.md")}
    assert len(records) >= 5
    assert records == listed


# commands


def _command_lines() -> list[tuple[str, str]]:
    """Every `litee …` line of a block without language, without prompt, comment and remark."""
    found = []
    for page, text in _blocks(""):
        for line in re.sub(r" *\\\n *", " ", text).splitlines():
            line = line.removeprefix("$ ")
            if line.startswith("litee ") and not page.endswith("cli.md"):
                line = re.sub(r" {2,}(?!-).*", "", line)
                found.append((page, line.strip()))
    return found


@cache
def _litee():
    """All commands; making them takes a third of a second."""
    return typer.main.get_command(app)


def _leaf(words: list[str]):
    """The command that the words name, and the words after it."""
    command, rest = _litee(), words[1:]
    while rest and rest[0] in getattr(command, "commands", {}):
        command, rest = command.commands[rest[0]], rest[1:]
    return command, rest


def _parse_error(line: str) -> str:
    command, rest = _leaf(shlex.split(line))
    if hasattr(command, "commands"):
        return "names no command"
    try:
        command.make_context(line, rest)
    except USAGE_ERROR as error:
        return error.format_message()
    return ""


def test_command_lines_parse():
    lines = _command_lines()
    assert len(lines) >= 20
    wrong = {(page, line): _parse_error(line) for page, line in lines}
    assert {place: error for place, error in wrong.items() if error} == {}


@pytest.mark.parametrize(
    "line", ["litee fit", "litee fit a.csv --out x --no-such 1", "litee nothing", "litee data"]
)
def test_wrong_command_lines_are_seen(line):
    assert _parse_error(line) != ""


def test_commands_in_running_text_exist():
    texts = {
        (page.name, code)
        for page in PAGES
        for code in re.findall(r"`(litee [^`\n]+)`", BLOCK.sub("", _text(page)))
    }
    assert len(texts) >= 15
    for page, code in texts:
        words = [w for w in code.split() if w != "|"]
        command, rest = _leaf(words)
        known = {o for p in getattr(command, "params", []) for o in p.opts}
        known |= {"--help", "COMMAND"}
        options = {w for w in rest if w.startswith("--")}
        assert options <= known, f"{page}: {code}"
        assert rest != words[1:] or words[1:] in (["--help"], ["COMMAND", "--help"]), code


# settings and code


def test_experiments_load():
    from litee.score.study_parts import load_part

    files = sorted(ROOT.glob("experiments/**/*.y*ml"))
    settings = {"paper", "travel", "tuning"}  # settings of commands, not studies
    files = [file for file in files if file.parent.name not in settings]
    assert len(files) > 0
    for file in ROOT.glob("experiments/paper/*.yaml"):
        assert load_settings(FitSettings, file).dtype == "nf4"
    for file in files:
        assert file.stem == load_part(file).study.name


def test_yaml_in_the_pages_loads(tmp_path):
    from litee.score.study_parts import load_part

    blocks = _blocks("yaml")
    assert len(blocks) >= 2
    for number, (page, text) in enumerate(blocks):
        file = tmp_path / f"{number}.yaml"
        file.write_text(text)
        try:
            if "kind" in yaml.safe_load(text):
                load_part(file)
            else:
                load_settings(FitSettings, file)
        except ConfigError as error:
            raise AssertionError(f"{page}: {error}") from error


def test_python_in_the_pages_imports_what_exists():
    blocks = _blocks("python")
    assert len(blocks) >= 5
    names = 0
    for page, text in blocks:
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("litee"):
                module = importlib.import_module(node.module)
                for alias in node.names:
                    assert hasattr(module, alias.name), f"{page}: {node.module}.{alias.name}"
                    names += 1
    assert names > 20


def test_readme_names_two_make_targets():
    targets = set(re.findall(r"^([a-z]+):", _text(ROOT / "Makefile"), re.M))
    named = set(re.findall(r"\bmake ([a-z]+)\b", _text(ROOT / "README.md")))
    assert {"demo", "test"} <= named
    contributing = set(re.findall(r"`?make ([a-z]+)\b", _text(ROOT / "CONTRIBUTING.md")))
    written = {"demo", "test", "check", "docs", "format"}
    assert ((named | contributing) & written) <= targets
    assert named <= targets
