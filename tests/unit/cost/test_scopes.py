from dataclasses import asdict, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.cost.scopes import Scope, Target, anchors_of, check_scope
from services.cost.usage import Attribution
from services.runtime.errors import InvalidField

names = st.sampled_from(["", "a", "b"])
tags = st.dictionaries(st.sampled_from(["team", "stage"]), st.sampled_from(["x", "y"]))
scopes = st.builds(
    Scope,
    user_id=names,
    key_id=names,
    run_id=names,
    tag=st.sampled_from(["", "team=x", "stage=y"]),
    model=st.sampled_from(["", "acme/flat", "acme/free"]),
)
targets = st.builds(
    lambda model, user, key, run, tags: Target("acme", model, Attribution(user, key, run, tuple(sorted(tags.items())))),
    st.sampled_from(["flat", "free"]),
    names,
    names,
    names,
    tags,
)


@given(scopes, targets)
def test_a_budget_that_matches_is_anchored_where_its_calls_look(scope: Scope, target: Target) -> None:
    anchors = anchors_of(target)
    assert len(set(anchors)) == len(anchors)
    assert not scope.matches(target) or scope.anchor in anchors


@given(scopes, targets)
def test_a_scope_matches_what_has_all_that_it_names(scope: Scope, target: Target) -> None:
    parts = [Scope(**{name: value}) for name, value in asdict(scope).items()]
    assert scope.matches(target) == all(part.matches(target) for part in parts)
    assert Scope().matches(target)


def test_what_a_call_does_not_have_is_not_matched() -> None:
    call = Target("acme", "flat", Attribution("u", "k", "r", (("team", "x"),)))
    whole = Scope("u", "k", "r", "team=x", "acme/flat")
    assert whole.matches(call)
    for name, other in {"user_id": "v", "key_id": "l", "run_id": "s", "tag": "team=y", "model": "acme/free"}.items():
        assert not replace(whole, **{name: other}).matches(call)


@pytest.mark.parametrize(
    ("scope", "anchor", "text"),
    [
        (Scope(), "", "the whole project"),
        (Scope(model="acme/flat"), "model:acme/flat", "model acme/flat"),
        (Scope(tag="team=x", model="acme/flat"), "tag:team=x", "tag team=x, model acme/flat"),
        (Scope(key_id="k", tag="team=x"), "key:k", "key k, tag team=x"),
        (Scope(user_id="u", key_id="k"), "user:u", "user u, key k"),
        (Scope(user_id="u", run_id="r"), "run:r", "user u, run r"),
    ],
)
def test_anchors_and_texts(scope: Scope, anchor: str, text: str) -> None:
    assert (scope.anchor, str(scope)) == (anchor, text)


@pytest.mark.parametrize(
    ("scope", "field"),
    [
        (Scope(user_id="u" * 65), "budget.scope.user_id"),
        (Scope(key_id="u" * 65), "budget.scope.key_id"),
        (Scope(run_id="u" * 65), "budget.scope.run_id"),
        (Scope(tag="team"), "budget.scope.tag"),
        (Scope(tag="=x"), "budget.scope.tag"),
        (Scope(tag="t=" + "x" * 320), "budget.scope.tag"),
        (Scope(model="flat"), "budget.scope.model"),
        (Scope(model="acme/"), "budget.scope.model"),
    ],
)
def test_wrong_scopes_are_refused_by_the_part_at_fault(scope: Scope, field: str) -> None:
    with pytest.raises(InvalidField) as refused:
        check_scope(scope, "budget.scope")
    assert refused.value.field == field


def test_a_tag_may_have_an_empty_value_and_a_model_further_slashes() -> None:
    for scope in (Scope(), Scope(tag="team="), Scope(tag="team=a=b"), Scope(model="openrouter/acme/flat")):
        assert check_scope(scope, "f") is scope
