"""The Click language: what is accepted, what it expands to, and what is said about errors."""
# ruff: noqa: E501

from __future__ import annotations

from pathlib import Path

import pytest

from xiatb.click.errors import ClickFileError
from xiatb.click.graph import Router, flatten_text


def flat(text: str, dirs: list[Path] | None = None) -> tuple[dict[str, str], set[tuple[str, int, str, int]]]:
    graph, problems = flatten_text(text, "t.click", dirs)
    assert not problems, problems.lines()
    elements = {
        name: f"{e.class_name}({e.config})" if e.args else e.class_name for name, e in graph.elements.items()
    }
    return elements, {wire[:4] for wire in graph.connections}


def errors(text: str) -> list[str]:
    with pytest.raises(ClickFileError) as caught:
        Router.from_text(text, "t.click")
    assert caught.value.exit_code == 2
    return caught.value.problems


def test_declarations_chains_and_ports() -> None:
    elements, wires = flat("a, b :: Queue(5); Idle -> a -> [1] t :: Tee; t [2] -> b [0] -> [3] t;")
    assert elements == {"a": "Queue(5)", "b": "Queue(5)", "Idle@3": "Idle", "t": "Tee"}
    assert wires == {("Idle@3", 0, "a", 0), ("a", 0, "t", 1), ("t", 2, "b", 0), ("b", 0, "t", 3)}


def test_anonymous_names_do_not_depend_on_what_follows() -> None:
    one, _ = flat("Idle -> Discard; Idle -> Null -> Discard;")
    two, _ = flat("Idle -> Discard; Idle -> Null -> Discard; Idle -> Discard;")
    assert list(one) == ["Idle@1", "Discard@2", "Idle@3", "Null@4", "Discard@5"]
    assert list(two)[:5] == list(one)


def test_use_before_declaration() -> None:
    elements, wires = flat("src -> dst; dst :: Discard; src :: Idle;")
    assert set(elements) == {"src", "dst"}
    assert wires == {("src", 0, "dst", 0)}


def test_comments_and_quotes_in_configurations() -> None:
    graph, problems = flatten_text(
        'p :: Print("a, b) // no comment", /* c, d) */ 10 // end\n, ACTIVE false); // x\nIdle -> p -> Discard;',
        "t",
    )
    assert not problems
    assert [a.text for a in graph.elements["p"].args] == ['"a, b) // no comment"', "10", "ACTIVE false"]
    router = Router.from_text('Idle -> p :: Print("a, b) \\"x\\"\\n", 10) -> Discard;')
    assert router.elements["p"].label == 'a, b) "x"\n'  # type: ignore[attr-defined]


def test_compound_with_parameters() -> None:
    elements, wires = flat(
        "elementclass Buffer { $size, $n | input -> q :: Queue($size) -> output; input[1] -> p :: Paint(${n}0) -> [1] output }\n"
        "i :: Idle -> b :: Buffer(7, 4) -> d :: Discard; i [1] -> [1] b [1] -> e :: Discard;"
    )
    assert elements["b/q"] == "Queue(7)"
    assert elements["b/p"] == "Paint(40)"
    assert ("i", 1, "b/p", 0) in wires
    assert ("b/p", 0, "e", 0) in wires


def test_compounds_nest_and_pass_through() -> None:
    elements, wires = flat(
        "elementclass Wire { input -> output }\n"
        "elementclass Two { input -> Wire -> w :: Wire -> output }\n"
        "Idle -> x :: Two -> { input -> Null -> output } -> Discard;"
    )
    assert elements == {"Idle@1": "Idle", "@3/Null@1": "Null", "Discard@4": "Discard"}
    assert wires == {("Idle@1", 0, "@3/Null@1", 0), ("@3/Null@1", 0, "Discard@4", 0)}


def test_overloads_are_chosen_by_their_arguments() -> None:
    text = (
        "elementclass Q { input -> Queue -> output || $n | input -> Queue($n) -> output "
        "|| $n, MARK $m | input -> Paint($m) -> Queue($n) -> output }\n"
        "Idle -> a :: Q -> Discard; Idle -> b :: Q(9) -> Discard; Idle -> c :: Q(MARK 3, 9) -> Discard;"
    )
    elements, _ = flat(text)
    assert elements["a/Queue@1"] == "Queue"
    assert elements["b/Queue@1"] == "Queue(9)"
    assert elements["c/Paint@1"] == "Paint(3)"
    assert elements["c/Queue@2"] == "Queue(9)"


