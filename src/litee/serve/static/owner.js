// Keeps the owner's figures fresh while the page is looked at.
"use strict";
(() => {
  const panel = document.getElementById("panel");
  const live = document.getElementById("live");
  const refresh = async () => {
    if (document.hidden || panel.contains(document.activeElement)) return;
    try {
      const response = await fetch("/owner/panel");
      if (!response.ok) throw new Error(String(response.status));
      panel.innerHTML = await response.text();
      live.textContent = `as of ${new Date().toLocaleTimeString()}`;
    } catch {
      live.textContent = "no connection, trying again";
    }
  };
  setInterval(refresh, 5000);
})();
