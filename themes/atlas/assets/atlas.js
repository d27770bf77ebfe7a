// What pages gain with scripts: keys, random, sorting, copying. They read without.
"use strict";
(function () {
  var root = document.body.dataset.root;
  document.documentElement.classList.add("js");

  // A random unit, each as likely; the link has a place of its own where scripts are off.
  function random() {
    if (!window.atlas) return;
    var total = atlas.layers.reduce(function (sum, layer) { return sum + layer[1]; }, 0);
    var pick = Math.floor(Math.random() * total);
    for (var i = 0; i < atlas.layers.length; i++) {
      if (pick < atlas.layers[i][1]) { location.href = root + "L" + atlas.layers[i][0] + "/N" + pick + ".html"; return; }
      pick -= atlas.layers[i][1];
    }
  }
  document.querySelectorAll("[data-random]").forEach(function (link) {
    link.addEventListener("click", function (event) { if (window.atlas) { event.preventDefault(); random(); } });
  });

  document.addEventListener("keydown", function (event) {
    if (event.ctrlKey || event.metaKey || event.altKey || /^(INPUT|TEXTAREA|SELECT)$/.test(event.target.tagName)) return;
    var to = { ArrowLeft: "a[rel=prev]", ArrowRight: "a[rel=next]" }[event.key];
    if (to && document.querySelector(to)) document.querySelector(to).click();
    else if (event.key === "r") random();
    else if (event.key === "/") { event.preventDefault(); (document.querySelector(".find.large input") || document.querySelector(".find input")).focus(); }
  });

  document.querySelectorAll("[data-copy]").forEach(function (block) {
    block.title = "Click to copy";
    block.addEventListener("click", function () {
      if (!navigator.clipboard || String(getSelection())) return;
      navigator.clipboard.writeText(block.textContent).then(function () {
        block.classList.add("copied");
        setTimeout(function () { block.classList.remove("copied"); }, 1500);
      });
    });
  });

  // Tables that sort by any column and filter by any word.
  document.querySelectorAll("table[data-sortable]").forEach(function (table) {
    var body = table.tBodies[0], rows = Array.from(body.rows);
    var heads = Array.from(table.tHead.rows[0].cells);
    function value(row, column) {
      var text = row.cells[column].textContent.trim();
      if (heads[column].hasAttribute("data-text")) return text.toLowerCase();
      var number = parseFloat(text.replace(/−/g, "-").replace(/^[<>]/, ""));
      return isNaN(number) ? -Infinity : number;
    }
    heads.forEach(function (head, column) {
      var sort = document.createElement("button");
      sort.type = "button";
      sort.textContent = head.textContent;
      head.textContent = "";
      head.appendChild(sort);
      sort.addEventListener("click", function () {
        var up = head.getAttribute("aria-sort") ? head.getAttribute("aria-sort") !== "ascending" : column < 2;
        heads.forEach(function (other) { other.removeAttribute("aria-sort"); });
        head.setAttribute("aria-sort", up ? "ascending" : "descending");
        var keyed = rows.map(function (row, place) { return [value(row, column), place, row]; });
        keyed.sort(function (a, b) { return (a[0] < b[0] ? -1 : a[0] > b[0] ? 1 : 0) * (up ? 1 : -1) || a[1] - b[1]; });
        body.append.apply(body, keyed.map(function (entry) { return entry[2]; }));
      });
    });
    var filter = document.getElementById("filter"), count = document.getElementById("count");
    if (filter) filter.addEventListener("input", function () {
      var wanted = filter.value.trim().toLowerCase(), left = 0;
      rows.forEach(function (row) {
        row.hidden = wanted !== "" && row.cells[1].textContent.toLowerCase().indexOf(wanted) < 0;
        left += !row.hidden;
      });
      count.textContent = wanted ? left + " of " + rows.length : "";
    });
  });
})();

// The search index announces itself: layers with their units, and where its shards begin.
function atlasIndex(index) { window.atlas = index; }