def test_rest_parameters_and_class_parameters() -> None:
    elements, _ = flat(
        "elementclass Sort { $first, __REST__ $more | input -> Classifier($first, $more) -> output }\n"
        "elementclass Via { $what | input -> e :: $what(4) -> output }\n"
        "Idle -> s :: Sort(12/C0DE, 12/9990, -) -> Discard; Idle -> v :: Via(Paint) -> Discard;"
    )
    assert elements["s/Classifier@1"] == "Classifier(12/C0DE, 12/9990, -)"
    assert elements["v/e"] == "Paint(4)"


def test_define_aliases_and_scopes() -> None:
    elements, _ = flat(
        "define($N 3, $M ${N}0); elementclass Holder Queue; elementclass Box { elementclass Holder Null; "
        "input -> h :: Holder -> output }\nIdle -> Holder($M) -> Discard; Idle -> Box -> Discard; Idle -> Print('$N') -> Discard;"
    )
    assert elements["Holder@2"] == "Queue(30)"
    assert elements["Box@5/h"] == "Null"
    assert elements["Print@8"] == "Print('$N')"


def test_require_library_once_and_from_given_directories(tmp_path: Path) -> None:
    (tmp_path / "a.click").write_text("require(library b.click); elementclass A { input -> B -> output }")
    (tmp_path / "b.click").write_text("require(library a.click); elementclass B { input -> Null -> output }")
    elements, _ = flat("require(library a.click, library b.click); Idle -> x :: A -> Discard;", [tmp_path])
    assert "x/B@1/Null@1" in elements


def test_flattening_is_stable() -> None:
    text = "require(library router.click); core :: XIARouterCore; Idle -> core -> Discard; Idle -> [1] core;"
    graph, problems = flatten_text(text, "t.click")
    assert not problems
    again, problems = flatten_text(graph.to_text(), "flat.click")
    assert not problems
    assert again.to_text() == graph.to_text()
    assert "XIARouterCore" not in graph.to_text()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a :: Quue; Idle -> a -> Discard;", "t.click:1:6: there is no element class 'Quue' (did you mean Queue?)"),
        ("Idle -> x -> Discard;", "t.click:1:9: 'x' is neither an element nor an element class"),
        ("Idle ->\n  -> Discard;", "t.click:2:3: expected an element, found '->'"),
        ("Idle -> Discard", ""),
        ("Idle -> Discard; }", "t.click:1:18: '}' closes nothing"),
        ("Idle -> Print(\"a, 3;\n", "t.click:1:14: this configuration is never closed (expected ')')"),
        ("/* Idle", "t.click:1:1: this comment is never closed (expected '*/')"),
        ("Idle Discard;", "t.click:1:6: expected '->' or ';', found 'Discard'"),
        ("Idle -> [a] Discard;", "t.click:1:10: expected a port number, found 'a'"),
        ("a :: Null; a :: Null;", "t.click:1:12: element 'a' is declared twice, first at t.click:1:1"),
        ("elementclass { }", "t.click:1:14: expected the name of the new element class, found '{'"),
        ("elementclass A { $x, | }", "t.click:1:22: expected a parameter, '$NAME', found '|'"),
        ("Idle -> Queue($n) -> Discard;", "t.click:1:15: variable $n is not defined"),
        ("Idle => Discard;", "t.click:1:6: expected '->' (\'=>\' is not supported), found '=>'"),
        ("require(library no.click);", "t.click:1:9: cannot find library file 'no.click'"),
        ("require(teleport);", "t.click:1:9: cannot satisfy requirement 'teleport'"),
        ("[1] Idle -> Discard;", "t.click:1:5: input port [1] leads nowhere"),
        ("Idle -> Queue(1, 2) -> Discard;", "t.click:1:18: 'Queue@2 :: Queue': '2' is one argument too many (Queue takes CAPACITY)"),
        ("Idle -> Queue(-1) -> Discard;", "t.click:1:15: 'Queue@2 :: Queue': CAPACITY: '-1' is not above 0"),
        ("Idle -> LinkUnqueue(5 parsecs, 1M) -> Discard;", "'5 parsecs' is not a duration (for example 5ms)"),
        ("Idle -> Null(MTU 4) -> Discard;", "there is no argument MTU (Null takes no arguments)"),
        ("Idle -> XIAXIDRouteTable(AD, AD:12 3) -> Discard;", "t.click:1:30: "),
        ("elementclass A { $x | input -> Null -> output }\nIdle -> A -> Discard;", "t.click:2:9: A expects ($x), found 0 arguments"),
        ("elementclass A { input -> Null -> output }\nIdle -> a :: A -> Discard; Idle -> [1] a;", "'a' has no input 1 (it has 1)"),
        ("elementclass A { input -> Null -> output; input[1] -> Discard }\nIdle -> a :: A -> Discard;", "t.click:2:9: input 1 of 'a' is not connected"),
        ("elementclass A { input[1] -> Discard }\nIdle -> [1] A;", "'input' port 0 of this compound is not connected"),
        ("elementclass A { input -> A -> output }\nIdle -> A -> Discard;", "(recursion?)"),
        ("elementclass A { input -> Nul -> output }", "t.click:1:27: 'Nul' is neither an element nor an element class (did you mean Null?)"),
    ],
)  # fmt: skip
def test_errors_name_the_place(text: str, expected: str) -> None:
    if not expected:
        Router.from_text(text, "t.click")
        return
    found = errors(text)
    assert any(expected in line for line in found), found


