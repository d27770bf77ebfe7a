// What pages gain with scripts: keys, random, links from tokens. They read without.
"use strict";

// Data comes by script tags, which work from a folder too; each is asked for once.
function atlasLoad(name) {
  atlasLoad.asked = atlasLoad.asked || {};
  return atlasLoad.asked[name] = atlasLoad.asked[name] || new Promise(function (resolve) {
    var script = document.createElement("script");
    script.src = document.body.dataset.root + name;
    script.onload = script.onerror = resolve;
    document.head.appendChild(script);
  });
}

// What cannot be seen is spelt out, as `plain` in atlas_builder/site/text.py does.
function atlasVisible(text) { return text.replace(atlasVisible.HIDDEN, atlasVisible.spelt); }
atlasVisible.HIDDEN = /[\u0000-\u001f\u007f-\u009f\u00ad\u061c\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f\ud800-\udfff\ufdd0-\ufdef\ufe00-\ufe0f\ufeff\ufff0-\uffff\u{e0000}-\u{e0fff}\p{Noncharacter_Code_Point}]/gu;
atlasVisible.spelt = function (hidden) {
  return { "\n": "↵", "\t": "⇥", "\r": "␍" }[hidden] || "U+" + hidden.codePointAt(0).toString(16).toUpperCase().padStart(4, "0");
};

(function () {
  var root = document.body.dataset.root;
  document.documentElement.classList.add("js");

  // Where the atlas has an address, copies on the same host ask it for a newer edition; from a folder nothing is asked.
  var home = document.currentScript.dataset.home;
  if (home && new URL(home).origin === location.origin) atlasLoad("assets/edition.js");

  // A random unit, each as likely; the link has a place of its own where scripts are off.
  function random() {
    atlasLoad("search/index.js").then(function () {
      var total = atlas.layers.reduce(function (sum, layer) { return sum + layer[1]; }, 0);
      var pick = Math.floor(Math.random() * total);
      for (var i = 0; i < atlas.layers.length; i++) {
        if (pick < atlas.layers[i][1]) { location.href = root + "L" + atlas.layers[i][0] + "/N" + pick + ".html"; return; }
        pick -= atlas.layers[i][1];
      }
    });
  }
  document.querySelectorAll("[data-random]").forEach(function (link) {
    link.addEventListener("click", function (event) { event.preventDefault(); random(); });
  });

  // The tokens of a behaviour lead to search, which needs scripts as they do.
  document.querySelectorAll(".sum code").forEach(function (token) {
    var link = document.createElement("a");
    link.href = root + "search.html?q=" + encodeURIComponent(token.textContent.replace(/^␣+(?=.)|␣+$/g, "") || "␣");
    token.replaceWith(link);
    link.append(token);
  });

  // The next behaviour from where the page is, or the last one.
  function behaviour(step) {
    var all = Array.from(document.querySelectorAll(".behaviour"));
    var here = all.findIndex(function (section) { return "#" + section.id === location.hash; });
    var next = all[here + step];
    if (!next) return;
    history.replaceState(null, "", "#" + next.id);
    next.scrollIntoView();
    (next.querySelector("h2 a") || next).focus({ preventScroll: true });
  }

  // The same unit of the layer above or below, where it is there.
  function layer(step) {
    var place = /L(\d+)\/N(\d+)\.html$/.exec(location.pathname);
    if (place) atlasLoad("search/index.js").then(function () {
      var at = atlas.layers.findIndex(function (entry) { return entry[0] === +place[1]; }), next = atlas.layers[at + step];
      if (next) location.href = root + "L" + next[0] + "/N" + Math.min(+place[2], next[1] - 1) + ".html";
    });
  }

  var KEYS = [["← →", "previous, next unit"], ["Shift ↑ ↓", "same unit, layer before or after"], ["b  B", "next, previous behaviour"],
    ["r", "a random unit"], ["/", "search"], ["?", "this help"]];
  function help() {
    var box = document.getElementById("keys") || document.body.appendChild(document.createElement("dialog"));
    if (!box.id) {
      box.id = "keys";
      box.setAttribute("aria-label", "Keys");
      var list = box.appendChild(document.createElement("dl"));
      KEYS.forEach(function (entry) {
        var row = list.appendChild(document.createElement("div"));
        row.appendChild(document.createElement("dt")).appendChild(document.createElement("kbd")).textContent = entry[0];
        row.appendChild(document.createElement("dd")).textContent = entry[1];
      });
      var close = box.appendChild(document.createElement("button"));
      close.type = "button";
      close.textContent = "Close";
      close.addEventListener("click", function () { box.close(); });
    }
    if (!box.open) box.showModal();
  }

  document.addEventListener("keydown", function (event) {
    if (event.ctrlKey || event.metaKey || event.altKey || /^(INPUT|TEXTAREA|SELECT|CANVAS)$/.test(event.target.tagName)) return;
    if (document.querySelector("dialog[open]")) return;
    var link = { ArrowLeft: "a[rel=prev]", ArrowRight: "a[rel=next]" }[event.key];
    if (event.shiftKey && /^Arrow(Up|Down)$/.test(event.key)) { event.preventDefault(); layer(event.key === "ArrowUp" ? -1 : 1); }
    else if (link && !event.shiftKey && document.querySelector(link)) document.querySelector(link).click();
    else if (event.key === "r") random();
    else if (event.key === "b" || event.key === "B") behaviour(event.key === "b" ? 1 : -1);
    else if (event.key === "?") help();
    else if (event.key === "/") { event.preventDefault(); (document.querySelector(".find.large input") || document.querySelector(".find input")).focus(); }
  });
})();

// The search index announces itself: layers with their units, and where its shards begin.
function atlasIndex(index) { window.atlas = index; }
