import csv
import io

from rich.console import Console

from llmlab.api.metrics.v1 import brands_pb2, statistics_pb2
from llmlab.api.orchestrator.v1 import run_pb2
from llmlab.cli import brand_tables

RATE = statistics_pb2.Estimate(value=0.5, low=0.25, high=0.75, method="wilson")
FIGURES = brands_pb2.BrandFigures(answers=4, mentioning=2, mentions=3, mention_rate=RATE, positions=[1, 3])


def summary() -> run_pb2.SummarizeRunBrandsResponse:
    nested = brands_pb2.PromptVisibility(
        prompt="p", figures=FIGURES, models=[brands_pb2.ModelVisibility(model="m", figures=FIGURES)]
    )
    return run_pb2.SummarizeRunBrandsResponse(
        brands=[
            brands_pb2.BrandVisibility(brand="Silent", figures=brands_pb2.BrandFigures()),
            brands_pb2.BrandVisibility(
                brand="=Loud",
                figures=FIGURES,
                prompts=[nested],
                models=[brands_pb2.ModelVisibility(model="m", figures=FIGURES)],
                change=brands_pb2.BrandChange(difference=0.1, within_noise=True),
            ),
        ],
        domains=[run_pb2.CitedDomain(domain="loud.com", answers=2)],
    )


def shown(table: object) -> str:
    console = Console(width=100, file=io.StringIO())
    console.print(table)
    text = console.file.getvalue()  # type: ignore[attr-defined]
    return str(text)


def test_the_most_visible_brand_stands_first_and_what_is_not_measured_is_not_zero() -> None:
    text = shown(brand_tables.brand_table(summary()))
    assert text.index("=Loud") < text.index("Silent")
    assert "50 %" in text
    assert "25-75 %" in text
    assert "+10 points" in text
    assert "within noise" in text
    assert "0 %" not in text.replace("50 %", "")


def test_the_nested_table_has_every_position() -> None:
    assert "2/4" in shown(brand_tables.nested_table(summary()))
    assert "1 3" in shown(brand_tables.nested_table(summary()))


def test_the_file_has_a_line_for_each_level() -> None:
    rows = list(csv.DictReader(io.StringIO(brand_tables.csv_text(summary()), newline="")))
    assert [(row["brand"], row["prompt"], row["model"]) for row in rows] == [
        ("Silent", "", ""),
        ("'=Loud", "", ""),
        ("'=Loud", "", "m"),
        ("'=Loud", "p", ""),
        ("'=Loud", "p", "m"),
    ]
    assert (rows[0]["mention_rate"], rows[1]["mention_rate"], rows[4]["positions"]) == ("", "0.5", "1 3")


def test_cited_domains() -> None:
    assert brand_tables.domains_text(summary().domains) == "loud.com (2)"
