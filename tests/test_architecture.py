"""The house rules that no single file can keep: arrows between folders, names, sizes of functions, places of tests."""

import ast
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

from tests.mpi import ROOT

SOURCES = ("guided_diffusion", "evaluation", "scripts")

# What each part may import. Parts of `guided_diffusion` are its folders; its own files and `config` are "core", but for
# those that everything may use.
BASE = ("errors", "files", "gate", "machine")
PET = {"pet", "base"}
CORE = {"core", "ranks", *PET}
METHODS = {"methods", "fast", *CORE}
RUNS = {"report", *METHODS}
COMMANDS = {"commands", "inference", "training", "simulation", *RUNS}
MAY_IMPORT = {
    "base": {"base"},
    "ranks": {"ranks", "base"},
    "pet": PET,
    "simulation": {"simulation", *PET},
    "core": CORE,
    "fast": {"fast", *CORE},
    "methods": METHODS,
    "report": {"report", *CORE},
    "inference": {"inference", *RUNS},
    "training": {"training", *RUNS},
    "commands": COMMANDS,
    "evaluation": {"evaluation", *COMMANDS},
    "scripts": {"scripts", "evaluation", *COMMANDS},
}

# Circles that are still to be broken, by a file of each; to become empty.
CIRCLES: set[str] = set()

LIMIT_OF_PARAMETERS, LIMIT_OF_LINES = 7, 60
LARGE_FUNCTIONS = {
    "guided_diffusion.gaussian_diffusion.ddim_sample_loop": "published signature",
}

# Names that two library files share, with the reason.
SHARED_STEMS: dict[str, str] = {}


READERS = ("h5py", "pydicom", "nibabel", "blobfile", "scipy")


def name_of(path: Path) -> str:
    """A file's module name; a package's for its `__init__`."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


FILES = {name_of(path): path for folder in SOURCES for path in sorted((ROOT / folder).rglob("*.py"))}
TREES = {name: ast.parse(path.read_text(encoding="utf-8")) for name, path in FILES.items()}


def named_imports(tree: ast.AST) -> Iterator[str]:
    """Everything that is imported anywhere in a file: in functions and for type checkers too."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def imported_files(tree: ast.AST, known: set[str]) -> set[str]:
    """The modules among `known` that a file imports, or imports names from."""
    found = set()
    for name in named_imports(tree):
        while name and name not in known:
            name = name.rpartition(".")[0]
        if name:
            found.add(name)
    return found - {"guided_diffusion", "evaluation"}


def part_of(module: str) -> str:
    """The part of the house that a module belongs to."""
    top, *rest = module.split(".")
    if top != "guided_diffusion":
        return top
    folder_or_file = rest[0] if rest else "__init__"
    if folder_or_file in BASE:
        return "base"
    return folder_or_file if folder_or_file in MAY_IMPORT else "core"


def upward(imports: dict[str, set[str]]) -> list[str]:
    """Imports that a part may not have, as text."""
    return [
        f"{module} -> {target}"
        for module, targets in imports.items()
        for target in sorted(targets)
        if part_of(target) not in MAY_IMPORT[part_of(module)]
    ]


def circle(imports: dict[str, set[str]]) -> list[str]:
    """The modules of a circle of imports, none if there is none."""
    try:
        TopologicalSorter(imports).prepare()
    except CycleError as error:
        return error.args[1]
    return []


IMPORTS = {module: imported_files(tree, set(FILES)) - {module} for module, tree in TREES.items()}


def test_the_walk_sees_imports_in_functions_and_for_type_checkers():
    source = """
from typing import TYPE_CHECKING
if TYPE_CHECKING:
    from guided_diffusion.unet import UNetModel
def late():
    import guided_diffusion.pet.volume
    from guided_diffusion.pet import grid
"""
    expected = {"guided_diffusion.unet", "guided_diffusion.pet.volume", "guided_diffusion.pet.grid"}
    assert imported_files(ast.parse(source), set(FILES)) == expected


def test_a_wrong_arrow_and_a_circle_would_be_found():
    wrong = {"guided_diffusion.pet.grid": {"guided_diffusion.unet"}, "guided_diffusion.unet": set()}
    assert upward(wrong) == ["guided_diffusion.pet.grid -> guided_diffusion.unet"]
    assert set(circle({"a": {"b"}, "b": {"c"}, "c": {"a"}})) == {"a", "b", "c"}


def test_arrows_point_down():
    assert upward(IMPORTS) == []


def test_there_are_no_circles():
    left = {module: targets - CIRCLES for module, targets in IMPORTS.items() if module not in CIRCLES}
    assert circle(left) == []
    for module in CIRCLES:
        others = CIRCLES - {module}
        assert circle({name: targets - others for name, targets in IMPORTS.items() if name not in others}) != []


def test_images_know_nothing_of_networks():
    libraries = {
        module: {name.split(".")[0] for name in named_imports(TREES[module])}
        for module in FILES
        if part_of(module) == "pet"
    }
    assert [module for module, names in libraries.items() if "torch" in names] == []


def test_configurations_need_no_readers():
    """In an interpreter of its own, where nothing else has imported them."""
    code = f"import sys, guided_diffusion.config; print([name for name in {READERS!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_no_two_library_files_share_a_name():
    stems = Counter(path.stem for module, path in FILES.items() if not module.startswith("scripts."))
    shared = {stem for stem, count in stems.items() if count > 1 and stem != "__init__"}
    assert shared == set(SHARED_STEMS)


def test_no_two_classes_share_a_name():
    classes = Counter(node.name for tree in TREES.values() for node in ast.walk(tree) if isinstance(node, ast.ClassDef))
    assert [name for name, count in classes.items() if count > 1] == []


def functions(module: str) -> Iterator[tuple[str, int, int]]:
    """Name, parameters and lines of every function of a module; `self` and `cls` are no parameters."""
    for node in ast.walk(TREES[module]):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            given = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
            parameters = [argument.arg for argument in given if argument.arg not in ("self", "cls")]
            yield f"{module}.{node.name}", len(parameters), node.end_lineno - node.lineno + 1


def test_functions_have_one_job():
    large = {
        name
        for module in FILES
        for name, parameters, lines in functions(module)
        if parameters > LIMIT_OF_PARAMETERS or lines > LIMIT_OF_LINES
    }
    assert large == set(LARGE_FUNCTIONS)


def test_tests_lie_in_the_librarys_folders():
    places = {path.parent.relative_to(ROOT / "tests") for path in (ROOT / "tests").rglob("test_*.py")}
    homes = (ROOT / "guided_diffusion", ROOT)
    assert [place for place in places if not any((home / place).is_dir() for home in homes)] == []
