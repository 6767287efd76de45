"""The names in the sources, the modules that the sources mention, and the prose.

Each piece of text has the number of its first line. Python's own parser reads Python, so that a
word in a message is not a name, and a name in a docstring is prose.
"""

import ast
import io
import re
import tokenize
from collections.abc import Iterator
from typing import Any

import typer

from tests.support.markdown import CODE_SPAN, FENCE

Piece = tuple[int, str]

LUA_COMMENT = re.compile(r"--(.*)")
LUA_STRING = re.compile(r"'[^'\n]*'|\"[^\"\n]*\"")
NAME = re.compile(r"[A-Za-z_]\w*")
WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+")
MODULE = re.compile(r"(?:app|workers|tests)(?:\.\w+)+")
QUOTED = re.compile(r"\"[^\"\n]*\"|“[^”]*”")


def words(name: str) -> str:
    """Return the words of an identifier in any style: ``_OpenGate`` is ``open gate``."""
    return " ".join(WORD.findall(name)).lower()


def python_names(text: str) -> Iterator[Piece]:
    """Yield every identifier that a module defines, uses, imports or passes by keyword."""
    for node in ast.walk(ast.parse(text)):
        match node:
            case ast.Name(id=name) | ast.Attribute(attr=name) | ast.arg(arg=name):
                yield node.lineno, name
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name):
                yield node.lineno, name
            case ast.ClassDef(name=name):
                yield node.lineno, name
            case ast.keyword(arg=str(name)):
                yield node.lineno, name
            case ast.alias():
                yield from ((node.lineno, name) for name in NAME.findall(node.name))
                yield node.lineno, node.asname or ""
            case ast.MatchAs(name=str(name)) | ast.MatchStar(name=str(name)):
                yield node.lineno, name
            case ast.Global() | ast.Nonlocal():
                yield from ((node.lineno, name) for name in node.names)
            case ast.ExceptHandler(name=str(name)):
                yield node.lineno, name


def python_modules(text: str) -> Iterator[Piece]:
    """Yield every imported module, and every string that is the path of a module."""
    for node in ast.walk(ast.parse(text)):
        match node:
            case ast.Import():
                yield from ((node.lineno, alias.name) for alias in node.names)
            case ast.ImportFrom(module=str(module)):
                yield node.lineno, module
                yield from ((node.lineno, f"{module}.{alias.name}") for alias in node.names)
            case ast.Constant(value=str(value)) if MODULE.fullmatch(value):
                yield node.lineno, value


def python_prose(text: str) -> Iterator[Piece]:
    """Yield docstrings, also of attributes, and comments."""
    for node in ast.walk(ast.parse(text)):
        match node:
            case ast.Expr(value=ast.Constant(value=str(value))):
                yield node.lineno, value
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type == tokenize.COMMENT:
            yield token.start[0], token.string


def lua_names(text: str) -> Iterator[Piece]:
    for number, line in enumerate(text.splitlines(), 1):
        code = LUA_STRING.sub("", LUA_COMMENT.sub("", line))
        yield from ((number, name) for name in NAME.findall(code))


def lua_prose(text: str) -> Iterator[Piece]:
    for number, line in enumerate(text.splitlines(), 1):
        yield from ((number, comment) for comment in LUA_COMMENT.findall(line))


def markdown_names(text: str) -> Iterator[Piece]:
    """Yield the identifiers in code spans and code blocks."""
    for pattern, group in ((FENCE, 2), (CODE_SPAN, 1)):
        for match in pattern.finditer(text):
            for name in NAME.finditer(match[group]):
                number = text.count("\n", 0, match.start(group) + name.start()) + 1
                yield number, name[0]


def markdown_prose(text: str) -> Iterator[Piece]:
    """Yield the text without code."""
    plain = FENCE.sub(lambda match: "\n" * match[0].count("\n"), text)
    for number, line in enumerate(plain.splitlines(), 1):
        yield number, CODE_SPAN.sub("", line)


def helps() -> dict[str, str]:
    """Return the text of ``--help``, by command."""
    from app.cli.application import create

    found: dict[str, str] = {}

    def visit(command: Any, context: Any) -> None:
        found[context.command_path] = command.get_help(context)
        for name in command.list_commands(context) if hasattr(command, "list_commands") else ():
            _, inner, _ = command.resolve_command(context, [name])
            visit(inner, typer.Context(inner, info_name=name, parent=context))

    command = typer.main.get_command(create())
    visit(command, typer.Context(command, info_name="agentchord"))
    return found
