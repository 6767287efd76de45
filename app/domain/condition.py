"""Reads a condition: checks its length and depth, and finds its names and unquoted strings.

A condition is a CEL expression (https://cel.dev), which ``app.conditions`` compiles and evaluates.
This module works without CEL. In one pass over the words of the condition, the module checks the
length and the depth. In the same pass, the module finds the agents and the keys of the context that
the condition reads, and refuses unknown names. If a word is not a name and is compared with a name
by ``==`` or ``!=``, the word is a string, such as ``positive`` in ``sentiment == positive``.
"""

import re
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

from app.domain.prompt import Placeholder
from app.domain.suggestions import did_you_mean, listed, shortened
from app.errors import WorkflowError

MAX_CONDITION_CHARS = 4000
#: Deepest nesting of brackets. The evaluator itself accepts no more than 32 levels of an
#: expression.
MAX_CONDITION_DEPTH = 24
#: Name of the run's input in conditions.
INPUT = "input"

_MACROS = frozenset({"all", "exists", "exists_one", "map", "filter"})
_KEYWORDS = frozenset({"true", "false", "null", "in"})
_TYPES = frozenset(
    {"bool", "bytes", "double", "duration", "int", "list", "map", "null_type", "string"}
    | {"timestamp", "type", "uint"}
)
_RESERVED = frozenset(
    {"as", "break", "const", "continue", "else", "for", "function", "if", "import", "let", "loop"}
    | {"package", "namespace", "return", "var", "void", "while"}
)
_TOKEN = re.compile(
    r"""(?P<space>\s++|//[^\n]*+)
    |(?P<text>[rRbB]{0,2}(?:\"\"\"(?:[^\\"]|\\.|\"(?!\"\"))*+\"\"\"|'''(?:[^\\']|\\.|'(?!''))*+'''
        |"(?:[^"\\\n]|\\.)*+"|'(?:[^'\\\n]|\\.)*+'))
    |(?P<number>(?:[0-9]|\.[0-9])[0-9a-zA-Z_.]*+(?:(?<=[eE])[-+][0-9]++)?)
    |(?P<word>[A-Za-z_][A-Za-z0-9_]*+)
    |(?P<quoted>`[^`\n]*+`)
    |(?P<sign>==|!=|<=|>=|&&|\|\||[-+*/%!<>?:.,()\[\]{}])""",
    re.VERBOSE | re.DOTALL,
)
# These methods of times take a time zone.
_IN_ZONES = frozenset(
    {"getDate", "getDayOfMonth", "getDayOfWeek", "getDayOfYear", "getFullYear", "getHours"}
    | {"getMilliseconds", "getMinutes", "getMonth", "getSeconds"}
)
_ZONE = re.compile(
    r"""(?P<quote>["'])(?:[-+]?[0-9]{2}:[0-9]{2}|[A-Za-z][\w+-]{0,31}(?:/[A-Za-z][\w+-]{0,31}){0,2})
    (?P=quote)""",
    re.VERBOSE | re.ASCII,
)
_OPEN = {"(": ")", "[": "]", "{": "}"}
_ENDS_OPERAND = frozenset({"", ")", "]", "}", "&&", "||", "?", ":", ","})
_STARTS_OPERAND = frozenset({"", "(", "[", "{", "&&", "||", "!", "?", ":", ","})
_BETWEEN_SIDES = frozenset({"==", "!=", "<", "<=", ">", ">=", "&&", "||", "?", ":", ","})


@dataclass(frozen=True, kw_only=True, slots=True)
class Condition:
    """A condition in which every name is known.

    Attributes:
        text: The condition as it was written.
        agents: Names of the agents whose outputs the condition reads.
        keys: Keys of the context that the condition reads.
        reads_input: Whether the condition reads the run's input.
        elements: Names of the element of a for_each that the condition reads, such as ``item``. A
            condition with such a name is evaluated for each element.
        words: Words that count as strings although they have no quotes.
        aliases: (variable, name of the agent) for each agent in ``agents``. The variable differs
            from the name if the name contains a ``-``, because a variable of CEL cannot contain a
            ``-``.
        entered: Variables from which the condition reads a part, such as a field. If the value of
            such a variable is a string that contains JSON, the string is parsed.
        loops: Whether the condition has a macro or a pattern. The length of the condition does not
            show the time that macros and patterns take.
    """

    text: str
    agents: frozenset[str]
    keys: frozenset[str]
    reads_input: bool
    elements: frozenset[str]
    words: frozenset[str]
    aliases: tuple[tuple[str, str], ...]
    entered: frozenset[str]
    loops: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class _Token:
    kind: str
    text: str
    at: int


