// The page: verdicts, findings, figures, what ran, downloads. All text is set as text, never as markup.
"use strict";

const page = {
  study: null,
  waiting: new Map(),

  // Data files call this; each is a script since a page from disk may load nothing else.
  receive(name, data) {
    if (name === "study") {
      page.study = data;
      page.show(data);
    } else if (name === "version") {
      if (page.study && data !== page.study.watched) location.reload();
    } else if (page.waiting.has(name)) {
      page.waiting.get(name)(data);
      page.waiting.delete(name);
    }
  },

  loads: new Map(),

  load(path) {
    if (!page.loads.has(path)) {
      page.loads.set(path, new Promise((resolve, reject) => {
        const script = document.createElement("script");
        script.src = path;
        script.onload = () => resolve();
        script.onerror = () => {
          page.loads.delete(path);
          reject(new Error(`${path} is missing beside this page`));
        };
        document.head.append(script);
      }));
    }
    return page.loads.get(path);
  },

  // A data file's content, kept once it is there.
  data: new Map(),

  fetch(name) {
    if (!page.data.has(name)) {
      page.data.set(name, new Promise((resolve, reject) => {
        page.waiting.set(name, resolve);
        page.load(`data/${name}.js`).catch((error) => {
          page.data.delete(name);
          reject(error);
        });
      }));
    }
    return page.data.get(name);
  },

  // make("p", {class: "note"}, "text", child, ...): an element with attributes and children.
  make(tag, attributes, ...children) {
    const element = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes || {})) {
      if (value === null || value === undefined || value === false) continue;
      element.setAttribute(name, value === true ? "" : String(value));
    }
    element.append(...children.filter((child) => child !== null && child !== undefined));
    return element;
  },

  fill(id, ...children) {
    document.getElementById(id).replaceChildren(...children.filter(Boolean));
  },

  table(columns, rows, words, caption) {
    const {make} = page;
    const kind = (i) => (i < words ? null : "number");
    return make("div", {class: "scroll", tabindex: 0, role: "region", "aria-label": caption},
      make("table", {},
        make("thead", {}, make("tr", {}, ...columns.map((name, i) =>
          make("th", {scope: "col", class: kind(i)}, name)))),
        make("tbody", {}, ...rows.map((row) => make("tr", {}, ...row.map((cell, i) =>
          make(i ? "td" : "th", {class: kind(i), scope: i ? null : "row"}, cell)))))));
  },

  // A labelled choice; gives its value to `changed`.
  select(label, options, value, changed) {
    const {make} = page;
    const list = make("select", {}, ...options.map(([key, name]) =>
      make("option", {value: key, selected: String(key) === String(value)}, name)));
    list.addEventListener("change", () => changed(list.value));
    return make("label", {}, make("span", {}, label), list);
  },

  signed(value) {
    return (value < 0 ? "\u2212" : "+") + Math.abs(value).toFixed(2);
  },

  address(state) {
    return "#answers?" + Object.entries(state).filter(([, v]) => v !== undefined && v !== null)
      .map(([k, v]) => `${k}=${encodeURIComponent(v)}`).join("&");
  },

  show(study) {
    const {make, fill} = page;
    fill("lead", ...study.lead.map((said) => make("p", {}, said)),
      make("p", {class: "reference"}, study.reference),
      study.note ? make("p", {class: "reference"}, study.note) : null);
    fill("facts", ...study.facts.map(([name, value]) =>
      make("div", {}, make("dt", {}, name), make("dd", {}, value))));
    page.showVerdicts(study);
    page.leaderboard.show(study);
    page.charts.show(study);
    page.explorer.show(study);
    page.showFigures(study);
    page.showRan(study.ran);
    page.showDownloads(study);
    if (study.watched && location.protocol === "http:") page.watch();
  },

  showVerdicts(study) {
    const {make, fill} = page;
    fill("verdicts-note",
      `Differences of ${study.metric} (or of the score a claim names), means over targets with ` +
      "95 % intervals (targets and seeds drawn again; none for fewer than 3). Supported or " +
      "contradicted: at 5 % over all lines of a claim, those on further scores and after attacks " +
      "together (Holm) and by what matters (shaded) or " +
      "more. A line opens the answers behind it.");
    fill("claims", ...study.claims.map((claim, number) => page.claim(claim, number)));
    fill("findings", ...study.findings.map((table) => make("details",
      {class: "finding", open: table.rows.length <= 12},
      make("summary", {}, make("h3", {}, table.title)), make("p", {class: "note"}, table.caption),
      page.table(table.columns, table.rows, table.words, table.title))));
  },

  claim(claim, number) {
    const {make} = page;
    const marks = Object.entries(claim.words).map(([word, count]) =>
      make("span", {class: `word ${word}`}, `${count} ${word}`));
    const chart = make("div", {class: "chart forest"});
    const lines = make("ul", {class: "lines"});
    const details = make("details", {class: "claim", id: `claim-${claim.id}`},
      make("summary", {},
        make("span", {class: "short"}, claim.short), make("h3", {}, claim.title),
        make("span", {class: "words"}, ...marks),
        make("span", {class: "said"}, claim.summary)),
      chart, lines);
    details.addEventListener("toggle", () => {
      if (!details.open || lines.childElementCount) return;
      lines.append(...claim.lines.map((line, place) => make("li", {},
        make("a", {href: page.evidence(claim, line, number, place)},
          make("span", {class: "name"}, line.name),
          make("span", {class: "sentence"}, line.sentence),
          make("span", {class: `word ${line.word}`}, line.verdict)))));
      page.charts.forest(chart, claim, number);
    });
    details.open = claim.main;
    return details;
  },

  // The address of a verdict's answers, at one of its targets.
  evidence(claim, line, number, place, target) {
    return page.address({
      target: target === undefined ? line.targets[0] : target, model: line.model, dose: line.dose,
      method: line.method, variant: line.variant, verdict: `${number}.${place}`,
    });
  },

  showFigures(study) {
    const {make, fill} = page;
    if (!study.figures.length) {
      fill("figure-list", make("p", {class: "note"},
        "Not drawn yet: ", make("code", {}, `distforget report ${study.study}`), " draws them."));
      return;
    }
    fill("figure-list", ...study.figures.map((figure) => make("details", {class: "figure"},
      make("summary", {}, figure.title),
      make("img", {src: figure.svg || figure.png, alt: figure.title, loading: "lazy"}),
      make("p", {}, ...["svg", "png"].filter((kind) => figure[kind]).map((kind) =>
        make("a", {href: figure[kind], download: true}, kind))))));
  },

  showRan(ran) {
    const {make, fill} = page;
    const failed = ran.failed.map((cell) => make("details", {class: "failed"},
      make("summary", {}, make("code", {}, cell.cell), ` ${cell.state}: `,
        make("span", {}, `${cell.error_class || ""}: ${cell.error_message || ""}`)),
      make("pre", {tabindex: 0}, cell.error_traceback || "no traceback")));
    const missing = ran.planned - ran.done - ran.failed.length;
    fill("ran-list",
      make("p", {}, `${ran.done} of ${ran.planned} cells are done, ${ran.failed.length} failed or ` +
        `blocked, ${missing} not run.`),
      make("h3", {}, "Stages"),
      page.table(["stage", "done", "time in all", "median", "device"], ran.stages, 1, "Stages"),
      make("h3", {}, "Failed cells"),
      ...(failed.length ? failed : [make("p", {class: "note"}, "None.")]),
      make("h3", {}, "Diverged cells"),
      make("p", {class: "note"}, ran.diverged.length ? ran.diverged.join(", ") : "None."),
      make("h3", {}, "Cells with skipped steps"),
      make("p", {class: "note"}, ran.skipped.length
        ? `Steps whose gradient was not finite, of all: ${ran.skipped.join(", ")}` : "None."),
      make("h3", {}, "Versions"),
      page.table(["commit", "host", "packages", "results"], ran.places, 3, "Versions"),
      make("details", {}, make("summary", {}, "The study, field by field"),
        page.table(["field", "value"], ran.study, 2, "Study")));
  },

  showDownloads(study) {
    const {make, fill} = page;
    const size = (bytes) => (bytes < 1e5 ? `${(bytes / 1e3).toFixed(1)} kB` : `${(bytes / 1e6).toFixed(1)} MB`);
    const link = (path, bytes) => path
      ? make("a", {href: path, download: true}, size(bytes)) : "";
    fill("download-list", page.table(["table", "meaning", "rows", "Parquet", "CSV"],
      study.downloads.map((table) => [table.name, table.meaning, table.rows.toLocaleString("en"),
        link(table.parquet, table.parquet_bytes), link(table.csv, table.csv_bytes)]),
      2, "Tables"));
  },

  // Served while the study runs: look for a newer page now and then.
  watch() {
    setInterval(() => {
      page.loads.delete(page.asked);
      page.asked = `data/version.js?${Date.now()}`;
      page.load(page.asked).catch(() => undefined);
    }, 3000);
  },
};
