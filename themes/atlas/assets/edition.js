// A page of an edition that is no longer the one at the atlas's address says so. It asks its own host only.
"use strict";
(function () {
  var page = document.querySelector("script[data-home]").dataset;
  var home = page.home.replace(/\/*$/, "/");
  var root = new URL(document.body.dataset.root || "./", location.href).href;
  if (new URL(home).href === root) return;

  function ask(address, method) {
    return fetch(address, { method: method, redirect: "error" }).then(function (answer) {
      if (!answer.ok) throw new Error(answer.status);
      return answer;
    });
  }

  ask(home + "atlas.json", "GET").then(function (answer) { return answer.json(); }).then(function (facts) {
    if (facts.atlas.version === page.edition) return;
    var place = home + location.pathname.slice(new URL(root).pathname.length);
    return ask(place, "HEAD").then(function () { return place + location.hash; }, function () { return home; }).then(function (there) {
      var notice = document.createElement("p"), link = document.createElement("a");
      notice.className = "edition";
      notice.setAttribute("role", "status");
      link.href = there;
      link.textContent = there === home ? "Go to edition " + facts.atlas.version : "See this page in edition " + facts.atlas.version;
      notice.append("You are reading edition " + page.edition + ". ", link, ".");
      document.body.append(notice);
    });
  }).catch(function () { /* no atlas there, or none that can be read: nothing to say */ });
})();
