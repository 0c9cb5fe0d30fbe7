"""The product's source files, parsed once."""

import ast
from dataclasses import dataclass
from functools import cache
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parent.parent.parent
PRODUCT = ("config", "db", "tenantsync", "tasks")


@dataclass(frozen=True)
class Source:
    path: Path
    name: str
    """Relative to the checkout, with slashes."""
    text: str
    tree: ast.Module


@cache
def sources(*packages: str) -> tuple[Source, ...]:
    """Python files of these packages (the product's by default), top-level modules of ours included."""
    chosen = packages or PRODUCT
    paths = [path for package in chosen for path in sorted((CHECKOUT / package).rglob("*.py"))]
    if not packages:
        paths += [CHECKOUT / "beat_schedule.py", CHECKOUT / "flowerconfig.py"]
    return tuple(_parsed(path) for path in paths)


def _parsed(path: Path) -> Source:
    text = path.read_text()
    return Source(path, path.relative_to(CHECKOUT).as_posix(), text, ast.parse(text))


def calls(source: Source, *names: str) -> list[int]:
    """Lines of calls whose last name is one of these: `x.commit()` is `commit`."""
    return [
        node.lineno
        for node in ast.walk(source.tree)
        if isinstance(node, ast.Call)
        and (
            (isinstance(node.func, ast.Attribute) and node.func.attr in names)
            or (isinstance(node.func, ast.Name) and node.func.id in names)
        )
    ]


def attributes(source: Source, owner: str, *names: str) -> list[int]:
    """Lines where `owner.name` is used."""
    return [
        node.lineno
        for node in ast.walk(source.tree)
        if isinstance(node, ast.Attribute)
        and node.attr in names
        and isinstance(node.value, ast.Name)
        and node.value.id == owner
    ]
