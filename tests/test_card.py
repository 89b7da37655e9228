import ast
import json
import re

import numpy as np

from headstart.pictures.folder import Skipped
from headstart.reporting.card import model_card
from headstart.reporting.report import ReportContent, WeightsFacts
from headstart.scoring.metrics import evaluate

HOSTILE = ("a | b", "<script>`x`</script>", 'two\nlines: "quoted"', "\udcff", "# *日本語* 🙂", "```")


def content(names: tuple[str, ...] = ("good", "scratched"), title: str = "lens caps") -> ReportContent:
    labels = np.arange(200) % len(names)
    predicted = np.where(np.arange(200) < 190, labels, (labels + 1) % len(names))
    evaluation = evaluate(labels, np.eye(len(names))[predicted], names)
    counts = tuple(score.num_images for score in evaluation.classes)
    return ReportContent(
        title=title,
        created="2025-03-01 14:05",
        evaluation=evaluation,
        counts={"train": counts, "test": counts},
        recipe=(("backbone", "MobileNetV2"),),
        weights=WeightsFacts("a package", "ab" * 32, "MIT"),
        skipped=(Skipped("a.jpg", "truncated"),),
        notes=("These pictures are simulated.",),
        self_check="The saved model gave the same answers.",
        versions={"keras": "3.15.1"},
    )


def front_matter(card: str) -> str:
    start, matter, _ = card.split("---\n", 2)
    assert start == ""
    return matter


def test_the_front_matter_is_what_the_hub_expects() -> None:
    matter = front_matter(model_card(content()))
    assert "library_name: keras\npipeline_tag: image-classification\n" in matter
    assert "license" not in matter
    assert "value: 0.9500" in matter


def test_titles_are_safe_yaml_strings() -> None:
    for title in HOSTILE:
        names = re.findall(r" name: (\".*)", front_matter(model_card(content(title=title))))
        assert len(names) == 2
        assert "\\u" not in names[0]
        assert "\n" not in json.loads(names[0])


def test_the_card_says_what_a_reader_must_know() -> None:
    card = model_card(content())
    for part in (
        "95.0 of 100 new pictures right (95 % interval 91.0 to 97.3)",
        "> **Note:** These pictures are simulated.",
        "| good | 100 | 100 |",
        "| good | 100 | 95.0 | 88.8 to 97.8 | 95.0 | 0.950 |",
        "- 5 × “good” taken for “scratched”",
        "1 file could not be used",
        "SHA-256 `" + "ab" * 32 + "`",
        "The saved model gave the same answers.",
        "## Limits",
    ):
        assert part in card


def test_hostile_names_break_neither_tables_nor_code() -> None:
    card = model_card(content(HOSTILE, HOSTILE[1]))
    card.encode("utf-8")
    body = card.split("---\n", 2)[2]
    prose, code, rest = re.split(r"^```(?:python)?\n", body, flags=re.MULTILINE)
    assert not re.search(r"(?<!\\)<script", prose + rest)
    rows = [line for line in prose.splitlines() if line.startswith("|")]
    assert {len(re.findall(r"(?<!\\)\|", row)) for row in rows} == {4, 7}
    assert ast.parse(code)
    names = re.findall(r"^class_names = (.*)$", code, re.MULTILINE)
    assert [tuple(ast.literal_eval(each)) for each in names] == [HOSTILE]
