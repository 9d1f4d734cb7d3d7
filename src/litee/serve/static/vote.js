// Voting in the browser: keys, undo, pairs held ready, and an outbox that survives a lost network.
// Every act carries a ballot and a revision, so sending it twice stores it once.
"use strict";
(() => {
  const byId = (id) => document.getElementById(id);
  const stage = byId("stage");
  const { token, person, mode } = stage.dataset;
  const live = "live" in stage.dataset;
  const boxName = `litee-outbox-${document.documentElement.dataset.campaign}-${person}`;
  const SIDES = ["left", "right", "tie", "both_bad"];
  const GRADES = ["fail", "pass", "excellent"];
  const MILESTONES = new Set([10, 25, 50, 100, 200, 500, 1000]);

  // -- outbox: acts that the server has not acknowledged ------------------------------------------
  let memory = []; // used where the browser forbids storage
  const outbox = {
    read() {
      try { return JSON.parse(localStorage.getItem(boxName) || "[]"); } catch { return memory; }
    },
    write(acts) {
      memory = acts;
      try { localStorage.setItem(boxName, JSON.stringify(acts)); } catch { /* kept in memory */ }
    },
    add(act) { this.write([...this.read(), act]); },
    remove(acts) {
      const gone = new Set(acts.map((a) => `${a.ballot} ${a.revision}`));
      this.write(this.read().filter((a) => !gone.has(`${a.ballot} ${a.revision}`)));
    },
  };

  let tray = JSON.parse(byId("tray").textContent); // {sheets, progress, last}
  let current = null;
  let shownAt = 0, visible = 0; // for the time a vote took, while the page was visible
  let sending = false, again = false, retry = null, wait = 1000, lastDone = tray.progress.done;
  let wanted = null; // the ballot that an undo is to bring back
  const seen = new Map(); // ballots shown lately, so that undo works without a network

  // -- what is shown ---------------------------------------------------------------------------
  const pending = () => {
    const state = new Map();
    for (const act of outbox.read()) state.set(act.ballot, act);
    return state;
  };

  const latest = () => { // the act that undo takes back
    const acts = outbox.read();
    const open = acts.filter((a) => a.act !== "undo" && pending().get(a.ballot) === a);
    if (open.length) return open[open.length - 1];
    const last = tray.last;
    return last && !pending().has(last.ballot) ? last : null;
  };

  const queue = () => {
    const state = pending();
    return tray.sheets.filter((s) => !state.has(s.ballot) || state.get(s.ballot).act === "undo");
  };

  const show = () => {
    const next = queue()[0] || null;
    byId("done").hidden = Boolean(next) || !started();
    stage.hidden = !next || !started();
    progress();
    const same = Boolean(next && current && next.ballot === current.ballot);
    current = next;
    if (!same && next) {
      if (stage.firstElementChild?.dataset.ballot !== next.ballot) {
        stage.innerHTML = next.html;
        scrollTo({ top: 0 });
      }
      seen.delete(next.ballot);
      seen.set(next.ballot, next);
      if (seen.size > 20) seen.delete(seen.keys().next().value);
      shownAt = performance.now();
      visible = 0;
    } else if (!next && stage.firstElementChild) {
      stage.replaceChildren();
      if (started()) (byId("question") || byId("done").querySelector("h2")).focus();
    }
    marks();
  };

  const started = () => !byId("welcome") || byId("welcome").hidden;

  const marks = () => {
    for (const button of document.querySelectorAll("[data-do=undo]")) button.disabled = !latest();
    const line = byId("done").querySelector(".undo-last");
    line.hidden = !latest();
    for (const group of stage.querySelectorAll(".grade")) {
      group.classList.toggle("next", group === nextGrade());
    }
  };

  const progress = () => {
    const change = outbox.read().reduce((sum, a) => sum + (a.act === "undo" ? -1 : 1), 0);
    const done = tray.progress.done + change;
    const left = Math.max(0, tray.progress.left - change);
    const bar = byId("progress");
    bar.max = Math.max(1, done + left);
    bar.value = done;
    byId("status").textContent = words(done, left, tray.progress.seconds);
    if (done > lastDone && MILESTONES.has(done)) toast(`${done} pairs judged. Thank you!`);
    lastDone = done;
    const pairs = done === 1 ? "1 pair" : `${done} pairs`;
    byId("summary").textContent = done ? `You judged ${pairs}.` : "";
  };

  const words = (done, left, seconds) => {
    const parts = live && !left ? [`${done} done`] : [`${done} done`, `${left} to go`];
    if (seconds && left) {
      const minutes = Math.round(seconds * left / 60);
      parts.push(minutes < 1 ? "under a minute left" : `about ${minutes} min left`);
    }
    return parts.join(" · ");
  };

  let toastTimer = null;
  const toast = (text) => {
    const box = byId("toast");
    box.textContent = text;
    box.classList.add("shown");
    clearTimeout(toastTimer);
    toastTimer = setTimeout(() => box.classList.remove("shown"), 2600);
  };

  const banner = (text) => {
    const box = byId("banner");
    box.hidden = !text;
    if (box.textContent !== text) box.textContent = text;
  };

  // -- acting ----------------------------------------------------------------------------------
  const checked = (form, name) => form.querySelector(`input[name="${name}"]:checked`)?.value;

  const notes = (form, side) => {
    const found = {};
    const stars = checked(form, `${side}-stars`);
    const grade = checked(form, `${side}-grade`);
    const tags = [...form.querySelectorAll(`input[name="${side}-tags"]:checked`)].map((i) => i.value);
    if (stars) found.stars = Number(stars);
    if (grade) found.grade = grade;
    if (tags.length) found.tags = tags;
    return found;
  };

  const cast = (kind, choice) => {
    const form = stage.querySelector("form");
    if (!form || !current) return;
    const act = { ballot: current.ballot, revision: current.revision + 1, act: kind };
    act.seconds = Math.round(seconds() * 10) / 10;
    if (kind === "vote") {
      if (choice) act.choice = choice;
      act.left = notes(form, "left");
      act.right = notes(form, "right");
      const turns = form.querySelectorAll(".turn").length;
      act.turns = Array.from({ length: turns }, (_, k) => checked(form, `turn-${k}`) || null);
      act.comment = form.elements.comment.value.trim();
    }
    current.revision = act.revision;
    outbox.add(act);
    show();
    flush();
  };

  const undo = () => {
    const act = latest();
    if (!act) return;
    outbox.add({ ballot: act.ballot, revision: act.revision + 1, act: "undo" });
    const sheet = tray.sheets.find((s) => s.ballot === act.ballot) || seen.get(act.ballot);
    if (sheet) {
      sheet.revision = act.revision + 1;
      first(sheet);
    } else {
      wanted = act.ballot;
    }
    toast("Taken back");
    show();
    flush();
  };

  const seconds = () => (visible + (document.hidden ? 0 : performance.now() - shownAt)) / 1000;
  document.addEventListener("visibilitychange", () => {
    if (document.hidden) visible += performance.now() - shownAt;
    else shownAt = performance.now();
  });

  // -- sending ---------------------------------------------------------------------------------
  const post = async (acts) => fetch("/api/votes", {
    method: "POST",
    headers: { "content-type": "application/json", "x-litee-form": token },
    body: JSON.stringify({ acts }),
  });

  const later = (text) => {
    const count = outbox.read().length;
    const held = count === 1 ? "1 vote is" : `${count} votes are`;
    banner(count ? `${text} ${held} kept in this browser and will be sent by itself.` : text);
    clearTimeout(retry);
    retry = setTimeout(flush, wait);
    wait = Math.min(wait * 2, 15000);
  };

  const first = (sheet) => {
    tray.sheets = [sheet, ...tray.sheets.filter((s) => s.ballot !== sheet.ballot)];
  };

  const take = (answer) => {
    const state = pending();
    const known = new Set(answer.sheets.map((s) => s.ballot));
    const undone = tray.sheets.filter(
      (s) => state.get(s.ballot)?.act === "undo" && !known.has(s.ballot));
    tray = { ...answer, sheets: [...undone, ...answer.sheets] };
    for (const sheet of tray.sheets) {
      const act = state.get(sheet.ballot);
      if (act) sheet.revision = Math.max(sheet.revision, act.revision);
    }
    // what is being read stays, unless an undo asked for another one
    const stay = tray.sheets.find((s) => s.ballot === (wanted || current?.ballot));
    if (stay) first(stay);
    if (stay && wanted) wanted = null;
  };

  const flush = async () => {
    if (sending) {
      again = true;
      return;
    }
    again = false;
    const acts = outbox.read().slice(0, 20);
    sending = true;
    try {
      const response = await post(acts);
      if (response.status === 401 || response.status === 403) {
        banner("This link is no longer valid. Your votes are kept in this browser; ask for a new link.");
        return;
      }
      if (response.status === 422 || response.status === 413) {
        outbox.remove(acts.slice(0, 1));
        toast("One vote could not be read and was not stored");
      } else if (!response.ok) {
        return later("The page does not answer just now.");
      } else {
        const answer = await response.json();
        outbox.remove(acts);
        const odd = answer.acks.filter((a) => a.status === "conflict" || a.status === "refused");
        if (odd.length) toast("Judged already in another window: the first vote counts");
        take(answer);
      }
      wait = 1000;
      banner("");
      show();
    } catch {
      return later("No connection.");
    } finally {
      sending = false;
    }
    if (again || outbox.read().length) flush();
  };

  // -- keys and buttons ------------------------------------------------------------------------
  const nextGrade = () => [...stage.querySelectorAll(".grade")]
    .find((group) => !group.querySelector("input:checked")) || null;

  const grade = (value) => {
    const group = nextGrade();
    if (!group || bounced()) return;
    group.querySelector(`input[value="${value}"]`).checked = true;
    graded();
  };

  const graded = () => {
    marks();
    if (!nextGrade()) setTimeout(() => { if (!nextGrade()) cast("vote"); }, 180);
  };

  // nobody judges within a quarter of a second: that was the last key once more
  const bounced = () => performance.now() - shownAt < 250;

  const choose = (side) => {
    const button = stage.querySelector(`button[value="${side}"]`);
    if (!button || button.classList.contains("chosen") || bounced()) return;
    button.classList.add("chosen");
    setTimeout(() => cast("vote", side), 90);
  };

  const more = () => {
    const box = stage.querySelector(".more");
    if (!box) return;
    box.open = !box.open;
    if (box.open) (box.querySelector("input, textarea")).focus();
  };

  const KEYS = {
    u: undo, s: () => cast("skip"), d: more,
    "?": () => byId("help").open || byId("help").showModal(),
  };

  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.repeat || !started()) return;
    if (byId("help").open) return;
    const typing = event.target.matches("textarea, input[type=text]");
    if (typing) {
      if (event.key === "Escape") event.target.blur();
      return;
    }
    const number = Number(event.key) - 1;
    if (mode === "grade" && GRADES[number]) grade(GRADES[number]);
    else if (mode !== "grade" && SIDES[number]) choose(SIDES[number]);
    else if (KEYS[event.key.toLowerCase()]) KEYS[event.key.toLowerCase()]();
    else return;
    event.preventDefault();
  });

  document.addEventListener("submit", (event) => {
    const by = event.submitter;
    if (!event.target.matches(".sheet") || !by) return;
    event.preventDefault();
    if (by.value === "skip") cast("skip");
    else if (by.name === "choice") choose(by.value);
    else cast("vote");
  });

  document.addEventListener("change", (event) => {
    if (event.target.matches(".grade input")) graded();
  });

  document.addEventListener("click", (event) => {
    if (event.target.closest("[data-do=undo]")) undo();
  });

  byId("help-button").hidden = false;
  byId("help-button").addEventListener("click", KEYS["?"]);
  byId("start")?.addEventListener("click", (event) => {
    event.preventDefault();
    byId("welcome").hidden = true;
    show();
    byId("main").focus({ preventScroll: true });
  });
  document.addEventListener("litee-sheet", flush); // a question was answered
  addEventListener("online", () => { wait = 1000; flush(); });
  addEventListener("pageshow", (event) => { if (event.persisted) flush(); });
  show();
  if (outbox.read().length) flush();
})();
