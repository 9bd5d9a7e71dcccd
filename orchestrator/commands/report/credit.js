"use strict";
const creditMap = (() => {
  const root = document.querySelector(".credit-root");
  const find = (name) => root.querySelector(".credit-" + name);
  const data = JSON.parse(find("data").textContent);
  const CHUNK_TOKENS = 400, CHUNK_MOST_TOKENS = 2000, FRAME_TOKENS = 1500, STRONGEST = 6;
  const ENVIRONMENT = data.notANumber;
  const state = { run: 0, step: 0, attempt: 0, shown: null, work: 0, active: null };

  const integers = (text, type) => {
    const bytes = Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
    return type === 4 ? new Int32Array(bytes.buffer) : new Int16Array(bytes.buffer);
  };
  const nats = (value, digits = 3) => (value / data.partsPerNat).toFixed(digits);
  const signed = (value, digits = 3) => (value > 0 ? "+" : "") + nats(value, digits);
  const percent = (value) => {
    const share = 100 * Math.exp(value / data.partsPerNat);
    if (share < 0.001) return "below 0.001 %";
    return (share >= 99.95 ? share.toFixed(1) : share.toPrecision(3)) + " %";
  };
  const element = (tag, name, text) => {
    const made = document.createElement(tag);
    if (name) made.className = name;
    if (text !== undefined) made.textContent = text;
    return made;
  };
  const fill = (select, labels) => {
    select.replaceChildren(...labels.map(([value, label]) => Object.assign(element("option", "", label), { value })));
  };
  const currentRun = () => data.runs[state.run];
  const currentStep = () => currentRun().steps[state.step];
  const text = (index) => currentRun().texts[index];

  /* Whitespace and characters that have no shape of their own, made visible. */
  const visible = (piece) =>
    piece.replace(/ /g, "\u00b7").replace(/\t/g, "\u2192").replace(/\r/g, "\u240d").replace(/\n/g, "\u21b5")
      .replace(/[\u0000-\u001f\u007f-\u009f\u00ad\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff]/g,
        (c) => "\u2039U+" + c.codePointAt(0).toString(16).toUpperCase().padStart(4, "0") + "\u203a");

  /* Text as it is, but for characters that steer the writing direction or have no shape: their numbers stand there. */
  const STEERING = /[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff]/;
  const write = (box, piece) => {
    for (const part of piece.split(new RegExp(`(${STEERING.source})`))) {
      if (STEERING.test(part)) {
        const sign = box.appendChild(element("i", "credit-steering"));
        sign.dataset.code = "U+" + part.charCodeAt(0).toString(16).toUpperCase().padStart(4, "0");
      } else if (part) box.append(part);
    }
  };

  /* An attempt with its numbers unpacked: p, q, entropy, credit in parts of a nat, one a token. */
  const unpack = (attempt) => {
    const teacher = attempt.teacher;
    const engine = integers(attempt.p, 2);
    const p = teacher && teacher.p ? integers(teacher.p, 2) : engine;
    const q = teacher ? integers(teacher.q, 2) : null;
    const credit = q ? Array.from(q, (value, i) => (value === ENVIRONMENT ? null : value - p[i])) : null;
    return { attempt, engine, p, q, credit, entropy: teacher ? integers(teacher.entropy, 2) : null,
      ids: integers(attempt.ids, 4), tokens: attempt.tokens };
  };
  const isEnvironment = (shown, i) => shown.engine[i] === ENVIRONMENT;
  const split = (shown, i) => shown.tokens[i] === "";
  /* The character that token i goes on with, for one that has no text of its own. */
  const carried = (shown, i) => {
    let from = i;
    while (from > 0 && split(shown, from)) from -= 1;
    return Array.from(shown.tokens[from]).pop() || "";
  };

  const clip = (shown) => {
    const scale = find("scale").value;
    if (scale !== "own") return Number(scale) * data.partsPerNat;
    const most = shown && shown.credit ? shown.credit.reduce((m, c) => Math.max(m, c === null ? 0 : Math.abs(c)), 0) : 0;
    return Math.max(most, 1);
  };
  const paint = (span, shown, i, most) => {
    span.classList.remove("credit-less", "credit-greater");
    if (!shown.credit || shown.credit[i] === null) return;
    const level = Math.min(1, Math.abs(shown.credit[i]) / most);
    if (level < 0.02) return;
    span.classList.add(shown.credit[i] < 0 ? "credit-less" : "credit-greater");
    span.style.setProperty("--l", level.toFixed(3));
  };
  const makeToken = (shown, i, most) => {
    const span = element("span", "credit-token");
    span.dataset.i = i;
    span.tabIndex = -1;
    const piece = shown.tokens[i];
    const lines = piece.split("\n");
    lines.forEach((line, n) => {
      if (n > 0) span.append(element("i", "credit-newline"), "\n");
      if (line) write(span, line);
    });
    if (isEnvironment(shown, i)) span.classList.add("credit-environment");
    if (split(shown, i)) span.classList.add("credit-split");
    paint(span, shown, i, most);
    return span;
  };
  /* Blocks end at a line's end, so that the browser lays out and skips each on its own. */
  const makeChunk = (shown, from, most) => {
    const chunk = element("div", "credit-chunk");
    const end = Math.min(shown.tokens.length, from + CHUNK_MOST_TOKENS);
    let i = from;
    while (i < end) {
      chunk.append(makeToken(shown, i, most));
      i += 1;
      if (i - from >= CHUNK_TOKENS && shown.tokens[i - 1].endsWith("\n")) break;
    }
    return [chunk, i];
  };
  const render = (shown) => {
    const box = find("text"), more = find("more"), work = ++state.work, most = clip(shown);
    box.replaceChildren();
    box.scrollTop = 0;
    let next = 0;
    const go = () => {
      if (work !== state.work) return;
      const stop = next + FRAME_TOKENS;
      while (next < shown.tokens.length && next < stop) {
        const [chunk, end] = makeChunk(shown, next, most);
        box.append(chunk);
        next = end;
      }
      more.hidden = next >= shown.tokens.length;
      more.textContent = more.hidden ? "" : `${next} of ${shown.tokens.length} tokens drawn`;
      if (next < shown.tokens.length) requestAnimationFrame(go);
    };
    go();
    const first = box.querySelector(".credit-token");
    if (first) first.tabIndex = 0;
  };

  const chip = (label, value, name) => {
    const made = element("span", "credit-chip" + (name ? " " + name : ""), label ? label + " " : "");
    made.append(element("b", "", value));
    return made;
  };
  const showFacts = (shown) => {
    const a = shown.attempt;
    const outcome = a.success ? "success" : "failure";
    const chips = [
      chip("", outcome, "credit-chip-" + outcome), chip("verdict", a.kind),
      chip("reward", a.reward === null ? "none" : String(a.reward)),
      chip("advantage in the group", (a.advantage > 0 ? "+" : "") + a.advantage.toFixed(3)),
      chip("task", a.task), chip("attempt", String(a.sample)), chip("tokens", String(shown.tokens.length)),
      chip("sampled by weights", a.versions.join(", ")),
    ];
    if (a.finish_reason !== "stop") chips.push(chip("ended by", a.finish_reason, "credit-chip-failure"));
    if (shown.credit) {
      const own = shown.credit.filter((c) => c !== null);
      const mean = own.reduce((sum, c) => sum + c, 0) / Math.max(1, own.length);
      chips.push(chip("mean credit", signed(mean) + " nats"), chip("teacher", a.teacher.version));
    }
    find("facts").replaceChildren(...chips);
    const why = find("why");
    why.hidden = !a.why;
    why.textContent = a.why ? "No colours here. " + a.why : "";
  };
  const showBeside = (shown) => {
    const a = shown.attempt, look = a.hindsight;
    const set = (name, value, otherwise) => {
      find(name).textContent = "";
      write(find(name), value || otherwise);
      find(name).classList.toggle("credit-empty", !value);
    };
    find("question").replaceChildren(...a.messages.map(([role, index]) => {
      const box = element("pre");
      write(box, text(index));
      box.title = role;
      return box;
    }));
    set("feedback", text(a.feedback), "The environment gave no feedback.");
    const cut = look ? look.cut : [0, 0, 0];
    const shortened = (n) => (n ? ` (${n} characters left out in the prompt)` : "");
    find("demo-title").textContent = look && look.demo
      ? `Demonstration: attempt ${look.demo[0]} at the same task` + shortened(cut[0]) : "Demonstration";
    set("demo", look && look.demo ? text(look.demo[1]) : "",
      look ? "None: no other attempt of the group succeeded." : "None: this objective has no teacher in hindsight.");
    find("hindsight").hidden = !look;
    set("prompt", look ? text(look.prompt) : "", "");
  };
  const jump = (shown, i) => {
    const made = element("button", "credit-jump", `${visible(split(shown, i) ? carried(shown, i) : shown.tokens[i])}  `);
    made.type = "button";
    made.append(element("b", "", signed(shown.credit[i], 2)));
    made.title = `Token ${i + 1}`;
    made.addEventListener("click", () => focusToken(i));
    return made;
  };
  const showStrongest = (shown) => {
    find("strongest").hidden = !shown.credit;
    if (!shown.credit) return;
    const order = shown.credit.map((c, i) => [c, i]).filter(([c]) => c !== null && Math.abs(c) >= 10);
    order.sort((a, b) => a[0] - b[0]);
    const least = order.filter(([c]) => c < 0).slice(0, STRONGEST);
    const greatest = order.filter(([c]) => c > 0).reverse().slice(0, STRONGEST);
    const put = (name, found) => find(name).replaceChildren(
      ...(found.length ? found.map(([, i]) => jump(shown, i)) : [element("span", "credit-empty", "none")]));
    put("blamed", least);
    put("credited", greatest);
  };

  const tip = find("tip");
  const rows = (shown, i) => {
    const found = [["position", `${i + 1} of ${shown.tokens.length}`], ["token id", String(shown.ids[i])]];
    if (isEnvironment(shown, i)) return [...found, ["written by", "the environment"]];
    if (!shown.credit) return [["student log p", `${nats(shown.p[i])} (${percent(shown.p[i])})`], ...found];
    const numbers = [
      ["student log p", `${nats(shown.p[i])} (${percent(shown.p[i])})`],
      ["teacher log q", `${nats(shown.q[i])} (${percent(shown.q[i])})`],
      ["credit", `${signed(shown.credit[i])} nats`], ["teacher's entropy", `${nats(shown.entropy[i])} nats`],
    ];
    if (shown.engine !== shown.p) numbers.push(["engine's log p", nats(shown.engine[i])]);
    return [...numbers, ...found];
  };
  const showTip = (span) => {
    const shown = state.shown, i = Number(span.dataset.i);
    const name = split(shown, i) ? `continues ${visible(carried(shown, i))}` : visible(shown.tokens[i]);
    const lines = rows(shown, i).map(([label, value]) => {
      const row = element("div", "credit-tip-row");
      row.append(element("span", "", label), element("span", "", value));
      return row;
    });
    tip.replaceChildren(element("div", "credit-tip-text", name), ...lines);
    tip.hidden = false;
    const at = span.getClientRects()[0] || span.getBoundingClientRect(), size = tip.getBoundingClientRect();
    const left = Math.max(8, Math.min(at.left, window.innerWidth - size.width - 8));
    const below = at.bottom + 8 + size.height <= window.innerHeight;
    tip.style.left = left + "px";
    tip.style.top = (below ? at.bottom + 8 : Math.max(8, at.top - size.height - 8)) + "px";
  };
  const hideTip = () => { tip.hidden = true; };
  const tokenAt = (i) => find("text").querySelector(`[data-i="${i}"]`);
  const focusToken = (i) => {
    const span = tokenAt(i);
    if (!span) return;
    const before = find("text").querySelector('[tabindex="0"]');
    if (before) before.tabIndex = -1;
    span.tabIndex = 0;
    span.focus({ preventScroll: true });
    span.scrollIntoView({ block: "nearest" });
    showTip(span);
  };

  const passes = (a) => {
    const outcome = find("outcome").value, kind = find("kind").value;
    return (!outcome || a.success === (outcome === "success")) && (!kind || a.kind === kind);
  };
  const matching = () => currentStep().attempts.map((a, i) => [a, i]).filter(([a]) => passes(a));
  const label = (a) => `${a.task} #${a.sample}: ${a.kind}`;
  const showAttempt = () => {
    hideTip();
    state.shown = unpack(currentStep().attempts[state.attempt]);
    find("attempt").value = state.attempt;
    showFacts(state.shown);
    showBeside(state.shown);
    showStrongest(state.shown);
    showScale();
    render(state.shown);
    enableButtons();
  };
  const showScale = () => {
    const most = clip(state.shown);
    find("low").textContent = `credit \u2264 \u2212${nats(most, 2)}`;
    find("high").textContent = `credit \u2265 +${nats(most, 2)}`;
    const own = find("scale").value === "own";
    find("clip").textContent = own ? "Full colour at this attempt's strongest token."
      : `Full colour at ${nats(most, 0)} nats (a factor of ${Math.exp(most / data.partsPerNat).toPrecision(2)}) and beyond.`;
  };
  const showNothing = (message) => {
    state.work += 1;
    state.shown = null;
    hideTip();
    fill(find("attempt"), []);
    for (const name of ["facts", "text", "question"]) find(name).replaceChildren();
    for (const name of ["feedback", "demo", "prompt"]) find(name).textContent = "";
    find("why").hidden = false;
    find("why").textContent = message;
    find("strongest").hidden = true;
    enableButtons();
  };
  const showStep = (keep) => {
    const step = currentStep();
    find("step").value = state.step;
    const found = matching();
    if (!found.length) return showNothing("No attempt of this step that is on the page matches the filter.");
    fill(find("attempt"), found.map(([a, i]) => [i, label(a)]));
    if (!found.some(([, i]) => i === state.attempt) || !keep) state.attempt = found[0][1];
    return showAttempt();
  };
  const showRun = () => {
    const run = currentRun(), wanted = state.wantedStep;
    find("run").value = state.run;
    find("note").textContent = run.note;
    fill(find("step"), run.steps.map((s, i) => [i, s.step + (s.alarms.length ? ` (alarm: ${s.alarms.join(", ")})` : "")]));
    const kinds = [...new Set(run.steps.flatMap((s) => s.attempts.map((a) => a.kind)))].sort();
    const kind = find("kind").value;
    fill(find("kind"), [["", "all"], ...kinds.map((k) => [k, k])]);
    find("kind").value = kinds.includes(kind) ? kind : "";
    if (!run.steps.length) {
      fill(find("step"), []);
      return showNothing(run.note);
    }
    const near = run.steps.map((s, i) => [Math.abs(s.step - (wanted ?? s.step)), i]).sort((a, b) => a[0] - b[0]);
    state.step = wanted === undefined ? 0 : near[0][1];
    return showStep(false);
  };
  const moveStep = (by) => {
    const steps = currentRun().steps;
    for (let i = state.step + by; i >= 0 && i < steps.length; i += by) {
      if (!steps[i].attempts.some(passes)) continue;
      state.step = i;
      state.wantedStep = steps[i].step;
      return showStep(false);
    }
    return undefined;
  };
  const moveAttempt = (by) => {
    if (!currentRun().steps.length) return undefined;
    const found = matching(), at = found.findIndex(([, i]) => i === state.attempt);
    if (found[at + by]) {
      state.attempt = found[at + by][1];
      return showAttempt();
    }
    return moveStep(by);
  };
  const enableButtons = () => {
    const steps = currentRun().steps, some = (list) => list.some((s) => s.attempts.some(passes));
    find("step-back").disabled = !some(steps.slice(0, state.step));
    find("step-on").disabled = !some(steps.slice(state.step + 1));
    const found = steps.length ? matching() : [], at = found.findIndex(([, i]) => i === state.attempt);
    find("back").disabled = find("step-back").disabled && at <= 0;
    find("on").disabled = find("step-on").disabled && at >= found.length - 1;
  };

  const listen = () => {
    const on = (name, event, action) => find(name).addEventListener(event, action);
    on("run", "change", () => { state.run = Number(find("run").value); showRun(); });
    on("step", "change", () => {
      state.step = Number(find("step").value);
      state.wantedStep = currentStep().step;
      showStep(false);
    });
    on("attempt", "change", () => { state.attempt = Number(find("attempt").value); showAttempt(); });
    for (const name of ["outcome", "kind"]) on(name, "change", () => { if (currentRun().steps.length) showStep(true); });
    on("scale", "change", () => {
      showScale();
      if (state.shown) for (const span of root.querySelectorAll(".credit-text .credit-token")) {
        paint(span, state.shown, Number(span.dataset.i), clip(state.shown));
      }
    });
    on("step-back", "click", () => moveStep(-1));
    on("step-on", "click", () => moveStep(1));
    on("back", "click", () => moveAttempt(-1));
    on("on", "click", () => moveAttempt(1));
    const over = (event) => {
      const span = event.target.closest(".credit-token");
      if (span && span.dataset.i !== undefined) showTip(span); else hideTip();
    };
    on("text", "mouseover", over);
    on("text", "mouseleave", hideTip);
    on("text", "focusin", over);
    on("text", "focusout", hideTip);
    on("text", "scroll", hideTip);
    window.addEventListener("scroll", hideTip, { passive: true });
    on("text", "keydown", move);
    root.addEventListener("keydown", (event) => {
      if (event.ctrlKey || event.metaKey || event.altKey || event.target.closest("select")) return;
      const moves = { n: () => moveAttempt(1), p: () => moveAttempt(-1), N: () => moveStep(1), P: () => moveStep(-1) };
      if (moves[event.key]) moves[event.key]();
    });
  };
  const move = (event) => {
    const span = event.target.closest(".credit-token");
    if (!span) return;
    if (event.key === "Escape") return hideTip();
    const i = Number(span.dataset.i), last = state.shown.tokens.length - 1;
    const to = { ArrowRight: i + 1, ArrowDown: i + 10, ArrowLeft: i - 1, ArrowUp: i - 10, Home: 0, End: last }[event.key];
    if (to === undefined) return;
    event.preventDefault();
    focusToken(Math.max(0, Math.min(last, to)));
  };

  fill(find("scale"), [[data.clip, `fixed, \u00b1${data.clip} nats`], ["own", "this attempt's strongest"]]);
  fill(find("run"), data.runs.map((run, i) => [i, run.name]));
  listen();
  if (data.runs.length) showRun();
  return { state };
})();
