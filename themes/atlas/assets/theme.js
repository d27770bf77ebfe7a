// Dark or light: the system's, until a reader chooses. Pages wait for this script alone, so that none flashes.
"use strict";

{
  const html = document.documentElement;
  const system = matchMedia("(prefers-color-scheme: dark)");

  // From a folder, Firefox keeps a storage for each page apart and Chromium no cookies; there both are used.
  const folder = location.protocol === "file:";

  const stored = () => {
    const cookie = folder && /(?:^|; )atlas-theme=(dark|light)/.exec(document.cookie);
    if (cookie) return cookie[1];
    try {
      return localStorage.getItem("atlas-theme");
    } catch {
      return null;
    }
  };

  const store = (theme) => {
    if (folder) document.cookie = `atlas-theme=${theme}; path=/; max-age=31536000; samesite=strict`;
    try {
      localStorage.setItem("atlas-theme", theme);
    } catch {
      // some readers forbid it
    }
  };

  const chosen = stored();
  if (chosen) html.dataset.theme = chosen;

  document.addEventListener("DOMContentLoaded", () => {
    const button = document.getElementById("theme");
    button.hidden = false;
    button.addEventListener("click", () => {
      const dark = html.dataset.theme ? html.dataset.theme === "dark" : system.matches;
      html.dataset.theme = dark ? "light" : "dark";
      store(html.dataset.theme);
    });
  });
}
