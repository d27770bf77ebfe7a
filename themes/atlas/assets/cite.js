// Citing: a behaviour in the place of its unit, and buttons that copy.
"use strict";

{
  const section = document.querySelector(".cite");

  const contents = (name) => Array.from(document.querySelectorAll(`meta[name='${name}']`), ({ content }) => content);

  // What the page says of itself; its head has no hash, and what is cited by one key alone has it on the section.
  const readPage = () => {
    const link = document.querySelector("link[rel=canonical]");
    const text = section.querySelector("[data-form=text]").textContent;
    return {
      title: contents("citation_title")[0],
      authors: contents("citation_author"),
      container: contents("DC.publisher")[0],
      edition: contents("bibo.edition")[0],
      date: contents("citation_publication_date")[0],
      doi: contents("citation_doi")[0],
      url: link?.getAttribute("href"),
      hash: text.match(/SHA-256 [0-9a-f]{16}(?=\.)/g)?.at(-1), // the last: a title may hold anything
      key: section.dataset.key,
    };
  };

  // What TeX does not print as it stands, of Atlas.constants.
  const tex = (text) => {
    const { tex: escapes, ligature } = Atlas.constants;
    const apart = text.replace(new RegExp(ligature, "g"), "$1\0");
    return Array.from(apart, (character) => escapes[character] ?? character)
      .join("")
      .replaceAll("\0", "{}");
  };

  // A name, protected where BibTeX would split it, or where a part of it is nothing but signs.
  const texName = (name) => {
    const splits = name.split(",").length > 2 || /(?<![\p{L}\p{N}_])and(?![\p{L}\p{N}_])/iu.test(name);
    const parts = /^(.+?), (.+)$/.exec(name)?.slice(1);
    const whole = splits || !parts?.every((part) => /[\p{L}\p{N}]/u.test(part));
    return whole ? `{${tex(name)}}` : tex(name);
  };

  // Forms for programs are as the builder writes them for an atlas: scripts spare each page two thirds of a kilobyte.
  const bibtex = (item) => {
    const note = ["Data set", `edition ${item.edition}`, item.hash].filter(Boolean).join(", ");
    const fields = [
      ["author", item.authors.map(texName).join(" and ")],
      ["title", `{${tex(item.title)}}`],
      ["year", item.date?.slice(0, 4)],
      ["howpublished", item.container && tex(item.container)],
      ["note", tex(note)],
      ["doi", item.doi],
      ["url", item.url],
    ];
    const lines = fields.filter(([, value]) => value).map(([name, value]) => `  ${name} = {${value}}`);
    return `@misc{${item.key},\n${lines.join(",\n")}\n}`;
  };
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
  const MADE = {
    bibtex: { title: "BibTeX", write: bibtex },
    csl: { title: "CSL-JSON", write: csl },
    ris: { title: "RIS", write: ris },
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

  const ofBehaviour = (kind, number, name) => {
    const title = `Behaviour ${name} of ${cited.title[0].toLowerCase()}${cited.title.slice(1)}`;
    const url = cited.url && `${cited.url}#b${number}`;
    if (MADE[kind]) return MADE[kind].write({ ...cited, key: `${cited.key}-b${number}`, title, url });
    // Functions, because a label may hold what `replace` reads as a pattern; the title last, as a label may hold any
    // address.
    const form = url ? ofUnit[kind].replaceAll(cited.url, () => url) : ofUnit[kind];
    return form.replace(cited.title, () => title);
  };

  // Beside what is said of a behaviour, a link that chooses it; only with scripts there is something to choose.
  const addLink = (behaviour, number) => {
    const place = behaviour.querySelector("small, .meta");
    if (!place) return;
    const link = document.createElement("a");
    link.href = "#cite";
    link.dataset.cite = number;
    link.textContent = "cite";
    const end = place.querySelector("br");
    place.insertBefore(document.createTextNode(" · "), end);
    place.insertBefore(link, end);
  };

  // What can be cited: the unit, and what it does.
  const addChoice = () => {
    const behaviours = document.querySelectorAll(".behaviour[id^=b], .rares li");
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
      addLink(behaviour, number);
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
