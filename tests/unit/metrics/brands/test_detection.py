import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from services.metrics.brands.brand_set import Brand, check_brands
from services.metrics.brands.detection import DOMAINS_MAX, MENTIONS_DETAILED_MAX, BrandCount, Citation, detector_of
from services.metrics.brands.excerpts import SENTENCE_LENGTH_MAX, sentence_around
from services.runtime.errors import InvalidField

STRIPE = Brand("Stripe", ("Stripe Inc.",), domains=("stripe.com",))
PAYPAL = Brand("PayPal", domains=("paypal.com", "paypal.me"))
APPLE = Brand("Apple", excluded_contexts=("apple pie",))
BRANDS = (STRIPE, PAYPAL, APPLE)


def test_counts_positions_and_citations() -> None:
    text = "PayPal, then Stripe, then PayPal again: https://docs.stripe.com/x, stripe.com and https://example.org."
    detection = detector_of(BRANDS).detect(text)
    assert detection.brands == (BrandCount(1, 2, 1, 0), BrandCount(0, 1, 2, 2))
    assert detection.citations == (Citation("stripe.com", 0, 2), Citation("example.org", None, 1))
    assert [text[each.start : each.end] for each in detection.mentions] == ["PayPal", "Stripe", "PayPal"]


def test_a_brand_that_is_only_cited_has_no_position() -> None:
    assert detector_of(BRANDS).detect("See www.paypal.me/x.").brands == (BrandCount(1, 0, 0, 1),)


def test_the_longest_name_counts_once_for_its_brand() -> None:
    brands = (Brand("Amazon"), Brand("Amazon Web Services", ("AWS",)))
    detection = detector_of(brands).detect("Amazon Web Services (AWS) by Amazon")
    assert detection.brands == (BrandCount(1, 2, 1, 0), BrandCount(0, 1, 2, 0))


def test_an_answer_without_brands() -> None:
    assert detector_of(BRANDS).detect("") == ((), (), ())
    assert detector_of(BRANDS).detect("Apple pie, pinstripes.") == ((), (), ())


def test_overlapping_contexts_of_different_brands() -> None:
    brands = (Brand("Apple", excluded_contexts=("apple pie",)), Brand("Pie", excluded_contexts=("pie chart",)))
    assert detector_of(brands).detect("apple pie chart").brands == ()


@pytest.mark.parametrize(
    ("text", "ordinals"),
    [
        ("Stripe", [0]),
        ("1. Stripe\n2. PayPal\n3) Apple", [1, 2, 3]),
        ("Some:\n\n- Stripe\n- PayPal\n\nApple is none of these.", [1, 2, 0]),
        ("1. **Stripe**\n   - rival of PayPal\n2. **Apple**", [1, 1, 2]),
        ("* A\n* Stripe\n\n* PayPal", [2, 3]),
        ("### 1. Stripe\nText.\n\n- PayPal\n\n### 2. Apple\nMore.\n## Summary\nStripe", [1, 1, 2, 0]),
        ("3. Stripe\n5. PayPal", [3, 5]),
        ("1\ufe0f\u20e3 Stripe\n2\ufe0f\u20e3 PayPal", [1, 2]),
        ("1\u3001Stripe\n2\u3001PayPal", [1, 2]),
        ("| # | name |\n|---|---|\n| 1 | Stripe |\n| 2 | PayPal |", [1, 2]),
        ("**1. Stripe**\n**2. PayPal**", [1, 2]),
        ("2024. Stripe\n3.5 PayPal", [0, 0]),
        ("1. Stripe\r\n2. PayPal\r\n", [1, 2]),
        ("- A\n\nPlain.\n\n- Stripe", [1]),
        ("1. One,\n   with Stripe\nand PayPal", [1, 1]),
    ],
)
def test_list_ordinals(text: str, ordinals: list[int]) -> None:
    assert [each.list_ordinal for each in detector_of(BRANDS).detect(text).mentions] == ordinals


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("One. I like X a lot! Three.", "I like X a lot!"),
        ("1. X is fine\n2. Y", "X is fine"),
        ("By Acme Inc. X is made. Next.", "By Acme Inc. X is made."),
        ("\u4e00\u3002\u4e8cX\u4e09\u3002\u56db", "\u4e8cX\u4e09\u3002"),
        ("X", "X"),
        ("a\n\n  X  \n\nb", "X"),
        ("Is it X? Yes.", "Is it X?"),
    ],
)
def test_sentence_around_a_place(text: str, sentence: str) -> None:
    start = text.index("X")
    first, last = sentence_around(text, start, start + 1)
    assert text[first:last] == sentence


