// A question of one's own: two answers are written side by side, then vote.js shows the ballot.
"use strict";
(() => {
  const byId = (id) => document.getElementById(id);
  const form = byId("ask");
  const question = byId("question");
  const writing = byId("writing");
  const box = (side) => writing.querySelector(`[data-side=${side}]`);

  const say = (text) => {
    byId("banner").hidden = !text;
    byId("banner").textContent = text;
  };

  const busy = (on) => {
    form.classList.toggle("asking", on);
    for (const part of form.elements) part.disabled = on;
    writing.hidden = !on;
    form.hidden = on;
  };

  const failed = (text) => {
    busy(false);
    say(text);
    question.focus();
  };

  // events are `data: {…}` lines; a piece of the stream may end anywhere
  const events = async function* (response) {
    const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
    let rest = "";
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return;
      const lines = (rest + value).split("\n");
      rest = lines.pop();
      for (const line of lines) if (line.startsWith("data: ")) yield JSON.parse(line.slice(6));
    }
  };

  const ask = async () => {
    const prompt = question.value.trim();
    if (!prompt || form.hidden) return;
    say("");
    byId("asked").textContent = prompt;
    for (const side of ["left", "right"]) box(side).textContent = "";
    busy(true);
    let problem = "The connection broke. Nothing was stored.";
    try {
      const response = await fetch("/api/live", {
        method: "POST",
        headers: { "content-type": "application/json", "x-litee-form": form.dataset.token },
        body: JSON.stringify({ prompt }),
      });
      if (!response.ok) {
        const said = await response.json().catch(() => ({}));
        failed([said.problem || "The page does not answer just now", said.fix].filter(Boolean).join(". "));
        if (response.status === 409) document.dispatchEvent(new Event("litee-sheet"));
        return;
      }
      for await (const event of events(response)) {
        if (event.text) box(event.side).append(event.text);
        if (event.problem) problem = event.problem;
        if (event.done) {
          question.value = "";
          busy(false);
          document.dispatchEvent(new Event("litee-sheet"));
          return;
        }
      }
    } catch { /* told below */ }
    failed(problem);
  };

  form.addEventListener("submit", (event) => {
    event.preventDefault();
    ask();
  });
  question.addEventListener("keydown", (event) => {
    if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
    event.preventDefault();
    ask();
  });
  if (!byId("done").hidden) question.focus();
})();
