// Dark or light: the system's, until a reader chooses. Pages wait for this script alone, so that none flashes.
"use strict";
(function () {
  var html = document.documentElement, system = matchMedia("(prefers-color-scheme: dark)");

  // From a folder, Firefox keeps a storage for each page apart and Chromium no cookies; there both are used.
  var folder = location.protocol === "file:";
  function kept() {
    var cookie = folder && /(?:^|; )atlas-theme=(dark|light)/.exec(document.cookie);
    if (cookie) return cookie[1];
    try { return localStorage.getItem("atlas-theme"); } catch (error) { return null; }
  }
  function keep(chosen) {
    if (folder) document.cookie = "atlas-theme=" + chosen + "; path=/; max-age=31536000; samesite=strict";
    try { localStorage.setItem("atlas-theme", chosen); } catch (error) { /* some readers forbid it */ }
  }

  var chosen = kept();
  if (chosen) html.dataset.theme = chosen;

  document.addEventListener("DOMContentLoaded", function () {
    var button = document.getElementById("theme");
    button.hidden = false;
    button.addEventListener("click", function () {
      var dark = html.dataset.theme ? html.dataset.theme === "dark" : system.matches;
      html.dataset.theme = dark ? "light" : "dark";
      keep(html.dataset.theme);
    });
  });
})();
