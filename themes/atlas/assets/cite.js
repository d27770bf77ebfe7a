// Citing: a behaviour in the place of its unit, and buttons that copy.
"use strict";

{
  const section = document.querySelector(".cite");

  const contents = (name) => Array.from(document.querySelectorAll(`meta[name='${name}']`), ({ content }) => content);

  // What the head says of the page, and the key of its BibTeX entry.
  const readPage = () => {
    const link = document.querySelector("link[rel=canonical]");
    const data = JSON.parse(document.querySelector("script[type='application/ld+json']").textContent);
    const hash = /^sha256:(.{16})/.exec(data.identifier);
    return {
      title: contents("citation_title")[0],
      authors: contents("citation_author"),
      container: contents("DC.publisher")[0],
      edition: contents("bibo.edition")[0],
      date: contents("citation_publication_date")[0],
      doi: contents("citation_doi")[0],
      url: link?.getAttribute("href"),
      hash: hash && `SHA-256 ${hash[1]}`,
      key: /{([^,]*),/.exec(section.querySelector("[data-form=bibtex]").textContent)[1],
    };
  };

  // CSL-JSON and RIS are as the builder writes them for a whole layer: scripts spare pages a third of a kilobyte.
  const csl = (item) => {
    const author = (name) => {
      const parts = /^(.+?), (.+)$/.exec(name);
      return parts ? { family: parts[1], given: parts[2] } : { literal: name };
    };
    return JSON.stringify([
      {
        id: item.key,
        type: "dataset",
        title: item.title,
        author: item.authors.length ? item.authors.map(author) : undefined,
        "container-title": item.container,
        version: item.edition,
        issued: item.date && { "date-parts": [item.date.split("/").map(Number)] },
        note: item.hash || undefined,
        DOI: item.doi,
        URL: item.url || undefined,
      },
    ]);
  };
  const ris = (item) => {
    const fields = [
      ["TY", "DATA"],
      ...item.authors.map((name) => ["AU", name]),
      ["TI", item.title],
      ["T2", item.container],
      ["ET", item.edition],
      ["PY", item.date?.slice(0, 4)],
      ["DA", item.date],
      ["N1", item.hash],
      ["DO", item.doi],
      ["UR", item.url],
    ];
    const lines = fields.filter(([, value]) => value).map((field) => `${field.join("  - ")}\n`);
    return `${lines.join("")}ER  - \n`;
  };
  const MADE = { csl: { title: "CSL-JSON", write: csl }, ris: { title: "RIS", write: ris } };

  // What TeX does not print as it stands, of Atlas.constants.
  const tex = (text) => {
    const { tex: escapes, ligature } = Atlas.constants;
    const apart = text.replace(new RegExp(ligature, "g"), "$1\0");
    return Array.from(apart, (character) => escapes[character] ?? character)
      .join("")
      .replaceAll("\0", "{}");
  };

  const cited = readPage();
  for (const [kind, { title, write }] of Object.entries(MADE)) {
    if (section.querySelector(`[data-form=${kind}]`)) continue;
    const details = document.createElement("details");
    const summary = document.createElement("summary");
    const form = document.createElement("pre");
    summary.textContent = title;
    form.dataset.form = kind;
    form.textContent = write(cited);
    details.append(summary, form);
    section.append(details);
  }
  const forms = [...section.querySelectorAll("[data-form]")];
  const ofUnit = Object.fromEntries(forms.map((form) => [form.dataset.form, form.textContent]));

  // A unit's key and address read alike in every form; its title and a behaviour's label may need escaping.
  const ofBehaviour = (kind, number, name) => {
    const title = `Behaviour ${name} of ${cited.title[0].toLowerCase()}${cited.title.slice(1)}`;
    const key = `${cited.key}-b${number}`;
    const url = cited.url && `${cited.url}#b${number}`;
    if (MADE[kind]) return MADE[kind].write({ ...cited, key, title, url });
    let form = ofUnit[kind].replace(`{${cited.key},`, `{${key},`);
    if (url) form = form.replaceAll(cited.url, () => url);
    // A function, because a label may hold what `replace` reads as a pattern; the title last, as a label may hold any
    // of the others.
    const written = kind === "bibtex" ? tex : (text) => text;
    return form.replace(written(cited.title), () => written(title));
  };

  // What can be cited: the unit, and what it does.
  const addChoice = () => {
    const behaviours = document.querySelectorAll(".behaviour[id^=b]");
    if (!behaviours.length) return;
    const select = document.createElement("select");
    select.setAttribute("aria-label", "What to cite");
    select.add(new Option(`This ${section.dataset.what}`, ""));
    for (const behaviour of behaviours) {
      const link = behaviour.querySelector("h2 a, h3 a");
      let label = "";
      for (let part = link.nextSibling; part && part.nodeName !== "SMALL"; part = part.nextSibling) {
        label += part.textContent;
      }
      const number = link.textContent;
      select.add(new Option(`${number} (“${label.trim().replace(/\s+/g, " ")}”)`, number));
    }
    section.querySelector("h2").after(select);

    const show = () => {
      const { value, text } = select.options[select.selectedIndex];
      for (const form of forms) {
        const { form: kind } = form.dataset;
        form.textContent = select.selectedIndex ? ofBehaviour(kind, value, text) : ofUnit[kind];
      }
    };
    select.addEventListener("change", show);
    show(); // browsers keep what was chosen when a reader comes back
    for (const link of document.querySelectorAll("[data-cite]")) {
      link.addEventListener("click", () => {
        select.value = link.dataset.cite;
        show();
      });
    }
  };

  // Without leave to write to the clipboard, the form is selected for the reader to copy.
  const copy = async (form) => {
    try {
      await navigator.clipboard.writeText(form.textContent);
      return true;
    } catch {
      getSelection().selectAllChildren(form);
      return false;
    }
  };

  const addCopyButton = (form) => {
    const button = document.createElement("button");
    const summary = form.parentNode.querySelector("summary");
    button.type = "button";
    button.textContent = "Copy";
    button.setAttribute("aria-label", `Copy ${form.dataset.form === "text" ? "text" : summary.textContent}`);
    form.after(button);
    button.addEventListener("click", async () => {
      button.textContent = (await copy(form)) ? "Copied" : "Selected";
      setTimeout(() => {
        button.textContent = "Copy";
      }, 1500);
    });
  };

  addChoice();
  forms.forEach(addCopyButton);
}
