// Citing: a behaviour in the place of its unit, and buttons that copy.
"use strict";
(function () {
  var section = document.querySelector(".cite"), select = choice(), cited = read();
  var made = { csl: ["CSL-JSON", csl], ris: ["RIS", ris] };
  Object.keys(made).forEach(offer);
  var forms = Array.from(section.querySelectorAll("[data-form]"));
  var unit = {};
  forms.forEach(function (form) { unit[form.dataset.form] = form.textContent; });

  // What the head says of the page, and the key of its BibTeX entry.
  function read() {
    function all(name) { return Array.from(document.querySelectorAll("meta[name='" + name + "']"), function (tag) { return tag.content; }); }
    function one(name) { return all(name)[0]; }
    var link = document.querySelector("link[rel=canonical]"), data = document.querySelector("script[type='application/ld+json']");
    var hash = /^sha256:(.{16})/.exec(JSON.parse(data.textContent).identifier);
    return { title: one("citation_title"), authors: all("citation_author"), container: one("DC.publisher"), edition: one("bibo.edition"),
      date: one("citation_publication_date"), doi: one("citation_doi"), url: link && link.getAttribute("href"), hash: hash && "SHA-256 " + hash[1],
      key: /{([^,]*),/.exec(section.querySelector("[data-form=bibtex]").textContent)[1] };
  }

  // The same as in atlas_builder/site/cite.py, which writes them for a whole layer: scripts spare pages a third of a kilobyte.
  function csl(item) {
    function author(name) {
      var parts = /^(.+?), (.+)$/.exec(name);
      return parts ? { family: parts[1], given: parts[2] } : { literal: name };
    }
    return JSON.stringify([{ id: item.key, type: "dataset", title: item.title, author: item.authors.length ? item.authors.map(author) : undefined,
      "container-title": item.container, version: item.edition, issued: item.date && { "date-parts": [item.date.split("/").map(Number)] },
      note: item.hash || undefined, DOI: item.doi, URL: item.url || undefined }]);
  }
  function ris(item) {
    var fields = [["TY", "DATA"]].concat(item.authors.map(function (name) { return ["AU", name]; }), [["TI", item.title], ["T2", item.container],
      ["ET", item.edition], ["PY", item.date && item.date.slice(0, 4)], ["DA", item.date], ["N1", item.hash], ["DO", item.doi], ["UR", item.url]]);
    return fields.filter(function (field) { return field[1]; }).map(function (field) { return field.join("  - ") + "\n"; }).join("") + "ER  - \n";
  }
  function offer(kind) {
    if (section.querySelector("[data-form=" + kind + "]")) return;
    var details = document.createElement("details"), form = document.createElement("pre");
    details.appendChild(document.createElement("summary")).textContent = made[kind][0];
    form.dataset.form = kind;
    form.textContent = made[kind][1](cited);
    details.append(form);
    section.append(details);
  }

  // The same as in atlas_builder/site/cite.py: what TeX does not print as it stands.
  var TEX = { "{": "\\textbraceleft{}", "}": "\\textbraceright{}", "\\": "\\textbackslash{}", "~": "\\textasciitilde{}",
    "^": "\\textasciicircum{}", "`": "\\textasciigrave{}", "<": "\\textless{}", ">": "\\textgreater{}", "|": "\\textbar{}" };
  function tex(text) {
    return text.replace(/[&%$#_{}\\~^`<>|]|([-',])(?=\1)/g, function (found, twice) { return twice ? twice + "{}" : TEX[found] || "\\" + found; });
  }

  // What can be cited: the unit, and what it does.
  function choice() {
    var behaviours = document.querySelectorAll(".behaviour[id^=b]"), made = document.createElement("select");
    if (!behaviours.length) return null;
    made.setAttribute("aria-label", "What to cite");
    made.add(new Option("This " + section.dataset.what, ""));
    behaviours.forEach(function (behaviour) {
      var link = behaviour.querySelector("h2 a"), label = "";
      for (var part = link.nextSibling; part; part = part.nextSibling) label += part.textContent;
      made.add(new Option(link.textContent + " (“" + label.trim().replace(/\s+/g, " ") + "”)", link.textContent));
    });
    section.querySelector("h2").after(made);
    return made;
  }

  // A unit's title, key and address read alike in every form; of a behaviour's, only the label needs escaping.
  function behaviour(kind, number, name) {
    var title = "Behaviour " + name + " of " + cited.title[0].toLowerCase() + cited.title.slice(1);
    var key = cited.key + "-b" + number, url = cited.url && cited.url + "#b" + number;
    if (made[kind]) return made[kind][1](Object.assign({}, cited, { key: key, title: title, url: url }));
    var form = unit[kind].replace("{" + cited.key + ",", "{" + key + ",");
    if (url) form = form.split(cited.url).join(url);
    // A function, because a label may hold what `replace` reads as a pattern; the title last, for what a label may hold.
    return form.replace(cited.title, function () { return kind === "bibtex" ? tex(title) : title; });
  }

  function show() {
    var chosen = select.options[select.selectedIndex];
    forms.forEach(function (form) {
      form.textContent = select.selectedIndex ? behaviour(form.dataset.form, chosen.value, chosen.text) : unit[form.dataset.form];
    });
  }

  if (select) {
    select.addEventListener("change", show);
    show(); // browsers keep what was chosen when a reader comes back
    document.querySelectorAll("[data-cite]").forEach(function (link) {
      link.addEventListener("click", function () { select.value = link.dataset.cite; show(); });
    });
  }

  forms.forEach(function (form) {
    var button = document.createElement("button"), summary = form.parentNode.querySelector("summary");
    button.type = "button";
    button.textContent = "Copy";
    button.setAttribute("aria-label", "Copy " + (summary && form.dataset.form !== "text" ? summary.textContent : "text"));
    form.after(button);
    button.addEventListener("click", function () {
      copy(form).then(function (copied) {
        button.textContent = copied ? "Copied" : "Selected";
        setTimeout(function () { button.textContent = "Copy"; }, 1500);
      });
    });
  });

  // Without leave to write to the clipboard, the form is selected for the reader to copy.
  function copy(form) {
    function instead() { getSelection().selectAllChildren(form); return false; }
    if (!navigator.clipboard) return Promise.resolve(instead());
    return navigator.clipboard.writeText(form.textContent).then(function () { return true; }, instead);
  }
})();
