// A link to a place inside a fold opens the fold.
function unfold() {
  const place = document.getElementById(decodeURIComponent(location.hash.slice(1)));
  for (let fold = place?.closest("details"); fold; fold = fold.parentElement.closest("details")) fold.open = true;
  place?.scrollIntoView({ block: "center" });
}
addEventListener("hashchange", unfold);
addEventListener("DOMContentLoaded", () => {
  unfold();
  document.addEventListener("click", (event) => {
    if (event.target.closest(".lbgap-number")) setTimeout(unfold); // the same link twice changes no hash
  });
  // What scrolls sideways can be reached by keyboard.
  for (const box of document.querySelectorAll(".cell_output, .pst-scrollable-table-container, pre, div.math")) {
    if (box.scrollWidth > box.clientWidth && !box.querySelector("a, [tabindex]")) box.tabIndex = 0;
  }
});
// Paper is white: what is printed from a dark page is printed as from a light one.
let shown;
addEventListener("beforeprint", () => {
  shown = document.documentElement.dataset.theme;
  document.documentElement.dataset.theme = "light";
});
addEventListener("afterprint", () => (document.documentElement.dataset.theme = shown));
