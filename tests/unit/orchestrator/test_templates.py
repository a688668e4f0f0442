import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.orchestrator.templates import TemplateSyntaxError, as_text, compile_template


def test_variables_are_replaced_and_spaces_inside_the_braces_do_not_count() -> None:
    template = compile_template("Say {{word}} to {{ full name }}, {{word}}!")

    assert template.variables == {"word", "full name"}
    assert template.render({"word": "hi", "full name": "Ada", "more": 1}) == "Say hi to Ada, hi!"


def test_an_escape_writes_two_braces() -> None:
    template = compile_template(r"\{{not a variable}} but {{this}}")

    assert template.variables == {"this"}
    assert template.render({"this": "x"}) == "{{not a variable}} but x"


def test_what_a_row_holds_is_never_read_as_a_template() -> None:
    assert compile_template("{{a}}").render({"a": "{{b}}"}) == "{{b}}"


@pytest.mark.parametrize(
    ("text", "problem"),
    [("say {{word", "not closed"), ("{{}}", "names no variable"), ("{{" + "x" * 65 + "}}", "at most 64")],
)
def test_a_malformed_template_says_where(text: str, problem: str) -> None:
    with pytest.raises(TemplateSyntaxError, match=problem):
        compile_template(text)


@pytest.mark.parametrize(
    ("value", "text"),
    [("é", "é"), (7, "7"), (7.0, "7.0"), (True, "true"), (None, ""), (("a", 1), '["a", 1]')],
)
def test_values_are_written_as_text(value: object, text: str) -> None:
    assert as_text(value) == text  # type: ignore[arg-type]


@given(st.text())
def test_a_text_without_braces_renders_as_itself(text: str) -> None:
    plain = text.replace("{", "")

    assert compile_template(plain).render({}) == plain


@given(st.lists(st.tuples(st.text(alphabet="xy {}", max_size=5), st.sampled_from(["a", "b"]))))
def test_rendering_equals_replacing_piece_by_piece(pieces: list[tuple[str, str]]) -> None:
    source = "".join(literal.replace("{", "").replace("}", "") + "{{" + name + "}}" for literal, name in pieces)
    row = {"a": "1", "b": "{{a}}"}

    expected = "".join(literal.replace("{", "").replace("}", "") + row[name] for literal, name in pieces)
    assert compile_template(source).render(row) == expected
