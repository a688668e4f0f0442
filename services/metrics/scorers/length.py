"""How long the answer is."""

from collections.abc import Sequence

from services.metrics.declarations import NoParameters, Scorer, Subject, Value, count


def _length(subject: Subject, _: NoParameters) -> Sequence[Value]:
    answer = subject.answer
    return (float(len(answer.raw)), float(len(answer.words)), float(len(answer.sentences)), float(answer.paragraphs))


LENGTH = Scorer(
    name="length",
    version="1",
    description="How long the answer is. Describes; neither more nor less is better.",
    citation="services/metrics/text.py defines words, sentences and paragraphs.",
    scores=(
        count("Unicode code points, white space included.", "characters"),
        count("Words; a character of a script without spaces counts as one.", "words"),
        count("Sentences, headings and list items that hold a letter or digit.", "sentences"),
        count("Runs of lines that are not blank.", "paragraphs"),
    ),
    function=_length,
    in_default_set=True,
)
