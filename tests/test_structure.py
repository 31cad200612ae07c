"""Imports between packages follow their layers, and files and functions stay small."""

import ast
import pathlib

import pytest

ROOT = pathlib.Path(__file__).parents[1]
LAYERS = [
    {'core'},
    {'modeling', 'data', 'optim'},
    {'tasks', 'interop'},
    {'train'},
    {'evals', 'planning'},
    {'experiments', 'benchmarks'},
    {'reports'},
    {'studies'},
    {'bin'},
]
LAYER = {package: i for i, packages in enumerate(LAYERS) for package in packages}
FILES = sorted(path for top in ('bert_jax', 'configs') for path in (ROOT / top).rglob('*.py'))
CODE = [path for path in FILES if path != ROOT / 'bert_jax/__init__.py']
each_file = pytest.mark.parametrize('path', CODE, ids=lambda path: str(path.relative_to(ROOT)))


def read_imports(path):
    """Yield the full dotted names that a file imports, also inside functions."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f'{path} has a relative import'
            yield from (f'{node.module}.{alias.name}' for alias in node.names)


@each_file
def test_imports_are_from_lower_layers(path):
    top, package = (*path.relative_to(ROOT).with_suffix('').parts, '')[:2]
    for name in read_imports(path):
        root, imported = (*name.split('.'), '')[:2]
        if top == 'configs':
            assert root in ('ml_collections', 'configs'), name
        elif root == 'bert_jax':
            assert imported == package or LAYER[imported] < LAYER[package], name
        else:
            assert root != 'configs', name
            assert package != 'data' or root not in ('jax', 'flax'), (
                f'{name}: the data package uses only NumPy'
            )


@each_file
def test_files_and_functions_are_small(path):
    lines = path.read_text().count('\n')
    assert lines < (250 if path.parent.name == 'modeling' else 500)
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef):
            assert node.end_lineno - node.lineno + 1 < 80, node.name


def test_every_package_is_in_a_layer():
    packages = {
        path.relative_to(ROOT / 'bert_jax').parts[0].removesuffix('.py')
        for path in FILES
        if path.is_relative_to(ROOT / 'bert_jax')
    }
    assert packages - {'__init__'} <= set(LAYER)
