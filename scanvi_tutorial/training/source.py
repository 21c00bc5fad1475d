"""A digest of the code that made a result, so that the result is kept as long as that code stays.

Fits (cache.py), chapters of the book and the rows of `benchmarks/grid.py` are kept under such a digest. It covers the
modules that are named and all modules of the package that these import. Comments, docstrings and the layout of lines
do not count. Needs the standard library alone, and runs nothing of what it reads.
"""

from __future__ import annotations

import ast
import hashlib
from functools import cache
from importlib.util import resolve_name
from pathlib import Path

__all__ = ["code_digest", "module_file", "names_in"]

PACKAGE = Path(__file__).resolve().parents[1]


def code_digest(*modules: str | Path, package: Path = PACKAGE) -> str:
    """Return a digest of modules and of every module of the package that they import, directly or not.

    An `__init__.py` that only imports is looked through: a name taken from it leads to the module that defines the
    name, and the other imports do not count. A file of another kind (a style, a template) counts with the modules that
    name it in a string.

    Args:
        modules: Full names such as "scanvi_tutorial.training.loop", or names in a module, as `names_in` returns them;
            a path for a script that is outside the package.
        package: Folder of the package.

    Raises:
        ValueError: Where a name is of another package.
    """
    other_files = [path for path in sorted(package.rglob("*")) if path.suffix not in {"", ".py", ".pyc"}]
    digest = hashlib.sha256()
    for path, (code, strings, _) in sorted(_reached(modules, package).items()):
        parts = [path.relative_to(package).as_posix() if path.is_relative_to(package) else path.name, code]
        parts += [other.read_text(encoding="utf-8") for other in other_files if other.name in strings]
        digest.update("".join(f"{part}\0" for part in parts).encode())
    return digest.hexdigest()[:24]


def names_in(code: ast.AST, *parts: ast.AST, package: str = "scanvi_tutorial", inside: str = "") -> set[str]:
    """Return what code takes from a package: with `import package as p` and `p.a.b`, the name "package.a.b".

    A name that is imported and not used counts too. A package that is used otherwise than by its attributes is
    returned as itself, which means all of it.

    Args:
        code: Where imports are looked for, inside functions too.
        parts: Where uses are looked for; all of `code` if there are none.
        package: Name of the package.
        inside: Full name of the package that the code lies in, for relative imports.
    """
    imported: dict[str, set[str]] = {}
    found = set()
    for node in ast.walk(code):
        if isinstance(node, ast.Import):
            for alias in node.names:
                name = alias.name if alias.asname else alias.name.partition(".")[0]
                imported.setdefault(alias.asname or name, set()).add(name)
                if name != alias.name and not parts:
                    found.add(alias.name)
        elif isinstance(node, ast.ImportFrom):
            module = resolve_name("." * node.level + (node.module or ""), inside or None)
            for alias in node.names:
                name = module if alias.name == "*" else f"{module}.{alias.name}"
                imported.setdefault(alias.asname or alias.name, set()).add(name)
    uses = {use for part in parts or (code,) for use in _dotted(part)}
    for alias, names in imported.items():
        tails = [use[len(alias) :] for use in uses if use == alias or use.startswith(f"{alias}.")]
        found |= {name + tail for name in names for tail in tails or ([] if parts else [""])}
    return {name for name in found if name == package or name.startswith(f"{package}.")}


def module_file(name: str, package: Path = PACKAGE) -> Path:
    """Return the file of a module, or of the module that defines a name, looking through faces of folders.

    Raises:
        ValueError: Where the name is of another package.
    """
    root, *rest = name.split(".")
    if root != package.name:
        raise ValueError(f"{name} is not in the package {package.name}: give full names, as {package.name}.config.")
    folder = package
    while rest and (folder / rest[0]).is_dir():
        folder /= rest.pop(0)
    if rest and (folder / f"{rest[0]}.py").is_file():
        return folder / f"{rest[0]}.py"
    face = folder / "__init__.py"
    tree = _parsed(face)
    if rest and all(_imports_or_lists(node) for node in tree.body):
        inside = ".".join([package.name, *folder.relative_to(package).parts])
        for node in tree.body:
            if isinstance(node, ast.ImportFrom):
                for alias in node.names:
                    if rest[0] == (alias.asname or alias.name):
                        module = resolve_name("." * node.level + (node.module or ""), inside)
                        return module_file(".".join([module, alias.name, *rest[1:]]), package)
    return face


def _reached(modules: tuple[str | Path, ...], package: Path) -> dict[Path, tuple[str, set[str], set[str]]]:
    """Return, for the files of what is named and of all that it imports, what `_read` says of them."""
    reached = {}
    left = [module if isinstance(module, Path) else module_file(module, package) for module in modules]
    while left:
        path = left.pop()
        if path not in reached:
            within = path.is_relative_to(package)
            inside = ".".join([package.name, *path.parent.relative_to(package).parts]) if within else ""
            reached[path] = _read(path.read_text(encoding="utf-8"), package.name, inside)
            left += [module_file(name, package) for name in reached[path][2]]
    return reached


@cache  # a chapter fits many models, and the files stay
def _read(text: str, package: str, inside: str) -> tuple[str, set[str], set[str]]:
    """Return the code of a module, the strings in it, and the names that it takes from the package."""
    tree = _tree(text)
    strings = {str(node.value) for node in ast.walk(tree) if isinstance(node, ast.Constant)}
    return ast.unparse(tree), strings, names_in(tree, package=package, inside=inside)


def _parsed(path: Path) -> ast.Module:
    return _tree(path.read_text(encoding="utf-8"))


@cache
def _tree(text: str) -> ast.Module:
    return _WithoutDocstrings().visit(ast.parse(text))


def _imports_or_lists(node: ast.stmt) -> bool:
    """Say whether a statement imports, or lists names in `__all__`."""
    if isinstance(node, ast.Assign):
        return ast.unparse(node.targets[0]) == "__all__"
    return isinstance(node, ast.Import | ast.ImportFrom)


def _dotted(code: ast.AST) -> set[str]:
    """Return names with their attributes, each as long as it is written: "st.evaluation.scores", and not "st"."""
    if isinstance(code, ast.Name):
        return {code.id}
    if isinstance(code, ast.Attribute):
        chain = ast.unparse(code)
        if isinstance(_base(code), ast.Name):
            return {chain}
    return {name for child in ast.iter_child_nodes(code) for name in _dotted(child)}


def _base(node: ast.expr) -> ast.expr:
    return _base(node.value) if isinstance(node, ast.Attribute) else node


class _WithoutDocstrings(ast.NodeTransformer):
    def visit_Expr(self, node: ast.Expr) -> ast.Expr | None:
        return None if isinstance(node.value, ast.Constant) else node