def test_all_errors_of_a_file_in_one_run() -> None:
    found = errors(
        "a :: Quue;\nIdle -> -> Discard;\nx :: Queue(5;\nelementclass B { input -> Nul }\nIdle -> nothere;\n"
    )
    assert [line.split(":")[1] for line in found] == ["1", "2", "3", "4", "5"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Idle -> Queue -> q :: Queue -> Discard;", "expected an Unqueue between them"),
        ("RatedSource -> RoundRobinSched -> Discard;", "expected a Queue between them"),
        ("RatedSource -> c :: Counter; c -> Discard; c -> Discard;", "connected more than once (expected a Tee)"),
        ("a, b :: Queue; Idle -> a; Idle -> b; a -> u :: Unqueue -> Discard; b -> u;", "(expected a scheduler)"),
        ("Idle -> t :: Tee(2) -> Discard;", "output 1 of 't :: Tee' is not connected"),
        ("Idle -> c :: Classifier(12/01, -) -> Discard;", "output 1 of 'c :: Classifier' is not connected"),
        ("q :: Queue -> Discard;", "input 0 of 'q :: Queue' is not connected"),
        ("Idle -> Discard -> Discard;", "'Discard@2 :: Discard' has no output 0 (it has no outputs)"),
        ("Idle -> [1] n :: Null -> Discard;", "'n :: Null' has no input 1 (it has 1 input)"),
        ("RatedSource -> Null -> q :: Queue -> Null -> Null -> Tee -> Discard;", "pull output 0 of 'Null"),
    ],
)  # fmt: skip
def test_push_and_pull_must_agree(text: str, expected: str) -> None:
    found = errors(text)
    assert any(expected in line for line in found), found


def test_agnostic_elements_follow_their_neighbours() -> None:
    router = Router.from_text(
        "RatedSource -> a :: Counter -> q :: Queue -> b :: Counter -> r :: RandomSample(0.5) -> Discard; r[1] -> Discard;"
    )
    assert router.processing["a"] == "h/h"
    assert router.processing["b"] == "l/l"
    assert router.processing["r"] == "l/lh"
    assert router.processing["Discard@6"] == "l/"
    assert router.elements["b"].ports == ["input 0 pull", "output 0 pull"]


def test_too_many_elements_are_refused() -> None:
    text = "elementclass A0 { input -> Null -> output }\n"
    for level in range(1, 30):
        text += f"elementclass A{level} {{ input -> A{level - 1} -> A{level - 1} -> output }}\n"
    assert any("more than" in line for line in errors(text + "Idle -> A29 -> Discard;"))
