// Sort tables, copy them and open folded parts. The page shows everything without this script.
const status = document.getElementById("status");
const text = (node) => (node ? node.textContent.replace(/\s+/g, " ").trim() : "");
const name = (heading) => {
  const alone = heading.cloneNode(true);
  alone.querySelector("small")?.remove(); // "not run"
  return text(alone);
};
const cellsOf = (row) => [...row.cells];

// Sort: largest first, smallest first, as printed.

function key(cell) {
  const [printed, ours] = (cell.dataset.c || "").split("|");
  const shown = ours || printed || (cell.dataset.c === undefined ? text(cell) : "");
  const number = Number(shown.replace(/^\+/, "").replace("−", "-"));
  return shown === "" ? null : Number.isNaN(number) ? shown : number;
}

function compare(one, other) {
  if (typeof one === "number" && typeof other === "number") return one - other;
  return String(one).localeCompare(String(other), undefined, { numeric: true });
}

function sort(table, column, heading) {
  const body = table.tBodies[0];
  const next = { none: "descending", descending: "ascending", ascending: "none" };
  const order = next[heading.getAttribute("aria-sort") || "none"];
  for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
  if (order !== "none") heading.setAttribute("aria-sort", order);
  const sign = order === "descending" ? -1 : 1;
  const rows = [...body.rows].map((row) => [order === "none" ? null : key(row.cells[column]), row]);
  rows.sort(([one, a], [other, b]) => {
    if (one === null || other === null)
      return (one === null) - (other === null) || a.dataset.position - b.dataset.position;
    return sign * compare(one, other) || a.dataset.position - b.dataset.position;
  });
  body.append(...rows.map(([, row]) => row));
  status.textContent = order === "none" ? "As printed" : `Sorted by ${name(heading)}, ${order}`;
}

function makeSortable(table) {
  [...table.tBodies[0].rows].forEach((row, position) => (row.dataset.position = position));
  [...table.tHead.rows[0].cells].forEach((heading, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...[...heading.childNodes].filter((node) => node.nodeName !== "SMALL"));
    button.addEventListener("click", () => sort(table, column, heading));
    heading.prepend(button);
  });
}

// Copy: Markdown and LaTeX as shown, CSV with one number per line.

function shownLines(table) {
  if (!table.classList.contains("grid"))
    return [...table.rows].map((row) => cellsOf(row).map((cell) => cell.dataset.t || text(cell)));
  const head = cellsOf(table.tHead.rows[0]).map(name);
  const compared = table.querySelector(".p") !== null;
  const lines = [[head[0], ...(compared ? [""] : []), ...head.slice(1)]];
  for (const row of table.tBodies[0].rows) {
    const [heading, ...cells] = cellsOf(row);
    const kinds = { printed: ".p", ours: ".o", verdict: ".verdict" };
    let label = name(heading);
    for (const [kind, selector] of Object.entries(kinds)) {
      if (!compared && kind !== "ours") continue;
      const texts = cells.map((cell) => text(cell.querySelector(selector)).replace(/^\W (?=\w)/, ""));
      if (!texts.some(Boolean)) continue;
      lines.push([label, ...(compared ? [kind] : []), ...texts]);
      label = "";
    }
  }
  return lines;
}

function toMarkdown(table) {
  const lines = shownLines(table).map((line) => line.map((cell) => cell.replaceAll("|", "\\|")));
  const rule = lines[0].map((_, i) => (i ? "---:" : "---"));
  return [lines[0], rule, ...lines.slice(1)].map((line) => `| ${line.join(" | ")} |`).join("\n") + "\n";
}

function toLatex(table) {
  const special = { "\\": "\\textbackslash{}", "~": "\\textasciitilde{}", "^": "\\textasciicircum{}" };
  const escape = (cell) =>
    cell.replace(/[\\~^&%$#_{}−]/g, (sign) => (sign === "−" ? "$-$" : special[sign] || `\\${sign}`));
  const lines = shownLines(table).map((line) => line.map(escape).join(" & ") + " \\\\");
  const columns = "l" + "r".repeat(shownLines(table)[0].length - 1);
  const [head, ...rest] = lines;
  const body = [`\\begin{tabular}{${columns}}`, "\\toprule", head, "\\midrule", ...rest, "\\bottomrule"];
  return ["% \\usepackage{booktabs}", ...body, "\\end{tabular}"].join("\n") + "\n";
}

function toCsv(table) {
  const quoted = (cell) => (/[",\n]/.test(cell) ? `"${cell.replaceAll('"', '""')}"` : cell);
  let lines = shownLines(table);
  if (table.classList.contains("grid")) {
    const [corner, ...columns] = cellsOf(table.tHead.rows[0]).map(name);
    lines = [[corner.toLowerCase(), "column", "printed", "ours", "low", "high", "verdict"]];
    for (const row of table.tBodies[0].rows)
      [...row.cells].slice(1).forEach((cell, i) => {
        if (cell.dataset.c !== undefined)
          lines.push([name(row.cells[0]), columns[i], ...cell.dataset.c.split("|"), cell.dataset.w || "not published"]);
      });
  }
  return lines.map((line) => line.map(quoted).join(",")).join("\n") + "\n";
}

async function copy(content) {
  try {
    await navigator.clipboard.writeText(content);
    return true;
  } catch {
    const area = document.createElement("textarea"); // where the clipboard API is not allowed
    area.value = content;
    area.className = "hidden";
    document.body.append(area);
    area.select();
    const done = document.execCommand("copy");
    area.remove();
    return done;
  }
}

function addCopying(table) {
  const bar = document.createElement("div");
  bar.className = "copy";
  bar.setAttribute("role", "group");
  bar.setAttribute("aria-label", `Copy ${table.dataset.name} as`);
  bar.append("Copy as ");
  for (const [format, write] of Object.entries({ Markdown: toMarkdown, LaTeX: toLatex, CSV: toCsv })) {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = format;
    button.addEventListener("click", async () => {
      const done = await copy(write(table));
      status.textContent = done ? `${format} copied` : "Copying is not allowed here";
      button.textContent = done ? "Copied" : "Not allowed";
      button.focus();
      setTimeout(() => (button.textContent = format), 1500);
    });
    bar.append(button);
  }
  table.parentElement.after(bar);
}

// Unfold: open the target of a link, and everything when the page is printed.

function reveal() {
  const target = document.getElementById(decodeURIComponent(location.hash.slice(1)));
  if (!target) return;
  for (let part = target; part; part = part.parentElement) if (part.matches("details")) part.open = true;
  target.scrollIntoView();
}

for (const table of document.querySelectorAll("table[data-name]")) {
  if (table.tBodies.length === 1 && !table.classList.contains("overview")) makeSortable(table);
  addCopying(table);
}
addEventListener("hashchange", reveal);
reveal();
let folded = [];
addEventListener("beforeprint", () => {
  folded = [...document.querySelectorAll("details:not([open]):not(td details)")];
  for (const each of folded) each.open = true;
});
addEventListener("afterprint", () => folded.forEach((each) => (each.open = false)));
