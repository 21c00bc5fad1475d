// What the theme and sphinxcontrib-bibtex get wrong for screen readers.
const scrolling = ".highlight pre, div.math mjx-container, .cell_output figure, .output.text_html, .pst-scrollable-table-container";
const reach = () => { // boxes that scroll sideways can be reached with the keyboard
  for (const box of document.querySelectorAll(scrolling)) if (box.scrollWidth > box.clientWidth) box.tabIndex = 0;
};
window.addEventListener("load", () => { reach(); window.MathJax?.startup?.promise?.then(reach); }); // figures and formulas come late
document.addEventListener("DOMContentLoaded", () => {
  for (const button of document.querySelectorAll(".search-button-field, .theme-switch-button, .search-button"))
    if (button.getAttribute("aria-label") && button.textContent.trim()) button.removeAttribute("aria-label");
  for (const summary of document.querySelectorAll('summary[aria-label="Toggle hidden content"]')) summary.removeAttribute("aria-label");
  for (const list of document.querySelectorAll('.citation-list[role="list"]')) list.removeAttribute("role");
  for (const entry of document.querySelectorAll('[role="doc-biblioentry"]')) entry.removeAttribute("role");
});
