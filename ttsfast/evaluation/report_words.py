"""The report's section of words: how many are heard wrong in each kind of speech, and which."""

from __future__ import annotations

from html import escape

from ttsfast.evaluation.bootstrap import Interval
from ttsfast.evaluation.words import Words
from ttsfast.pages.document import folded, wide

KINDS = {
    "free_running": "this voice",
    "copy_synthesis": "recordings, through their log-mel",
    "natural": "recordings",
}


def words_section(words: Words) -> str:
    """Errors by kind of speech, and what was heard of every utterance, the worst first."""
    kinds = [kind for kind in KINDS if kind in words.heard]
    rows = "".join(
        f'<tr><th scope="row">{KINDS[kind]}</th>'
        + "".join(
            f'<td class="number">{_percent(*words.error(kind, name))}</td>'
            for name in ("word_error", "character_error")
        )
        + "</tr>\n"
        for kind in kinds
    )
    errors = words.figures("free_running").terms("word_error")
    heard = "".join(
        f'<tr><th scope="row"><bdi>{escape(utterance)}</bdi></th>'
        + _text(words.references[utterance], words.language)
        + "".join(_text(words.heard[kind][utterance].text, words.language) for kind in kinds)
        + f'<td class="number">{100 * errors[utterance].value:.0f}%</td></tr>\n'
        for utterance in sorted(errors, key=lambda utterance: -errors[utterance].value)
    )
    heads = "".join(f'<th scope="col">{KINDS[kind]}</th>' for kind in kinds)
    errors_table = f"""<table>
<thead><tr><th scope="col">speech</th><th scope="col" class="number">words wrong</th>
<th scope="col" class="number">characters wrong</th></tr></thead>
<tbody>
{rows}</tbody></table>"""
    heard_table = f"""<table>
<thead><tr><th scope="col">utterance</th><th scope="col">text</th>{heads}
<th scope="col" class="number">words wrong</th></tr></thead>
<tbody>
{heard}</tbody></table>"""
    return f"""<p class="soft">What Whisper ({escape(words.recogniser)}) hears of {len(words.references)}
utterances. It errs on recordings too; what a voice can reach is what is heard of them.</p>
<div class="card">{wide(errors_table, "words")}</div>
<div class="after">{folded("What was heard of every utterance", wide(heard_table, "heard", "long"))}</div>"""


def _percent(value: float, interval: Interval) -> str:
    low, high = interval
    return f"<strong>{100 * value:.1f}%</strong> ({100 * low:.1f} to {100 * high:.1f})"


def _text(text: str, language: str) -> str:
    return f'<td class="text" dir="auto" lang="{escape(language)}">{escape(text)}</td>'
