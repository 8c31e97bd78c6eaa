// The leaderboard: a line a method, sortable, each number with its interval.
"use strict";

page.leaderboard = {
  show(study) {
    const boards = study.leaderboards;
    if (!boards.length) {
      document.getElementById("leaderboard").hidden = true;
      return;
    }
    const names = boards.map((board, i) =>
      [i, `${board.model}, ${board.dose} similar samples in the data`]);
    const choose = (i) => page.leaderboard.table(boards[i], null);
    page.fill("leaderboard-choice", page.select("Models", names, 0, choose));
    document.getElementById("leaderboard-choice").hidden = boards.length < 2;
    choose(0);
  },

  // Methods by a column, the best first; what they are compared with stays below.
  table(board, by) {
    const {make, fill} = page;
    const column = board.columns.find((one) => one.name === by);
    const lines = [...board.lines];
    if (column) {
      const value = (line) => (line.values[by] ? line.values[by][0] : null);
      lines.sort((a, b) => {
        if ((a.kind === "method") !== (b.kind === "method")) return a.kind === "method" ? -1 : 1;
        if (value(a) === null || value(b) === null) return (value(a) === null) - (value(b) === null);
        return (column.better === "low" ? 1 : -1) * (value(a) - value(b));
      });
    }
    const groups = [];
    for (const one of board.columns) {
      const last = groups[groups.length - 1];
      if (last && last.name === one.group) last.size += 1;
      else groups.push({name: one.group, size: 1});
    }
    const head = board.columns.map((one) => {
      const button = make("button", {type: "button", title: one.meaning},
        `${one.name} ${one.better === "low" ? "\u2193" : "\u2191"}`);
      button.addEventListener("click", () => page.leaderboard.table(board, one.name));
      return make("th", {scope: "col", class: "number",
        "aria-sort": one.name === by ? (one.better === "low" ? "ascending" : "descending") : null}, button);
    });
    const rows = lines.map((line) => make("tr", {class: line.kind === "method" ? null : "beside"},
      make("th", {scope: "row"}, `${line.front ? "\u2605 " : ""}${line.name}`),
      ...board.columns.map((one) => page.leaderboard.cell(one, line.values[one.name], board.share)),
      make("td", {class: "number"}, line.diverged ? `${line.targets}, ${line.diverged} diverged` : line.targets)));
    fill("leaderboard-table", make("p", {class: "note"}, `Score: ${board.metric}.`),
      make("div", {class: "scroll", tabindex: 0, role: "region", "aria-label": "Leaderboard"},
        make("table", {class: "leaderboard"},
          make("thead", {},
            make("tr", {}, make("td", {}), ...groups.map((group) =>
              make("th", {scope: "colgroup", colspan: group.size, class: "group"}, group.name)), make("td", {})),
            make("tr", {}, make("th", {scope: "col"}, "method"), ...head,
              make("th", {scope: "col", class: "number"}, "targets"))),
          make("tbody", {}, ...rows))));
  },

  cell(column, value, share) {
    const {make} = page;
    if (!value) return make("td", {class: "number"}, "");
    const [mean, low, high] = value;
    const small = Math.abs(mean) < 0.01 && mean !== 0;
    const said = small ? mean.toExponential(1) : mean.toFixed(2);
    if (low === null || column.group === "cost") return make("td", {class: "number"}, said);
    return make("td", {class: "number", title: `${low.toFixed(2)} to ${high.toFixed(2)}`},
      said, share ? page.leaderboard.bar(mean, low, high) : null);
  },

  // From 0 to 1: the interval as a line, the mean as a dot.
  bar(mean, low, high) {
    const {make} = page;
    const at = (value) => `${100 * Math.min(1, Math.max(0, value))}%`;
    const interval = make("span", {class: "interval"}), dot = make("span", {class: "dot"});
    interval.style.left = at(low);
    interval.style.right = at(1 - high);
    dot.style.left = at(mean);
    return make("span", {class: "bar", "aria-hidden": "true"}, interval, dot);
  },
};
