// Citing: a behaviour in the place of its unit, and buttons that copy.
"use strict";
(function () {
  var section = document.querySelector(".cite"), select = choice();
  var forms = Array.from(section.querySelectorAll("[data-form]"));
  var unit = {};
  forms.forEach(function (form) { unit[form.dataset.form] = form.textContent; });
  var cited = JSON.parse(unit.csl)[0];

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
    var key = cited.id + "-b" + number, url = cited.URL && cited.URL + "#b" + number;
    if (kind === "csl") return JSON.stringify([Object.assign({}, cited, { id: key, title: title }, url && { URL: url })]);
    var form = unit[kind].replace("{" + cited.id + ",", "{" + key + ",");
    if (url) form = form.split(cited.URL).join(url);
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
