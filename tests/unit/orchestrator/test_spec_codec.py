from hypothesis import given
from hypothesis import strategies as st

from services.orchestrator.experiment import (
    ExperimentSpec,
    MessageTemplate,
    ModelTarget,
    ParameterAxis,
    PromptTemplate,
    ScorerTarget,
)
from services.orchestrator.limits import RunLimits
from services.orchestrator.spec_codec import decode_spec, encode_spec, spec_hash

scalars = (
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False, allow_infinity=False)
)
texts = st.text(alphabet=st.characters(codec="utf-8"), max_size=8)
values = st.recursive(scalars | texts, lambda inner: st.lists(inner, max_size=3).map(tuple), max_leaves=5)
columns = st.dictionaries(texts, values, max_size=3)
specs = st.builds(
    ExperimentSpec,
    prompts=st.lists(
        st.builds(
            PromptTemplate,
            texts,
            st.lists(st.builds(MessageTemplate, st.sampled_from(["system", "user"]), texts), max_size=2).map(tuple),
        ),
        max_size=2,
    ).map(tuple),
    models=st.lists(st.builds(ModelTarget, texts, columns, columns), max_size=2).map(tuple),
    rows=st.lists(columns, max_size=3).map(tuple),
    grid=st.lists(st.builds(ParameterAxis, texts, st.lists(values, max_size=3).map(tuple)), max_size=2).map(tuple),
    repeats=st.integers(1, 9),
    scorers=st.lists(st.builds(ScorerTarget, texts, columns, texts, texts), max_size=2).map(tuple),
    limits=st.builds(RunLimits, st.integers(0, 9), retry_unknown=st.booleans()),
)


@given(specs)
def test_a_spec_survives_storage(spec: ExperimentSpec) -> None:
    assert decode_spec(encode_spec(spec)) == spec
    assert encode_spec(decode_spec(encode_spec(spec))) == encode_spec(spec)


def test_the_hash_sees_content_not_order_and_tells_whole_numbers_from_others() -> None:
    def of(row: dict[str, int | float]) -> str:
        return spec_hash(encode_spec(ExperimentSpec(prompts=(), models=(), rows=(dict(row),))))

    assert of({"a": 1, "b": 2}) == of({"b": 2, "a": 1})
    assert of({"a": 7}) != of({"a": 7.0})