def read_condition(
    text: object,
    *,
    agents: Iterable[str],
    keys: Iterable[str],
    own: str = "",
    elements: Iterable[str] = (),
) -> Condition:
    """Read a condition.

    Args:
        text: The expression.
        agents: Names of the workflow's agents.
        keys: Keys of the context that the workflow's agents write.
        own: Name of the agent with this condition. Error messages do not suggest this name.
        elements: Names of the element, which take precedence over the names of agents.

    Raises:
        WorkflowError: If the condition is too long or nested too deeply, has a wrong character or
            bracket, or uses an unknown name. The message has the position of the wrong part.
    """
    if not isinstance(text, str) or not text.strip():
        raise WorkflowError(f"is {shortened(text)}: give an expression such as input.amount > 100")
    if len(text) > MAX_CONDITION_CHARS:
        raise WorkflowError(
            f"has {len(text):,} characters, the limit is {MAX_CONDITION_CHARS:,}: shorten it"
        )
    tokens = _tokens(text)
    _check_brackets(tokens, text)
    return _Reader(text, tokens, agents, keys, own, elements).read()


def paths_in(text: str) -> list[Placeholder]:
    """Return the paths of a condition that lead from a name into the name's value.

    A path ends before a method, a computed index, or a variable of a macro, because such a part is
    known only when the condition is evaluated. The variables of macros begin no path.
    """
    tokens = [*_tokens(text), *[_Token(kind="end", text="", at=len(text))] * 3]
    variables = {
        tokens[at + 2].text
        for at, token in enumerate(tokens)
        if token.text in _MACROS and tokens[at + 1].text == "("
    }
    found = []
    for at, token in enumerate(tokens):
        is_name = token.kind == "word" and (not at or tokens[at - 1].text != ".")
        if is_name and token.text not in variables:
            path, end = _path_at(tokens, at + 1)
            if path:
                written = text[token.at : tokens[end].at].strip()
                found.append(Placeholder(root=token.text, path=path, text=written))
    return found


def _path_at(tokens: Sequence[_Token], at: int) -> tuple[tuple[str | int, ...], int]:
    """Return the keys and indices from a token on, and the index of the token behind them."""
    path: list[str | int] = []
    while True:
        sign, part, after = tokens[at : at + 3]
        if sign.text == "." and part.kind in ("word", "quoted") and after.text != "(":
            path.append(part.text.strip("`"))
            at += 2
        elif sign.text == "[" and after.text == "]" and part.text.isdecimal():
            path.append(int(part.text[:9]))
            at += 3
        else:
            return tuple(path), at


def _tokens(text: str) -> list[_Token]:
    tokens = []
    at = 0
    while at < len(text):
        match = _TOKEN.match(text, at)
        if match is None:
            raise _refused(text, at, f"{text[at]!r} is not allowed in an expression")
        if match.lastgroup != "space":
            tokens.append(_Token(kind=str(match.lastgroup), text=match.group(), at=at))
        at = match.end()
    return tokens


def _check_brackets(tokens: Collection[_Token], text: str) -> None:
    awaited: list[tuple[str, int]] = []
    for token in tokens:
        if token.kind != "sign":
            continue
        if token.text in _OPEN:
            awaited.append((_OPEN[token.text], token.at))
            if len(awaited) > MAX_CONDITION_DEPTH:
                raise _refused(
                    text, token.at, f"brackets are nested more than {MAX_CONDITION_DEPTH} deep"
                )
        elif token.text in _OPEN.values() and (not awaited or awaited.pop()[0] != token.text):
            raise _refused(text, token.at, f"{token.text!r} closes no bracket")
    if awaited:
        closing, at = awaited[-1]
        raise _refused(text, at, f"this bracket is not closed: add {closing!r}")


