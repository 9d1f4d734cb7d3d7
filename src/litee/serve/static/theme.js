// Sets the chosen theme before the page is painted, and lets the button change it.
"use strict";
(() => {
  const root = document.documentElement;
  let chosen = null;
  try { chosen = localStorage.getItem("litee-theme"); } catch { /* private window */ }
  if (chosen) root.dataset.theme = chosen;
  root.classList.add("js");
  document.addEventListener("DOMContentLoaded", () => {
    document.getElementById("theme").addEventListener("click", () => {
      const dark = root.dataset.theme
        ? root.dataset.theme === "dark"
        : matchMedia("(prefers-color-scheme: dark)").matches;
      root.dataset.theme = dark ? "light" : "dark";
      try { localStorage.setItem("litee-theme", root.dataset.theme); } catch { /* private window */ }
    });
  });
})();
