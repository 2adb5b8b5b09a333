"""Text forms of DAG addresses: DAG, RE and URL (xia-core api/dagaddr/cpp/dagaddr.cpp).

    dagform = "DAG" *index "-" *( xid *index "-" ) xid       entry edges, then a line per node
    reform  = "RE" *( [ "(" 1*xid ")" ] xid )                a group is the fallback to what follows
    url     = "http://" dagform with " " as "." and ":" as "$"

Any run of white space separates. xia-core validates nothing; here every error names its place.
"""

from __future__ import annotations

import re

from xiatb.errors import WireError
from xiatb.wire.dag import DAG
from xiatb.wire.xid import XID

_URL = "http://"
_DAG_TOKEN = re.compile(r"[^\s-]+|-")
_RE_TOKEN = re.compile(r"[()]|[^\s()]+")
_INDEX = re.compile(r"\d{1,3}")
_MAX_TEXT = 4096

Token = tuple[str, int]


def parse(text: str) -> DAG:
    """Return the DAG of any of the three forms.

    Raises WireError that names the character (from 0) or the node which is wrong.
    """
    if len(text) > _MAX_TEXT:
        raise WireError(f"a DAG text has at most {_MAX_TEXT} characters, not {len(text)}")
    body = text.lstrip()
    at = len(text) - len(body)
    if body.startswith(_URL):
        form = " " * (at + len(_URL)) + body[len(_URL) :].replace(".", " ").replace("$", ":")
        return _parse_dag(form)
    if body.startswith("DAG"):
        return _parse_dag(text)
    if body.startswith("RE"):
        return _parse_re(text)
    raise WireError(f"improperly formatted address at character {at}: expected DAG, RE or {_URL}DAG")


def _tokens(pattern: re.Pattern[str], text: str) -> list[Token]:
    return [(match.group(), match.start()) for match in pattern.finditer(text)]


def _parse_dag(text: str) -> DAG:
    """Parse the DAG form; positions are those of `text`."""
    tokens = _tokens(_DAG_TOKEN, text)
    if not tokens or tokens[0][0] != "DAG":
        where = tokens[0][1] if tokens else len(text)
        raise WireError(f"expected DAG at character {where}")
    entry, at = _indices(tokens, 1)
    if at == len(tokens):
        raise WireError(f"expected '-' behind the entry edges at character {len(text)}")
    nodes: list[XID] = []
    rows: list[list[int]] = []
    while True:
        at += 1
        if at >= len(tokens):
            raise WireError(f"expected an XID at character {len(text)}")
        nodes.append(XID.parse(*tokens[at]))
        row, at = _indices(tokens, at + 1)
        rows.append(row)
        if at == len(tokens):
            return DAG(nodes, rows, entry)


def _indices(tokens: list[Token], at: int) -> tuple[list[int], int]:
    """Return the indices from token `at` up to the next '-' or the end, and where that is."""
    row: list[int] = []
    while at < len(tokens) and tokens[at][0] != "-":
        word, place = tokens[at]
        if not _INDEX.fullmatch(word):
            raise WireError(f"expected a node index or '-' at character {place}, got {word[:60]!r}")
        row.append(int(word))
        at += 1
    return row, at


def _parse_re(text: str) -> DAG:
    """Parse the RE form; positions are those of `text`."""
    tokens = _tokens(_RE_TOKEN, text)
    if tokens[0][0] != "RE":
        raise WireError(f"expected RE at character {tokens[0][1]}")
    nodes: list[XID] = []
    rows: list[list[int]] = []
    entry: list[int] = []
    tail = entry
    at = 1
    while at < len(tokens):
        group: list[int] = []
        if tokens[at][0] == "(":
            at = _group(tokens, at + 1, len(text), nodes, rows, group)
        if at == len(tokens):
            raise WireError(f"expected an XID behind the group at character {len(text)}")
        index = _add(tokens[at], nodes, rows)
        tail.append(index)
        if group:
            tail.append(group[0])
            for here, following in zip(group, [*group[1:], index], strict=True):
                rows[here].append(following)
        tail = rows[index]
        at += 1
    if not nodes:
        raise WireError(f"expected an XID at character {len(text)}")
    return DAG(nodes, rows, entry)


def _add(token: Token, nodes: list[XID], rows: list[list[int]]) -> int:
    word, place = token
    if word in "()":
        raise WireError(f"expected an XID at character {place}, got {word!r}")
    nodes.append(XID.parse(word, place))
    rows.append([])
    return len(nodes) - 1


def _group(
    tokens: list[Token], at: int, end: int, nodes: list[XID], rows: list[list[int]], group: list[int]
) -> int:
    """Read the XIDs of a group into `group` (node indices); return the token behind the ')'."""
    while at < len(tokens) and tokens[at][0] != ")":
        group.append(_add(tokens[at], nodes, rows))
        at += 1
    if at == len(tokens):
        raise WireError(f"expected ')' at character {end}")
    if not group:
        raise WireError(f"an empty group at character {tokens[at][1]}")
    return at + 1


def dag_form(dag: DAG, newline: str = "\n") -> str:
    """Return the DAG form with `newline` behind each '-' (xia-core: a line feed)."""
    lines = [f"DAG {_row(dag.entry)}- "]
    lines += [f"{xid} {_row(edges)}- " for xid, edges in zip(dag.nodes[:-1], dag.edges[:-1], strict=True)]
    return newline.join([*lines, str(dag.intent)])


def _row(edges: tuple[int, ...]) -> str:
    return "".join(f"{t} " for t in edges)


def url_form(dag: DAG) -> str:
    """Return the URL form."""
    return _URL + dag_form(dag, "").replace(" ", ".").replace(":", "$")


def re_form(dag: DAG) -> str:
    """Return the RE form, or the DAG form on one line when the graph is no chain with groups."""
    words = ["RE"]
    edges = dag.entry
    used = 0
    while edges:
        first, *others = edges
        group = _group_of(dag, others[0], first) if len(others) == 1 else []
        if len(others) > 1 or group is None:
            return dag_form(dag, "")
        if group:
            words += ["(", *(str(dag.nodes[i]) for i in group), ")"]
        words.append(str(dag.nodes[first]))
        used += 1 + len(group)
        edges = dag.edges[first]
    # A node that several groups share would be printed twice and read back as two nodes.
    return " ".join(words) if used == len(dag.nodes) else dag_form(dag, "")


def _group_of(dag: DAG, start: int, goal: int) -> list[int] | None:
    """Return the nodes of the single-edge chain from `start` to `goal`, None when it is none."""
    chain = []
    node = start
    while node != goal:
        chain.append(node)
        if len(dag.edges[node]) != 1:
            return None
        node = dag.edges[node][0]
    return chain or None