class _Reader:
    """Goes over the tokens of one condition and finds the meaning of each word."""

    def __init__(
        self,
        text: str,
        tokens: list[_Token],
        agents: Iterable[str],
        keys: Iterable[str],
        own: str,
        elements: Iterable[str],
    ) -> None:
        self._text = text
        self._tokens = tokens
        self._keys = frozenset(keys)
        self._own = own
        self._elements = frozenset(elements)
        names = frozenset(agents) - self._elements
        self._agent_of = {name.replace("-", "_"): name for name in names if "-" in name}
        self._agent_of |= {name: name for name in names}
        self._used: set[str] = set()
        self._entered: set[str] = set()
        self._words: set[str] = set()
        self._loops = False
        # The variables of macros, each with the index of the last token that can use the variable.
        self._bound: list[tuple[str, int]] = []

    def read(self) -> Condition:
        for index, token in enumerate(self._tokens):
            if token.kind != "word" or token.text in _KEYWORDS:
                continue
            called = self._sign(index + 1) == "("
            if called or self._sign(index - 1) == ".":
                self._note_function(token, index, called=called)
            elif not self._is_bound(token, index):
                self._note_name(token, index)
        used, agent_of = self._used, self._agent_of
        aliases = sorted((name, agent_of[name]) for name in used if name in agent_of)
        return Condition(
            text=self._text,
            agents=frozenset(agent for _, agent in aliases),
            keys=frozenset(used & self._keys),
            reads_input=INPUT in used,
            elements=frozenset(used & self._elements),
            words=frozenset(self._words),
            aliases=tuple(aliases),
            entered=frozenset(self._entered),
            loops=self._loops,
        )

    def _note_function(self, token: _Token, index: int, *, called: bool) -> None:
        """Note a macro or a pattern; fields and other functions do not matter here."""
        if not called:
            return
        if token.text in _MACROS and self._sign(index - 1) == ".":
            self._bind(index)
            self._loops = True
        elif token.text == "matches":
            self._loops = True
        elif token.text in _IN_ZONES:
            self._check_zone(index + 2)

    def _check_zone(self, index: int) -> None:
        """Refuse a time zone that is not the plain name of one.

        CEL opens the file that a name such as ``file:/dev/stdin`` or ``/etc/localtime`` means, and
        waits for this file.
        """
        is_zone = _ZONE.fullmatch(self._tokens[index].text) and self._sign(index + 1) == ")"
        if self._sign(index) != ")" and not is_zone:
            raise _refused(
                self._text,
                self._tokens[index].at,
                'a time zone is a text such as "Europe/Berlin" or "+09:00"',
            )

    def _note_name(self, token: _Token, index: int) -> None:
        if self._is_known(token.text):
            self._used.add(token.text)
            if self._is_entered(index):
                self._entered.add(token.text)
        elif token.text in _TYPES:
            return
        elif token.text not in _RESERVED and self._is_compared(index):
            self._words.add(token.text)
        else:
            raise self._unknown_name(token)

    def _sign(self, index: int) -> str:
        """Return the sign at an index.

        If the index is outside the tokens, the sign is empty. If the token is no sign, the sign is
        a space.
        """
        if not 0 <= index < len(self._tokens):
            return ""
        token = self._tokens[index]
        return token.text if token.kind == "sign" else " "

    def _is_known(self, name: str) -> bool:
        return (
            name == INPUT or name in self._agent_of or name in self._keys or name in self._elements
        )

    def _is_bound(self, token: _Token, index: int) -> bool:
        self._bound = [bound for bound in self._bound if bound[1] > index]
        return any(name == token.text for name, _ in self._bound)

    def _bind(self, index: int) -> None:
        """Note the variable of a macro; the variable is the first argument of the macro."""
        first = index + 2
        if first < len(self._tokens) and self._tokens[first].kind == "word":
            depth, end = 0, index + 1
            while True:
                depth += (self._sign(end) in _OPEN) - (self._sign(end) in _OPEN.values())
                if not depth:
                    break
                end += 1
            self._bound.append((self._tokens[first].text, end))

    def _is_entered(self, index: int) -> bool:
        """Whether a field or an index of the variable follows; a method does not count."""
        if self._sign(index + 1) == "[":
            return True
        return self._sign(index + 1) == "." and self._sign(index + 3) != "("

    def _is_compared(self, index: int) -> bool:
        """Whether a word is one whole side of ``==`` or ``!=`` while the other side has a name.

        A comparison of a string with a literal would always have the same result. So if the other
        side is a literal, the word counts as a mistyped name.
        """
        before, after = self._sign(index - 1), self._sign(index + 1)
        if before in ("==", "!=") and after in _ENDS_OPERAND:
            return self._has_name(index - 2, -1)
        if after in ("==", "!=") and before in _STARTS_OPERAND:
            return self._has_name(index + 2, 1)
        return False

    def _has_name(self, index: int, step: int) -> bool:
        """Whether the side of a comparison has a known name; ``step`` is -1 for the left side."""
        depth = 0
        while 0 <= index < len(self._tokens):
            token, sign = self._tokens[index], self._sign(index)
            depth += step * ((sign in _OPEN) - (sign in _OPEN.values()))
            if depth < 0 or (not depth and (sign in _BETWEEN_SIDES or token.text == "in")):
                return False
            is_name = token.kind == "word" and self._sign(index - 1) != "."
            if is_name and (self._is_known(token.text) or self._is_bound(token, index)):
                return True
            index += step
        return False

    def _unknown_name(self, token: _Token) -> WorkflowError:
        others = sorted(name for name, agent in self._agent_of.items() if agent != self._own)
        known = [INPUT, *sorted(self._elements), *others, *sorted(self._keys)]
        if token.text in _RESERVED:
            return _refused(self._text, token.at, f"{token.text!r} is a reserved word of CEL")
        return _refused(
            self._text,
            token.at,
            f"there is no {token.text!r}; there is {listed(known)}"
            f"{did_you_mean(token.text, [*known, *sorted(_KEYWORDS)])}",
        )


def _refused(text: str, at: int, problem: str) -> WorkflowError:
    return WorkflowError(f"is refused: {problem} ({place_of(text, at)})")


def place_of(text: str, at: int) -> str:
    """Describe a position in an expression: character, and line if there are several lines."""
    line = text.count("\n", 0, at) + 1
    column = at - (text.rfind("\n", 0, at) + 1) + 1
    return f"character {column}" + (f" of line {line}" if "\n" in text else "")
