"""The model card: a README.md, in the form that Hugging Face reads, which travels with the saved model.

Source: https://huggingface.co/docs/hub/model-cards (front matter in YAML; a JSON string is a YAML string).
"""

from __future__ import annotations

import json
import re

import jinja2

from headstart.reporting.report import ReportContent, baseline, confusions, evidence, headline, slips
from headstart.reporting.words import clean, points
from headstart.scoring.multi_label import MultiLabelEvaluation

MAX_CONFUSIONS = 5


def model_card(content: ReportContent) -> str:
    """Write the model card of a run as Markdown with YAML front matter.

    It claims no licence: that of the user's pictures is not ours to state.
    """
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("headstart.reporting", "templates"),
        autoescape=False,  # Markdown, not HTML: every name goes through `prose` or `quoted`
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters.update(prose=_prose, quoted=_quoted, points=points)
    evaluation = content.evaluation
    return environment.get_template("card.md.j2").render(
        content=content,
        evaluation=evaluation,
        headline=headline(evaluation),
        evidence=evidence(evaluation),
        baseline=baseline(evaluation),
        confusions=confusions(evaluation)[:MAX_CONFUSIONS],
        several=isinstance(evaluation, MultiLabelEvaluation),
        slips=slips(evaluation)[:MAX_CONFUSIONS],
        class_names=repr(list(evaluation.class_names)),
    )


def _prose(text: str) -> str:
    """Make a text plain in Markdown: one line, and every sign that Markdown or HTML would read is escaped."""
    escaped = re.sub(r"([\\`*_\[\]<>|~&$])", r"\\\1", clean(text).strip())
    return re.sub(r"^(\d*)([#+\-=.)])", r"\1\\\2", escaped)  # would start a heading or a list


def _quoted(text: str) -> str:
    """Make a text a YAML string. Left as Unicode, since YAML cannot join the surrogates of JSON's escapes."""
    return json.dumps(clean(text), ensure_ascii=False)
