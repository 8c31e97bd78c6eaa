// The answers explorer: target, model, dose, method, seed; what each state said, beside each other.
"use strict";

page.explorer = {
  state: {},

  show(study) {
    const {explorer} = study;
    if (!explorer.targets.length) {
      page.fill("shown", page.make("p", {class: "note"}, "No answers yet."));
      return;
    }
    const first = explorer.methods[0];
    page.explorer.state = {target: explorer.targets[0].index, model: explorer.models[0],
      dose: explorer.doses[explorer.doses.length - 1], method: first.method,
      variant: first.variant, seed: explorer.seeds[0]};
    window.addEventListener("hashchange", () => page.explorer.follow(true));
    page.explorer.follow(false);
  },

  // What the address asks for; keeps what it does not say.
  follow(changed) {
    const [place, asked] = location.hash.slice(1).split("?");
    if (place === "answers" && asked) {
      const given = Object.fromEntries(new URLSearchParams(asked));
      const state = {...page.explorer.state, verdict: undefined, ...given};
      for (const name of ["target", "dose", "seed"]) state[name] = Number(state[name]);
      page.explorer.state = state;
    } else if (changed) return;
    page.explorer.choose();
    page.explorer.draw(Boolean(asked));
  },

  choose() {
    const {explorer} = page.study;
    const {state} = page.explorer;
    const go = (change) => {
      location.hash = page.address({...state, verdict: undefined, ...change});
    };
    const excerpt = (t) => {
      const said = t.question || `class ${t.answer}`;
      return `${t.index}: ${said.length > 60 ? said.slice(0, 60) + "…" : said}`;
    };
    const methods = explorer.methods.map((m, i) => [i, m.name]);
    const method = explorer.methods.findIndex(
      (m) => m.method === state.method && m.variant === state.variant);
    const choices = [
      page.select("Target", explorer.targets.map((t) => [t.index, excerpt(t)]), state.target,
        (target) => go({target})),
      page.select("Method", methods, method, (i) =>
        go({method: explorer.methods[i].method, variant: explorer.methods[i].variant})),
      page.select("Dose", explorer.doses.map((d) => [d, d]), state.dose, (dose) => go({dose})),
    ];
    if (explorer.models.length > 1) {
      choices.push(page.select("Model", explorer.models.map((m) => [m, m]), state.model,
        (model) => go({model})));
    }
    if (explorer.seeds.length > 1) {
      choices.push(page.select("Seed", explorer.seeds.map((s) => [s, s]), state.seed,
        (seed) => go({seed})));
    }
    // Keep the focus where it was, since the choices are made anew.
    const form = document.getElementById("answers-choice");
    const focused = [...form.querySelectorAll("select")].indexOf(document.activeElement);
    page.fill("answers-choice", ...choices);
    if (focused >= 0) form.querySelectorAll("select")[focused]?.focus();
  },

  async draw(jump) {
    const {make, fill} = page;
    const {state} = page.explorer;
    const line = page.explorer.verdict();
    fill("evidence", line ? page.explorer.evidence(line) : null);
    try {
      const chunk = await page.fetch(`target-${state.target}`);
      if (state !== page.explorer.state) return;
      const columns = page.explorer.columns(chunk, line);
      const metrics = [...new Set(columns.flatMap((c) => (c.found ? Object.keys(c.found.scores) : [])))];
      const main = page.study.metric;
      metrics.sort((a, b) => (b === main) - (a === main));
      const groups = {};
      chunk.samples.forEach((sample, i) => (groups[sample.role] ||= []).push(i));
      const titles = {target: `Target ${state.target}`, similar: "Similar samples",
        neighbour: "Neighbours: alike, without its fact", other: "Other samples, that should stay",
        utility: "Questions of utility, never trained on"};
      const parts = Object.entries(groups).map(([role, places]) => {
        const items = places.map((i) =>
          page.explorer.sample(chunk, i, columns, metrics, role === "target"));
        if (role === "target" || role === "similar") {
          return make("section", {class: role}, make("h3", {}, titles[role]), ...items);
        }
        return make("details", {class: role}, make("summary", {}, `${titles[role]} (${places.length})`), ...items);
      });
      fill("shown", ...parts);
    } catch (error) {
      fill("shown", make("p", {class: "note"}, `The answers cannot be shown: ${error.message}`));
    }
    if (jump) {
      const section = document.getElementById("answers");
      section.scrollIntoView();
      if (!section.contains(document.activeElement)) section.focus({preventScroll: true});
    }
  },

  verdict() {
    const [claim, place] = String(page.explorer.state.verdict || "").split(".").map(Number);
    const found = page.study.claims[claim];
    const line = found && found.lines[place];
    return line ? {claim: found, number: claim, place, ...line} : null;
  },

  // The verdict whose answers these are, with a way to each of its targets.
  evidence(line) {
    const {make} = page;
    const {target} = page.explorer.state;
    return make("aside", {"aria-label": "Verdict"},
      make("p", {}, make("strong", {}, line.claim.title), ". ", `${line.name}: ${line.sentence}. `,
        make("span", {class: `word ${line.word}`}, line.verdict)),
      make("ol", {class: "targets"}, ...line.targets.map((t, i) => make("li", {},
        make("a", {href: page.evidence(line.claim, line, line.number, line.place, t),
          "aria-current": t === target ? "true" : null},
        make("span", {}, `target ${t}`), ` ${page.signed(line.differences[i])}`)))));
  },

  // The states beside each other: both phases before, after, and what it is compared with.
  columns(chunk, line) {
    const {state} = page.explorer;
    const find = (wanted) => chunk.states.find((s) =>
      Object.entries(wanted).every(([name, value]) => s[name] === value));
    const of = {model: state.model, seed: state.seed, dose: state.dose};
    const post = {phase: "post_unlearn", ...of};
    const columns = [
      {title: "before fine-tuning", found: find({phase: "pre_finetune", model: state.model})},
      {title: "before unlearning", found: find({phase: "pre_unlearn", ...of})},
      {title: "after unlearning", after: true,
        found: find({...post, method: state.method, variant: state.variant})},
    ];
    const against = line && line.against;
    if (against) {
      columns.push({title: `compared: ${against.method}${against.variant === "plain" ? "" : "+" + against.variant}, dose ${against.dose}`,
        found: find({...post, ...against})});
    } else if (state.method !== "retrain") {
      const again = find({...post, method: "retrain", variant: "plain"});
      if (again) columns.push({title: "retrained without it", found: again});
    }
    return columns;
  },

  sample(chunk, i, columns, metrics, all) {
    const {make} = page;
    const sample = chunk.samples[i];
    const truth = page.explorer.words(sample.answer).map((w) => w.key).filter(Boolean);
    const shown = columns.map((column) => {
      const answer = column.found ? column.found.answers[i] : null;
      const picture = column.found && column.found.pictures ? column.found.pictures[i] : null;
      const body = answer === null || answer === undefined
        ? make("p", {class: "none"}, "not asked, or not done")
        : picture ? page.explorer.picture(picture, column.title)
          : make("p", {class: "answer", dir: "auto"}, ...page.explorer.marked(answer, new Set(truth)));
      const scores = column.found && metrics.filter((m) => column.found.scores[m]?.[i] !== null &&
        column.found.scores[m]?.[i] !== undefined).map((m, k) => make("div", {class: k ? null : "main"},
        make("dt", {}, m), make("dd", {}, page.explorer.number(column.found.scores[m][i]))));
      return make("div", {class: column.after ? "state after" : "state"}, make("h5", {}, column.title), body,
        scores && scores.length ? make("dl", {class: "scores"}, ...(all ? scores : scores.slice(0, 1))) : null);
    });
    const pictures = sample.picture
      ? [make("div", {class: "state"}, make("h5", {}, "original"), page.explorer.picture(sample.picture, "original"),
        make("dl", {class: "scores"}, make("div", {}, make("dt", {}, "class"), make("dd", {}, sample.answer))))]
      : [];
    const alike = all && chunk.nearest ? chunk.nearest.map((near) => make("div", {class: "state"},
      make("h5", {}, near.title), page.explorer.picture(near.picture, near.title),
      make("dl", {class: "scores"}, make("div", {class: "main"}, make("dt", {}, "ssim with the original"),
        make("dd", {}, page.explorer.number(near.ssim)))))) : [];
    return make("article", {class: sample.picture ? "sample image" : "sample"},
      sample.question === null ? null : make("h4", {dir: "auto"}, sample.question),
      sample.picture ? null : make("p", {class: "truth", dir: "auto"},
        make("span", {}, "True answer "), make("bdi", {}, sample.answer)),
      make("div", {class: "states"}, ...pictures, ...shown, ...alike));
  },

  picture(source, title) {
    return page.make("img", {class: "pixels", src: source, alt: title});
  },

  number(value) {
    if (typeof value !== "number") return String(value);
    return Math.abs(value) >= 1000 ? value.toExponential(1) : Math.abs(value) >= 10 ? value.toFixed(1) : value.toFixed(2);
  },

  // Pieces of a text; words have a key that ignores case. Of scripts without spaces between words
  // each character is one, as in the scores.
  words(text) {
    const alone = "\\p{Script=Han}\\p{Script=Hiragana}\\p{Script=Katakana}\u30fc\\p{Script=Thai}" +
      "\\p{Script=Lao}\\p{Script=Khmer}\\p{Script=Myanmar}";
    const words = new RegExp(`([${alone}]\\p{M}*|(?:(?![${alone}])[\\p{L}\\p{N}]\\p{M}*)+)|[^\\p{L}\\p{N}]+`, "gu");
    return [...text.normalize("NFC").matchAll(words)].map((m) =>
      ({text: m[0], key: m[1] ? m[1].toLowerCase() : null}));
  },

  // The answer with the words that it shares with the true one marked.
  marked(answer, truth) {
    if (!answer) return [page.make("em", {}, "empty")];
    const pieces = page.explorer.words(answer);
    const shared = (piece) => Boolean(piece && piece.key && truth.has(piece.key));
    const runs = [];
    pieces.forEach((piece, i) => {
      // A space between two shared words is marked with them.
      const mark = shared(piece) || (piece.text === " " && shared(pieces[i - 1]) && shared(pieces[i + 1]));
      const last = runs[runs.length - 1];
      if (last && last.mark === mark) last.text += piece.text;
      else runs.push({mark, text: piece.text});
    });
    return runs.map((run) => (run.mark ? page.make("mark", {}, run.text) : run.text));
  },
};
