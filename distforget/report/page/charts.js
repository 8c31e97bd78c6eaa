// Charts: picks rows of the study's data and has Vega-Lite draw them; a dot leads to its answers.
"use strict";

page.charts = {
  drawn: [],
  chosen: {model: null, role: null},

  show(study) {
    const {make, fill, select} = page;
    const roles = Object.keys(study.levels);
    const chosen = page.charts.chosen;
    chosen.model = study.explorer.models[0];
    chosen.role = roles[0];
    if (!roles.length) {
      fill("chart-list", make("p", {class: "note"}, "Nothing to draw yet: no cell is done."));
      return;
    }
    const again = (name) => (value) => {
      chosen[name] = value;
      page.charts.redraw((chart) => chart.choice);
    };
    fill("chart-choice",
      select("Model", study.explorer.models.map((m) => [m, m]), chosen.model, again("model")),
      select("Asked", roles.map((r) => [r, r === "target" ? "the target" : "its similar samples"]),
        chosen.role, again("role")));
    const levels = make("div", {class: "chart"});
    fill("chart-list",
      make("figure", {},
        make("figcaption", {}, make("strong", {}, "What is known in each state. "),
          "A dot is a target, in order from above; a bar the mean over targets, with its 95 % interval."),
        levels));
    page.charts.later(levels, () => page.charts.levels(study), true);
    if (study.charts.doses) {
      const doses = make("div", {class: "chart"});
      document.getElementById("chart-list").append(make("figure", {},
        make("figcaption", {}, make("strong", {}, "Dose-response. "),
          "What is known over the number of similar samples trained on."), doses));
      page.charts.later(doses, () => page.charts.doses(study), true);
    }
  },

  forest(place, claim, number) {
    page.charts.later(place, () => {
      const study = page.study;
      const lines = claim.lines.map((line) => ({...line,
        told: `${line.name}: ${line.sentence}. ${line.verdict}`}));
      const points = claim.lines.flatMap((line, i) => line.targets.map((target, j) => ({
        name: line.name, state: line.state, value: line.differences[j],
        told: `${line.name}, target ${target}: ${page.signed(line.differences[j])}`,
        href: page.evidence(claim, line, number, i, target),
      })));
      const margin = [{low: -claim.margin, high: claim.margin, zero: 0}];
      const spec = {...study.charts.forest, height: 22 * lines.length};
      return {spec, datasets: {lines, points, margin}};
    }, false);
  },

  // Rows of a role's table of columns, of the chosen model.
  rows(columns) {
    const names = Object.keys(columns);
    const rows = columns.model.map((_, i) =>
      Object.fromEntries(names.map((name) => [name, columns[name][i]])));
    return rows.filter((row) => row.model === page.charts.chosen.model);
  },

  picked(study) {
    const {role} = page.charts.chosen;
    const order = study.charts.order;
    const by = (a, b) => order.indexOf(a.state) - order.indexOf(b.state) || a.dose - b.dose;
    const of = (state) => study.explorer.methods.find((m) => m.name === state);
    const points = page.charts.rows(study.levels[role].points).sort(by);
    const lines = page.charts.rows(study.levels[role].means).sort(by);
    for (const point of points) {
      const method = of(point.state) || study.explorer.methods[0];
      point.told = `${point.state}, dose ${point.dose}, target ${point.target}: ${point.value.toFixed(2)}`;
      point.href = page.address({target: point.target, model: point.model, dose: point.dose,
        method: method.method, variant: method.variant});
    }
    for (const line of lines) {
      const known = typeof line.lower === "number"
        ? ` (${line.lower.toFixed(2)} to ${line.upper.toFixed(2)})` : "";
      line.told = `${line.state}, dose ${line.dose}: mean ${line.mean.toFixed(2)}${known}, n = ${line.n}`;
    }
    return {points, lines};
  },

  levels(study) {
    const {points, lines} = page.charts.picked(study);
    const doses = study.explorer.doses;
    const shown = doses.length > 2 ? [doses[0], doses[doses.length - 1]] : doses;
    const targets = study.explorer.unlearned;
    // Before fine-tuning there is no data, so no dose: one line.
    const keep = (row) => (row.state === "before fine-tuning"
      ? row.dose === shown[shown.length - 1] : shown.includes(row.dose));
    for (const row of [...points, ...lines]) {
      row.line = row.state === "before fine-tuning" || shown.length === 1
        ? row.state : `${row.state}, dose ${row.dose}`;
      row.offset = 0.1 + (0.8 * (targets.indexOf(row.target) + 0.5)) / targets.length;
    }
    const datasets = {points: points.filter(keep), lines: lines.filter(keep)};
    const height = 26 * new Set(datasets.lines.map((row) => row.line)).size;
    return {spec: {...study.charts.levels, height}, datasets};
  },

  doses(study) {
    return {spec: study.charts.doses, datasets: page.charts.picked(study)};
  },

  // Draw when it comes into view; `choice`: it depends on what is chosen above it.
  later(place, make, choice) {
    const chart = {place, make, choice, seen: false};
    page.charts.drawn.push(chart);
    place.textContent = "Drawing …";
    const watcher = new IntersectionObserver((entries) => {
      if (!entries.some((entry) => entry.isIntersecting)) return;
      watcher.disconnect();
      chart.seen = true;
      page.charts.draw(chart);
    }, {rootMargin: "300px"});
    watcher.observe(place);
  },

  redraw(which) {
    page.charts.drawn.filter((c) => c.seen && which(c)).forEach((c) => page.charts.draw(c));
  },

  async draw(chart) {
    try {
      await page.load("vega.js");
      const {spec, datasets} = chart.make();
      if (chart.view) chart.view.finalize();
      const narrow = chart.place.clientWidth < 520;
      const made = await window.vegaEmbed(chart.place, {...spec, datasets}, {
        actions: false, defaultStyle: false, ast: true, renderer: "svg",
        config: page.charts.config(narrow), tooltip: page.charts.tooltip, logLevel: 1,
      });
      chart.view = made.view;
      made.view.addEventListener("click", (_, item) => {
        if (item && item.datum && item.datum.href) location.hash = item.datum.href;
      });
      page.charts.keys(chart.place);
    } catch (error) {
      chart.place.textContent = `This chart cannot be drawn: ${error.message}`;
    }
  },

  // One stop for Tab, arrow keys between dots, Enter to follow.
  keys(place) {
    const dots = [...place.querySelectorAll("path")].filter((path) => {
      const item = path.__data__;
      return item && item.datum && item.datum.href;
    });
    if (place.classList.contains("forest")) {
      // Means lie above the dots, but a click is for the dot: sentences below say the means.
      place.querySelectorAll(".mark-symbol path:not([tabindex]), .mark-rule line").forEach((mark) => {
        if (!dots.includes(mark)) mark.setAttribute("pointer-events", "none");
      });
    }
    dots.forEach((dot, i) => {
      dot.setAttribute("tabindex", i ? "-1" : "0");
      dot.setAttribute("role", "link");
      dot.setAttribute("aria-label", dot.__data__.datum.told);
      dot.addEventListener("keydown", (event) => {
        const moves = {ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1};
        if (event.key === "Enter") location.hash = dot.__data__.datum.href;
        else if (event.key in moves) {
          const next = dots[(i + moves[event.key] + dots.length) % dots.length];
          dot.setAttribute("tabindex", "-1");
          next.setAttribute("tabindex", "0");
          next.focus();
        } else return;
        event.preventDefault();
      });
      dot.addEventListener("focus", () => page.charts.tell(dot.__data__.datum.told,
        dot.getBoundingClientRect()));
      dot.addEventListener("blur", () => page.charts.tell(""));
    });
    const drawing = place.querySelector("svg");
    if (drawing) {
      drawing.setAttribute("role", "group");
      drawing.setAttribute("aria-roledescription", "chart");
      drawing.setAttribute("aria-label", `Chart with ${dots.length} targets; arrow keys move among them`);
      drawing.querySelectorAll("g[role], path[role='graphics-symbol']").forEach((mark) =>
        mark.setAttribute("aria-hidden", mark.querySelector("[tabindex]") ? "false" : "true"));
    }
  },

  tell(text, box) {
    let tip = document.getElementById("tip");
    if (!tip) {
      tip = page.make("div", {id: "tip", role: "tooltip"});
      document.body.append(tip);
    }
    tip.textContent = text;
    tip.hidden = !text;
    if (!text || !box) return;
    const left = Math.min(box.left + 12, document.documentElement.clientWidth - tip.offsetWidth - 8);
    tip.style.left = `${Math.max(8, left) + window.scrollX}px`;
    tip.style.top = `${box.bottom + 10 + window.scrollY}px`;
  },

  tooltip(_, event, __, value) {
    const known = value === null || value === undefined || value === "" ? "" : String(value);
    page.charts.tell(known, {left: event.clientX, bottom: event.clientY + 6});
  },

  // Colours and type of the page, light or dark.
  config(narrow) {
    const style = getComputedStyle(document.documentElement);
    const colour = (name) => style.getPropertyValue(name).trim();
    const font = getComputedStyle(document.body).fontFamily;
    const ink = colour("--ink"), soft = colour("--soft"), line = colour("--line");
    return {
      background: "transparent", font, view: {stroke: null},
      axis: {labelColor: ink, titleColor: soft, titleFontWeight: 400, gridColor: line,
        domainColor: line, tickColor: line, labelFontSize: 12, titleFontSize: 12,
        titlePadding: 8},
      axisY: {grid: false, domain: false, labelPadding: 8, ...(narrow ? {labelLimit: 130, labelFontSize: 11} : {})},
      legend: {labelColor: ink, labelFontSize: 12, symbolStrokeWidth: 0},
      rule: {color: soft}, scale: {bandPaddingInner: 0.1},
    };
  },
};

matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () =>
  page.charts.redraw(() => true));