def test_a_long_sentence_is_cut_around_the_place() -> None:
    text = "word " * 1_000 + "X" + " word" * 1_000
    first, last = sentence_around(text, 5_000, 5_001)
    assert first < 5_000 < last <= first + SENTENCE_LENGTH_MAX


@pytest.mark.parametrize(
    ("brands", "field"),
    [
        ([Brand("\U0001f34e")], "brands[0].name"),
        ([Brand("A", ("!?",))], "brands[0].aliases[0]"),
        ([Brand("Meta"), Brand("Facebook", ("META",))], "brands[1].aliases[0]"),
        ([Brand("Apple", excluded_contexts=("orange juice",))], "brands[0].excluded_contexts[0]"),
        ([Brand("A", domains=("https://a.com",))], "brands[0].domains[0]"),
        ([Brand("A", domains=("a.com",)), Brand("B", domains=("www.A.com",))], "brands[1].domains[0]"),
        ([Brand(f"b{index}") for index in range(10_001)], "brands"),
    ],
)
def test_brands_that_make_no_sense_are_refused(brands: list[Brand], field: str) -> None:
    with pytest.raises(InvalidField) as caught:
        check_brands(brands)
    assert caught.value.field == field


@pytest.mark.parametrize(
    "text",
    [
        "x" * 5_000_000,
        "stripe " * 50_000,
        "\x00" * 100_000 + "stripe" + "\x00",
        "\n" * 100_000 + "stripe",
        "a." * 200_000,
        "https://" * 50_000,
        "](" * 100_000,
        "stripe inc" * 100_000,
        "\u00df\u0301" * 100_000,
        "- stripe\n" * 20_000,
        "stripe/" * 20_000,
        "/stripe" * 20_000,
        "stripe\u200b" * 20_000,
        "\U0001f680" * 200_000,
    ],
    ids=lambda text: f"{text[:8]!r}",
)
def test_hostile_texts_are_answered(text: str) -> None:
    detection = detector_of(BRANDS).detect(text)
    assert len(detection.mentions) <= MENTIONS_DETAILED_MAX
    assert len(detection.citations) <= DOMAINS_MAX


def test_names_are_counted_as_they_are_declared() -> None:
    own = [f"a{number} & 'b" for number in range(500)]
    assert len(check_brands([Brand(own[0], tuple(own[1:]))]).names) == 1_500  # each also as HTML writes it
    with pytest.raises(InvalidField, match="has 10,001 names"):
        check_brands([Brand(f"a{number} & b") for number in range(10_001)])


def test_names_that_begin_alike_cost_no_more_than_the_text() -> None:
    brands = tuple(Brand(" ".join(["a"] * count) + " b") for count in range(1, 24))
    assert detector_of(brands).detect("a " * 20_000).brands == ()


def test_contexts_inside_each_other_cost_no_more_than_the_text() -> None:
    contexts = tuple(" ".join(["a"] * count) for count in range(2, 25))
    assert detector_of((Brand("a", excluded_contexts=contexts),)).detect("a " * 10_000 + "b").brands == ()


@given(st.text(alphabet=st.sampled_from("stripe paypal\u00df\u0130\u200d.'-_*/@&\n1)](\u4e2d\u0e01"), max_size=80))
@example("stripe\u200d")
def test_every_mention_folds_to_a_name(text: str) -> None:
    for mention in detector_of(BRANDS).detect(text).mentions:
        assert 0 <= mention.start < mention.end <= len(text)
        raw = text[mention.start : mention.end].replace("\u200d", "").lower()
        assert " ".join(raw.replace("*", "").split()) in {"stripe", "stripe inc.", "paypal", "apple"}
