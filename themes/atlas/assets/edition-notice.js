// A page of an edition that is no longer the one at the atlas's address says so. It asks its own host only.
"use strict";

{
  const page = document.querySelector("script[data-home]").dataset;
  const home = page.home.replace(/\/*$/, "/");
  const root = new URL(document.body.dataset.root || "./", location.href).href;

  const ask = async (address, method) => {
    const answer = await fetch(address, { method, redirect: "error" });
    if (!answer.ok) throw new Error(answer.status);
    return answer;
  };

  // This page in the other edition, or that edition's first where it lacks the page.
  const counterpart = async () => {
    const place = home + location.pathname.slice(new URL(root).pathname.length);
    try {
      await ask(place, "HEAD");
      return place + location.hash;
    } catch {
      return home;
    }
  };

  const compareEditions = async () => {
    const facts = await (await ask(`${home}atlas.json`, "GET")).json();
    const { version } = facts.atlas;
    if (version === page.edition) return;
    const notice = document.createElement("p");
    const link = document.createElement("a");
    notice.className = "edition";
    notice.setAttribute("role", "status");
    const place = await counterpart();
    link.href = place;
    link.textContent = place === home ? `Go to edition ${version}` : `See this page in edition ${version}`;
    notice.append(`You are reading edition ${page.edition}. `, link, ".");
    document.body.append(notice);
  };

  if (new URL(home).href !== root) {
    compareEditions().catch(() => {
      // no atlas there, or none that can be read: nothing to say
    });
  }
}
