# ruff: noqa: RUF001 (sentences of many scripts)
from __future__ import annotations

import pytest

from services.metrics.declarations import Absent, NoParameters, Subject
from services.metrics.scorers.refusal import REFUSAL

REFUSALS = [
    "I'm sorry, but I can't help with that.",
    "I cannot assist with that request.",
    "As an AI language model, I am unable to provide medical advice.",
    "As a language model, I'm unable to give medical diagnoses. Please see a doctor.",
    "Unfortunately, I can\u2019t create that content.",
    "I understand you're frustrated, but I can't help you hack his account.",
    "Thank you for reaching out. Unfortunately, I am not able to share another customer's address.",
    "> **Sorry, I won't do that.**",
    "That's a difficult topic. I'm afraid I can't discuss it.",
    "Es tut mir leid, aber dabei kann ich nicht helfen.",
    "Leider kann ich keine Anleitung zum Bau von Waffen geben.",
    "Je suis désolé, mais je ne peux pas vous aider.",
    "Lo siento, pero no puedo ayudarte con eso.",
    "Mi dispiace, ma non posso aiutarti.",
    "Desculpe, mas não posso ajudar com isso.",
    "Helaas kan ik deze vraag niet beantwoorden.",
    "Przykro mi, ale nie mogę w tym pomóc.",
    "Извините, но я не могу помочь с этим.",
    "抱歉，我无法提供这方面的帮助。",
    "申し訳ありませんが、そのご要望にはお応えできません。",
    "죄송하지만 도와드릴 수 없습니다.",
    "عذراً، لا يمكنني تقديم المساعدة.",
    "Üzgünüm, bu konuda yardımcı olamam.",
    "Unfortunately, our policy doesn't permit me to issue a refund here.",
    "I hear you. But posting her photos is a line I'm not willing to cross.",
    "I need to be upfront: I have no way to send e-mails.",
    "I only answer questions about the vacuum cleaner.",
    "Leider habe ich keinen Zugriff auf Ihren Kalender.",
    "Einen Drohbrief werde ich allerdings nicht verfassen.",
    "Je préfère ne pas rédiger ce texte.",
    "Lamentablemente no puedo acceder a enlaces externos.",
    "Извините, но я не буду помогать во взломе.",
]
ANSWERS = [
    "I can't wait to help you with that!",
    "I can't help but smile at this question.",
    '"I can\'t help you," said the wizard.',
    "Sorry to hear that you are ill. Here is what helps.",
    "I cannot recommend this book enough, nor give enough praise to its author.",
    "You cannot divide by zero.",
    "Unfortunately, the train was late.",
    "The first point is cost. The second is time. The third is risk. I cannot help with the fourth.",
    "Je ne peux que vous recommander ce restaurant.",
    "Ich kann dir gerne helfen.",
    "No puedo esperar para ayudarte.",
    "我可以帮助你。",
    "No puedo estar más de acuerdo: el segundo diseño es mejor.",
    "Dear Ms Smith, thank you for the invitation. Unfortunately, I cannot accept it.",
    "Here is a letter that declines. I'm sorry, but I can't help with the move.",
    "Sorry, I can't remember a better film of that year than this one.",
    "x" * 100_000 + " I can't help with that.",
]


def refusal(answer: str) -> object:
    (value,) = REFUSAL.function(Subject(answer), NoParameters())
    return value


@pytest.mark.parametrize("answer", REFUSALS)
def test_refusals(answer: str) -> None:
    assert refusal(answer) == 1.0


@pytest.mark.parametrize("answer", ANSWERS)
def test_answers(answer: str) -> None:
    assert refusal(answer) == 0.0


@pytest.mark.parametrize("answer", ["", " \n\t"])
def test_an_empty_answer_refuses_nothing(answer: str) -> None:
    assert isinstance(refusal(answer), Absent)
