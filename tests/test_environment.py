"""The conda environment and the lock must not drift apart, and must hold all that the code imports."""

import ast
import re
import sys
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
OWN = {"guided_diffusion", "evaluation", "scripts", "tests", "conftest"}


def conda_pins():
    text = (ROOT / "environment.yml").read_text()
    pip_section = re.search(r"^  - pip:\n((?:      - .*\n?)+)\Z", text, flags=re.MULTILINE)
    return [line.strip().removeprefix("- ") for line in pip_section[1].splitlines()]


def lock_pins():
    lines = (ROOT / ".requirements.lock").read_text().splitlines()
    return [line for line in lines if line and not line.startswith("#")]


def test_environment_has_the_pins_of_the_lock_and_the_mpich_of_the_makefile():
    mpich = re.search(r"^MPICH := (mpich==\S+)$", (ROOT / "Makefile").read_text(), flags=re.MULTILINE)[1]
    assert conda_pins() == [*lock_pins(), mpich]
    assert "torch==2.13.0" in lock_pins()


def test_cleaning_keeps_results():
    """`results/` is where scripts/test.py writes by default: hours of work of the user."""
    rule = (ROOT / "Makefile").read_text().partition("\nclean:\n")[2]
    assert rule.startswith("\trm -rf ")
    assert "results" not in rule


def test_every_pin_is_exact():
    for pin in conda_pins():
        assert re.fullmatch(r"[A-Za-z0-9_.-]+==[0-9][0-9a-z.]*", pin), pin


def test_environment_name_and_python():
    lines = (ROOT / "environment.yml").read_text().splitlines()
    assert "name: PET-3D-DDPM" in lines
    assert "  - python=3.11" in lines


def imported_modules(path):
    for node in ast.walk(ast.parse(path.read_text(), str(path))):
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            yield node.module.split(".")[0]


@pytest.mark.parametrize("folder", ["guided_diffusion", "evaluation", "scripts", "tests"])
def test_every_import_is_pinned(folder):
    pinned = {canonical(pin.split("==")[0]) for pin in lock_pins()}
    distributions = packages_distributions()
    for path in (ROOT / folder).rglob("*.py"):
        for module in set(imported_modules(path)) - OWN - set(sys.stdlib_module_names):
            assert pinned & {canonical(name) for name in distributions.get(module, [module])}, f"{path}: {module}"


def canonical(name):
    """A distribution's name as PEP 503 normalises it."""
    return re.sub(r"[-_.]+", "-", name).lower()
