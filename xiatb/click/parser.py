"""Tokens of the Click language -> syntax tree.

A statement that cannot be read is reported and skipped up to the next `;` or closing brace, so one run
finds the errors of all statements.
"""

from __future__ import annotations

from xiatb.click.args import split, unquote
from xiatb.click.errors import ConfigError, Location, Problems
from xiatb.click.lexer import CONFIG, EOF, IDENT, VARIABLE, Token, tokenize
from xiatb.click.syntax import (
    Chain,
    ClassRef,
    Compound,
    Config,
    Declaration,
    Endpoint,
    Formal,
    Scope,
)

MAX_DEPTH = 64
_KEYWORDS = ("elementclass", "require", "define", "provide")
_FEATURES = ("xiatb", "xia", "userlevel")


class _Unreadable(Exception):
    """Inside the parser only: the present statement cannot be read; already reported."""


class Parser:
    """Reads one file. `requires` are the library files that it names, with the place of naming."""

    def __init__(self, text: str, filename: str, problems: Problems) -> None:
        self.problems = problems
        self.tokens = tokenize(text, filename, problems)
        self.at = 0
        self.depth = 0
        self.requires: list[tuple[str, Location]] = []

    def parse(self) -> Scope:
        """The whole file as a scope; errors are in `problems`."""
        scope = Scope(self.tokens[0].where)
        self._statements(scope, outermost=True)
        return scope

    # -- tokens ---------------------------------------------------------------------------------
    @property
    def token(self) -> Token:
        """The token at hand."""
        return self.tokens[self.at]

    def _take(self) -> Token:
        token = self.tokens[self.at]
        if token.kind != EOF:
            self.at += 1
        return token

    def _accept(self, kind: str) -> Token | None:
        return self._take() if self.token.kind == kind else None

    def _fail(self, expected: str) -> _Unreadable:
        self.problems.add(self.token.where, f"expected {expected}, found {self.token.describe()}")
        return _Unreadable()

    def _expect(self, kind: str, expected: str = "") -> Token:
        token = self._accept(kind)
        if token is None:
            raise self._fail(expected or f"'{kind}'")
        return token

    def _skip_statement(self) -> None:
        """After an error: on to the next statement of the same pair of braces."""
        depth = 0
        while self.token.kind != EOF:
            kind = self.token.kind
            if depth == 0 and kind in ("}", "||"):
                return
            self._take()
            if kind == "{":
                depth += 1
            elif kind == "}":
                depth -= 1
            elif kind == ";" and depth == 0:
                return

    # -- statements -----------------------------------------------------------------------------
    def _statements(self, scope: Scope, outermost: bool = False) -> None:
        while self.token.kind != EOF:
            if self.token.kind in ("}", "||"):
                if not outermost:
                    return
                self.problems.add(self.token.where, f"{self.token.describe()} closes nothing")
                self._take()
                continue
            if self._accept(";"):
                continue
            try:
                self._statement(scope)
            except _Unreadable:
                self._skip_statement()

    def _statement(self, scope: Scope) -> None:
        word = self.token.text if self.token.kind == IDENT else ""
        follower = self.tokens[min(self.at + 1, len(self.tokens) - 1)].kind
        if word == "elementclass":
            self._elementclass(scope)
        elif word in ("require", "define", "provide") and follower == CONFIG:
            self._take()
            config = self._take()
            getattr(self, f"_{word}")(scope, config)
        else:
            self._chain(scope)
        if self.token.kind not in (";", "}", "||", EOF) and word not in _KEYWORDS:
            raise self._fail("'->' or ';'")

    def _elementclass(self, scope: Scope) -> None:
        self._take()
        name = self._expect(IDENT, "the name of the new element class")
        scope.classes.append((name.text, self._class(), name.where))

    def _require(self, scope: Scope, config: Token) -> None:
        for argument in split(config.text, _inside(config)):
            word, _, rest = argument.text.partition(" ")
            if word == "library":
                self.requires.append((_plain(rest.strip()), argument.where))
            elif word not in _FEATURES and word not in ("package", "version"):
                self.problems.add(argument.where, f"cannot satisfy requirement '{argument.text}'")

    def _define(self, scope: Scope, config: Token) -> None:
        for argument in split(config.text, _inside(config)):
            name, _, value = argument.text.partition(" ")
            if not name.startswith("$") or len(name) < 2:
                self.problems.add(argument.where, f"expected '$NAME value', found '{argument.text}'")
            else:
                scope.defines.append((name[1:], value.strip(), argument.where))

    def _provide(self, scope: Scope, config: Token) -> None:
        """`provide(word)` tells tools what a file offers; it has no effect here."""

    # -- connections and declarations -----------------------------------------------------------
    def _chain(self, scope: Scope) -> None:
        first = self._stop(scope, lead=True)
        if first is None:
            return
        stops = [first]
        while self._accept("->"):
            stop = self._stop(scope, lead=False)
            if stop is not None:
                stops.append(stop)
        if self.token.kind == "=>":
            raise self._fail("'->' ('=>' is not supported)")
        scope.statements.append(Chain(stops))

    def _stop(self, scope: Scope, lead: bool) -> Endpoint | None:
        """One stop of a chain; None for `a, b :: Class`, which is a declaration only."""
        in_port = self._port()
        start = self.token
        if start.kind == "{" or start.kind == VARIABLE:
            stop = Endpoint("", Declaration("", self._class(), self._config(), start.where), start.where)
        elif start.kind == IDENT and start.text not in _KEYWORDS:
            self._take()
            if self.token.kind == "," and lead:
                self._declare_many(scope, start)
                return None
            stop = self._named(start)
        else:
            raise self._fail("an element")
        stop.in_port = in_port
        stop.out_port = self._port()
        return stop

    def _named(self, name: Token) -> Endpoint:
        if self._accept("::"):
            cls = self._class()
            return Endpoint(name.text, Declaration(name.text, cls, self._config(), name.where), name.where)
        if self.token.kind == CONFIG:
            cls = ClassRef(name.where, name.text)
            return Endpoint("", Declaration("", cls, self._config(), name.where), name.where)
        return Endpoint(name.text, None, name.where)

    def _declare_many(self, scope: Scope, first: Token) -> None:
        names = [first]
        while self._accept(","):
            names.append(self._expect(IDENT, "the name of an element"))
        self._expect("::")
        cls, config = self._class(), self._config()
        for name in names:
            scope.statements.append(Declaration(name.text, cls, config, name.where))

    def _port(self) -> int | None:
        if not self._accept("["):
            return None
        token = self._expect(IDENT, "a port number")
        if not token.text.isdecimal() or int(token.text) > 255:
            self.problems.add(token.where, f"expected a port number, found '{token.text}'")
            raise _Unreadable
        self._expect("]")
        return int(token.text)

    def _config(self) -> Config | None:
        token = self._accept(CONFIG)
        return Config(token.text, _inside(token)) if token else None

    def _class(self) -> ClassRef:
        where = self.token.where
        if self.token.kind == IDENT:
            return ClassRef(where, self._take().text)
        if self.token.kind == VARIABLE:
            return ClassRef(where, self._take().text, variable=True)
        if self.token.kind != "{":
            raise self._fail("an element class or '{'")
        if self.depth >= MAX_DEPTH:
            self.problems.add(where, f"more than {MAX_DEPTH} nested braces")
            raise _Unreadable
        self.depth += 1
        opening = self._take()
        bodies = [self._body()]
        while self._accept("||"):
            bodies.append(self._body())
        self.depth -= 1
        if not self._accept("}"):
            self.problems.add(opening.where, "this brace is never closed (expected '}')")
            raise _Unreadable
        return ClassRef(where, compound=Compound(bodies))

    def _body(self) -> Scope:
        scope = Scope(self.token.where)
        try:
            self._formals(scope)
        except _Unreadable:
            self._skip_statement()
        self._statements(scope)
        return scope

    def _formals(self, scope: Scope) -> None:
        """`$a, KEYWORD $b |` at the start of a compound, when it is there."""
        at = self.at
        while self.tokens[at].kind in (IDENT, VARIABLE, ","):
            at += 1
        if self.tokens[at].kind != "|":
            return
        while self.token.kind != "|":
            keyword = self._accept(IDENT)
            name = self._expect(VARIABLE, "a parameter, '$NAME'")
            if any(formal.name == name.text for formal in scope.formals):
                self.problems.add(name.where, f"parameter ${name.text} is named twice")
            scope.formals.append(Formal(name.text, keyword.text if keyword else "", name.where))
            if self.token.kind != "|":
                self._expect(",", "',' or '|'")
                if self.token.kind == "|":
                    raise self._fail("a parameter, '$NAME'")
        self._take()


def _plain(text: str) -> str:
    """A file name without its quotes."""
    try:
        return unquote(text)
    except ConfigError:
        return text


def _inside(config: Token) -> Location:
    """The place of the first character behind the opening parenthesis."""
    return Location(config.where.file, config.where.line, config.where.column + 1)


def parse(text: str, filename: str, problems: Problems) -> tuple[Scope, list[tuple[str, Location]]]:
    """Parse one file: its scope and the library files it requires. Errors go into `problems`."""
    parser = Parser(text, filename, problems)
    return parser.parse(), parser.requires
