"""The page to try a voice: a text, a speaker, a button."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from ttsfast.pages.document import document

PAGE_POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; connect-src 'self'; "
    "media-src blob:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
"""What the page may do: its own style and script, requests to this service, and the sound that it got."""
_SCRIPT = """
const by = name => document.getElementById(name);
by("try").addEventListener("submit", async event => {
  event.preventDefault();
  by("say").disabled = true;
  by("told").textContent = "Speaking ...";
  try {
    const answer = await fetch("v1/audio/speech", {
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify({ input: by("text").value, voice: by("voice").value, response_format: "flac" }),
    });
    if (!answer.ok) throw new Error((await answer.json()).error.message);
    URL.revokeObjectURL(by("sound").src);
    by("sound").src = URL.createObjectURL(await answer.blob());
    by("sound").hidden = false;
    by("told").textContent = "";
    await by("sound").play();
  } catch (error) {
    by("told").textContent = error.message;
  } finally {
    by("say").disabled = false;
  }
});
"""


def page(name: str, speakers: Sequence[str], language: str, characters: int) -> str:
    """The whole page, for a voice of that name."""
    options = "".join(
        f'<option value="{escape(speaker or "default")}">{escape(speaker or "default")}</option>'
        for speaker in speakers
    )
    body = f"""<form id="try" class="card">
<p><label for="text">What to say</label></p>
<p><textarea id="text" rows="6" maxlength="{characters}" dir="auto" lang="{escape(language)}" required
 style="width: 100%; font: inherit"></textarea></p>
<p><label>Voice <select id="voice">{options}</select></label> <button id="say">Speak</button></p>
<p id="told" class="soft" role="status"></p>
<audio id="sound" controls hidden></audio>
</form>
"""
    return document(
        title=name,
        subtitle="A voice to try",
        body=body,
        footer="<p>Programs use <code>POST /v1/audio/speech</code>, as OpenAI's clients do.</p>",
        script=_SCRIPT,
    )
