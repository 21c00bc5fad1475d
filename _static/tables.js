// Numbers stand under one another on the right, words begin on the left, sentences get room: column by column in the
// tables that cells make.
document.addEventListener("DOMContentLoaded", () => {
  const number = /^[-+−]?[\d,]*\.?\d+(e[-+]?\d+)?\s*%?$|^(nan|inf|-inf|not run|–|)$/i;
  for (const table of document.querySelectorAll("table.dataframe")) {
    const rows = [...table.tBodies].flatMap((body) => [...body.rows]);
    if (!rows.length) continue;
    const columns = rows[0].querySelectorAll("td").length;
    const nth = (row, cells, i) => row.querySelectorAll(cells)[row.querySelectorAll(cells).length - columns + i];
    for (let i = 0; i < columns; i++) {
      const cells = rows.map((row) => nth(row, "td", i)).filter(Boolean);
      if (cells.some((cell) => cell.textContent.trim().length > 30)) cells.forEach((cell) => cell.classList.add("words"));
      if (!cells.every((cell) => number.test(cell.textContent.trim()))) continue;
      for (const cell of [...cells, ...[...(table.tHead?.rows ?? [])].map((row) => nth(row, "th", i)).filter(Boolean)])
        cell.classList.add("number");
    }
  }
});
