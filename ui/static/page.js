// What the page needs beyond gradio: language and theme that are remembered, a sidebar that knows its place, files.
(() => {
  const store = (key, value) => value === undefined ? localStorage.getItem(key) : localStorage.setItem(key, value); // storage.js's
  const LANGUAGE = "playground-language", THEME = "playground-theme", SIDEBAR = "playground-sidebar";

  // The visitor's own choice comes before the browser's, for gradio too, which has not looked yet. It knows no 'zh' alone.
  const language = store(LANGUAGE);
  if (language) Object.defineProperty(navigator, "language", { value: language === "zh" ? "zh-CN" : language });
  const spoken = (language || navigator.language).split("-")[0];
  const NAMES = /* NAMES */ {};
  document.documentElement.lang = NAMES[spoken] ? spoken : "en";
  const names = NAMES[spoken] || NAMES.en;
  const NAMELESS = { ".submit-button": "send", ".stop-button": "stop", "#language-picker": "language", "#theme-toggle": "theme", "#forget-me": "forget_me", ".download-code": "download_code", ".copy-code": "copy_code", ".copy-text": "copy_text", ".edit-textarea": "asked" };

  const dark = () => store(THEME) ? store(THEME) === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  const paint = () => document.body.classList.toggle("dark", dark());

  const download = (payload) => {
    const end = payload.indexOf("\n");
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([payload.slice(end + 1)], { type: "text/plain;charset=utf-8" }));
    link.download = payload.slice(0, end);
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 10000);
    return "";
  };

  // What the composer is to hold once an answer is over; an update without a value leaves it alone.
  const returned = (typed, failed) => (typed || !failed ? { __type__: "update" } : failed);

  const pickFile = () => new Promise((resolve) => {
    const input = Object.assign(document.createElement("input"), { type: "file", accept: ".json,application/json" });
    input.addEventListener("change", async () => resolve(input.files.length ? await input.files[0].text() : ""));
    input.addEventListener("cancel", () => resolve(""));
    input.click();
  });

  const EXTENSIONS = { python: "py", text: "txt", plaintext: "txt", javascript: "js", typescript: "ts", csharp: "cs", "c++": "cpp", bash: "sh", shell: "sh", powershell: "ps1", ruby: "rb", rust: "rs", kotlin: "kt", haskell: "hs", perl: "pl", julia: "jl", matlab: "m", markdown: "md" };
  const DOWN = '<svg viewBox="0 0 16 16" fill="none" stroke="currentColor" stroke-width="1.3" aria-hidden="true"><path d="M8 2.5v7.5M4.8 7 8 10.2 11.2 7M3 13.5h10"/></svg>';
  const COPY = '<svg viewBox="0 0 16 16" fill="none" stroke="currentColor" stroke-width="1.3" aria-hidden="true"><path d="M5.5 5.5V3h7.5v7.5h-2.5M3 5.5h7.5V13H3z"/></svg>';
  const tool = (kind, picture, act) => {
    const button = Object.assign(document.createElement("button"), { className: `tool ${kind}`, type: "button", innerHTML: picture });
    button.addEventListener("click", () => act(button));
    return button;
  };
  const copyFrom = (texts) => (button) => copyText(texts()).then(() => {
    button.classList.add("copied");
    setTimeout(() => button.classList.remove("copied"), 1500);
  }, () => {});
  const addCodeTools = (wrap) => {
    const code = wrap.querySelector("code");
    const name = () => (/language-([\w+#.-]+)/.exec(code.className) || [, "txt"])[1];
    const tools = Object.assign(document.createElement("div"), { className: "code-tools" });
    tools.append(
      tool("copy-code", COPY, copyFrom(() => code.textContent)),
      tool("download-code", DOWN, () => download(`code.${EXTENSIONS[name()] || name()}\n${code.textContent}`)),
    );
    wrap.append(tools);
  };

  // What is copied is what was written, and never what the screen shows beside it. It lies unseen in the message.
  const addCopy = (bar) => {
    const typed = () => bar.previousElementSibling?.querySelector(".typed");
    if (typed()) bar.firstElementChild.prepend(tool("copy-text", COPY, copyFrom(() => typed().textContent)));
  };

  // Gradio offers for editing what it shows, which is HTML.
  const plain = (box) => {
    box.dataset.plain = "yes";
    const shown = Object.assign(document.createElement("template"), { innerHTML: box.value }).content.querySelector(".typed");
    if (!shown) return;
    box.value = shown.textContent;
    box.dispatchEvent(new Event("input", { bubbles: true }));
  };

  // Sidebars open by themselves where there is room beside the talk, unless they were closed by hand.
  const settle = (sidebar) => {
    if (sidebar.dataset.settled) return;
    const toggle = sidebar.querySelector(".toggle-button");
    const wanted = innerWidth >= 900 && store(SIDEBAR) !== "closed";
    if (sidebar.classList.contains("open") !== wanted) { // a click before gradio listens is lost: look again
      toggle.click();
      setTimeout(plan, 100);
      return;
    }
    sidebar.dataset.settled = "yes";
    toggle.addEventListener("click", () => setTimeout(() => {
      if (innerWidth >= 900) store(SIDEBAR, sidebar.classList.contains("open") ? "open" : "closed");
    }, 50));
  };

  // --- pictures: whatever way they come, they go through the one upload button of the tab that shows -----------------

  // One lot at a time, for gradio drops one that comes while another is on its way; and sending waits for it.
  let coming = false;
  const waiting = [];
  const come = (now) => document.body.classList.toggle("bringing", (coming = now));
  document.addEventListener("change", (event) => {
    const files = event.target.matches?.(".gallery input[type=file]") ? [...event.target.files] : [];
    if (!files.length) return;
    if (coming) {
      event.stopPropagation();
      waiting.push([files, event.target]);
    } else come(files.every((file) => file.size <= window.gradio_config.max_file_size)); // or gradio refuses them at once
  }, true);
  const brought = () => {
    come(false);
    if (waiting.length) bring(...waiting.shift());
  };
  const sends = (event) => event.type === "click"
    ? event.target.closest?.(".beside .submit-button")
    : event.key === "Enter" && !event.shiftKey && event.target.closest?.(".beside .composer");
  for (const kind of ["keydown", "click"]) {
    document.addEventListener(kind, (event) => {
      if (!coming || !sends(event)) return;
      event.preventDefault();
      event.stopPropagation();
    }, true);
  }

  const gallery = () => [...document.querySelectorAll(".gallery")].find((element) => element.offsetParent);
  const bring = (files, input = gallery()?.querySelector("input[type=file]")) => {
    if (!files.length || !input) return false;
    const bag = new DataTransfer();
    [...files].forEach((file) => bag.items.add(file));
    input.files = bag.files;
    input.dispatchEvent(new Event("change", { bubbles: true }));
    return true;
  };
  addEventListener("paste", (event) => {
    const held = event.clipboardData;
    if (!held || (held.getData("text/plain") && event.target.matches?.("input, textarea"))) return; // a table's cells come as both
    if (bring([...held.files].filter((file) => file.type.startsWith("image/")))) event.preventDefault();
  });
  for (const kind of ["dragover", "drop"]) {
    addEventListener(kind, (event) => {
      if (!event.dataTransfer?.types.includes("Files")) return;
      event.preventDefault(); // or the browser would leave the page for the file
      document.body.classList.toggle("dropping", kind === "dragover");
      if (kind !== "drop") return;
      event.stopPropagation();
      bring([...event.dataTransfer.items].filter((item) => item.webkitGetAsEntry()?.isDirectory !== true).map((item) => item.getAsFile()).filter(Boolean));
    }, true);
  }
  addEventListener("dragleave", (event) => { if (!event.relatedTarget) document.body.classList.remove("dropping"); });

  const photograph = async () => {
    const dialog = Object.assign(document.createElement("dialog"), { className: "photo" });
    const video = Object.assign(document.createElement("video"), { autoplay: true, playsInline: true, muted: true });
    const take = Object.assign(document.createElement("button"), { type: "button", textContent: names.take_photo, disabled: true });
    const close = Object.assign(document.createElement("button"), { type: "button", textContent: names.close });
    dialog.append(video, take, close);
    document.body.append(dialog);
    let stream;
    const off = () => stream?.getTracks().forEach((track) => track.stop());
    dialog.addEventListener("close", () => { off(); dialog.remove(); });
    video.addEventListener("loadeddata", () => { take.disabled = false; });
    close.addEventListener("click", () => dialog.close());
    take.addEventListener("click", () => {
      const canvas = Object.assign(document.createElement("canvas"), { width: video.videoWidth, height: video.videoHeight });
      canvas.getContext("2d").drawImage(video, 0, 0);
      canvas.toBlob((blob) => { bring([new File([blob], "photo.png", { type: "image/png" })]); dialog.close(); }, "image/png");
    });
    dialog.showModal();
    try {
      video.srcObject = stream = await navigator.mediaDevices.getUserMedia({ video: true });
      if (!dialog.open) off(); // closed while the browser was still asking
    } catch {
      video.replaceWith(Object.assign(document.createElement("p"), { textContent: names.no_camera }));
      take.remove();
    }
  };

  // Browsers keep their clipboard from pages that came over plain http, as in a classroom; the old command works there.
  const copyText = async (text) => {
    if (navigator.clipboard) return navigator.clipboard.writeText(text);
    const held = Object.assign(document.createElement("textarea"), { value: text, className: "visually-hidden" });
    document.body.append(held);
    const before = document.activeElement;
    held.select();
    const copied = document.execCommand("copy");
    held.remove();
    before?.focus();
    if (!copied) throw new Error("the browser does not copy");
  };

  // A click on the stage: what it means is read by `clicked` when gradio asks, right after.
  let meant = "";
  document.addEventListener("click", (event) => {
    const button = event.target.closest?.("button");
    if (button?.classList.contains("camera")) return void photograph();
    if (!event.target.closest?.(".stage")) return;
    const { show, copy, remove, closer } = button?.dataset || {};
    if (!remove && !closer) event.stopPropagation(); // nothing for the server to do
    meant = remove ? `remove ${remove}` : closer ? `closer ${closer}` : "";
    if (copy) copyText(copy).then(() => { button.dataset.copied = "✓"; setTimeout(() => delete button.dataset.copied, 1500); }, () => {});
    if (show) {
      const stage = button.closest(".stage");
      stage.querySelectorAll("figure").forEach((figure) => { figure.hidden = figure.dataset.picture !== show; });
      stage.querySelectorAll("nav button").forEach((other) => other.setAttribute("aria-pressed", String(other === button)));
    }
  }, true);
  const clicked = () => { const said = meant; meant = ""; return said; };

  // --- access: what gradio's markup, or a model's, tells wrongly to those who do not see the page or have no mouse ----

  const MENDED = {
    ".examples[role=list]": { role: "group", "aria-label": names.transcript }, // its children are buttons
    ".bubble-wrap[role=log]": { "aria-label": names.transcript },
    ".transcript .user-row": { role: "group", "aria-label": names.asked },
    ".transcript .bot-row": { role: "group", "aria-label": names.answered },
    ".transcript [data-testid][aria-label]": { "aria-label": null }, // the whole message again, on an element of no role
    ".thought-group > .title button": { inert: "" }, // a button within one
    ".toast-header[role=button]": { role: null, tabindex: null }, // around the button that closes it
    ".status": { tabindex: "0" },
  };
  // What scrolls in itself must be reached by the keyboard; what fits need not.
  const SCROLLS = ".gallery .notice, .transcript :is(pre, .scrolls, table, .katex-display, :is(p, ul, ol):has(.katex), .content-preview)";
  const seen = new WeakSet();
  const scrolls = new ResizeObserver((entries) => entries.forEach(({ target }) => {
    const wide = target.scrollWidth > target.clientWidth + 1, high = target.scrollHeight > target.clientHeight + 1;
    if ((wide || high) && getComputedStyle(target).overflowX !== "visible") target.tabIndex = 0;
    else target.removeAttribute("tabindex");
  }));
  const mend = () => {
    for (const [selector, attributes] of Object.entries(MENDED)) {
      document.querySelectorAll(selector).forEach((element) => {
        for (const [name, value] of Object.entries(attributes)) {
          if (value === null) element.removeAttribute(name);
          else if (element.getAttribute(name) !== value) element.setAttribute(name, value);
        }
      });
    }
    document.querySelectorAll(".thought-group > .title").forEach((title) => title.setAttribute("aria-expanded", Boolean(title.nextElementSibling)));
    document.querySelectorAll(SCROLLS).forEach((element) => { if (!seen.has(element)) { seen.add(element); scrolls.observe(element); } });
    // A model begins with any heading it likes: what is told are levels that follow on each other, below the page's own.
    document.querySelectorAll(".transcript .bot-row").forEach((answer) => {
      const above = [];
      answer.querySelectorAll("h1, h2, h3, h4, h5, h6").forEach((heading) => {
        while (above.at(-1) >= heading.tagName[1]) above.pop();
        heading.setAttribute("aria-level", 1 + above.push(heading.tagName[1]));
      });
    });
  };

  // What storage.js has to say, each once.
  const tell = () => {
    for (const what of document.body ? window.keeping.told.splice(0) : []) {
      const said = Object.assign(document.createElement("div"), { className: "notice-kept" });
      said.setAttribute("role", "status");
      const close = Object.assign(document.createElement("button"), { type: "button", textContent: names.close });
      close.addEventListener("click", () => said.remove());
      said.append(names[what], close);
      document.body.append(said);
    }
  };

  const look = () => {
    tell();
    mend();
    document.querySelectorAll(".sidebar").forEach(settle);
    bringDrafts();
    document.querySelectorAll(".transcript .code_wrap:not(:has(.download-code))").forEach(addCodeTools);
    document.querySelectorAll(".transcript .user-row + .message-buttons:not(:has(.copy-text))").forEach(addCopy);
    document.querySelectorAll(".transcript .copy:not(:has(.copy-text))").forEach((copy) => copy.append(tool("copy-text", COPY, copyFrom(() => copy.querySelector(".source").textContent))));
    document.querySelectorAll(".transcript .edit-textarea:not([data-plain])").forEach(plain);
    document.querySelectorAll(".gallery input[type=file]").forEach((input) => { input.accept = "image/*"; }); // what the dialogue offers first
    if (!navigator.mediaDevices) document.querySelectorAll(".camera").forEach((button) => { button.hidden = true; });
    for (const [selector, key] of Object.entries(NAMELESS)) {
      document.querySelectorAll(`${selector}:not([aria-label])`).forEach((element) => {
        element.setAttribute("aria-label", names[key]);
        element.title = names[key];
      });
    }
    const picker = document.querySelector("#language-picker");
    if (picker && !picker.dataset.settled) {
      picker.dataset.settled = "yes";
      picker.value = spoken;
      picker.addEventListener("change", () => {
        store(LANGUAGE, picker.value);
        keepDrafts(); // a history entry takes nothing more once the page is on its way
        document.cookie = `playground-language=${picker.value}; path=/; max-age=31536000; SameSite=Lax`;
        location.reload();
      });
      document.querySelector("#theme-toggle").addEventListener("click", () => {
        store(THEME, document.body.classList.contains("dark") ? "light" : "dark");
        paint();
      });
      document.querySelector("#forget-me").addEventListener("click", async () => {
        if (!confirm(names.forget_sure)) return;
        await fetch("forget", { method: "POST" }).catch(() => {}); // a server that is gone has nothing to forget
        window.keeping.forget();
        document.cookie = "playground-language=; path=/; max-age=0";
        location.reload();
      });
      paint();
    }
  };

  // What is being typed outlives the page, whoever loads it anew: the visitor, the watch below, or gradio, which does so
  // by itself when a restart broke an answer off.
  const DRAFTS = "window-drafts";
  const keepDrafts = () => {
    const typed = [...document.querySelectorAll(".composer")].map((composer) => [composer.id, composer.querySelector("textarea")?.value]);
    const kept = { ...Object.fromEntries(typed.filter(([, text]) => text)), ...drafts }; // those not brought yet too
    store(DRAFTS, JSON.stringify(kept));
  };
  for (const event of ["pagehide", "visibilitychange"]) addEventListener(event, keepDrafts); // a phone says only the latter
  const drafts = (() => {
    try { return JSON.parse(store(DRAFTS)) || {}; } catch { return {}; }
  })();
  const bringDrafts = () => document.querySelectorAll(".composer").forEach((composer) => {
    const draft = drafts[composer.id], box = composer.querySelector("textarea");
    if (!draft || !box) return;
    delete drafts[composer.id];
    box.value = draft;
    box.dispatchEvent(new Event("input", { bubbles: true }));
  });

  // A restart of the server or the end of a sign-in leaves the page behind: it comes back by loading itself anew.
  let start, down;
  const notice = Object.assign(document.createElement("div"), { className: "notice-down", textContent: names.restarting });
  notice.setAttribute("role", "status");
  const watch = async () => {
    if (document.hidden) return;
    try {
      const answer = await fetch("healthz", { cache: "no-store" });
      const now = answer.ok ? (await answer.json()).start : undefined;
      if (!now) throw new Error();
      if (start && start !== now) return location.reload();
      start = now;
      down = 0;
      notice.remove();
    } catch {
      down = (down || 0) + 1;
      if (start && down > 1) document.body.append(notice);
    }
  };
  const ask = window.fetch;
  // The server's own texts follow the choice too where the browser keeps no cookie.
  const inLanguage = (what, how = {}) => {
    if (!language || what instanceof Request) return [what, how];
    const headers = new Headers(how.headers);
    headers.set("accept-language", language);
    return [what, { ...how, headers }];
  };
  window.fetch = async (...asked) => {
    const upload = String(asked[0]).endsWith("/upload");
    const answer = await ask(...inLanguage(...asked)).catch((failure) => { if (upload) brought(); throw failure; });
    if (upload && !answer.ok) brought();
    if (answer.status === 401) location.reload(); // to the page that signs in
    return answer;
  };
  setInterval(watch, 5000);
  document.addEventListener("visibilitychange", watch);
  watch();

  let planned = false;
  const plan = () => {
    if (planned) return;
    planned = true;
    requestAnimationFrame(() => { planned = false; look(); });
  };
  new MutationObserver(plan).observe(document.documentElement, { childList: true, subtree: true });
  plan();
  window.keeping.tell = plan;
  window.playground = { download, pickFile, clicked, returned, brought };
})();
