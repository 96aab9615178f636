// A link to a closed group opens it.
function openTarget() {
  const target = document.getElementById(decodeURIComponent(location.hash.slice(1)));
  if (target && target.tagName === "DETAILS") { target.open = true; target.scrollIntoView(); }
}
addEventListener("hashchange", openTarget);
openTarget();

// Nobody can open a group on paper.
addEventListener("beforeprint", () => { for (const each of document.querySelectorAll("details")) each.open = true; });

// Inside another page, as MLflow shows it, a link out of the page would show nothing: only links within the page work.
if (self !== top) {
  for (const link of document.querySelectorAll("a[href]")) {
    const id = link.getAttribute("href").startsWith("#") && decodeURIComponent(link.hash.slice(1));
    const target = id && document.getElementById(id);
    if (!target) { link.removeAttribute("href"); link.title = "Open the page by itself to follow this link"; continue; }
    link.addEventListener("click", event => {
      event.preventDefault();
      if (target.tagName === "DETAILS") target.open = true;
      target.scrollIntoView();
    });
  }
}

// The head of a column sorts by it, numbers by value and all else as text; a second click reverses the order.
const value = cell => {
  const text = cell.textContent.trim().replace("−", "-");
  const number = parseFloat(text);
  return { text, number: Number.isNaN(number) ? -Infinity : number };
};
for (const table of document.querySelectorAll("table.sortable")) {
  const body = table.tBodies[0];
  table.querySelectorAll("thead th button").forEach((button, column) => {
    button.addEventListener("click", () => {
      const head = button.closest("th"), up = head.getAttribute("aria-sort") !== "ascending";
      for (const other of table.querySelectorAll("thead th")) other.removeAttribute("aria-sort");
      head.setAttribute("aria-sort", up ? "ascending" : "descending");
      const rows = [...body.rows].map(row => ({ row, ...value(row.cells[column]) }));
      const numeric = rows.some(each => each.number !== -Infinity);
      rows.sort((a, b) => numeric ? a.number - b.number : a.text.localeCompare(b.text));
      body.append(...(up ? rows : rows.reverse()).map(each => each.row));
    });
  });
  const label = table.parentElement.getAttribute("aria-label");
  const filter = document.querySelector(`input.filter[aria-label="Show the rows of ${label} that have these words"]`);
  filter?.addEventListener("input", () => {
    const words = filter.value.toLowerCase().split(/\s+/);
    for (const row of body.rows) row.hidden = !words.every(word => row.textContent.toLowerCase().includes(word));
  });
}

// If the runs are in an archive, the page has the record of each, compressed.
async function records() {
  const bytes = Uint8Array.from(atob(document.getElementById("records").textContent), letter => letter.charCodeAt(0));
  return new Response(new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"))).json();
}
for (const button of document.querySelectorAll("button.record")) {
  button.addEventListener("click", async () => {
    const dialog = document.getElementById("record");
    dialog.querySelector("h2").textContent = button.value;
    dialog.querySelector("pre").textContent = JSON.stringify((await records())[button.value], null, 1);
    dialog.showModal();
  });
}
